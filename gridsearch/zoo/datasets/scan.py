"""Finds the images of a folder with one sub-folder per class, before any is decoded.

A link to a folder is followed where it stands for a split (train, test), and nowhere else; a link to a file
is followed within the folder.  Hidden files are left alone.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gridsearch.errors import DataError
from gridsearch.zoo.datasets.folder_paths import Place, Skipped, entries, natural, shown
from gridsearch.zoo.datasets.layout import LAYOUT, OUTSIDE, SORT, TEST, TRAIN, VAL, Split, outside, splits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["LAYOUT", "TEST", "TRAIN", "VAL", "Found", "Skipped", "Tree", "scan"]

_PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")

SUB_FOLDERS = "sub-folders of the classes"


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be an image.

    Attributes:
        path: absolute.
        relative: below the folder, with slashes, Unicode composed: the same on every machine.
        label: index of its class.
        part: what it is for: `TRAIN`, `VAL` or `TEST`.
        group: what it belongs to with others: the folder below its class's; "" for none.
    """

    path: Path
    relative: str
    label: int
    part: str = TRAIN
    group: str = ""

    @property
    def test(self) -> bool:
        """Whether it is of the test set."""
        return self.part == TEST

    def size(self) -> int:
        """Return how many bytes it holds."""
        return self.path.stat().st_size

    def read(self) -> bytes:
        """Return what it holds."""
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class Tree:
    """The images of a folder, or of a list, before any is decoded.

    Attributes:
        title: what it is, for refusals: "folder of images '/pets'".
        layout: how it should look, for refusals.
        classes: names in the order of the labels.
        files: in the order in which they are read: by split, class and path.
        where: for each part that is there, where it lies, as people would say it: "ds/test".
        folders: likewise, the folder of its class folders; "" is the folder itself.
        skipped: what is not used so far; decoding adds to it.
        group_from: what the groups of the files are; "" where there are none.
        listed: whether a list says of which class, part and group a file is, and not its path.
    """

    title: str
    layout: str
    classes: tuple[str, ...]
    files: tuple[Found, ...]
    where: dict[str, str]
    skipped: Skipped
    folders: dict[str, str] = field(default_factory=dict)
    group_from: str = ""
    listed: bool = False

    @property
    def has_test(self) -> bool:
        """Whether there are test images."""
        return TEST in self.where

    @property
    def test_from(self) -> str | None:
        """Where the test images lie; None where there are none."""
        return self.where.get(TEST)


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
        packed = folder.name.casefold().endswith(_PACKED) and folder.is_file()
        raise DataError(
            f"folder of images {str(folder)!r} {what}",
            hint="unpack it first, and name the folder that comes of it" if packed else LAYOUT,
        )
    skipped = Skipped()
    base = Place(folder.resolve(), "")
    try:
        found = splits(folder, base, skipped)
        names: tuple[str, ...] = ()
        files: list[Found] = []
        for split in found:
            classes = _classes(folder, split.where, skipped)
            if split.part != TRAIN:
                _check_agreement(folder, (found[0], split), names, tuple(classes))
            names = names or tuple(classes)
            roots = (base.path, split.where.path.resolve())
            for label, place in enumerate(classes.values()):
                here = sorted(_walk(place, roots, skipped), key=lambda file: natural(file.shown))
                files += (
                    Found(file.path, file.shown, label, split.part, _group(file, place)) for file in here
                )
    except PermissionError as error:
        raise DataError(f"folder of images {str(folder)!r}: {error.filename} cannot be read") from error
    except OSError as error:  # a file that goes while its folder is read
        raise DataError(
            f"folder of images {str(folder)!r}: {error.filename}: {error.strerror}", hint="run again"
        ) from error
    if len(names) < 2:
        what = f"one class, {names[0]!r}" if names else "no sub-folders"
        links = sum(line.endswith(": a link to a folder") for line in skipped.lines)
        loose = sum(line.endswith(f": {OUTSIDE}") for line in skipped.problems)
        more = (
            f", and {loose} image{'s' * (loose != 1)} in no folder of a class" if loose and not names else ""
        )
        more += f", and {links} link{'s' * (links != 1)} to folders, which are not followed" if links else ""
        raise DataError(
            f"folder of images {str(folder)!r}: expected at least two classes, found {what}{more}",
            hint=SORT if loose and not names else LAYOUT,
        )
    return Tree(
        title=f"folder of images {str(folder)!r}",
        layout=LAYOUT,
        classes=names,
        files=tuple(files),
        where={split.part: _origin(folder, split.where) for split in found},
        folders={split.part: split.where.shown for split in found},
        skipped=skipped,
        group_from=SUB_FOLDERS if any(file.group for file in files) else "",
    )


def without_validation(tree: Tree) -> Tree:
    """Return a folder of images without those for validation, as studies used it that are older than these."""
    if VAL not in tree.where:
        return tree
    shown = f"{tree.folders[VAL].partition('/')[0]}/"
    tree.skipped.unused.append(shown)
    tree.skipped.add(shown, "not used, as when the study was made", expected=True)
    where, folders = (
        {part: at for part, at in parts.items() if part != VAL} for parts in (tree.where, tree.folders)
    )
    files = tuple(found for found in tree.files if found.part != VAL)
    return replace(tree, files=files, where=where, folders=folders)


def _group(file: Place, of_class: Place) -> str:
    """Return the folder in a class's folder that a file lies in, at any depth; "" where it lies in none."""
    return file.shown.removeprefix(f"{of_class.shown}/").rpartition("/")[0].partition("/")[0]


def _origin(folder: Path, split: Place) -> str:
    """Return where the images of a split lie: "ds/test", and what that is a link to."""
    top = split.shown.partition("/")[0]
    link = folder / top
    target = f" (a link to {shown(str(link.resolve()))})" if top and link.is_symlink() else ""
    return f"{shown(folder.resolve().name)}/{split.shown}{target}"


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
        if train and not test:  # as where a contest keeps the labels of its test images to itself
            raise DataError(
                f"folder of images {str(folder)!r}: {second}/ holds no folders of classes as {first}/ does, "
                "so nothing says what its images show",
                hint=f"move {second}/ out of the folder (images of {first}/ are held out instead), or sort its images "
                f"into {second}/CLASS/",
            )
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
