"""A folder of images as a dataset: scanned, decoded once to one shape, kept in the cache, fingerprinted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from gridsearch.plugins import ImageData
    from gridsearch.records import Value
    from gridsearch.zoo.datasets.kept_images import Decoded
    from gridsearch.zoo.datasets.scan import Tree

MEMORY_LIMIT = 8 * 1024**3
"""Bytes that the decoded images of a folder may take."""

_SIZE = re.compile(r"(\d{1,5})(?:x(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class FolderDataset:
    """Images in a folder with one sub-folder per class, or in train/ and test/ of it; callable as a dataset.

    All images are brought to one shape.  With `size="auto"` that is the size that more than half of the
    training images have, otherwise the median height and the median width; either shrunk, the aspect kept,
    until the longer side is 64.  With `channels="auto"` it is 1 if every image is grey (whatever its file
    says), else 3.

    Attributes:
        path: the folder, absolute.
        memory_limit: bytes; more are refused.
    """

    path: Path
    memory_limit: int = MEMORY_LIMIT

    def __call__(self, root: Path, *, size: Value = "auto", channels: Value = "auto") -> ImageData:
        """Read the images: uint8 [N, C, H, W], or float32 of 0..1 where some have more than 8 bits.

        Args:
            root: the data root, where the decoded images are kept.
            size: "auto", a side in pixels, or "HEIGHTxWIDTH".
            channels: "auto", 1 or 3.

        Raises:
            DataError: it is not a folder of images, a class has none, or they need too much memory.
            UsageError: an option is not one of the above.
        """
        return self.with_fingerprint(root, size=size, channels=channels).data

    def fingerprint(self, root: Path, *, size: Value = "auto", channels: Value = "auto") -> str:
        """Return the SHA-256 over path, size and content of each image that is used, and over the shape.

        The path is relative to the folder, so that it may lie anywhere.  See `__call__` for the rest.
        """
        return self.with_fingerprint(root, size=size, channels=channels).fingerprint

    def available(self, root: Path) -> bool:  # noqa: ARG002  (as every dataset is asked)
        """Whether it can be loaded without fetching anything: always, or never."""
        return True

    def examine(self, root: Path) -> tuple[ImageData, tuple[str, ...]]:  # noqa: ARG002
        """Read every file anew: return the images, and which files should be images and are not used, and why.

        Raises:
            DataError: it is not a folder of images.
        """
        from gridsearch.zoo.datasets.folder_arrays import examined
        from gridsearch.zoo.datasets.scan import scan

        return examined(scan(self.path), memory_limit=self.memory_limit)

    def with_fingerprint(self, root: Path, *, size: Value = "auto", channels: Value = "auto") -> Decoded:
        """Return the images with their fingerprint, both of the same bytes; see `__call__` for the rest."""
        from gridsearch.zoo.datasets.scan import scan

        return self._decoded(scan(self.path), root, size, channels)

    def as_before(self, root: Path, *, size: Value = "auto", channels: Value = "auto") -> Decoded:
        """Return the images as a version did that used no validation images of a folder's own."""
        from gridsearch.zoo.datasets.scan import scan, without_validation

        return self._decoded(without_validation(scan(self.path)), root, size, channels)

    def _decoded(self, tree: Tree, root: Path, size: Value, channels: Value) -> Decoded:
        from gridsearch.zoo.datasets.folder_arrays import decoded

        return decoded(
            tree,
            root / "folder",
            size=size_option(size),
            channels=channels_option(channels),
            memory_limit=self.memory_limit,
        )


def size_option(value: Value) -> tuple[int, int] | None:
    """Return (H, W) of the option `data.size`; None where it is to be chosen.

    Raises:
        UsageError: it is no size.
    """
    match = _SIZE.fullmatch(str(value)) if not isinstance(value, bool) else None
    if value in ("auto", None):
        return None
    if match:
        height = int(match[1])
        width = int(match[2] or height)
        if height and width:
            return height, width
    raise UsageError(f"data.size={value}: expected auto, a side in pixels (28), or HEIGHTxWIDTH (28x32)")


def channels_option(value: Value) -> int | None:
    """Return the option `data.channels`; None where it is to be chosen.

    Raises:
        UsageError: it is neither.
    """
    known = {"auto": None, "None": None, "1": 1, "3": 3}
    if isinstance(value, bool) or str(value) not in known:
        raise UsageError(f"data.channels={value}: expected auto, 1 or 3")
    return known[str(value)]
