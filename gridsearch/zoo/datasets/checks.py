"""What puts the results of a dataset in doubt, seen from its images and labels before anything is trained.

Two images are the same if all their pixels are, as the network gets them: of another file, name or format, or
of another size once both were resized.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

UNEVEN = 1.5
"""Times its fair share (an even split of all images) from which a class's share is reported as a constant answer's."""

DARK = 31
"""Of 255; images whose brightest pixel is no brighter may have been meant on another scale."""

_NAMED = 3

_MISSING = frozenset({"None", "NA", "-", "--", "?", "\\N"})
_MISSING_WORDS = frozenset({"null", "n/a", "nil", "unlabeled", "unlabelled"})
"""Labels that stand for none, exactly so and in any case; "none" and "unknown" name a class as often as not."""

_Where = tuple[bool, int]
"""Whether an image is of the test set, and its place there."""

Name = Callable[[bool, int], str]
"""Gives an image's name by whether it is of the test set, and its place there."""


def cautions(
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    name: Name | None = None,
    val: Sequence[int] = (),
) -> tuple[str, ...]:
    """Return what puts results in doubt, in sentences.

    Args:
        parts: images [N, C, H, W] and labels [N] of the training set and, if there is one, of the test set.
        class_names: by label.
        name: gives an image's name where images have one.
        val: which of the training set are the dataset's own validation images.
    """
    found = [*_alike_names(parts, class_names), *_missing_names(parts, class_names), _constant(parts)]
    found += _same(parts, class_names, name, set(val))
    found += _absent(parts, class_names, set(val))
    found += [_few(parts, class_names), majority(parts[0][1], class_names)]
    return tuple(words for words in found if words)


def majority(labels: np.ndarray, class_names: Sequence[str]) -> str:
    """Return what a constant answer would get right where classes are uneven enough for that, else ""."""
    counts = np.bincount(labels, minlength=len(class_names))
    top = int(counts.argmax())
    share = counts[top] / max(1, counts.sum())
    if share * np.count_nonzero(counts) < UNEVEN:
        return ""
    return (
        f"always answering {class_names[top]!r} would be right for {100 * share:.3g} % of the training images: "
        "that is the accuracy to beat"
    )


def _alike_names(parts: Sequence[tuple[np.ndarray, np.ndarray]], class_names: Sequence[str]) -> list[str]:
    """Say which class names mean the same to a reader: they differ in case, spaces, accents' form or digits alone."""
    counts = np.bincount(np.concatenate([labels for _, labels in parts]), minlength=len(class_names))
    alike: dict[object, list[int]] = defaultdict(list)
    for label, name in enumerate(class_names):
        alike[_meaning(name)].append(label)
    found = []
    for labels in alike.values():
        if len(labels) > 1:
            names = sorted((class_names[label], int(counts[label])) for label in labels)
            shown = " and ".join(f"{name!r} ({count})" for name, count in names)
            only_case = len({name.casefold() for name, _ in names}) == 1
            how = "differ in upper and lower case alone" if only_case else "look alike"
            found.append(f"labels {shown} {how}, and are several classes")
    return found


def _missing_names(parts: Sequence[tuple[np.ndarray, np.ndarray]], class_names: Sequence[str]) -> list[str]:
    """Say which class names other programs write where a label is missing: a -1 beside numbers from 0 on among them."""
    counts = np.bincount(np.concatenate([labels for _, labels in parts]), minlength=len(class_names))
    numbered = all(name.isdecimal() for name in class_names if name != "-1")
    return [
        f"label {name!r} ({counts[label]}) often stands for no label, and is a class here: if so, take its images out"
        for label, name in enumerate(class_names)
        if name in _MISSING or name.casefold() in _MISSING_WORDS or (name == "-1" and numbered)
    ]


