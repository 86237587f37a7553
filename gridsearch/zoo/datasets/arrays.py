"""Brings whatever a dataset returned into the one form that training takes, or refuses it in one line."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gridsearch.errors import nearest
from gridsearch.plugins import ImageData
from gridsearch.zoo.datasets.checks import DARK
from gridsearch.zoo.datasets.class_labels import Refusal, as_array, classes_of, label_vector, name_list

_PARTS = ("train", "val", "test")
_FIELDS = (
    *(f"{part}_{what}" for part in _PARTS for what in ("images", "labels")),
    *("class_names", "notes", "val_indices", "groups"),
)
_REQUIRED = ("train_images", "train_labels")

_SAME_WORDS = {
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("valid", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("testing", "tests"), "test"),
    **dict.fromkeys(("image", "img", "imgs", "x", "data", "pixels"), "images"),
    **dict.fromkeys(("label", "target", "targets", "y"), "labels"),
    **dict.fromkeys(("index", "indexes", "idx"), "indices"),
    **dict.fromkeys(("group",), "groups"),
}
"""Words that other programs have in the names of fields, and ours."""
_ALIKE = 0.8
"""From which share of common letters on a name is taken for a misspelt one: `test_ids` is 0.74 of `test_images`."""

_MOST_CHANNELS = 4
_ROUNDING = 1e-4
"""How far beyond 0 and 1 fractions lie that were resized or normalized and brought back."""


def image_data(result: object, *, name: str) -> ImageData:
    """Return a dataset's result with images [N, C, H, W] and labels 0 to Y-1.

    Images may come as [N, H, W], [N, H, W, C] with at most four channels, or [N, C, H, W]; as numbers 0..255
    of any type (they become uint8), as booleans, or as fractions 0..1 (they become float32).  Labels may be
    any whole numbers or words if no class names are given: then their sorted values are the classes.  What can be
    meant in two ways is refused; what is taken in one of several ways is said in the notes.  Validation images become
    training images, behind the others, and `val_indices` says which these are.

    Args:
        result: an `ImageData`, or an object or mapping with its attributes.
        name: of the dataset, for the refusal.

    Raises:
        DataError: one line, with the dataset's name.
    """
    refuse = Refusal(name)
    given = _fields(result, refuse)
    notes = list(map(str, given["notes"] or ()))
    reading = result.reading if isinstance(result, ImageData) else None
    images = _images(given, refuse, sure=reading is not None)  # made here, and so in the one form
    images = _pixels(images, notes, refuse)
    labels = {
        part: label_vector(given[f"{part}_labels"], f"{part}_labels", len(images[part]), notes, refuse)
        for part in images
    }
    labels, class_names = classes_of(labels, name_list(given["class_names"], refuse), refuse)
    absent = sorted(set(range(len(class_names))) - set(labels["train"].tolist()))
    if absent:
        named = ", ".join(repr(class_names[label]) for label in absent[:5]) + (", ..." if absent[5:] else "")
        notes.append(f"no training image is of class {named}")
    notes += _unread(result)
    train, train_labels = (
        np.concatenate([all_of["train"], all_of["val"]]) if "val" in all_of else all_of["train"]
        for all_of in (images, labels)
    )
    val = np.arange(len(labels["train"]), len(train)) if "val" in images else given["val_indices"]
    return ImageData(
        train_images=train,
        train_labels=train_labels,
        test_images=images.get("test"),
        test_labels=labels.get("test"),
        class_names=class_names,
        notes=tuple(notes),
        reading=reading,
        val_indices=None if val is None else _val_indices(val, len(train), refuse),
        groups=None if given["groups"] is None else _groups(given["groups"], len(train), refuse),
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
    for what, array in (("val", data.val_indices), ("groups", data.groups)):
        if array is not None:  # datasets had neither when stores held trials already
            digest.update(f"{what}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, np.int64).data)
    return digest.hexdigest()


def _fields(result: object, refuse: Refusal) -> dict[str, Any]:
    if isinstance(result, Mapping):
        given = {field: result.get(field) for field in _FIELDS}
    else:
        given = {field: getattr(result, field, None) for field in _FIELDS}
    missing = [field for field in _REQUIRED if given[field] is None]
    _refuse_misspelt(result, given, refuse)
    if missing:
        raise refuse(
            f"gave {type(result).__name__} without {' and '.join(missing)}",
            hint="a dataset returns an object or a mapping with train_images, train_labels "
            "and, if there are any, test_images, test_labels, class_names",
        )
    return given


def _refuse_misspelt(result: object, given: Mapping[str, Any], refuse: Refusal) -> None:
    """Refuse a name that stands for a field which is not there: its images would be left out, and others held out.

    Raises:
        DataError: there is such a name.
    """
    if isinstance(result, ImageData):
        return
    names = [
        str(name) for name in (result if isinstance(result, Mapping) else getattr(result, "__dict__", ()))
    ]
    absent = [field for field in _FIELDS if given[field] is None]
    for name in names:
        if name in _FIELDS or name.startswith("_"):
            continue
        if (field := _meant(name, absent)) is not None:
            raise refuse(f"gave {name!r}, which is not read", hint=f"did you mean {field!r}? Else rename it")


def _meant(name: str, fields: Sequence[str]) -> str | None:
    """Return which of some fields a name stands for: one of the same words in any order, or of nearly its letters."""
    words = [_SAME_WORDS.get(word, word) for word in re.split(r"[^a-z0-9]+", name.lower())]
    same = (field for field in fields if sorted(field.split("_")) == sorted(words))
    close = difflib.get_close_matches("_".join(words), fields, 1, _ALIKE)
    return next(same, close[0] if close else None)


def _images(given: Mapping[str, Any], refuse: Refusal, *, sure: bool) -> dict[str, np.ndarray]:
    """Return the images of each part that is there, all of one shape."""
    for part in _PARTS:
        if (given[f"{part}_images"] is None) != (given[f"{part}_labels"] is None):
            raise refuse(f"{part}_images and {part}_labels must be given together")
    found = {
        part: _layout(value, f"{part}_images", refuse, sure=sure)
        for part in _PARTS
        if (value := given[f"{part}_images"]) is not None
    }
    for part, images in found.items():
        if images.shape[1:] != found["train"].shape[1:]:
            raise refuse(
                f"{part}_images are {_shape(images)}, train_images {_shape(found['train'])}, expected one image shape"
            )
    return found


def _val_indices(value: Any, count: int, refuse: Refusal) -> np.ndarray:
    """Return which training images are validation images, ascending."""
    indices = np.unique(as_array(value, "val_indices", refuse))
    if not len(indices) or indices.dtype.kind not in "iu" or not 0 <= indices[0] <= indices[-1] < count:
        raise refuse(f"val_indices are not places among the {count} train_images")
    if len(indices) == count:
        raise refuse("all images are validation images, and none is left to train on")
    return indices.astype(np.int64)


def _groups(value: Any, count: int, refuse: Refusal) -> np.ndarray:
    """Return the group of each training image, then of each validation image, as 0 to G-1."""
    groups = as_array(value, "groups", refuse)
    if groups.shape != (count,):
        raise refuse(
            f"groups have the shape {groups.shape}, expected [{count}], one for each training image and then for each "
            "validation image, where there are such"
        )
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


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


def _pixels(parts: dict[str, np.ndarray], notes: list[str], refuse: Refusal) -> dict[str, np.ndarray]:
    """Return all parts as uint8 (0..255) or all as float32 (0..1), by the range of all."""
    all_of = list(parts.values())
    if all(part.dtype == bool for part in all_of):
        return {part: images.astype(np.uint8) * 255 for part, images in parts.items()}
    low, high = min(part.min() for part in all_of), max(part.max() for part in all_of)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise refuse("images hold NaN or infinite pixels")
    if (low < 0 or high > 1) and low >= -_ROUNDING and high <= 1 + _ROUNDING:
        parts = {part: images.clip(0, 1) for part, images in parts.items()}
        all_of, low, high = list(parts.values()), max(low, 0), min(high, 1)
    if low < 0 or high > 255:
        hint = "give them as they were before they were normalized: `norm` does that for each trial"
        if low >= 0:  # more than 8 bits: what white is differs from camera to camera
            hint = "divide all of them by the value that white has (65535 where images use 16 bits, 4095 where 12)"
        raise refuse(f"pixels go from {low:g} to {high:g}, expected 0 to 255, or 0 to 1", hint=hint)
    tops = {part: float(images.max()) for part, images in parts.items()}
    floats = any(np.issubdtype(part.dtype, np.floating) for part in all_of)
    if min(tops.values()) <= 1 < high and (floats or len({part.dtype for part in all_of}) > 1):
        shown = " and ".join(f"{part}_images up to {top:g}" for part, top in tops.items())
        raise refuse(f"{shown.replace('up', 'go up', 1)}, expected one scale")
    kind: type[np.generic]
    if floats and high <= 1:
        kind = np.float32
    elif all(
        not np.issubdtype(part.dtype, np.floating) or np.array_equal(part, np.trunc(part)) for part in all_of
    ):
        kind = np.uint8
        if floats:
            notes.append(f"pixels are floating-point numbers from {low:g} to {high:g}: taken as of 255")
        if high <= DARK:
            notes.append(
                f"pixels are whole numbers up to {high:g} of 255, so images are all but black; for other scales "
                "give fractions 0 to 1, or booleans"
            )
    else:
        hint = "divide them by 255" if high >= 2 else "clip them: images.clip(0, 1)"
        raise refuse(f"pixels are fractions up to {high:g}, expected 0 to 1", hint=hint)
    channels = all_of[0].shape[1]
    if channels not in (1, 3):
        notes.append(f"images have {channels} channels; all of them are trained on")
    return {part: np.ascontiguousarray(images, kind) for part, images in parts.items()}


def _shape(images: np.ndarray) -> str:
    return "x".join(map(str, images.shape[1:]))
