"""A folder of images as a dataset: scanned, decoded once to one shape, kept in the cache, fingerprinted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.zoo.datasets.file_images import MEMORY_LIMIT, FileImages

if TYPE_CHECKING:
    from pathlib import Path

    from gridsearch.plugins import ImageData
    from gridsearch.records import Value
    from gridsearch.zoo.datasets.kept_images import Decoded
    from gridsearch.zoo.datasets.scan import Tree


@dataclass(frozen=True, slots=True)
class FolderDataset(FileImages):
    """Images in a folder with one sub-folder per class, or in train/ and test/ of it; callable as a dataset.

    Images are brought to one shape, see `FileImages`.

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

    def tree(self, root: Path) -> Tree:  # noqa: ARG002
        """Return which images there are."""
        from gridsearch.zoo.datasets.scan import scan

        return scan(self.path)

    def as_before(self, root: Path, *, size: Value = "auto", channels: Value = "auto") -> Decoded:
        """Return the images as a version did that used no validation images of a folder's own."""
        from gridsearch.zoo.datasets.scan import scan, without_validation

        return self.decoded(without_validation(scan(self.path)), root, size, channels)
