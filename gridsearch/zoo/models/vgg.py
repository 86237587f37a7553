"""VGG16 with a new classifier, from scratch or from published weights; and where its weights come from.

Behind the factory of the same name: what is here imports torch.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gridsearch.errors import UsageError, nearest
from gridsearch.folders import tilde
from gridsearch.zoo import torchvision

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX = "features."
PUBLISHED = {"imagenet": "VGG16_Weights.IMAGENET1K_V1"}
"""What torchvision calls the weights that an option names."""


def vgg16(
    in_channels: int, num_classes: int, *, weights: str | None, freeze: bool, hidden: int, dropout: float
) -> nn.Sequential:
    """Build torchvision's VGG16 features, one average over what is left of the image, and a new classifier.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes.
        weights: "imagenet", a file, or None for torchvision's own initialization.
        freeze: train the classifier alone.
        hidden: units of the classifier's hidden layer.
        dropout: rate after it.

    Raises:
        UsageError: the weights are not there, or are not VGG16's.
    """
    features = torchvision.features("vgg16")
    if weights is not None:
        _load(features, _tensors(weights), weights)
    if in_channels != 3:
        features[0] = _first(features[0], in_channels, trained=weights is not None)
    if freeze:
        features.requires_grad_(requires_grad=False)
    return nn.Sequential(
        OrderedDict(
            features=features,
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc1=nn.Linear(512, hidden),
            relu1=nn.ReLU(),
            drop1=nn.Dropout(dropout),
            out=nn.Linear(hidden, num_classes),
        )
    )


def _first(layer: nn.Conv2d, in_channels: int, *, trained: bool) -> nn.Conv2d:
    """Return the first convolution for images of another number of channels.

    A trained one takes a grey image as it would take the same image in red, green and blue: the sum of its
    kernels over the colours.
    """
    if trained and in_channels != 1:
        raise UsageError(
            f"model.weights of vgg16: trained on 3 channels, the images have {in_channels}",
            hint="leave model.weights out to train from scratch",
        )
    first = nn.Conv2d(in_channels, layer.out_channels, 3, padding=1)
    if trained:
        assert layer.bias is not None
        assert first.bias is not None
        with torch.no_grad():
            first.weight.copy_(layer.weight.sum(dim=1, keepdim=True))
            first.bias.copy_(layer.bias)
    else:  # as torchvision initializes the layer that it stands for
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        assert first.bias is not None
        nn.init.zeros_(first.bias)
    return first


def _tensors(weights: str) -> Mapping[str, Any]:
    """Read weights by the name of an option, or out of a file."""
    if weights in PUBLISHED:
        try:
            return torchvision.pretrained(PUBLISHED[weights])
        except OSError as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"model.weights of vgg16: {weights} cannot be fetched: {reason}",
                hint="fetch torchvision's vgg16-397923af.pth elsewhere, and give its path as model.weights",
            ) from error
    path = tilde(weights)
    if not path.is_file():
        raise UsageError(
            f"model.weights of vgg16: {weights!r} is neither a file nor a name{nearest(weights, PUBLISHED)}"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return load(path.read_bytes())
        state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"model.weights of vgg16: {path} cannot be read: {reason}",
            hint="a state_dict as .pth or .safetensors is needed",
        ) from error
    return state


def _load(features: nn.Module, state: Mapping[str, Any], name: str) -> None:
    """Put the tensors of `features.` into the features; a classifier among them is left aside."""
    mapping = isinstance(state, dict)
    own = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)} if mapping else {}
    try:
        features.load_state_dict(own)
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
        raise UsageError(
            f"model.weights of vgg16: {name} does not hold VGG16's features: {first[:200]}",
            hint="tensors are named features.0.weight and so on, as in torchvision's state_dict",
        ) from error