def _meaning(name: str) -> object:
    """Return what a reader takes a label for: the number that it spells, else its letters in one form."""
    with suppress(ValueError):
        return float(name)
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _constant(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    count = sum(
        int((rows == rows[:, :1]).all(axis=1).sum())
        for images, _ in parts
        for start in range(0, len(images), 1024)
        for rows in [images[start : start + 1024].reshape(len(images[start : start + 1024]), -1)]
    )
    total = sum(len(images) for images, _ in parts)
    return (
        f"{count} of {total} images {'is' if count == 1 else 'are'} of one colour throughout" if count else ""
    )


def _same(
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    name: Name | None,
    val: set[int],
) -> list[str]:
    """Say which images are the same as others: in two classes, in training and test, or otherwise."""
    two_classes: list[list[_Where]] = []
    copies: list[list[_Where]] = []
    leaked: dict[str, list[tuple[list[_Where], list[_Where]]]] = defaultdict(list)
    for places in _alike(parts):
        labels = {int(parts[test][1][i]) for test, i in places}
        test = [place for place in places if place[0]]
        held = [place for place in places if not place[0] and place[1] in val]
        trained = [place for place in places if not place[0] and place[1] not in val]
        if len(labels) > 1:
            two_classes.append(places)
        if test and len(test) < len(places):
            leaked["test"].append((test, [place for place in places if not place[0]]))
        if held and trained:
            leaked["validation"].append((held, trained))
        elif not test and len(labels) == 1:
            copies.append(places)
    found = []
    if two_classes:
        classes = sorted({int(parts[test][1][i]) for test, i in two_classes[0]})
        shown = " and ".join(repr(class_names[label]) for label in classes[:_NAMED])
        found.append(_two_classes_text(two_classes, _example(two_classes[0], name) or shown))
    for which, cases in leaked.items():
        of = len(parts[1][1]) if which == "test" else len(val)
        found.append(_leak_text(which, cases, of, name))
    if copies:
        found.append(_copies_text(copies, name))
    return found


def _alike(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[list[_Where]]:
    """Return where images lie that are the same, of those that are there more than once."""
    where: dict[bytes, list[_Where]] = defaultdict(list)
    for part, (images, _) in enumerate(parts):
        for i, image in enumerate(images):
            digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
            where[digest].append((bool(part), i))
    return [places for places in where.values() if len(places) > 1]


def _two_classes_text(cases: Sequence[list[_Where]], example: str) -> str:
    count = sum(map(len, cases))
    return f"{count} images lie in two classes or more ({example}): no network can get all of them right"


def _leak_text(
    which: str, cases: Sequence[tuple[list[_Where], list[_Where]]], of: int, name: Name | None
) -> str:
    """Write how many images of a split, of so many, are trained on too."""
    count = sum(len(held) for held, _ in cases)
    held, trained = cases[0]
    example = _example([held[0], trained[0]], name)
    are = "is a training image" if count == 1 else "are training images"
    return (
        f"{count} of {of} {which} images {are} too"
        f"{f' ({example})' if example else ''}: the {which} accuracy will be better than on new images"
    )


def _copies_text(cases: Sequence[list[_Where]], name: Name | None) -> str:
    count = sum(len(places) - 1 for places in cases)
    example = _example(cases[0], name)
    are = "image is a copy of another" if count == 1 else "images are copies of others"
    return (
        f"{count} training {are}{f' ({example})' if example else ''}: validation images may "
        "be among those trained on"
    )


def _absent(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], class_names: Sequence[str], val: set[int]
) -> list[str]:
    """Say of which classes that are trained on the dataset's own test or validation images hold none."""
    labels = parts[0][1].tolist()
    trained = {label for i, label in enumerate(labels) if i not in val}
    held = {"test": set(parts[1][1].tolist())} if len(parts) > 1 else {}
    held |= {"validation": {labels[i] for i in val}} if val else {}
    found = []
    for which, present in held.items():
        if absent := sorted(trained - present):
            names = ", ".join(repr(class_names[label]) for label in absent[:_NAMED])
            more = f" and {len(absent) - _NAMED} more" if absent[_NAMED:] else ""
            found.append(
                f"no {which} image is of class {names}{more}: the {which} accuracy says nothing about "
                f"{'it' if len(absent) == 1 else 'them'}"
            )
    return found


def _example(places: Sequence[_Where], name: Name | None) -> str:
    return "" if name is None else " is ".join(name(test, i) for test, i in places[:2])


def _few(parts: Sequence[tuple[np.ndarray, np.ndarray]], class_names: Sequence[str]) -> str:
    """Say which classes have too few images for one in every split."""
    counts = Counter(parts[0][1].tolist())
    need, splits = (2, "training and validation") if len(parts) > 1 else (3, "training, validation and test")
    few = [label for label in range(len(class_names)) if counts[label] < need]
    if not few:
        return ""
    shown = ", ".join(f"{class_names[label]!r} {counts[label]}" for label in few[:_NAMED])
    more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
    return f"too few images for one each in {splits}: {shown}{more}"
