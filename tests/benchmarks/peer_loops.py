"""The work that every peer does, and the two plain training loops that they use.

The work is a grid of 16 trials: a LeNet on Fashion-MNIST, 4 batches x 2 learning rates x 2 normalizations, Adam.
All peers train on the same images, rank on the same held-out images and count their steps, so that none is fast
by doing less.

Shapes: N images, B batch, Y classes.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.pixel_tensors import channel_statistics
from gridsearch.training.splits import Split, split
from gridsearch.zoo import torchvision as vision
from gridsearch.zoo.models import lenet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BATCHES = (10, 20, 50, 100)
RATES = (0.01, 0.001)
NORMS = ("none", "standard")
VAL = 1 / 6
SEED = 0
EVALUATION_BATCH = 200


@dataclass(frozen=True, slots=True)
class Point:
    """One trial's place in the grid."""

    batch: int
    lr: float
    norm: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial: when it trained (seconds since 1970), how much it did, how well it ended."""

    point: Point
    began: float
    ended: float
    steps: int
    validated: int
    train_accuracy: float | None
    val_accuracy: float

    @classmethod
    def read_all(cls, folder: Path) -> list[Outcome]:
        found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.outcome.json"))]
        return [cls(**{**entry, "point": Point(**entry["point"])}) for entry in found]

    def write(self, folder: Path) -> None:
        (folder / f"{uuid.uuid4().hex}.outcome.json").write_text(json.dumps(asdict(self)))


@dataclass(frozen=True, slots=True)
class Epoch:
    """What a loop says after an epoch."""

    steps: int
    validated: int
    train_accuracy: float
    val_accuracy: float


def points() -> list[Point]:
    """The grid, the longest trials first."""
    return [Point(*values) for values in itertools.product(BATCHES, RATES, NORMS)]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Work:
    """What there is to train on.

    Attributes:
        images: uint8 [N, 28, 28].
        labels: int64 [N].
        split: which of them to train on and which to rank on.
        mean: of the pixels (0..1) of the images to train on; `std` likewise.
        epochs: of each trial.
    """

    images: np.ndarray
    labels: np.ndarray
    split: Split
    mean: float
    std: float
    epochs: int

    @classmethod
    def load(cls, *, epochs: int, subset: int | None) -> Work:
        from gridsearch.zoo import datasets

        data = datasets.load(datasets.open_dataset("fmnist"), datasets.data_root(), {})
        return cls.of(data.train_images[:, 0], data.train_labels, epochs=epochs, subset=subset)

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray, *, epochs: int, subset: int | None) -> Work:
        parts = split(labels, val=VAL, split_seed=0, subset=subset)
        pixels = torch.from_numpy(np.array(images))[..., None]
        (mean,), (std,) = channel_statistics(pixels, torch.from_numpy(parts.train))
        return cls(images=images, labels=labels, split=parts, mean=mean, std=std, epochs=epochs)

    def steps(self, point: Point) -> int:
        """Steps of a whole trial."""
        return self.epochs * -(-len(self.split.train) // point.batch)


def network() -> torch.nn.Module:
    return lenet(1, 10, (28, 28))


@cache
def _pictures() -> type:
    """torchvision's FashionMNIST on images that are there already: its `__getitem__` is what is measured."""
    vision.load()
    from torchvision.datasets import FashionMNIST

    class Pictures(FashionMNIST):
        def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable[[Any], Any]) -> None:
            self.data = torch.from_numpy(np.array(images))
            self.targets = torch.from_numpy(np.array(labels))
            self.transform = transform
            self.target_transform = None

    return Pictures


def loader_epochs(work: Work, point: Point) -> Iterator[Epoch]:
    """The published loop: a transform per image, a DataLoader with default settings, loss and hits by `item`."""
    from torch.utils.data import DataLoader, Subset

    pictures = _pictures()
    from torchvision import transforms

    steps_of = [transforms.ToTensor()]
    if point.norm == "standard":
        steps_of.append(transforms.Normalize((work.mean,), (work.std,)))
    dataset = pictures(work.images, work.labels, transforms.Compose(steps_of))
    train = DataLoader(Subset(dataset, work.split.train.tolist()), batch_size=point.batch, shuffle=True)
    val = DataLoader(Subset(dataset, work.split.val.tolist()), batch_size=EVALUATION_BATCH)
    torch.manual_seed(SEED)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=point.lr)
    for _ in range(work.epochs):
        steps, loss_sum, hits, seen = 0, 0.0, 0, 0
        model.train()
        for x_B1HW, labels_B in train:
            logits_BY = model(x_B1HW)
            loss = F.cross_entropy(logits_BY, labels_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(labels_B)
            hits += logits_BY.argmax(dim=1).eq(labels_B).sum().item()
            seen += len(labels_B)
            steps += 1
        val_hits, validated = 0, 0
        model.eval()
        with torch.no_grad():
            for x_B1HW, labels_B in val:
                val_hits += model(x_B1HW).argmax(dim=1).eq(labels_B).sum().item()
                validated += len(labels_B)
        yield Epoch(steps, validated, hits / seen, val_hits / validated)


@cache
def _float_images(work: Work, norm: str) -> torch.Tensor:
    """All images as floats [N, 1, H, W], made once a process."""
    images_N1HW = torch.from_numpy(np.array(work.images))[:, None].float().div_(255)
    if norm == "standard":
        images_N1HW.sub_(work.mean).div_(work.std)
    return images_N1HW.contiguous(memory_format=torch.channels_last)


def resident_epochs(work: Work, point: Point) -> Iterator[Epoch]:
    """A plain loop on images that lie as one float tensor, model and batches channels_last."""
    images_N1HW = _float_images(work, point.norm)
    labels_N = torch.from_numpy(np.array(work.labels))
    train, val = torch.from_numpy(work.split.train), torch.from_numpy(work.split.val)
    torch.manual_seed(SEED)
    model = network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=point.lr)
    for _ in range(work.epochs):
        steps, loss_sum, hits = 0, torch.zeros(()), torch.zeros((), dtype=torch.int64)
        model.train()
        for chosen_B in train[torch.randperm(len(train))].split(point.batch):
            labels_B = labels_N[chosen_B]
            logits_BY = model(images_N1HW[chosen_B])
            loss = F.cross_entropy(logits_BY, labels_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                loss_sum += loss * len(labels_B)
                hits += logits_BY.argmax(dim=1).eq(labels_B).sum()
            steps += 1
        model.eval()
        val_hits = 0
        with torch.no_grad():
            for chosen_B in val.split(EVALUATION_BATCH):
                val_hits += int(model(images_N1HW[chosen_B]).argmax(dim=1).eq(labels_N[chosen_B]).sum())
        yield Epoch(steps, len(val), int(hits) / len(train), val_hits / len(val))


def train(
    loop: Callable[[Work, Point], Iterator[Epoch]],
    work: Work,
    point: Point,
    *,
    report: Callable[[Epoch], object] = lambda _: None,
) -> Outcome:
    """Train one trial to its end with a loop that yields its epochs."""
    began = time.time()
    epochs = []
    for epoch in loop(work, point):
        epochs.append(epoch)
        report(epoch)
    last = epochs[-1]
    return Outcome(
        point=point,
        began=began,
        ended=time.time(),
        steps=sum(epoch.steps for epoch in epochs),
        validated=sum(epoch.validated for epoch in epochs),
        train_accuracy=last.train_accuracy,
        val_accuracy=last.val_accuracy,
    )
