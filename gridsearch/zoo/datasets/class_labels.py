"""Labels and class names of a dataset from Python: whole numbers 0 to Y-1 and Y names, or a refusal in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from gridsearch.errors import DataError

_EXACT = 2**53
"""Whole numbers up to which a floating-point number tells one from the next."""

_NOTHING = ("", "nan", "<na>", "#n/a")
"""What pandas and spreadsheets write where there is no word, in lower case."""

_NAMED = 3

_PIXEL_MODES = ("1", "L", "RGB", "RGBA", "I;16", "F")

CONVERTED = "convert it first: image.convert('RGB')"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Makes the errors of one dataset."""

    name: str

    def __call__(self, problem: str, *, hint: str | None = None) -> DataError:
        """Return the error."""
        return DataError(f"dataset {self.name!r}: {problem}", hint=hint)


def as_array(value: Any, field: str, refuse: Refusal) -> np.ndarray:
    """Return an array, a tensor or a sequence of them as one array of numbers or words."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise refuse(f"{field} are masked in places", hint="fill them: images.filled(0)")
    try:
        if hasattr(value, "detach"):  # a torch tensor, wherever it lies
            value = value.detach().cpu().numpy()
        elif not isinstance(value, np.ndarray) and not hasattr(value, "__array__"):
            items = list(value)
            _check_items(items, field, refuse)
            value = [np.asarray(item) for item in items]
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise refuse(f"{field} do not make one array: {' '.join(str(error).split())}") from error
    if array.dtype == object and array.ndim == 1 and all(isinstance(item, str) for item in array):
        return array.astype(str)  # a column of words, as pandas holds it
    if array.dtype == object:
        raise refuse(f"{field} do not make one array of numbers")
    return array


def is_missing(word: str) -> bool:
    """Whether a word stands for nothing: it is empty, or what tables of numbers write for that."""
    return word.strip().casefold() in _NOTHING


def label_vector(value: Any, field: str, count: int, notes: list[str], refuse: Refusal) -> np.ndarray:
    """Return labels as [N]: int64, or words.

    Args:
        value: as the dataset gave them.
        field: their name, for refusals.
        count: N, how many images there are.
        notes: gets how they were taken, where they are not what is expected.
        refuse: makes an error.
    """
    labels = as_array(value, field, refuse)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        one_hot = labels.ndim == 2 and labels.shape[0] == count
        raise refuse(
            f"{field} have the shape {labels.shape}, expected [N], one class for each image",
            hint="of one-hot labels give labels.argmax(axis=1)" if one_hot else None,
        )
    if len(labels) != count:
        raise refuse(f"{field} are {len(labels)}, expected {count}, one for each image")
    if labels.dtype.kind in "US":
        words = labels.astype(str) if labels.dtype.kind == "U" else _decoded(labels, field, refuse)
        lacking = [i for i, word in enumerate(words) if is_missing(word)]
        if lacking:
            places = ", ".join(map(str, lacking[:_NAMED])) + (", ..." if lacking[_NAMED:] else "")
            raise refuse(
                f"{field} hold no word for {len(lacking)} of {count} images (at {places})",
                hint="give each image its class, or leave it out",
            )
        return words
    if not (labels.dtype == bool or np.issubdtype(labels.dtype, np.number)) or np.iscomplexobj(labels):
        raise refuse(f"{field} are of type {labels.dtype}, expected whole numbers")
    if np.issubdtype(labels.dtype, np.floating):
        if not np.array_equal(labels, np.trunc(labels)):
            raise refuse(f"{field} hold fractions or NaN, expected whole numbers")
        notes.append(f"{field} are floating-point numbers; taken as whole ones")
    if labels.dtype != bool and np.abs(labels.astype(np.float64)).max() > _EXACT:
        raise refuse(f"{field} go up to {labels.max():g}, expected the numbers of classes")
    return labels.astype(np.int64)


def name_list(class_names: Any, refuse: Refusal) -> tuple[str, ...]:
    """Return class names by label; none if none were given.

    A mapping may go from label to name or from name to label, as long as the labels are 0 to Y-1.
    """
    if class_names is None:
        return ()
    if isinstance(class_names, str | bytes) or not isinstance(class_names, Iterable):
        raise refuse(f"class_names are {class_names!r}, expected a list of names")
    if isinstance(class_names, Set):
        raise refuse("class_names are a set, which has no order; expected a list of names")
    if isinstance(class_names, Mapping):
        keys, values = list(class_names), list(class_names.values())
        for labels, found in ((keys, values), (values, keys)):
            if sorted(labels, key=str) == sorted(range(len(labels)), key=str):
                by_label = dict(zip(labels, found, strict=True))
                return _unique([by_label[label] for label in range(len(labels))], refuse)
        raise refuse(f"class_names are a mapping without the labels 0 to {len(keys) - 1}")
    return _unique(list(class_names), refuse)


def classes_of(
    labels: Mapping[str, np.ndarray], names: tuple[str, ...], refuse: Refusal
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the label vectors of "train" and other parts as int64 0 to Y-1, and the Y names."""
    train = labels["train"]
    present = np.unique(train)
    if len(present) < 2:
        raise refuse(f"train_labels hold one class ({present[0]}), expected two or more")
    if len(present) == len(train) > 2 and not names:
        raise refuse(
            f"train_labels hold {len(present)} classes for {len(train)} images, expected some images of each",
            hint="a label is the number or the name of a class, not a measured value",
        )
    if train.dtype.kind == "U" or not names:
        known = names or tuple(map(str, present.tolist()))
        values = np.array(known) if train.dtype.kind == "U" else present
        return {part: _index(own, values, f"{part}_labels", refuse) for part, own in labels.items()}, known
    for part, own in labels.items():
        if own.dtype.kind == "U" or own.min() < 0 or own.max() >= len(names):
            found = "words" if own.dtype.kind == "U" else f"{own.min()} to {own.max()}"
            raise refuse(
                f"{part}_labels: expected 0 to {len(names) - 1} for {len(names)} class_names, found {found}"
            )
    return dict(labels), names


