"""Brings whatever a dataset returned into the one form that training takes, or refuses it in one line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gridsearch.errors import DataError
from gridsearch.plugins import ImageData

_FIELDS = ("train_images", "train_labels", "test_images", "test_labels", "class_names", "notes")
_REQUIRED = ("train_images", "train_labels")


def image_data(result: object, *, name: str) -> ImageData:
    """Return a dataset's result with images [N, C, H, W] and labels 0 to Y-1.

    Images may come as [N, H, W], [N, H, W, C] with at most four channels, or [N, C, H, W]; as numbers 0..255
    of any type (they become uint8), as booleans, or as fractions 0..1 (they become float32).  Labels may be
    any whole numbers or words if no class names are given: then their sorted values are the classes.

    Args:
        result: an `ImageData`, or an object or mapping with its attributes.
        name: of the dataset, for the refusal.

    Raises:
        DataError: one line, with the dataset's name.
    """
    refuse = _Refusal(name)
    given = _fields(result, refuse)
    has_test = given["test_images"] is not None
    if has_test != (given["test_labels"] is not None):
        raise refuse("test_images and test_labels must be given together")
    train = _layout(given["train_images"], "train_images", refuse)
    test = _layout(given["test_images"], "test_images", refuse) if has_test else None
    if test is not None and test.shape[1:] != train.shape[1:]:
        raise refuse(
            f"test_images are {_shape(test)}, train_images {_shape(train)}, expected one image shape"
        )
    train, test = _pixels(train, test, refuse)
    labels = _vector(given["train_labels"], "train_labels", len(train), refuse)
    test_labels = (
        _vector(given["test_labels"], "test_labels", len(test), refuse) if test is not None else None
    )
    labels, test_labels, class_names = _classes(labels, test_labels, given["class_names"], refuse)
    return ImageData(
        train_images=train,
        train_labels=labels,
        test_images=test,
        test_labels=test_labels,
        class_names=class_names,
        notes=tuple(map(str, given["notes"] or ())),
        reading=result.reading if isinstance(result, ImageData) else None,
    )


def fingerprint_of(data: ImageData) -> str:
    """Return the SHA-256 over the images and labels: their types, shapes and bytes."""
    digest = hashlib.sha256()
    for array in (data.train_images, data.train_labels, data.test_images, data.test_labels):
        if array is None:
            digest.update(b"none")
        else:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Makes the errors of one dataset."""

    name: str

    def __call__(self, problem: str, *, hint: str | None = None) -> DataError:
        return DataError(f"dataset {self.name!r}: {problem}", hint=hint)


def _fields(result: object, refuse: _Refusal) -> dict[str, Any]:
    if isinstance(result, Mapping):
        given = {field: result.get(field) for field in _FIELDS}
    else:
        given = {field: getattr(result, field, None) for field in _FIELDS}
    missing = [field for field in _REQUIRED if given[field] is None]
    if missing:
        raise refuse(
            f"gave {type(result).__name__} without {' and '.join(missing)}",
            hint="a dataset returns an object or a mapping with train_images, train_labels "
            "and, if there are any, test_images, test_labels, class_names",
        )
    return given


def _array(value: Any, field: str, refuse: _Refusal) -> np.ndarray:
    try:
        if hasattr(value, "detach"):  # a torch tensor, wherever it lies
            value = value.detach().cpu().numpy()
        elif not isinstance(value, np.ndarray) and not hasattr(value, "__array__"):
            value = [np.asarray(item) for item in value]
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise refuse(f"{field} do not make one array: {' '.join(str(error).split())}") from error
    if array.dtype == object:
        raise refuse(f"{field} do not make one array of numbers")
    return array


def _layout(value: Any, field: str, refuse: _Refusal) -> np.ndarray:
    """Return images as [N, C, H, W]."""
    images = _array(value, field, refuse)
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] <= 4 < images.shape[1]:
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim != 4:
        raise refuse(
            f"{field} have the shape {images.shape}, expected [N, H, W], [N, C, H, W] or [N, H, W, C]"
        )
    if 0 in images.shape:
        raise refuse(f"{field} have the shape {images.shape}: there is nothing in them")
    if not (np.issubdtype(images.dtype, np.number) or images.dtype == bool) or np.iscomplexobj(images):
        raise refuse(f"{field} are of type {images.dtype}, expected numbers")
    return images


