"""Datasets of the MNIST family: four pinned idx files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.plugins import ImageData
from gridsearch.zoo.datasets import idx
from gridsearch.zoo.datasets.pinned import PinnedDataset

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class IdxDataset(PinnedDataset):
    """Grey images and labels in four idx files: train images, train labels, test images, test labels."""

    image_shape: tuple[int, int, int] = (1, 28, 28)

    def _read(self, paths: Sequence[Path]) -> ImageData:
        train_images, train_labels, test_images, test_labels = paths
        train = idx.read(train_images, shape=(None, *self.image_shape[1:]))[:, None]
        test = idx.read(test_images, shape=(None, *self.image_shape[1:]))[:, None]
        return ImageData(
            train_images=train,
            train_labels=self._labels(train_labels, count=len(train)),
            test_images=test,
            test_labels=self._labels(test_labels, count=len(test)),
            class_names=self.class_names,
        )

    def _labels(self, path: Path, *, count: int) -> np.ndarray:
        labels = idx.read(path, shape=(count,))
        if labels.size and labels.max() >= len(self.class_names):
            raise ValueError(
                f"{path}: expected labels 0 to {len(self.class_names) - 1}, found {labels.max()}"
            )
        return labels.astype("int64")
