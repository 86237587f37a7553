"""Finds the images of a folder with one sub-folder per class, before any is decoded.

A link to a folder is followed where it stands for a split (train, test), and nowhere else; a link to a file
is followed within the folder.  Hidden files are left alone.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.errors import DataError
from gridsearch.zoo.datasets.folder_paths import Place, Skipped, entries, natural, shown
from gridsearch.zoo.datasets.layout import LAYOUT, Split, outside, splits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["LAYOUT", "Found", "Skipped", "Tree", "scan"]


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be an image.

    Attributes:
        path: absolute.
        relative: below the folder, with slashes, Unicode composed: the same on every machine.
        label: index of its class.
        test: whether it lies under test/.
    """

    path: Path
    relative: str
    label: int
    test: bool


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder of images.

    Attributes:
        classes: names in the order of the labels.
        files: in the order in which they are read: by split, class and path.
        where: the folder of class folders, or those of the two splits; "" is the folder itself.
        test_from: which folder gives the test images, as people would say it; None if there is none.
        skipped: what is not used so far; decoding adds to it.
    """

    classes: tuple[str, ...]
    files: tuple[Found, ...]
    where: tuple[str, ...]
    test_from: str | None
    skipped: Skipped

    @property
    def has_test(self) -> bool:
        """Whether there are test images."""
        return self.test_from is not None


def scan(folder: Path) -> Tree:
    """Find classes and files.

    Raises:
        DataError: there is no such folder, or it is not laid out as `LAYOUT` says.
    """
    try:
        what = "" if folder.is_dir() else "is not a folder" if folder.exists() else "is not there"
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
    if what:
        raise DataError(f"folder of images {str(folder)!r} {what}", hint=LAYOUT)
    skipped = Skipped()
    base = Place(folder.resolve(), "")
    try:
        found = splits(folder, base, skipped)
        names: tuple[str, ...] = ()
        files: list[Found] = []
        for split in found:
            classes = _classes(folder, split.where, skipped)
            if split.test:
                _check_agreement(folder, found, names, tuple(classes))
            names = names or tuple(classes)
            roots = (base.path, split.where.path.resolve())
            for label, place in enumerate(classes.values()):
                here = sorted(_walk(place, roots, skipped), key=lambda file: natural(file.shown))
                files += (Found(file.path, file.shown, label, split.test) for file in here)
    except PermissionError as error:
        raise DataError(f"folder of images {str(folder)!r}: {error.filename} cannot be read") from error
    if len(names) < 2:
        what = f"one class, {names[0]!r}" if names else "no sub-folders"
        links = sum(line.endswith(": a link to a folder") for line in skipped.lines)
        more = f", and {links} link{'s' * (links != 1)} to folders, which are not followed" if links else ""
        raise DataError(
            f"folder of images {str(folder)!r}: expected at least two classes, found {what}{more}",
            hint=LAYOUT,
        )
    test = next((split.where for split in found if split.test), None)
    where = tuple(split.where.shown for split in found)
    return Tree(names, tuple(files), where, None if test is None else _origin(folder, test), skipped)


def _origin(folder: Path, test: Place) -> str:
    """Return where test images lie: "ds/test", and what that is a link to."""
    top = test.shown.partition("/")[0]
    link = folder / top
    target = f" (a link to {shown(str(link.resolve()))})" if link.is_symlink() else ""
    return f"{shown(folder.resolve().name)}/{test.shown}{target}"


def _classes(folder: Path, split: Place, skipped: Skipped) -> dict[str, Place]:
    classes: dict[str, Place] = {}
    for place in sorted(_folders(split, skipped), key=lambda place: natural(place.name)):
        if place.name in classes:
            raise DataError(
                f"folder of images {str(folder)!r}: two classes are shown as {place.name!r}",
                hint="rename one",
            )
        classes[place.name] = place
    return classes


def _check_agreement(
    folder: Path, found: Sequence[Split], train: tuple[str, ...], test: tuple[str, ...]
) -> None:
    if set(train) != set(test):
        first, second = (split.where.shown for split in found)
        lines = [f"{part}/ lacks {', '.join(map(repr, sorted(lack)[:5]))}" for part, lack in (
            (second, set(train) - set(test)), (first, set(test) - set(train))) if lack]  # fmt: skip
        raise DataError(
            f"folder of images {str(folder)!r}: {first}/ and {second}/ have different classes: "
            f"{'; '.join(lines)}",
            hint=LAYOUT,
        )


def _folders(where: Place, skipped: Skipped) -> Iterator[Place]:
    for place in entries(where, skipped):
        if place.path.is_symlink() and place.path.is_dir():
            skipped.add(f"{place.shown}/", "a link to a folder")
        elif place.path.is_dir():
            yield place
        else:
            outside(place, skipped)


def _walk(where: Place, roots: Sequence[Path], skipped: Skipped) -> Iterator[Place]:
    """Yield the regular files below a class's folder, at any depth."""
    for place in sorted(entries(where, skipped), key=lambda place: place.path):
        path = place.path
        if path.is_symlink():
            try:
                target = path.resolve(strict=True)
            except (OSError, RuntimeError):
                skipped.add(place.shown, "a link to nothing")
                continue
            if not any(target.is_relative_to(root) for root in roots):
                skipped.add(place.shown, "a link that leaves the folder")
                continue
            if target.is_dir():
                skipped.add(f"{place.shown}/", "a link to a folder")
                continue
        if path.is_dir():
            yield from _walk(place, roots, skipped)
        elif stat.S_ISREG(path.stat().st_mode):
            yield place
        else:
            skipped.add(place.shown, "not a file")
