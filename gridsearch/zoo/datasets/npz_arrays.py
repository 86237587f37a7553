"""Arrays in a file of numpy's, as a dataset: `npz:FILE`, with the names that people give to images and labels."""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gridsearch.errors import DataError
from gridsearch.zoo.datasets.layout import TEST, TRAIN, VAL, role_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_IMAGES, _LABELS = "images", "labels"
_MEANINGS = {
    **dict.fromkeys(("x", "image", "images", "img", "imgs", "data", "input", "inputs", "pixels"), _IMAGES),
    **dict.fromkeys(("y", "label", "labels", "lbl", "target", "targets", "class", "classes"), _LABELS),
    **dict.fromkeys(("group", "groups", "patient", "patients"), "groups"),
}
_NAMES = ("class_names", "classnames", "label_names", "names")
_LAYOUT = (
    "it holds x and y, images and labels, or x_train, y_train, x_val, y_val, x_test, y_test and the like"
)


@dataclass(frozen=True, slots=True)
class NpzDataset:
    """Images and labels in a .npz file; callable as a dataset.

    Understood are `x` and `y`, `images` and `labels` and their like, alone or with a split before or after
    (`x_train`, `train_images`, `val_labels`, `X_test`), `groups` of the training images, and `class_names`.

    Attributes:
        path: the file, absolute.
    """

    path: Path

    def __call__(self, root: Path) -> Mapping[str, Any]:  # noqa: ARG002  (as every dataset is called)
        """Read the arrays, by the names that a dataset gives them.

        Raises:
            DataError: it is no such file, or lacks what is needed, or holds Python objects.
        """
        title = f"npz {str(self.path)!r}"
        arrays = _read(self.path, title)
        found, notes = _sorted_out(arrays, title)
        fields = [field for part in (TRAIN, VAL, TEST) if (field := f"{part}_labels") in found]
        _check_columns({field: found[field] for field in fields}, title)
        for field in fields:
            found[field] = _one_class(found[field], field, title, notes)
        return {**found, "notes": notes}

    def available(self, root: Path) -> bool:  # noqa: ARG002  (as every dataset is asked)
        """Whether it can be loaded without fetching anything: always, or never."""
        return True


def _read(path: Path, title: str) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as raw:  # which numpy leaves open where it is no archive
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{title} holds one array without a name", hint=_LAYOUT)
            return {name: _array(file, name, title) for name in file.files}
    except OSError as error:
        what = "is a folder" if path.is_dir() else "is not there" if not path.exists() else error.strerror
        raise DataError(f"{title} {what or 'cannot be read'}", hint=_LAYOUT) from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, TypeError) as error:
        raise DataError(
            f"{title} is not a whole .npz file", hint="np.savez(FILE, x=..., y=...) makes one"
        ) from error


def _array(file: Any, name: str, title: str) -> np.ndarray:
    try:
        array: np.ndarray = file[name]
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise DataError(
            f"{title}: array {name!r} holds Python objects, which are not loaded: that could run any code",
            hint="save images of one size, and labels as numbers or words: np.array(labels, dtype=str)",
        ) from error
    return array


def _sorted_out(arrays: Mapping[str, np.ndarray], title: str) -> tuple[dict[str, Any], list[str]]:
    """Return the arrays by the fields of a dataset, and a note on each that is not used."""
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    notes = []
    for name, array in arrays.items():
        field = _field(name)
        if field is None:
            notes.append(f"array {name!r} is not used")
            continue
        if field in found:
            raise DataError(
                f"{title}: arrays {names[field]!r} and {name!r} may both be the {field}", hint=_LAYOUT
            )
        found[field], names[field] = array, name
    for part in (TRAIN, VAL, TEST):
        there = [what for what in (_IMAGES, _LABELS) if f"{part}_{what}" in found]
        if len(there) == 1 or (part == TRAIN and not there):
            lacking = _LABELS if there == [_IMAGES] else _IMAGES
            held = (
                ", ".join(f"{name} {'x'.join(map(str, a.shape))}" for name, a in arrays.items()) or "nothing"
            )
            raise DataError(f"{title} has no {lacking} for {part}: it holds {held}", hint=_LAYOUT)
    return found, notes


def _field(name: str) -> str | None:
    if name.casefold() in _NAMES:
        return "class_names"
    words = re.findall(r"[A-Za-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))
    meanings = [_MEANINGS[word] for each in words if (word := each.casefold()) in _MEANINGS]
    parts = [part for word in words if (part := role_of(word)) is not None]
    if len(meanings) != 1 or len(parts) > 1 or len(meanings) + len(parts) != len(words):
        return None
    part = parts[0] if parts else TRAIN
    if meanings[0] == "groups":
        return "groups" if part == TRAIN else None
    return f"{part}_{meanings[0]}"


def _is_one_hot(labels: np.ndarray) -> bool:
    """Whether labels have a column for each class, going by their shape and type."""
    return labels.ndim == 2 and labels.shape[1] != 1 and labels.dtype.kind in "biuf"


def _check_columns(labels: Mapping[str, np.ndarray], title: str) -> None:
    """Refuse one-hot labels whose columns are other classes from one split to the next.

    Where each split was encoded by itself, a class that one lacks moves the columns behind it.

    Raises:
        DataError: some are one-hot and others not, or of another number of columns.
    """
    shapes = {field: array.shape[1] if _is_one_hot(array) else None for field, array in labels.items()}
    if len(set(shapes.values())) > 1:
        shown = " and ".join(
            f"{field} {'are no one-hot rows' if columns is None else f'have {columns} columns'}"
            for field, columns in shapes.items()
        )
        raise DataError(
            f"{title}: {shown}, so a column may be another class in each",
            hint="give the class of each image, as a number or a word",
        )


def _one_class(labels: np.ndarray, field: str, title: str, notes: list[str]) -> np.ndarray:
    """Return labels as [N]: one-hot rows as the place of their one.

    Raises:
        DataError: rows have several ones, or are no labels.
    """
    if not _is_one_hot(labels):
        return labels
    if not np.isin(labels, (0, 1)).all():
        raise DataError(
            f"{title}: {field} have the shape {labels.shape} and hold other numbers than 0 and 1",
            hint="give the class of each image, as a number or a word",
        )
    ones = np.asarray(labels != 0).sum(axis=1)
    if (ones != 1).any():
        count = int((ones != 1).sum())
        raise DataError(
            f"{title}: {field} have the shape {labels.shape}, and {count} of {len(labels)} rows hold another number "
            "of ones than one: several labels for an image are not trained here",
            hint="give the class of each image, as a number or a word",
        )
    notes.append(f"{field} are one-hot: each is the place of its one among {labels.shape[1]}")
    return np.asarray(labels.argmax(axis=1), np.int64)
