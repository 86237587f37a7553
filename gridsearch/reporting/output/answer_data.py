"""What trials answered, image by image, packed for the page: each can be opened there, and two be compared.

Trials that were asked about the same images form a group.  For each image and trial one number says which class was
chosen, counted from the right one, so that most are 0.  Kept are the others, and how many zeros are before each; image
by image, since images are easy or hard for all networks alike, they shrink to a fraction of a bit each.  (zlib by
itself takes thirty times as long for the zeros, and more letters.)  N images, T trials, Y classes.
"""

from __future__ import annotations

import base64
import io
import zlib
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gridsearch.reporting.figures.samples import viewable
from gridsearch.reporting.stats.predictions import Predictions, class_labels, confident_mistakes, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.records import StudyData, TrialRecord
    from gridsearch.reporting.ranking.ranking import Ranking

MOST_TRIALS: Final = 300
"""The predictions of more are not read: ten thousand images each take a few milliseconds."""
MOST_LETTERS: Final = 350_000
MOST_PICTURE_LETTERS: Final = 150_000
MOST_PICTURES: Final = 400
MOST_ERRORS: Final = 8
"""Errors of a trial that are shown with their probability, the most confident ones."""
_SIDE: Final = 40
"""Pixels; larger images are made smaller."""
_BLOCK: Final = 8
"""JPEG compresses squares of so many pixels; a picture that begins with one takes no colour from its neighbour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A study whose trials are on the page.

    Attributes:
        predictions: the stored validation predictions of a trial by its number.
        only: the number of the only trial that is; None for all.
    """

    data: StudyData
    ranking: Ranking
    predictions: Callable[[int], Predictions | None]
    only: int | None = None

    def trials(self, most: int) -> list[TrialRecord]:
        """Return the trials, the best first."""
        if self.only is not None:
            return [t for t in self.data.trials if t.number == self.only]
        return [t for p in self.ranking.points for t in p.complete][:most]


@dataclass(slots=True)
class _Group:
    """Trials that were asked about the same images.

    Attributes:
        first: the predictions of the first of them.
        fingerprint: of the data that they were trained on.
        classes: names, by label.
        keys: of the trials, see `answer_data`.
        guesses: the classes that each chose [N].
        errors: the most confident errors of each: the image, and the probability of the class that was chosen.
    """

    first: Predictions
    fingerprint: str
    classes: tuple[str, ...]
    keys: list[str] = field(default_factory=list)
    guesses: list[np.ndarray] = field(default_factory=list)
    errors: list[list[tuple[int, float]]] = field(default_factory=list)

    def add(self, key: str, stored: Predictions) -> None:
        """Add a trial."""
        self.keys.append(key)
        self.guesses.append(stored.guesses)
        mistakes = confident_mistakes(stored, limit=MOST_ERRORS)
        self.errors.append([(m.image, float(f"{m.probability:.4g}")) for m in mistakes])

    def table(self) -> np.ndarray:
        """Return for each image and trial the chosen class, counted from the right one [N, T]."""
        classes = self.first.logits.shape[1]
        guesses_NT = np.stack(self.guesses, axis=1)
        table: np.ndarray = ((guesses_NT - self.first.labels[:, None]) % classes).astype(_whole(classes))
        return table


def answer_data(sides: Sequence[Asked], *, pixels: np.ndarray | None = None) -> dict[str, Any] | None:
    """Return the answers of the best trials, by the images that they were asked about; None without any.

    A trial goes by its key, "0:7": trial 7 of the first study.

    Args:
        sides: the studies, in the order in which the page has them.
        pixels: the training images [N, C, H, W] of the first study's winner, which the predictions of all that were
            trained on them point into; None without.
    """
    from gridsearch.reporting.stats.reliability import reliability  # brings scipy

    groups: dict[bytes, _Group] = {}
    bins: dict[str, list[list[float]]] = {}
    most = MOST_TRIALS // max(1, len(sides))
    by_side = [[(place, side, t) for t in side.trials(most)] for place, side in enumerate(sides)]
    for each in zip_longest(*by_side):  # the best of each study first
        for place, side, trial in filter(None, each):
            stored = usable(side.predictions, trial.number)
            if stored is None:
                continue
            data = trial.settings.data_fingerprint
            names = class_labels(side.data.classes_of(trial.settings), stored.logits.shape[1])
            key = f"{place}:{trial.number}"
            groups.setdefault(_images_of(stored, trial), _Group(stored, data, names)).add(key, stored)
            bins[key] = [b.to_json() for b in reliability(stored)]
    if not groups:
        return None
    letters = MOST_LETTERS
    packed = []
    first = next(iter(groups.values())).fingerprint
    share = sum(group.fingerprint == first for group in groups.values())
    for group in groups.values():
        shown = _packed(group, letters)
        if pixels is not None and group.fingerprint == first and group.first.indices is not None:
            shown["pictures"] = _pictures(group, len(shown["trials"]), pixels, share)
        letters -= sum(map(len, shown["guesses"]))
        packed.append(shown)
    return {"groups": packed, "bins": bins}


