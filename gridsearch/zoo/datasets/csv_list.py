"""A CSV file that names images and their classes, as a dataset: `csv:FILE`."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.errors import DataError
from gridsearch.folders import tilde
from gridsearch.zoo.datasets.class_labels import is_missing
from gridsearch.zoo.datasets.csv_table import read_table
from gridsearch.zoo.datasets.file_images import MEMORY_LIMIT, FileImages
from gridsearch.zoo.datasets.folder_paths import Skipped, is_named_as_image, shown
from gridsearch.zoo.datasets.layout import role_of, words_of
from gridsearch.zoo.datasets.listed_images import Row, Table, part_of, tree_of
from gridsearch.zoo.datasets.scan import TRAIN, Found

if TYPE_CHECKING:
    from gridsearch.plugins import ImageData
    from gridsearch.records import Value
    from gridsearch.zoo.datasets.csv_table import CsvTable
    from gridsearch.zoo.datasets.scan import Tree

_LAYOUT = "a CSV file has columns of paths and labels, and may have one of splits (train, val, test) and one of groups"
_NAMED = 3
_PARTS = frozenset({"fold", "folds", "kfold", "split", "splits"})
"""Words in the name of a column that parts the images."""


@dataclass(frozen=True, slots=True)
class CsvDataset(FileImages):
    """Images that a CSV file lists, one in a row; callable as a dataset.

    Paths are relative to the file's folder.  Images become arrays as those of a folder do, see `FolderDataset`.

    Attributes:
        path: the CSV file, absolute.
        memory_limit: bytes; more are refused.
    """

    path: Path
    memory_limit: int = MEMORY_LIMIT

    def __call__(
        self,
        root: Path,
        *,
        path: Value = "auto",
        label: Value = "auto",
        split: Value = "auto",
        group: Value = "auto",
        size: Value = "auto",
        channels: Value = "auto",
    ) -> ImageData:
        """Read the images: uint8 [N, C, H, W], or float32 of 0..1 where some have more than 8 bits.

        Args:
            root: the data root, where the decoded images are kept.
            path: the column of paths; "auto" finds it by its name.
            label: likewise that of labels, words or numbers.
            split: likewise that of splits, None to use none.
            group: likewise that of groups.
            size: "auto", a side in pixels, or "HEIGHTxWIDTH".
            channels: "auto", 1 or 3.

        Raises:
            DataError: the file is not such a list, or images that it names are not there.
            UsageError: an option is not one of the above.
        """
        columns = {"path": path, "label": label, "split": split, "group": group}
        return self.with_fingerprint(root, **columns, size=size, channels=channels).data

    def tree(
        self,
        root: Path,  # noqa: ARG002  (as every dataset is asked)
        *,
        path: Value = "auto",
        label: Value = "auto",
        split: Value = "auto",
        group: Value = "auto",
    ) -> Tree:
        """Return which images there are; see `__call__`."""
        read = read_table(self.path)
        table = Table(f"csv {str(self.path)!r}", read.columns, _LAYOUT)
        _check_header(table, self.path)
        of = {"path": table.needed("path", path), "label": table.needed("label", label)}
        of |= {name: found for name, value in (("split", split), ("group", group))
               if (found := table.column(name, value)) is not None}  # fmt: skip
        same = next((a for a in of for b in of if a < b and of[a] == of[b]), None)
        if same is not None:
            raise table.refuse(f"column {of[same]!r} is named twice, as the {same} and as another")
        skipped = Skipped()
        if read.empty:
            skipped.more.append(f"{read.empty} empty line{'s' * (read.empty > 1)} left out")
        if split == "auto" and "split" not in of:
            skipped.more += [
                f"column {shown(name)!r} is not used, and seems to say which images are for tests or validation: "
                "--set data.split takes a column of the words train, val and test, and none ignores it"
                for name in read.columns
                if name not in of.values() and _seems_to_split(name, read)
            ]
        _check_cells(table, read, of)
        _check_splits(table, read, of)
        rows = [
            Row(f"line {number}", cells[of["label"]], self._found(cells, of)) for number, cells in read.rows
        ]
        _check_files(table, rows, self.path.parent)
        group_from = f"column {of['group']!r}" if "group" in of else ""
        parts = {row.found.part for row in rows}
        where = {part: f"{shown(self.path.name)}, column {of['split']!r}" for part in parts if "split" in of}
        return tree_of(table, rows, skipped, group_from=group_from, where=where)

    def _found(self, cells: dict[str, str], of: dict[str, str]) -> Found:
        written = cells[of["path"]].replace("\\", "/") if "/" not in cells[of["path"]] else cells[of["path"]]
        part = part_of(cells[of["split"]]) if "split" in of else TRAIN
        assert part is not None, "all are checked"
        group = cells[of["group"]] if "group" in of else ""
        return Found(self.path.parent / tilde(written), shown(written), 0, part, group)


def _seems_to_split(column: str, read: CsvTable) -> bool:
    """Whether a column may part the images: by its name (`is_valid`, `fold`), or because it holds names of splits."""
    if role_of(column) is not None or _PARTS.intersection(words_of(column)):
        return True
    parts = {part_of(cell) if cell else TRAIN for _, cells in read.rows for cell in [cells.get(column, "")]}
    return len(parts) > 1 and None not in parts


def _check_header(table: Table, path: Path) -> None:
    """Refuse a file whose first line is a row already."""
    for name in table.columns:
        if is_named_as_image(name) or (name and (path.parent / name).is_file()):
            raise table.refuse(f"line 1 names no columns: {name!r} is a file", hint="put path,label on top")


def _check_cells(table: Table, read: CsvTable, of: dict[str, str]) -> None:
    """Refuse rows without a path, label, split or group."""
    if not read.rows:
        raise table.refuse("it lists no image")
    for what, column in of.items():
        lacking = [number for number, cells in read.rows if is_missing(cells.get(column, ""))]
        if lacking:
            lines = ", ".join(map(str, lacking[:_NAMED])) + (", ..." if lacking[_NAMED:] else "")
            without = (
                f"do without: --set data.{what}=none" if what in ("split", "group") else "leave them out"
            )
            hint = f"fill these cells, or {without}"
            count = f"{len(lacking)} row{'s' * (len(lacking) > 1)}"
            raise table.refuse(f"{count} without a {what} in column {column!r} (line {lines})", hint=hint)


def _check_splits(table: Table, read: CsvTable, of: dict[str, str]) -> None:
    """Refuse rows whose split is none that is known: how many, and the first."""
    if "split" not in of:
        return
    wrong = [(number, word) for number, cells in read.rows if part_of(word := cells[of["split"]]) is None]
    if wrong:
        number, word = wrong[0]
        more = f" (and {len(wrong) - 1} more rows)" if len(wrong) > 1 else ""
        raise table.refuse(
            f"line {number}: {of['split']} is {word!r}, expected train, val or test{more}",
            hint="name the column of splits with --set data.split=COLUMN, or none: --set data.split=none",
        )


def _check_files(table: Table, rows: list[Row], folder: Path) -> None:
    """Refuse images that are not there: how many, and the first."""
    there: dict[Path, bool] = {}
    for row in rows:
        if row.found.path not in there:
            there[row.found.path] = row.found.path.is_file()
    missing = [row for row in rows if not there[row.found.path]]
    if not missing:
        return
    named = ", ".join(f"{row.found.relative} ({row.where})" for row in missing[:_NAMED])
    more = ", ..." if missing[_NAMED:] else ""
    raise DataError(
        f"{table.title}: {len(missing)} of {len(rows)} files are not there: {named}{more}",
        hint=f"paths are relative to the CSV's folder, {folder}" + _meant(missing[0].found.relative, folder),
    )


def _meant(name: str, folder: Path) -> str:
    """Say which image a name without its ending or its folder may stand for; "" where none is seen."""
    if Path(name).is_absolute():
        return ""
    end = glob.escape(Path(name).name)
    found = [*folder.glob(f"{glob.escape(name)}.*"), *folder.glob(f"*/{end}"), *folder.glob(f"*/{end}.*")]
    images = sorted(p.relative_to(folder).as_posix() for p in found if is_named_as_image(p.name))
    return f"; {shown(images[0])} is there" if images else ""
