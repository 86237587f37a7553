"""The built-in networks as plug-ins: each factory checks its options, then builds plain layers.

A factory is what `plugins.find` returns for a built-in name.  It takes the shape of the data and options that
are plain JSON values, and states the smallest image that it takes with its default options.  Everything here
is arithmetic on numbers: torch is imported when a network is built, so that listing, planning and `--help` do
without it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeVar

from gridsearch.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

__all__ = ["cnn", "cnn3", "cnn_dropout", "lenet", "lenet_bn", "mlp", "resnet9", "tinyvgg", "vgg16"]

_Factory = TypeVar("_Factory", bound="Callable[..., nn.Module]")


def _smallest_input(height: int, width: int) -> Callable[[_Factory], _Factory]:
    """State the smallest image of a factory: smaller ones are resized to it before they reach the network."""

    def state(factory: _Factory) -> _Factory:
        factory.smallest_input = (height, width)  # type: ignore[attr-defined]  # functions take attributes
        return factory

    return state


@_smallest_input(16, 16)
def lenet(in_channels: int, num_classes: int, image_size: tuple[int, int], *, width: float = 1) -> nn.Module:
    """LeNet-like: two 5x5 convolutions (6, 12 channels), each with ReLU and pooling; 120-60 dense units.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes, the width of the last layer.
        image_size: (H, W) in pixels.
        width: multiplies the channels of the convolutions.

    Raises:
        UsageError: an option out of its range, or an image that is too small.
    """
    from gridsearch.zoo.models import networks

    return networks.lenet(
        in_channels,
        num_classes,
        channels=_channels("lenet", width, 6, 12),
        map_size=_map_size("lenet", image_size, losses=(4, 4)),
    )


@_smallest_input(16, 16)
def lenet_bn(
    in_channels: int, num_classes: int, image_size: tuple[int, int], *, width: float = 1
) -> nn.Module:
    """LeNet-like with batch norm: two 5x5 convolutions (12, 24 channels), pooled; 120 dense units.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes, the width of the last layer.
        image_size: (H, W) in pixels.
        width: multiplies the channels of the convolutions.

    Raises:
        UsageError: an option out of its range, or an image that is too small.
    """
    from gridsearch.zoo.models import networks

    return networks.lenet_bn(
        in_channels,
        num_classes,
        channels=_channels("lenet_bn", width, 12, 24),
        map_size=_map_size("lenet_bn", image_size, losses=(4, 4)),
    )


@_smallest_input(1, 1)
def mlp(
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int],
    *,
    hidden: int = 128,
    depth: int = 1,
    activation: Literal["relu"] | None = "relu",
    dropout: float = 0.0,
) -> nn.Module:
    """Multi-layer perceptron: `depth` hidden layers of `hidden` units; depth 0 is softmax regression.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes, the width of the last layer.
        image_size: (H, W) in pixels.
        hidden: units of each hidden layer.
        depth: number of hidden layers.
        activation: after each hidden layer: "relu", or none, which makes the network linear.
        dropout: rate after each hidden layer.

    Raises:
        UsageError: an option out of its range.
    """
    from gridsearch.zoo.models import networks

    # the grammar reads the word none as None, Python may say either
    if activation not in ("relu", "none", None):
        raise UsageError(
            f"model.activation of mlp: {activation!r} is unknown{nearest(str(activation), ('relu', 'none'))}"
        )
    height, width = _map_size("mlp", image_size, losses=())
    return networks.mlp(
        in_channels * height * width,
        num_classes,
        hidden=(_whole("mlp", "hidden", hidden, low=1),) * _whole("mlp", "depth", depth, low=0),
        relu=activation == "relu",
        dropout=_rate("mlp", "dropout", dropout),
    )


@_smallest_input(4, 4)
def tinyvgg(
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int],
    *,
    width: float = 1,
    padding: int = 1,
) -> nn.Module:
    """TinyVGG: two blocks of two 3x3 convolutions (10 channels) with ReLU, each pooled; one dense layer.

    The figure at its source (CNN Explainer, 64x64 pixels) has no padding; as it is taught on Fashion-MNIST it
    has a padding of 1, so that 28x28 pixels end as 7x7.  The latter is the default.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes, the width of the last layer.
        image_size: (H, W) in pixels; at least 4x4, without padding 16x16.
        width: multiplies the channels of the convolutions.
        padding: pixels around the input of every convolution, 0 or 1.

    Raises:
        UsageError: an option out of its range, or an image that is too small.
    """
    from gridsearch.zoo.models import networks

    lost = 4 - 4 * _whole("tinyvgg", "padding", padding, low=0, high=1)
    (channels,) = _channels("tinyvgg", width, 10)
    return networks.tinyvgg(
        in_channels,
        num_classes,
        channels=channels,
        padding=padding,
        map_size=_map_size("tinyvgg", image_size, losses=(lost, lost)),
    )


@_smallest_input(6, 6)
def cnn(in_channels: int, num_classes: int, image_size: tuple[int, int], *, width: float = 1) -> nn.Module:
    """Small CNN: two 3x3 convolutions (32, 32 channels) with ReLU, one pooling, one dense layer.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes, the width of the last layer.
        image_size: (H, W) in pixels.
        width: multiplies the channels of the convolutions.

    Raises:
        UsageError: an option out of its range, or an image that is too small.
    """
    from gridsearch.zoo.models import networks

    return networks.cnn(
        in_channels,
        num_classes,
        channels=_channels("cnn", width, 32, 32),
        map_size=_map_size("cnn", image_size, losses=(4,)),
    )


@_smallest_input(16, 16)
def cnn_dropout(
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int],
    *,
    width: float = 1,
    dropout: float = 0.25,
) -> nn.Module:
    """Two pooled blocks of two 3x3 convolutions (32, 32, 64, 64 channels) with ReLU; dropout, dense layer.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes, the width of the last layer.
        image_size: (H, W) in pixels.
        width: multiplies the channels of the convolutions.
        dropout: rate before the dense layer.

    Raises:
        UsageError: an option out of its range, or an image that is too small.
    """
    from gridsearch.zoo.models import networks

    return networks.cnn_dropout(
        in_channels,
        num_classes,
        channels=_channels("cnn_dropout", width, 32, 32, 64, 64),
        map_size=_map_size("cnn_dropout", image_size, losses=(4, 4)),
        dropout=_rate("cnn_dropout", "dropout", dropout),
    )


@_smallest_input(8, 8)
def cnn3(
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int],
    *,
    width: float = 1,
    dropout: float = 0.5,
    conv_dropout: float = 0.25,
) -> nn.Module:
    """Three blocks of 3x3 convolution (24, 96, 192), pooling, batch norm, leaky ReLU; 512-256-128 units.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes, the width of the last layer.
        image_size: (H, W) in pixels.
        width: multiplies the channels of the convolutions.
        dropout: rate after each hidden dense layer.
        conv_dropout: rate at the end of each block.

    Raises:
        UsageError: an option out of its range, or an image that is too small.
    """
    from gridsearch.zoo.models import networks

    return networks.cnn3(
        in_channels,
        num_classes,
        channels=_channels("cnn3", width, 24, 96, 192),
        map_size=_map_size("cnn3", image_size, losses=(0, 0, 0)),
        dropout=_rate("cnn3", "dropout", dropout),
        conv_dropout=_rate("cnn3", "conv_dropout", conv_dropout),
    )


@_smallest_input(8, 8)
def resnet9(
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int],
    *,
    width: float = 1,
    dropout: float = 0.0,
) -> nn.Module:
    """Small residual network: eight 3x3 convolutions (32 to 256 channels) with batch norm, global average pooling.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes, the width of the last layer.
        image_size: (H, W) in pixels; at least 8x8, for three poolings.
        width: multiplies the channels of the convolutions.
        dropout: rate before the dense layer.

    Raises:
        UsageError: an option out of its range, or an image that is too small.
    """
    from gridsearch.zoo.models import resnet

    _map_size("resnet9", image_size, losses=(0, 0, 0))
    return resnet.resnet9(
        in_channels,
        num_classes,
        channels=_channels("resnet9", width, 32, 64, 128, 256),
        dropout=_rate("resnet9", "dropout", dropout),
    )


@_smallest_input(32, 32)
def vgg16(
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int],
    *,
    weights: str | None = None,
    freeze: bool = False,
    hidden: int = 512,
    dropout: float = 0.5,
) -> nn.Module:
    """VGG16 of torchvision with a new classifier: 13 3x3 convolutions, pooled five times; from scratch or pretrained.

    Args:
        in_channels: channels of the images; pretrained weights take 1 or 3.
        num_classes: number of classes, the width of the last layer.
        image_size: (H, W) in pixels, at least 32x32.
        weights: "imagenet" for those that torchvision publishes (fetched once), or a file with a state_dict of
            VGG16 (.pth or .safetensors); none trains from scratch.
        freeze: keep the convolutions as they come, and train the classifier alone.
        hidden: units of the classifier's hidden layer.
        dropout: rate after the hidden layer.

    Raises:
        UsageError: an option out of its range, weights that are not there or do not fit, or an image that is too
            small.
    """
    from gridsearch.zoo.models import vgg

    _map_size("vgg16", image_size, losses=(0,) * 5)
    if freeze and weights is None:
        raise UsageError(
            "model.freeze of vgg16: convolutions that were never trained would stay so",
            hint="give model.weights as well",
        )
    return vgg.vgg16(
        in_channels,
        num_classes,
        weights=weights,
        freeze=freeze,
        hidden=_whole("vgg16", "hidden", hidden, low=1),
        dropout=_rate("vgg16", "dropout", dropout),
    )


vgg16.file_options = ("weights",)  # type: ignore[attr-defined]  # functions take attributes


def _map_size(model: str, image_size: tuple[int, int], *, losses: tuple[int, ...]) -> tuple[int, int]:
    """Return (H, W) of the last feature map, behind blocks that each end in a 2x2 pooling.

    Args:
        model: whose error it would be.
        image_size: (H, W) in pixels.
        losses: pixels per side that the convolutions of each block lose for want of padding.

    Raises:
        UsageError: nothing would be left of the image.
    """
    height, width = image_size
    smallest = 1
    for lost in losses:
        height, width = (height - lost) // 2, (width - lost) // 2
    for lost in reversed(losses):
        smallest = 2 * smallest + lost
    if min(image_size) < smallest:
        raise UsageError(
            f"{model} takes images of at least {smallest}x{smallest} pixels, "
            f"not {image_size[0]}x{image_size[1]}",
            hint="mlp takes images of any size",
        )
    return height, width


def _channels(model: str, width: float, *channels: int) -> tuple[int, ...]:
    """Multiply channels by the option `width`, rounded and at least 1."""
    number = isinstance(width, int | float) and not isinstance(width, bool)
    if not number or not math.isfinite(width) or width <= 0:
        raise UsageError(f"model.width of {model} must be a number above 0, not {width!r}")
    return tuple(max(1, round(c * width)) for c in channels)


def _whole(model: str, option: str, value: int, *, low: int, high: int | None = None) -> int:
    """Check an option that is a whole number from `low` to `high` (None: without end)."""
    number = isinstance(value, int) and not isinstance(value, bool)
    if not number or value < low or (high is not None and value > high):
        span = f"at least {low}" if high is None else f"from {low} to {high}"
        raise UsageError(f"model.{option} of {model} must be a whole number {span}, not {value!r}")
    return value


def _rate(model: str, option: str, value: float) -> float:
    """Check a dropout rate: at least 0 and below 1."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < 1:
        raise UsageError(f"model.{option} of {model} must be at least 0 and below 1, not {value!r}")
    return float(value)
