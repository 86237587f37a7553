"""Finds the images of a folder with one sub-folder per class, before any is decoded.

Links to folders, and links that leave the folder, are not followed; hidden files are left alone.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gridsearch.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAYOUT = (
    "a folder of images has one sub-folder per class, or train/ and test/ with one sub-folder per class each"
)

_HELD_OUT = {"test"}
_UNUSED = {"val", "valid", "validation", "dev"}
_CLUTTER = {"__macosx"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


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


@dataclass(slots=True)
class Skipped:
    """What is not used, and why, and what else a user should know.

    Attributes:
        lines: one for each file that is left out.
        hidden: how many hidden files and folders there are.
        more: anything else.
    """

    lines: list[str] = field(default_factory=list)
    hidden: int = 0
    more: list[str] = field(default_factory=list)

    def add(self, relative: str, reason: str) -> None:
        """Remember a file that is left out."""
        self.lines.append(f"skipped {relative}: {reason}")

    def notes(self, *, most: int = 20) -> tuple[str, ...]:
        """Return one line per file, `most` of them, and how many more there are."""
        lines = self.lines[:most]
        if len(self.lines) > most:
            lines.append(f"skipped {len(self.lines) - most} more files")
        if self.hidden:
            lines.append(f"skipped {self.hidden} hidden files or folders")
        lines += self.more
        return tuple(lines)


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder of images.

    Attributes:
        classes: names in the order of the labels.
        files: in the order in which they are read: by part, class and path.
        has_test: whether test/ gives the test images.
        skipped: what is not used so far; decoding adds to it.
    """

    classes: tuple[str, ...]
    files: tuple[Found, ...]
    has_test: bool
    skipped: Skipped


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
    base = folder.resolve()
    try:
        parts = _parts(base, skipped)
        names: tuple[str, ...] = ()
        files: list[Found] = []
        for part, is_test in parts:
            classes = _classes(part, base, skipped)
            if is_test:
                _check_agreement(folder, names, tuple(classes))
            names = names or tuple(classes)
            for label, where in enumerate(classes.values()):
                here = sorted(_walk(where, base, skipped), key=lambda path: natural(_relative(path, base)))
                files += (Found(path, _relative(path, base), label, is_test) for path in here)
    except PermissionError as error:
        raise DataError(f"folder of images {str(folder)!r}: {error.filename} cannot be read") from error
    if len(names) < 2:
        found = f"one class, {names[0]!r}" if names else "no sub-folders"
        raise DataError(
            f"folder of images {str(folder)!r}: expected at least two classes, found {found}", hint=LAYOUT
        )
    return Tree(names, tuple(files), any(is_test for _, is_test in parts), skipped)


def natural(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that sorts as people do: "img2" before "img10", "a" beside "A"; never a tie."""
    pieces = re.split(r"([0-9]+)", text.casefold())
    return [(0, int(p), "") if p.isdigit() and p.isascii() else (1, 0, p) for p in pieces if p], text


def shown(name: str) -> str:
    """Return a file's name as it can be stored: composed Unicode, valid UTF-8, no control characters."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return _CONTROL.sub("\ufffd", unicodedata.normalize("NFC", text))


def _parts(base: Path, skipped: Skipped) -> list[tuple[Path, bool]]:
    """Return the folders that hold class folders, and whether each is the test set."""
    there = {path.name.casefold(): path for path in _folders(base, base, Skipped())}
    train = there.get("train")
    others = set(there) - {"train"}
    if train is None or not others <= _HELD_OUT | _UNUSED or not any(_folders(train, base, Skipped())):
        return [(base, False)]
    for name in sorted(others & _UNUSED):
        skipped.add(f"{there[name].name}/", "not used; validation images are held out of train/")
    for path in _entries(base, skipped):
        if not path.is_dir():
            skipped.add(_relative(path, base), "not in the folder of a class")
    return [(train, False)] + ([(there["test"], True)] if "test" in there else [])


def _classes(part: Path, base: Path, skipped: Skipped) -> dict[str, Path]:
    folders = sorted(_folders(part, base, skipped), key=lambda path: natural(shown(path.name)))
    classes: dict[str, Path] = {}
    for path in folders:
        name = shown(path.name)
        if name in classes:
            raise DataError(
                f"folder of images {str(base)!r}: two classes are shown as {name!r}", hint="rename one"
            )
        classes[name] = path
    return classes


def _check_agreement(folder: Path, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    if set(train) != set(test):
        lines = [f"{part}/ lacks {', '.join(map(repr, sorted(lack)[:5]))}" for part, lack in (
            ("test", set(train) - set(test)), ("train", set(test) - set(train))) if lack]  # fmt: skip
        raise DataError(
            f"folder of images {str(folder)!r}: train/ and test/ have different classes: {'; '.join(lines)}",
            hint=LAYOUT,
        )


def _folders(where: Path, base: Path, skipped: Skipped) -> Iterator[Path]:
    for path in _entries(where, skipped):
        if path.is_symlink() and path.is_dir():
            skipped.add(f"{_relative(path, base)}/", "a link to a folder")
        elif path.is_dir():
            yield path
        else:
            skipped.add(_relative(path, base), "not in the folder of a class")


def _walk(where: Path, base: Path, skipped: Skipped) -> Iterator[Path]:
    """Yield the regular files below a class's folder, at any depth."""
    for path in sorted(_entries(where, skipped)):
        relative = _relative(path, base)
        if path.is_symlink():
            try:
                target = path.resolve(strict=True)
            except (OSError, RuntimeError):
                skipped.add(relative, "a link to nothing")
                continue
            if not target.is_relative_to(base):
                skipped.add(relative, "a link that leaves the folder")
                continue
            if target.is_dir():
                skipped.add(f"{relative}/", "a link to a folder")
                continue
        if path.is_dir():
            yield from _walk(path, base, skipped)
        elif stat.S_ISREG(path.stat().st_mode):
            yield path
        else:
            skipped.add(relative, "not a file")


def _entries(where: Path, skipped: Skipped) -> Iterator[Path]:
    for path in where.iterdir():
        if path.name.startswith(".") or path.name.casefold() in _CLUTTER:
            skipped.hidden += 1
        else:
            yield path


def _relative(path: Path, base: Path) -> str:
    return "/".join(shown(part) for part in path.relative_to(base).parts)
