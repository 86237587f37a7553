"""Between a table whose rows name images and the images of `folder_arrays`: columns found, classes made, rows checked.

What CSV files and datasets of Hugging Face's library have in common.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gridsearch.errors import DataError, UsageError, nearest
from gridsearch.zoo.datasets.folder_paths import Skipped, natural
from gridsearch.zoo.datasets.layout import role_of, words_of
from gridsearch.zoo.datasets.scan import TEST, TRAIN, VAL, Found, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gridsearch.records import Value

USUAL = {
    "path": "path file filename file_name filepath file_path image images image_path image_file image_name img "
    "img_path image_id img_name picture photo",
    "label": "label labels class class_name classname target category y label_name",
    "split": "split set subset partition phase dataset_split data_split fold_type usage",
    "group": "group groups group_id patient patient_id patientid subject subject_id case_id",
}
"""Names of columns that are understood, in lower case with underscores, by the option that names another."""

_DENIED = frozenset(
    {*("not", "no", "non", "never", "without", "except", "unused", "exclude", "excluded", "excluding", "skip"),
     *("skipped", "ignore", "ignored", "drop", "dropped", "remove", "removed", "bad", "before", "after")}
)  # fmt: skip
"""Words beside the name of a split that take an image out of it: "not train", "excluded from test"."""

_NAMED = 3
_UNIQUE = 0.5
"""Classes per row from which a column of labels holds something else: a path, a name, a measured value."""


@dataclass(frozen=True, slots=True)
class Table:
    """How a table is called in refusals, and which columns it has.

    Attributes:
        title: "csv 'labels.csv'".
        columns: their names.
        layout: how such a table should look.
    """

    title: str
    columns: tuple[str, ...]
    layout: str

    def refuse(self, problem: str, hint: str | None = None) -> DataError:
        """Return the error of a table that cannot be used."""
        return DataError(f"{self.title}: {problem}", hint=hint or self.layout)

    def column(self, option: str, given: Value, *, usual: str | None = None) -> str | None:
        """Return the column that an option names, or that has a usual name for it; None where there is none.

        Args:
            option: `USUAL` has the names.
            given: its value: "auto" to look for the column, None to do without.
            usual: names to look for in place of those.

        Raises:
            UsageError: there is no column of the given name.
            DataError: several have usual names.
        """
        if given is None:
            return None
        if given != "auto":
            alike = [name for name in self.columns if name == str(given)] or [
                name for name in self.columns if _plain(name) == _plain(str(given))
            ]
            if len(alike) == 1:
                return alike[0]
            raise UsageError(
                f"data.{option}={given}: {self.title} has no such column{nearest(str(given), self.columns)}"
            )
        known = set((usual or USUAL[option]).split())
        found = [name for name in self.columns if _plain(name) in known]
        if len(found) > 1:
            raise self.refuse(
                f"columns {' and '.join(map(repr, found))} may both be the {option}",
                hint=f"name one: --set data.{option}={found[0]}",
            )
        return found[0] if found else None

    def needed(self, option: str, given: Value, *, usual: str | None = None) -> str:
        """Return the column that `column` finds.

        Raises:
            GridsearchError: see `column`, or there is none.
        """
        found = self.column(option, given, usual=usual)
        if found is None:
            shown = ", ".join(self.columns[:8]) + (", ..." if len(self.columns) > 8 else "")
            raise self.refuse(
                f"no column named as the {option} among {shown}", hint=f"name it: --set data.{option}=COLUMN"
            )
        return found


@dataclass(frozen=True, slots=True)
class Row:
    """One row: an image, where it stands in the table, and what it is.

    Attributes:
        where: "line 7".
        label: as it is written.
        found: the image; its `label` is set once all classes are known.
    """

    where: str
    label: str
    found: Found


def part_of(word: str) -> str | None:
    """Return the split that a cell names: `TRAIN`, `VAL` or `TEST`; None where it names none, or denies one."""
    return None if _DENIED.intersection(words_of(word)) else role_of(word)


def tree_of(
    table: Table,
    rows: Sequence[Row],
    skipped: Skipped,
    *,
    group_from: str = "",
    order: Sequence[str] = (),
    where: Mapping[str, str],
) -> Tree:
    """Return the images of a table's rows, with their classes.

    Args:
        table: the table.
        rows: in its order; a row that says what another one says is left out.
        skipped: gets what was left out.
        group_from: what the groups are; "" where there are none.
        order: of the class names; those without any row are left out.  Default: as people sort.
        where: of each part, where it lies.

    Raises:
        DataError: an image has two labels or stands in two splits; there are less than two classes, or about as many
            as images; or one class has no image to train on.
    """
    rows = _without_repeats(table, rows, skipped)
    counts = Counter(row.label for row in rows)
    classes = tuple(name for name in order if counts[name]) or tuple(sorted(counts, key=natural))
    if len(classes) < 2:
        found = f"one class, {classes[0]!r}" if classes else "no image"
        raise table.refuse(f"expected at least two classes, found {found}")
    if not order and len(classes) > max(2, _UNIQUE * len(rows)):
        some = next(name for name in classes if counts[name] == 1)
        raise table.refuse(
            f"its labels are {len(classes)} classes for {len(rows)} images, such as {some[:40]!r}",
            hint="a label is the name or number of a class, no path and no measured value; "
            "name its column: --set data.label=COLUMN",
        )
    _check_several(table, counts)
    trained = {row.label for row in rows if row.found.part == TRAIN}
    if untrained := [name for name in classes if name not in trained]:
        names = ", ".join(map(repr, untrained[:_NAMED])) + (", ..." if untrained[_NAMED:] else "")
        raise table.refuse(
            f"no training image is of class {names}, which other splits hold",
            hint="give it some, or take its rows out",
        )
    number = {name: label for label, name in enumerate(classes)}
    by_part = [row for part in (TRAIN, VAL, TEST) for row in rows if row.found.part == part]
    files = tuple(replace(row.found, label=number[row.label]) for row in by_part)
    there = {file.part for file in files}
    return Tree(
        title=table.title,
        layout=table.layout,
        classes=classes,
        files=files,
        where={part: where.get(part, part) for part in (TRAIN, VAL, TEST) if part in there},
        skipped=skipped,
        group_from=group_from,
        listed=True,
    )


def _without_repeats(table: Table, rows: Iterable[Row], skipped: Skipped) -> list[Row]:
    """Leave out rows that repeat another one; refuse those that contradict another one."""
    first: dict[str, Row] = {}
    repeats = 0
    labels: dict[str, tuple[Row, Row]] = {}
    parts: dict[str, tuple[Row, Row]] = {}
    for row in rows:
        file = os.path.normpath(row.found.path) if row.found.path.name else row.found.relative
        other = first.setdefault(file, row)
        if other is row:
            continue
        if row.label != other.label:
            labels.setdefault(file, (other, row))
        elif row.found.part != other.found.part:
            parts.setdefault(file, (other, row))
        else:
            repeats += 1
    if labels:
        names = _first_of(labels, lambda row: repr(row.label), "is")
        raise table.refuse(
            f"{_images(len(labels))} with several labels: {names}",
            hint="an image is of one class: targets of several labels are not trained here",
        )
    if parts:
        names = _first_of(parts, lambda row: row.found.part, "is in")
        raise table.refuse(
            f"{_images(len(parts))} in several splits: {names}", hint="one image belongs to one split"
        )
    if repeats:
        skipped.more.append(
            "1 row repeats an image and counts once"
            if repeats == 1
            else f"{repeats} rows repeat an image and count once"
        )
    return list(first.values())


def _first_of(pairs: Mapping[str, tuple[Row, Row]], said: Callable[[Row], str], verb: str) -> str:
    """Return the first of images that two rows say two things of: "a.png is 'cat' (line 2) and 'dog' (line 3)"."""
    named = [
        f"{one.found.relative} {verb} {said(one)} ({one.where}) and {said(other)} ({other.where})"
        for one, other in list(pairs.values())[:_NAMED]
    ]
    return "; ".join(named) + ("; ..." if len(pairs) > _NAMED else "")


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _check_several(table: Table, counts: Mapping[str, int]) -> None:
    """Refuse labels that are several at once: "cat|dog" beside "cat" and "dog"."""
    for name in counts:
        for mark in "|;,":
            pieces = [piece.strip() for piece in name.split(mark)]
            if len(pieces) > 1 and all(piece in counts for piece in pieces):
                raise table.refuse(
                    f"label {name!r} names several classes ({counts[name]} images)",
                    hint="an image is of one class: targets of several labels are not trained here",
                )


def _plain(name: str) -> str:
    return "_".join(name.casefold().replace("-", " ").replace("_", " ").split())
