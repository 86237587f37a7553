"""A small residual network of our own: eight convolutions, two residual blocks, global average pooling.

Behind the factory of the same name: what is here imports torch.  The plan is that of the ResNet-9 that made
fast training on CIFAR-10 known (https://github.com/davidcpage/cifar10-fast), with half its channels.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU, added to what came in.

    Args:
        channels: channels that come in and leave.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = block(channels, channels)
        self.second = block(channels, channels)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return an activation of the shape that came in."""
        added: torch.Tensor = x_BCHW + self.second(self.first(x_BCHW))
        return added


def block(came: int, leave: int, *, pool: bool = False) -> nn.Sequential:
    """Build conv3-norm-ReLU, with a pooling at its end if asked for; batch norm makes a bias needless."""
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(came, leave, 3, padding=1, bias=False),
        "norm": nn.BatchNorm2d(leave),
        "relu": nn.ReLU(),
    }
    if pool:
        layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(OrderedDict(layers))


def resnet9(in_channels: int, num_classes: int, *, channels: Sequence[int], dropout: float) -> nn.Sequential:
    """Build the network: stem, pooled block and residual, pooled block, pooled block and residual, average."""
    stem, first, second, third = channels
    return nn.Sequential(
        OrderedDict(
            stem=block(in_channels, stem),
            block1=block(stem, first, pool=True),
            residual1=Residual(first),
            block2=block(first, second, pool=True),
            block3=block(second, third, pool=True),
            residual2=Residual(third),
            average=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            drop=nn.Dropout(dropout),
            out=nn.Linear(third, num_classes),
        )
    )