def odd_mode(item: Any) -> str | None:
    """Return the mode of a Pillow image whose numbers are those of a palette or of other colours; else None."""
    mode = getattr(item, "mode", None)
    return mode if mode is not None and hasattr(item, "getbands") and mode not in _PIXEL_MODES else None


def _check_items(items: list[Any], field: str, refuse: Refusal) -> None:
    """Refuse what numpy would make something else of: words among numbers, an image's numbers of colours."""
    words = sum(isinstance(item, str | bytes) for item in items)
    if 0 < words < len(items):
        raise refuse(f"{field} hold words and other things, expected one kind")
    for item in items:
        if (mode := odd_mode(item)) is not None:
            raise refuse(
                f"{field} hold a Pillow image of mode {mode!r}, whose numbers are no grey or RGB",
                hint=CONVERTED,
            )


def _decoded(words: np.ndarray, field: str, refuse: Refusal) -> np.ndarray:
    """Return words of bytes as text."""
    try:
        return np.strings.decode(words, "utf-8")
    except UnicodeDecodeError as error:
        raise refuse(
            f"{field} hold bytes that are not UTF-8: {error.object!r:.60}", hint="give them as text"
        ) from error


def _text(name: Any, refuse: Refusal) -> str:
    """Return a class name as text; of bytes, as pickled or HDF5 files hold them, what they spell."""
    if not isinstance(name, bytes):
        return str(name)
    return str(_decoded(np.array([name]), "class_names", refuse)[0])


def _unique(names: list[Any], refuse: Refusal) -> tuple[str, ...]:
    shown = tuple(_text(name, refuse) for name in names)
    twice = next((name for name in shown if shown.count(name) > 1), None)
    if twice is not None:
        raise refuse(f"class_names hold {twice!r} twice")
    return shown


def _index(labels: np.ndarray, values: np.ndarray, field: str, refuse: Refusal) -> np.ndarray:
    if labels.dtype.kind != values.dtype.kind:
        raise refuse(f"{field} are of another type than train_labels")
    order = np.argsort(values, kind="stable")
    place = np.minimum(np.searchsorted(values[order], labels), len(values) - 1)
    index = order[place]
    wrong = labels[values[index] != labels]
    if len(wrong):
        raise refuse(f"{field} hold {wrong[0]}, which is not among the {len(values)} classes")
    return index.astype(np.int64)
