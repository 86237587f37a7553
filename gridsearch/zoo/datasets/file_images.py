"""What datasets have in common whose images lie in files: decoded once to one shape, kept in the cache, fingerprinted.

Stands between a dataset, which knows which files there are, and `folder_arrays`, which makes arrays of them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from gridsearch.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from gridsearch.plugins import ImageData
    from gridsearch.records import Value
    from gridsearch.zoo.datasets.kept_images import Decoded
    from gridsearch.zoo.datasets.scan import Tree

MEMORY_LIMIT = 8 * 1024**3
"""Bytes that the decoded images of a dataset may take."""

_SIZE = re.compile(r"(\d{1,5})(?:x(\d{1,5}))?")


class FileImages(ABC):
    """Images in files, as a dataset.

    All images are brought to one shape.  With `size="auto"` that is the size that more than half of the training
    images have, otherwise the median height and the median width; either shrunk, the aspect kept, until the longer
    side is 64.  With `channels="auto"` it is 1 if every image is grey (whatever its file says), else 3.

    Attributes:
        memory_limit: bytes; more are refused.
    """

    __slots__ = ()
    memory_limit: int

    @abstractmethod
    def tree(self, root: Path, *args: Any, **options: Any) -> Tree:
        """Return which images there are, given the dataset's options but for size and channels.

        Raises:
            DataError: there are none that can be used.
        """

    def fingerprint(self, root: Path, **options: Value) -> str:
        """Return the SHA-256 over the content and class of each image that is used, and over the shape."""
        return self.with_fingerprint(root, **options).fingerprint

    def available(self, root: Path) -> bool:  # noqa: ARG002  (as every dataset is asked)
        """Whether it can be tried without fetching anything first."""
        return True

    def examine(self, root: Path) -> tuple[ImageData, tuple[str, ...]]:
        """Read every file anew: return the images, and which should be images and are not used, and why.

        Raises:
            DataError: see `tree`.
        """
        from gridsearch.zoo.datasets.folder_arrays import examined

        return examined(self.tree(root), memory_limit=self.memory_limit)

    def with_fingerprint(
        self, root: Path, *, size: Value = "auto", channels: Value = "auto", **options: Value
    ) -> Decoded:
        """Return the images with their fingerprint, both of the same bytes.

        Args:
            root: the data root, where the decoded images are kept.
            size: "auto", a side in pixels, or "HEIGHTxWIDTH".
            channels: "auto", 1 or 3.
            options: see `tree`.
        """
        return self.decoded(self.tree(root, **options), root, size, channels)

    def decoded(self, tree: Tree, root: Path, size: Value, channels: Value) -> Decoded:
        """Return these images with their fingerprint."""
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
