"""The layers of the built-in networks, built from numbers that the factories of this package have checked.

Every network is one flat sequence of named torch modules: no control flow, no functional calls and no shape
that depends on the data, so that a tracer sees all of it and a layer table reads like the network's
description.  Layers keep PyTorch's default initialization, as in the projects that the networks come from.
Images come in as [B, C, H, W], logits leave as [B, Y].
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence


def _sequence(**layers: nn.Module) -> nn.Sequential:
    """Return the layers in the order given, under the names given."""
    return nn.Sequential(OrderedDict(layers))


def lenet(
    in_channels: int, num_classes: int, *, channels: Sequence[int], map_size: tuple[int, int]
) -> nn.Sequential:
    """Build LeNet-like: conv5-ReLU-pool twice, then three dense layers."""
    first, second = channels
    height, width = map_size
    return _sequence(
        conv1=nn.Conv2d(in_channels, first, 5),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(first, second, 5),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(second * height * width, 120),
        relu3=nn.ReLU(),
        fc2=nn.Linear(120, 60),
        relu4=nn.ReLU(),
        out=nn.Linear(60, num_classes),
    )


def lenet_bn(
    in_channels: int, num_classes: int, *, channels: Sequence[int], map_size: tuple[int, int]
) -> nn.Sequential:
    """Build LeNet-like with batch norm: conv5-norm-ReLU-pool twice, then two dense layers."""
    first, second = channels
    height, width = map_size
    return _sequence(
        conv1=nn.Conv2d(in_channels, first, 5),
        norm1=nn.BatchNorm2d(first),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(first, second, 5),
        norm2=nn.BatchNorm2d(second),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(second * height * width, 120),
        relu3=nn.ReLU(),
        out=nn.Linear(120, num_classes),
    )


def mlp(
    in_features: int, num_classes: int, *, hidden: Sequence[int], relu: bool, dropout: float
) -> nn.Sequential:
    """Build a multi-layer perceptron with one hidden layer per entry of `hidden`.

    The dropout layers are there at rate 0 too: the recipe's `dropout` sets the rate of layers that exist.
    """
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    for number, units in enumerate(hidden, start=1):
        layers[f"fc{number}"] = nn.Linear(in_features, units)
        if relu:
            layers[f"relu{number}"] = nn.ReLU()
        layers[f"drop{number}"] = nn.Dropout(dropout)
        in_features = units
    return _sequence(**layers, out=nn.Linear(in_features, num_classes))


def tinyvgg(
    in_channels: int, num_classes: int, *, channels: int, padding: int, map_size: tuple[int, int]
) -> nn.Sequential:
    """Build TinyVGG: (conv3-ReLU-conv3-ReLU-pool) twice, then one dense layer."""
    height, width = map_size
    return _sequence(
        conv1=nn.Conv2d(in_channels, channels, 3, padding=padding),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(channels, channels, 3, padding=padding),
        relu2=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv3=nn.Conv2d(channels, channels, 3, padding=padding),
        relu3=nn.ReLU(),
        conv4=nn.Conv2d(channels, channels, 3, padding=padding),
        relu4=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        out=nn.Linear(channels * height * width, num_classes),
    )


def cnn(
    in_channels: int, num_classes: int, *, channels: Sequence[int], map_size: tuple[int, int]
) -> nn.Sequential:
    """Build the small CNN: conv3-ReLU-conv3-ReLU-pool, then one dense layer."""
    first, second = channels
    height, width = map_size
    return _sequence(
        conv1=nn.Conv2d(in_channels, first, 3),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(first, second, 3),
        relu2=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        out=nn.Linear(second * height * width, num_classes),
    )


def cnn_dropout(
    in_channels: int, num_classes: int, *, channels: Sequence[int], map_size: tuple[int, int], dropout: float
) -> nn.Sequential:
    """Build the CNN with dropout: (conv3-ReLU-conv3-ReLU-pool) twice, dropout, one dense layer."""
    first, second, third, fourth = channels
    height, width = map_size
    return _sequence(
        conv1=nn.Conv2d(in_channels, first, 3),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(first, second, 3),
        relu2=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv3=nn.Conv2d(second, third, 3),
        relu3=nn.ReLU(),
        conv4=nn.Conv2d(third, fourth, 3),
        relu4=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        drop1=nn.Dropout(dropout),
        flatten=nn.Flatten(),
        out=nn.Linear(fourth * height * width, num_classes),
    )


def cnn3(
    in_channels: int,
    num_classes: int,
    *,
    channels: Sequence[int],
    map_size: tuple[int, int],
    dropout: float,
    conv_dropout: float,
) -> nn.Sequential:
    """Build the 3-block CNN: (conv3-pool-norm-leaky ReLU-dropout) three times, then four dense layers.

    1,238,538 parameters at 1x28x28 and ten classes, as its layer table is published.
    """
    height, width = map_size
    layers: dict[str, nn.Module] = {}
    for number, (came, leave) in enumerate(pairwise((in_channels, *channels)), start=1):
        layers |= {
            f"conv{number}": nn.Conv2d(came, leave, 3, padding=1),
            f"pool{number}": nn.MaxPool2d(2),
            f"norm{number}": nn.BatchNorm2d(leave),
            f"act{number}": nn.LeakyReLU(),
            f"drop{number}": nn.Dropout(conv_dropout),
        }
    layers["flatten"] = nn.Flatten()
    units = (channels[-1] * height * width, 512, 256, 128)
    for number, (came, leave) in enumerate(pairwise(units), start=1):
        layers |= {
            f"fc{number}": nn.Linear(came, leave),
            f"act{number + 3}": nn.LeakyReLU(),
            f"drop{number + 3}": nn.Dropout(dropout),
        }
    return _sequence(**layers, out=nn.Linear(units[-1], num_classes))
