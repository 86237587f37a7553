"""CIFAR-10 out of its binary archive: the other one, for Python, is a pickle, which could run anything.

Each of the six files in the archive holds 10,000 records of 3,073 bytes: the label, then 1,024 bytes each of
red, green and blue, row by row (https://www.cs.toronto.edu/~kriz/cifar.html, "binary version").
"""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.plugins import ImageData
from gridsearch.zoo.datasets.pinned import PinnedDataset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class CifarDataset(PinnedDataset):
    """Colour images and labels in one pinned archive, whose files are read without unpacking it.

    Attributes:
        train: names of the archive's files with training records, in order.
        test: likewise of those with test records.
    """

    image_shape: tuple[int, int, int] = (3, 32, 32)
    train: tuple[str, ...] = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
    test: tuple[str, ...] = ("test_batch.bin",)

    def _read(self, paths: Sequence[Path]) -> ImageData:
        (archive,) = paths
        members = _members(archive, {*self.train, *self.test})
        train_images, train_labels = self._records(archive, [members[name] for name in self.train])
        test_images, test_labels = self._records(archive, [members[name] for name in self.test])
        return ImageData(
            train_images=train_images,
            train_labels=train_labels,
            test_images=test_images,
            test_labels=test_labels,
            class_names=self.class_names,
        )

    def _records(self, archive: Path, contents: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Return images uint8 [N, C, H, W] and labels int64 [N]."""
        import numpy as np

        channels, height, width = self.image_shape
        record = 1 + channels * height * width
        content = b"".join(contents)
        if len(content) % record:
            raise ValueError(f"{archive}: expected records of {record} bytes, found {len(content)} bytes")
        table = np.frombuffer(content, np.uint8).reshape(-1, record)
        labels = table[:, 0].astype("int64")
        if labels.size and labels.max() >= len(self.class_names):
            last = len(self.class_names) - 1
            raise ValueError(f"{archive}: expected labels 0 to {last}, found {labels.max()}")
        return table[:, 1:].reshape(-1, channels, height, width).copy(), labels


def _members(archive: Path, wanted: set[str]) -> Mapping[str, bytes]:
    """Read files of an archive by their base names.

    Raises:
        ValueError: it is no such archive, or a file is not in it.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                file = tar.extractfile(member) if name in wanted and member.isfile() else None
                if file is not None:
                    found[name] = file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{archive} does not unpack: {error}") from error
    if missing := sorted(wanted - set(found)):
        raise ValueError(f"{archive}: no {missing[0]} in it")
    return found
