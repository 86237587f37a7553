"""The networks that `networks` measures, each with its images and batch sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from gridsearch.zoo import models, torchvision
from tests.benchmarks import other_networks, own_networks

Factory = Callable[[int, int, tuple[int, int]], nn.Module]
CLASSES = 10


@dataclass(frozen=True, slots=True)
class Row:
    """A network at a batch size.

    Attributes:
        name: of the network.
        factory: makes it, given channels, classes and (height, width).
        image: (C, H, W) of the images.
        batch: images of a step.
    """

    name: str
    factory: Factory
    image: tuple[int, int, int]
    batch: int

    @property
    def title(self) -> str:
        """How the table calls it."""
        return f"{self.name}:{self.batch}"

    def build(self) -> nn.Module:
        """Return a new network."""
        channels, *size = self.image
        return self.factory(channels, CLASSES, tuple(size))


def _vision(name: str, channels: int, classes: int, _: tuple[int, int]) -> nn.Module:
    assert channels == 3
    made: nn.Module = getattr(torchvision.load().models, name)(num_classes=classes)
    return made


def _rows(name: str, factory: Any, image: tuple[int, int, int], *batches: int) -> list[Row]:
    return [Row(name, factory, image, batch) for batch in batches]


GREY, COLOUR, LARGE = (1, 28, 28), (3, 32, 32), (3, 64, 64)

ROWS = (
    *_rows("lenet", models.lenet, GREY, 10, 20, 50, 64, 100, 200, 500, 1000, 2000, 5000, 10000),
    *_rows("lenet_bn", models.lenet_bn, GREY, 100, 500, 1000),
    *_rows("mlp, 10 hidden", partial(models.mlp, hidden=10), GREY, 32),
    *_rows("mlp", partial(models.mlp, hidden=128, dropout=0.2), GREY, 64),
    *_rows("mlp, 3 of 512", partial(models.mlp, depth=3, hidden=512), GREY, 64),
    *_rows("tinyvgg", models.tinyvgg, GREY, 32, 64, 100),
    *_rows("cnn", models.cnn, GREY, 64),
    *_rows("cnn_dropout", models.cnn_dropout, GREY, 32, 64),
    *_rows("cnn3", models.cnn3, GREY, 32),
    *_rows("resnet9", models.resnet9, COLOUR, 64),
    *_rows("vgg16", models.vgg16, (1, 32, 32), 64),
    *_rows("resnet18", partial(_vision, "resnet18"), (3, 28, 28), 32),
    *_rows("mobilenet_v3_small", partial(_vision, "mobilenet_v3_small"), LARGE, 32),
    *_rows("squeezenet1_1", partial(_vision, "squeezenet1_1"), LARGE, 32),
    *_rows("shufflenet_v2_x1_0", partial(_vision, "shufflenet_v2_x1_0"), LARGE, 32),
    *_rows("efficientnet_b0", partial(_vision, "efficientnet_b0"), LARGE, 16),
    *_rows("small ViT", own_networks.SmallViT, COLOUR, 64),
    *_rows("small Mixer", own_networks.SmallMixer, COLOUR, 64),
)
"""Every network of the zoo at the batch sizes of its studies, five of torchvision's, and two of a user's own file."""


GREY_ONES = {"PyTorch's MNIST example", "LeNet with tanh", "spatial transformer", "maxout"}
OTHERS = (
    *(
        Row(name, make, GREY if name in GREY_ONES or "rows" in name else COLOUR, 32)
        for name, make in other_networks.NETWORKS.items()
    ),
    *(
        Row(name, partial(_vision, name), LARGE, 16)
        for name in (
            "alexnet",
            "densenet121",
            "regnet_y_400mf",
            "mnasnet0_5",
            "mobilenet_v2",
            "resnet50",
            "convnext_tiny",
        )
    ),
)
"""Networks as many people write them, and more of torchvision's: is a plain loop ever faster?"""
