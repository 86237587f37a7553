"""Files and folders below a folder of images: how they are named, in which order, and what is left alone.

What systems, network disks and editors leave behind is no part of a dataset at any depth; it is counted.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CLUTTER = frozenset(
    {
        *("__macosx", "icon\r", "network trash folder", "temporary items"),  # macOS
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "folder.htt", "$recycle.bin"),
        *("recycler", "recycled", "system volume information"),  # Windows
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "~snapshot"),  # disks
        *("lost+found", "lost.dir", "zbthumbnail.info", "picasa.ini", "__pycache__"),
    }
)
"""Names, in lower case."""

_IMAGES = frozenset(
    {
        *(".bmp", ".dib", ".gif", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".png", ".apng", ".avif"),
        *(".pbm", ".pgm", ".ppm", ".pnm", ".tif", ".tiff", ".webp", ".heic", ".heif", ".jxl", ".psd", ".tga"),
        *(".svg", ".ico", ".dcm"),
    }
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NAMED = 5
_LISTED = 20  # files that are skipped, in the notes


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder, and how it is called.

    Attributes:
        path: where it lies.
        shown: below the folder of images, with slashes, Unicode composed: the same on every machine; "" for
            the folder itself.
    """

    path: Path
    shown: str

    @property
    def name(self) -> str:
        """The last part of `shown`."""
        return self.shown.rpartition("/")[2]

    def child(self, path: Path) -> Place:
        """Return an entry of this folder."""
        name = shown(path.name)
        return Place(path, f"{self.shown}/{name}" if self.shown else name)


@dataclass(slots=True)
class Skipped:
    """What is not used, and why, and what else a user should know.

    Attributes:
        lines: one for each file or folder that is left out.
        problems: likewise, but for what is plainly no image of the dataset.
        hidden: how many hidden files and folders there are.
        clutter: how often each name of `_CLUTTER` was met.
        unused: folders among the lines that are left out whole: what stands beside the splits.
        more: anything else.
        cautions: what puts results in doubt.
    """

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    hidden: int = 0
    clutter: dict[str, int] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many files and folders are left out, but for the folders that are not used at all."""
        return len(self.lines) - len(self.unused) + self.hidden + sum(self.clutter.values())

    def add(self, relative: str, reason: str, *, expected: bool = False) -> None:
        """Remember a file that is left out.

        Args:
            relative: its name.
            reason: why.
            expected: whether it is plainly no image of the dataset.
        """
        self.lines.append(f"skipped {relative}: {reason}")
        if not expected:
            self.problems.append(f"{relative}: {reason}")

    def notes(self) -> tuple[str, ...]:
        """Return one line per file, the first few of them, and how many more there are."""
        lines = self.lines[:_LISTED]
        if len(self.lines) > _LISTED:
            lines.append(f"skipped {len(self.lines) - _LISTED} more files")
        if self.hidden:
            lines.append(f"skipped {self.hidden} hidden files or folders")
        if self.clutter:
            names = sorted(self.clutter)
            named = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            count = sum(self.clutter.values())
            what = "file or folder" if count == 1 else "files or folders"
            lines.append(f"skipped {count} {what} of the system ({named})")
        lines += self.more
        return tuple(lines)


def entries(where: Place, skipped: Skipped) -> Iterator[Place]:
    """Yield what lies in a folder, but for what is hidden or clutter: that is counted."""
    for path in where.path.iterdir():
        if path.name.startswith("."):
            skipped.hidden += 1
        elif path.name.casefold() in _CLUTTER:
            name = shown(path.name)
            skipped.clutter[name] = skipped.clutter.get(name, 0) + 1
        else:
            yield where.child(path)


def is_named_as_image(name: str) -> bool:
    """Whether a file's name says that it is an image."""
    return os.path.splitext(name)[1].casefold() in _IMAGES  # noqa: PTH122  (a name, not a path)


def left_alone(name: str) -> bool:
    """Whether a file or folder of this name is hidden or clutter."""
    return name.startswith(".") or name.casefold() in _CLUTTER


def natural(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that sorts as people do: "img2" before "img10", "a" beside "A"; never a tie."""
    pieces = re.split(r"([0-9]+)", text.casefold())
    return [(0, int(p), "") if p.isdigit() and p.isascii() else (1, 0, p) for p in pieces if p], text


def shown(name: str) -> str:
    """Return a file's name as it can be stored: composed Unicode, valid UTF-8, no control characters."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return _CONTROL.sub("\ufffd", unicodedata.normalize("NFC", text))
