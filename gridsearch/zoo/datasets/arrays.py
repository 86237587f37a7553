"""Brings whatever a dataset returned into the one form that training takes, or refuses it in one line."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gridsearch.errors import nearest
from gridsearch.plugins import ImageData
from gridsearch.zoo.datasets.class_labels import Refusal, as_array, classes_of, label_vector, name_list

_FIELDS = ("train_images", "train_labels", "test_images", "test_labels", "class_names", "notes")
_REQUIRED = ("train_images", "train_labels")

_MOST_CHANNELS = 4
_DARK = 31
"""Of 255; images whose brightest pixel is no brighter may have been meant on another scale."""


def image_data(result: object, *, name: str) -> ImageData:
    """Return a dataset's result with images [N, C, H, W] and labels 0 to Y-1.

    Images may come as [N, H, W], [N, H, W, C] with at most four channels, or [N, C, H, W]; as numbers 0..255
    of any type (they become uint8), as booleans, or as fractions 0..1 (they become float32).  Labels may be
    any whole numbers or words if no class names are given: then their sorted values are the classes.  What can be
    meant in two ways is refused; what is taken in one of several ways is said in the notes.

    Args:
        result: an `ImageData`, or an object or mapping with its attributes.
        name: of the dataset, for the refusal.

    Raises:
        DataError: one line, with the dataset's name.
    """
    refuse = Refusal(name)
    given = _fields(result, refuse)
    notes = list(map(str, given["notes"] or ()))
    has_test = given["test_images"] is not None
    if has_test != (given["test_labels"] is not None):
        raise refuse("test_images and test_labels must be given together")
    reading = result.reading if isinstance(result, ImageData) else None
    sure = reading is not None  # made here, and so in the one form
    train = _layout(given["train_images"], "train_images", refuse, sure=sure)
    test = _layout(given["test_images"], "test_images", refuse, sure=sure) if has_test else None
    if test is not None and test.shape[1:] != train.shape[1:]:
        raise refuse(
            f"test_images are {_shape(test)}, train_images {_shape(train)}, expected one image shape"
        )
    train, test = _pixels(train, test, notes, refuse)
    labels = label_vector(given["train_labels"], "train_labels", len(train), notes, refuse)
    test_labels = (
        label_vector(given["test_labels"], "test_labels", len(test), notes, refuse)
        if test is not None
        else None
    )
    names = name_list(given["class_names"], refuse)
    labels, test_labels, class_names = classes_of(labels, test_labels, names, refuse)
    absent = sorted(set(range(len(class_names))) - set(labels.tolist()))
    if absent:
        named = ", ".join(repr(class_names[label]) for label in absent[:5]) + (", ..." if absent[5:] else "")
        notes.append(f"no training image is of class {named}")
    notes += _unread(result)
    return ImageData(
        train_images=train,
        train_labels=labels,
        test_images=test,
        test_labels=test_labels,
        class_names=class_names,
        notes=tuple(notes),
        reading=reading,
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


def _fields(result: object, refuse: Refusal) -> dict[str, Any]:
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


def _unread(result: object) -> list[str]:
    """Say which fields of a mapping are not read: a misspelt name must not drop a test set without a word."""
    keys = list(map(str, result)) if isinstance(result, Mapping) else []
    return [
        f"field {key!r} of the dataset is not read{nearest(key, _FIELDS)}"
        for key in keys
        if key not in _FIELDS
    ]


def _layout(value: Any, field: str, refuse: Refusal, *, sure: bool) -> np.ndarray:
    """Return images as [N, C, H, W]."""
    images = as_array(value, field, refuse)
    form = "expected [N, H, W], [N, C, H, W] or [N, H, W, C]"
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and not sure:
        first, last = images.shape[1] <= _MOST_CHANNELS, images.shape[3] <= _MOST_CHANNELS
        if last and (first or images.shape[2] <= _MOST_CHANNELS) and images.shape[1] != 1:
            raise refuse(
                f"{field} have the shape {images.shape}: [N, C, H, W] or [N, H, W, C]?",
                hint="images of so few pixels can be meant either way; enlarge them, or give grey as [N, H, W]",
            )
        if last and not first:
            images = images.transpose(0, 3, 1, 2)
    elif images.ndim != 4:
        hint = "reshape them: a row of pixels does not say its height" if images.ndim == 2 else None
        raise refuse(f"{field} have the shape {images.shape}, {form}", hint=hint)
    if 0 in images.shape:
        raise refuse(f"{field} have the shape {images.shape}: there is nothing in them")
    if not (np.issubdtype(images.dtype, np.number) or images.dtype == bool) or np.iscomplexobj(images):
        raise refuse(f"{field} are of type {images.dtype}, expected numbers")
    return images


def _pixels(
    train: np.ndarray, test: np.ndarray | None, notes: list[str], refuse: Refusal
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return both as uint8 (0..255) or both as float32 (0..1), by the range of both."""
    both = [part for part in (train, test) if part is not None]
    if all(part.dtype == bool for part in both):
        return train.astype(np.uint8) * 255, None if test is None else test.astype(np.uint8) * 255
    low, high = min(part.min() for part in both), max(part.max() for part in both)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise refuse("images hold NaN or infinite pixels")
    if low < 0 or high > 255:
        raise refuse(
            f"pixels go from {low:g} to {high:g}, expected 0 to 255, or 0 to 1",
            hint="give them as they were before they were normalized: `norm` does that for each trial",
        )
    tops = [float(part.max()) for part in both]
    floats = any(np.issubdtype(part.dtype, np.floating) for part in both)
    if min(tops) <= 1 < max(tops) and (floats or len({part.dtype for part in both}) > 1):
        raise refuse(
            f"train_images go up to {tops[0]:g} and test_images up to {tops[1]:g}, expected one scale"
        )
    kind: type[np.generic]
    if floats and high <= 1:
        kind = np.float32
    elif all(
        not np.issubdtype(part.dtype, np.floating) or np.array_equal(part, np.trunc(part)) for part in both
    ):
        kind = np.uint8
        if floats:
            notes.append(f"pixels are floating-point numbers from {low:g} to {high:g}: taken as of 255")
        if high <= _DARK:
            notes.append(
                f"pixels are whole numbers up to {high:g} of 255, so images are all but black; for other scales "
                "give fractions 0 to 1, or booleans"
            )
    else:
        raise refuse(f"pixels are fractions up to {high:g}, expected 0 to 1", hint="divide them by 255")
    if train.shape[1] not in (1, 3):
        notes.append(f"images have {train.shape[1]} channels; all of them are trained on")
    return np.ascontiguousarray(train, kind), None if test is None else np.ascontiguousarray(test, kind)


def _shape(images: np.ndarray) -> str:
    return "x".join(map(str, images.shape[1:]))