def _pixels(
    train: np.ndarray, test: np.ndarray | None, refuse: _Refusal
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return both as uint8 (0..255) or both as float32 (0..1), after one look at the range of both."""
    both = [part for part in (train, test) if part is not None]
    if all(part.dtype == np.uint8 for part in both):
        return np.ascontiguousarray(train), None if test is None else np.ascontiguousarray(test)
    if all(part.dtype == bool for part in both):
        return train.astype(np.uint8) * 255, None if test is None else test.astype(np.uint8) * 255
    low, high = min(part.min() for part in both), max(part.max() for part in both)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise refuse("images hold NaN or infinite pixels")
    if low < 0 or high > 255:
        raise refuse(f"pixels go from {low:g} to {high:g}, expected 0 to 255, or 0 to 1")
    tops = [part.max() for part in both]
    if len({part.dtype for part in both}) > 1 and min(tops) <= 1 < max(tops):
        raise refuse(
            f"train_images go up to {tops[0]:g} and test_images up to {tops[1]:g}, expected one scale"
        )
    kind: type[np.generic]
    if any(np.issubdtype(part.dtype, np.floating) for part in both) and high <= 1:
        kind = np.float32
    elif all(np.array_equal(part, np.trunc(part)) for part in both):
        kind = np.uint8
    else:
        raise refuse(f"pixels are fractions up to {high:g}, expected 0 to 1", hint="divide them by 255")
    return np.ascontiguousarray(train, kind), None if test is None else np.ascontiguousarray(test, kind)


def _vector(value: Any, field: str, count: int, refuse: _Refusal) -> np.ndarray:
    """Return labels as [N]: int64, or words."""
    labels = _array(value, field, refuse)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise refuse(f"{field} have the shape {labels.shape}, expected [N], one class for each image")
    if len(labels) != count:
        raise refuse(f"{field} are {len(labels)}, expected {count}, one for each image")
    if labels.dtype.kind in "US":
        return labels.astype(str)
    if not (labels.dtype == bool or np.issubdtype(labels.dtype, np.number)) or np.iscomplexobj(labels):
        raise refuse(f"{field} are of type {labels.dtype}, expected whole numbers")
    if np.issubdtype(labels.dtype, np.floating) and not np.array_equal(labels, np.trunc(labels)):
        raise refuse(f"{field} hold fractions or NaN, expected whole numbers")
    return labels.astype(np.int64)


def _classes(
    train: np.ndarray, test: np.ndarray | None, class_names: Iterable[object] | None, refuse: _Refusal
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Return both label vectors as int64 0 to Y-1, and the Y names."""
    names = () if class_names is None else tuple(map(str, class_names))
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise refuse(f"class_names hold {twice!r} twice")
    present = np.unique(train)
    if len(present) < 2:
        raise refuse(f"train_labels hold one class ({present[0]}), expected two or more")
    if train.dtype.kind == "U" or not names:
        known = names or tuple(map(str, present.tolist()))
        values = np.array(known) if train.dtype.kind == "U" else present
        return _index(train, values, "train_labels", refuse), _maybe_index(test, values, refuse), known
    for field, labels in (("train_labels", train), ("test_labels", test)):
        if labels is not None and (
            labels.dtype.kind == "U" or labels.min() < 0 or labels.max() >= len(names)
        ):
            found = "words" if labels.dtype.kind == "U" else f"{labels.min()} to {labels.max()}"
            raise refuse(
                f"{field}: expected 0 to {len(names) - 1} for {len(names)} class_names, found {found}"
            )
    return train, test, names


def _index(labels: np.ndarray, values: np.ndarray, field: str, refuse: _Refusal) -> np.ndarray:
    if labels.dtype.kind != values.dtype.kind:
        raise refuse(f"{field} are of another type than train_labels")
    order = np.argsort(values, kind="stable")
    place = np.minimum(np.searchsorted(values[order], labels), len(values) - 1)
    index = order[place]
    wrong = labels[values[index] != labels]
    if len(wrong):
        raise refuse(f"{field} hold {wrong[0]}, which is not among the {len(values)} classes")
    return index.astype(np.int64)


def _maybe_index(labels: np.ndarray | None, values: np.ndarray, refuse: _Refusal) -> np.ndarray | None:
    return None if labels is None else _index(labels, values, "test_labels", refuse)


def _shape(images: np.ndarray) -> str:
    return "x".join(map(str, images.shape[1:]))
