"""What a model, a dataset and an objective are: the protocols that plug-ins follow, built in or a user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    import torch

    from gridsearch.records import Value


class Model(Protocol):
    """A class or function that builds a network from images [B, C, H, W] to logits [B, Y].

    It is called with those of `in_channels`, `num_classes`, `image_size=(H, W)` and the `model.*` options
    that its signature accepts; `in_chans`, `n_classes`, `img_size` and their like are understood too, see `shapes`.
    An attribute `smallest_input = (H, W)` states the smallest image it takes;
    smaller ones are resized to it.  An attribute `file_options = ("weights",)` states which options may name a
    file: what is in it then belongs to the model's identity.
    """

    def __call__(self, *args: Any, **options: Any) -> torch.nn.Module:
        """Build the network."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How files became the images of a dataset, for the line that is said before training.

    Attributes:
        changes: what was done to how many images, and how many files were left out: "6 rotated", "3 skipped".
        test_from: where the test images lie, "" where that is not known.
        val_from: likewise the dataset's own validation images.
        group_from: what the groups are: "column patient"; "" where that is not known.
        warnings: what makes results doubtful (images in two classes, test images to train on), in sentences.
        levels: which values of images of more than 8 bits are black (0) and white (1); None without such images.
        divided: which groups lie in several of the dataset's own splits, in sentences.
    """

    changes: tuple[str, ...] = ()
    test_from: str = ""
    warnings: tuple[str, ...] = ()
    levels: tuple[float, float] | None = None
    val_from: str = ""
    group_from: str = ""
    divided: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, repr=False)
class ImageData:
    """A dataset in memory.

    Attributes:
        train_images: uint8 [N, C, H, W] (0..255), or float32 of the same shape (0..1).
        train_labels: int64 [N], 0 to Y-1.
        test_images: likewise, or None: then a seeded, stratified sixth of train is held out as test.
        class_names: Y names, by label.
        notes: what a user should know of how the data was read (skipped files and why).
        reading: how files became images; None where the dataset does not say.
        val_indices: int64, ascending: which training images are the dataset's own validation images; None where it
            has none, and some are held out for each study.
        groups: int64 [N], 0 to G-1: which training images belong together (pictures of one patient); None where
            the dataset does not say.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray | None
    test_labels: np.ndarray | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    reading: Reading | None = None
    val_indices: np.ndarray | None = None
    groups: np.ndarray | None = None

    def __repr__(self) -> str:
        """Return one line: the shapes; the pixels of a few images would fill a screen."""
        train, test = (getattr(images, "shape", None) for images in (self.train_images, self.test_images))
        return f"<ImageData: train images {train}, test images {test}, {len(self.class_names):,} classes>"


class Dataset(Protocol):
    """Called with `root` (a folder for its files) and the `data.*` options; gives the images.

    It returns an `ImageData`, or any object or mapping with those attributes; images may also be [N, H, W]
    or [N, H, W, C].  Validation images of its own may be given as `val_images` and `val_labels` beside the others.
    """

    def __call__(self, root: Path, **options: Any) -> ImageData:
        """Load the data."""
        ...


@runtime_checkable
class Fetchable(Protocol):
    """What a dataset offers besides, when its files come from somewhere."""

    def fetch(self, root: Path, source: Path | None = None, *, say: Callable[[str], None] = ...) -> str:
        """Bring the files to `root` (from a folder, if given), verified; say where they came from."""
        ...

    def verify(self, root: Path) -> tuple[str, ...]:
        """Return what is wrong with the files under `root`, one line each; nothing if all is well."""
        ...

    def fingerprint(self, root: Path, **options: Any) -> str:
        """Return the fingerprint without loading the images."""
        ...


class Objective(Protocol):
    """A function of params and seed, or a generator function: returns or yields a dict of metrics."""

    def __call__(self, params: Mapping[str, Value], seed: int) -> Any:
        """Compute the metrics."""
        ...