def _images_of(stored: Predictions, trial: TrialRecord) -> bytes:
    """Return what is the same for trials that were asked about the same images."""
    places = b"" if stored.indices is None else stored.indices.astype("<i8").tobytes()
    head = f"{trial.settings.data_fingerprint} {stored.logits.shape}".encode()
    return b" ".join((head, stored.labels.astype("<i8").tobytes(), places))


def _packed(group: _Group, letters: int) -> dict[str, Any]:
    """Return a group with as many of its trials as so many letters hold, the best ones."""
    table_NT = group.table()
    count = len(group.keys)
    guesses = _sparse(table_NT)
    while (size := sum(map(len, guesses))) > letters and count > 1:
        count = max(1, min(count - 1, int(count * letters / size)))
        guesses = _sparse(table_NT[:, :count])
    first = group.first
    classes = first.logits.shape[1]
    return {
        "classes": group.classes,
        "images": len(first.labels),
        "bytes": table_NT.itemsize,
        "labels": _deflated(first.labels.astype(_whole(classes))),
        "places": None if first.indices is None else _deflated(first.indices.astype("<u4")),
        "trials": group.keys[:count],
        "errors": group.errors[:count],
        "guesses": guesses,
        "pictures": None,
    }


def _whole(classes: int) -> str:
    return "<u1" if classes <= 256 else "<u2"


def _deflated(values: np.ndarray) -> str:
    """Return numbers as the browser inflates them: zlib, in base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 6)).decode()


def _sparse(table_NT: np.ndarray) -> tuple[str, str]:
    """Return how many zeros are before each other number of a table, row by row, and these; 255: so many, and more."""
    flat = table_NT.ravel()
    places = np.flatnonzero(flat)
    zeros = np.diff(places, prepend=-1) - 1
    whole = zeros // 255
    counts = np.full(len(zeros) + int(whole.sum()), 255, dtype=np.uint8)
    counts[np.cumsum(whole + 1) - 1] = zeros % 255
    return _deflated(counts), _deflated(flat[places])


def _pictures(group: _Group, count: int, pixels: np.ndarray, share: int) -> dict[str, Any] | None:
    """Return the images on which trials differ most, and those of their most confident errors, in one JPEG.

    None where they never differ, and are never wrong.

    Args:
        group: the trials.
        count: how many of them, from the first.
        pixels: the training images [N, C, H, W].
        share: so many groups share the letters that there are for pictures.
    """
    table_NT, places = group.table()[:, :count], group.first.indices
    assert places is not None
    right_N = (table_NT == 0).sum(axis=1)
    split_N = np.minimum(right_N, table_NT.shape[1] - right_N) + (table_NT != table_NT[:, :1]).any(axis=1)
    for image, _ in (error for own in group.errors[:count] for error in own):
        split_N[image] += 1
    order = np.argsort(-split_N, kind="stable")[: MOST_PICTURES // share]
    chosen = [int(i) for i in order if split_N[i]]
    while chosen:
        small = [_small(pixels[int(places[i])]) for i in chosen]
        sheet, cell, across = _sheet(small)
        if len(sheet) <= MOST_PICTURE_LETTERS // share:
            sizes = [[s.shape[1], s.shape[0]] for s in small]
            alike = sizes[0] if all(size == sizes[0] for size in sizes) else None
            return {
                "source": f"data:image/jpeg;base64,{sheet}",
                "cell": cell,
                "across": across,
                "size": alike,
                "sizes": None if alike else sizes,
                "images": chosen,
            }
        chosen = chosen[: len(chosen) * 3 // 4]
    return None


def _small(image: np.ndarray) -> np.ndarray:
    """Return an image as uint8 [H, W, 3] of at most so many pixels."""
    from PIL import Image

    shown = Image.fromarray(viewable(image))
    if max(shown.size) > _SIDE:
        shown.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return np.asarray(shown)


def _sheet(images: Sequence[np.ndarray]) -> tuple[str, int, int]:
    """Return images in rows on one sheet as JPEG in base64, the pixels of a place on it, and how many are in a row."""
    from PIL import Image

    cell = _BLOCK * -(-max(max(i.shape[:2]) for i in images) // _BLOCK)
    across = min(20, len(images))
    sheet = np.zeros((cell * -(-len(images) // across), cell * across, 3), dtype=np.uint8)
    for place, image in enumerate(images):
        y, x = cell * (place // across), cell * (place % across)
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    grey = bool((sheet[..., 0] == sheet[..., 1]).all() and (sheet[..., 0] == sheet[..., 2]).all())
    out = io.BytesIO()
    Image.fromarray(sheet[..., 0] if grey else sheet).save(out, "JPEG", quality=80, subsampling=0)
    return base64.b64encode(out.getvalue()).decode(), cell, across
