"""Reads a CSV file as people have it to named columns: its encoding and its separator are found, or it is refused."""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SEPARATORS = ",;\t|"
_MARK = re.compile(r'"?sep=([,;\t|])"?(?=[\r\n])', re.IGNORECASE)
_MOST_BYTES = 512 << 20
_LAYOUT = "its first line names the columns, as in: path,label"


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A CSV file's rows.

    Attributes:
        columns: as the first line names them.
        rows: the number of each one's line, and its cells by their columns.
        empty: how many lines were empty.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]
    empty: int


def read_table(path: Path) -> CsvTable:
    """Read a CSV file: UTF-8, or UTF-16 with its mark; separated by commas, semicolons, tabs or bars.

    Raises:
        DataError: it is not there, is of another encoding, names no columns, or a line does not fit these.
    """
    title = f"csv {str(path)!r}"
    text = _text(path, title)
    marked = _MARK.match(text)  # as Excel writes it, above the names of the columns
    if marked is not None:
        text = text[marked.end() :]
    separator = _separator(text) if marked is None else marked[1]
    lines = _lines(text, separator, title)
    number, header = next(lines, (0, []))
    columns = tuple(cell.strip() for cell in header)
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{title}: two columns are named {twice!r}", hint="rename one")
    if len([name for name in columns if name]) < 2:
        raise DataError(
            f"{title}: line 1 names {len(columns)} column{'s' * (len(columns) != 1)}, expected two or more",
            hint=_LAYOUT,
        )
    rows, empty = [], 0
    for number, cells in lines:
        if not any(cell.strip() for cell in cells):
            empty += 1
            continue
        if len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
            raise DataError(
                f"{title}: line {number} has {len(cells)} fields, and line 1 names {len(columns)} columns",
                hint=f'put what holds a {separator!r} into quotes: "a{separator}b.png"',
            )
        rows.append((number, {name: cell.strip() for name, cell in zip(columns, cells, strict=False)}))
    return CsvTable(columns, tuple(rows), empty)


def _text(path: Path, title: str) -> str:
    try:
        if path.is_file() and path.stat().st_size > _MOST_BYTES:
            raise DataError(
                f"{title} is larger than {_MOST_BYTES >> 20} MB", hint="it lists images, it holds none"
            )
        content = path.read_bytes()
    except OSError as error:
        what = "is a folder" if path.is_dir() else "is not there" if not path.exists() else error.strerror
        hint = f"a folder of images is named as folder:{path}" if path.is_dir() else None
        raise DataError(f"{title} {what}", hint=hint) from error
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{title}: line {line} is not UTF-8 (byte 0x{content[error.start]:02x})",
            hint="save it as UTF-8 (Excel: CSV UTF-8), or: iconv -f WINDOWS-1252 -t UTF-8",
        ) from error


def _separator(text: str) -> str:
    """Return what separates the most columns of the first line; a comma where nothing does."""
    first = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]

    def columns(mark: str) -> int:
        try:
            return len(next(csv.reader([first], delimiter=mark), []))
        except csv.Error:  # which reading the lines says
            return 0

    return max(_SEPARATORS, key=columns)


def _lines(text: str, separator: str, title: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    begun = False
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{title}: line {reader.line_num}: {error}", hint=_LAYOUT) from error
        begun = begun or bool(cells)
        if begun:
            yield reader.line_num, cells
