"""From a trial's stored validation predictions to its confusion matrix, per-class results and confused pairs.

N images, Y classes.  Needs numpy alone.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gridsearch.errors import ArtifactError, escaped
from gridsearch.reporting.words.text import plural, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_LOST: Final = 0.005
"""Share of images of which an earlier version may have lost the class in rounding."""
MOST_KEPT: Final = 200 * 2**20
"""Bytes of predictions that a report keeps from one of its stages to the next."""
_MISSING: Final = frozenset(
    {
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
        *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    }
)
"""Words that `pandas.read_csv` takes for a missing value; no word at all is one of them."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Predictions:
    """What a trial's network said about the validation images.

    Attributes:
        logits: float [N, Y].
        labels: int [N], the true classes, 0 to Y-1.
        indices: int [N], each image's place in the training set; None where that was not stored.
        predicted: int [N], the classes that the network chose; None where an earlier version did not store them.
    """

    logits: np.ndarray
    labels: np.ndarray
    indices: np.ndarray | None = None
    predicted: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.labels.shape != self.logits.shape[:1]:
            raise ValueError(
                f"logits {self.logits.shape} and labels {self.labels.shape} are not [N, Y] and [N]"
            )
        if self.indices is not None and self.indices.shape != self.labels.shape:
            raise ValueError(f"indices {self.indices.shape} are not [N] as the labels {self.labels.shape}")
        if self.predicted is not None and self.predicted.shape != self.labels.shape:
            raise ValueError(f"predicted {self.predicted.shape} is not [N] as the labels {self.labels.shape}")
        self._require_classes("labels", self.labels)
        if self.predicted is not None:
            self._require_classes("predicted classes", self.predicted)

    def __repr__(self) -> str:
        """Return one line: how many images of how many classes, and the share that was classified correctly."""
        images, classes = self.logits.shape
        right = f", {100 * self.right.mean():.2f} % right" if images else ""
        return f"<Predictions: {plural(images, 'image')}, {classes:,} classes{right}>"

    def _require_classes(self, what: str, classes: np.ndarray) -> None:
        if classes.size and not 0 <= classes.min() <= classes.max() < self.logits.shape[1]:
            raise ValueError(f"{what} outside 0..{self.logits.shape[1] - 1}")

    @property
    def guesses(self) -> np.ndarray:
        """The class that the network chose for each image, int [N]; without `predicted` that of the largest logit."""
        chosen = self.logits.argmax(axis=1) if self.predicted is None else self.predicted
        return chosen.astype(np.int64)

    @property
    def right(self) -> np.ndarray:
        """Whether each image's class was recognised, bool [N]."""
        right: np.ndarray = self.guesses == self.labels
        return right


@dataclass(frozen=True, slots=True)
class Confusion:
    """One way of being wrong: images of class `true` that were taken for class `predicted`.

    Attributes:
        count: how many.
        images: how many images of class `true` there are.
        words: "Shirt taken for T-shirt/top, 10.9 %".
    """

    true: int
    predicted: int
    count: int
    images: int
    words: str

    @property
    def share(self) -> float:
        """The share of the class's images."""
        return self.count / self.images


@dataclass(frozen=True, slots=True)
class Mistake:
    """One image that was taken for another class.

    Attributes:
        image: its position among the predictions.
        probability: what the network gave the class that it chose, 0 to 1.
    """

    image: int
    true: int
    predicted: int
    probability: float


@dataclass(frozen=True, slots=True)
class ClassResult:
    """How well one class is recognised; None where there is nothing to divide by.

    Attributes:
        images: how many images of the class there are.
        recall: share of them that were recognised.
        precision: share right among the images that were taken for the class.
        f1: harmonic mean of the two.
        taken_for: the class that its images were most often mistaken for, "" if none were.
    """

    name: str
    images: int
    correct: int
    recall: float | None
    precision: float | None
    f1: float | None
    taken_for: str


def usable(predictions: Callable[[int], Predictions | None], number: int) -> Predictions | None:
    """Read a trial's predictions; None where it has none, or where they are gone or damaged."""
    try:
        found = predictions(number)
    except (ArtifactError, OSError, ValueError):
        return None
    return found if found is not None and len(found.labels) else None


def kept(
    read: Callable[[int], Predictions | None], *, most: int = MOST_KEPT
) -> Callable[[int], Predictions | None]:
    """Return the same reader of predictions, which keeps what it has read, as far as that is not too large.

    Args:
        read: gives the stored validation predictions of a trial by its number.
        most: bytes.
    """
    known: dict[int, Predictions | None] = {}
    left = most

    def predictions(number: int) -> Predictions | None:
        nonlocal left
        if number in known:
            return known[number]
        found = read(number)
        size = 0 if found is None else found.logits.nbytes
        if size <= left:
            known[number] = found
            left -= size
        return found

    return predictions


def most_mistaken(matrix: np.ndarray, limit: int) -> list[int]:
    """Return the labels of the classes with the most mistakes, ascending; all where there are no more than that."""
    mistakes = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    return sorted(np.argsort(-mistakes, kind="stable")[:limit].tolist())


def confusion_matrix(predictions: Predictions) -> np.ndarray:
    """Return counts as int64 [Y, Y]: rows are true classes, columns predicted ones."""
    classes = predictions.logits.shape[1]
    cells_N = predictions.labels.astype(np.int64) * classes + predictions.guesses
    return np.bincount(cells_N, minlength=classes**2).reshape(classes, classes)


def row_shares(matrix: np.ndarray) -> np.ndarray:
    """Return each row over its sum, NaN for a class without images."""
    totals = matrix.sum(axis=1, keepdims=True)
    shares: np.ndarray = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    return shares


def class_labels(class_names: Sequence[str], classes: int) -> tuple[str, ...]:
    """Return a printable name for each of Y classes, its number where there is no name."""
    names = [printable(n) for n in class_names[:classes]]
    return tuple((names[i] if i < len(names) else "") or str(i) for i in range(classes))


def most_confused(
    matrix: np.ndarray, class_names: Sequence[str], *, limit: int = 10
) -> tuple[Confusion, ...]:
    """Return the commonest mistakes, by number of images, then by their share of the class."""
    names = class_labels(class_names, len(matrix))
    images = matrix.sum(axis=1)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    pairs = [(int(t), int(p)) for t, p in zip(*np.nonzero(wrong), strict=True)]
    pairs.sort(key=lambda tp: (-wrong[tp], images[tp[0]], tp))
    found = []
    for true, predicted in pairs[:limit]:
        count, of = int(wrong[true, predicted]), int(images[true])
        words = f"{names[true]} predicted as {names[predicted]}, {100 * count / of:.1f} %"
        found.append(Confusion(true, predicted, count, of, words))
    return tuple(found)


def confident_mistakes(predictions: Predictions, *, limit: int = 16) -> tuple[Mistake, ...]:
    """Return the mistakes of which the network was surest, surest first.

    Ties are common among saturated probabilities, so the other classes' odds order, not the rounded share.
    """
    guess = predictions.guesses
    wrong = np.flatnonzero(guess != predictions.labels)
    if not len(wrong):
        return ()
    chosen = np.nan_to_num(predictions.logits[wrong].astype(np.float64), nan=-np.inf)
    own = guess[wrong]
    with np.errstate(invalid="ignore"):
        odds = np.exp(chosen - chosen.max(axis=1, keepdims=True))
    odds[np.arange(len(wrong)), own] = 0.0
    others = odds.sum(axis=1)  # the other classes' odds; beside 1 the surest would all round to nothing
    order = np.lexsort((wrong, others))[:limit]
    return tuple(
        Mistake(
            image=int(wrong[i]),
            true=int(predictions.labels[wrong[i]]),
            predicted=int(guess[wrong[i]]),
            probability=float(1.0 / (1.0 + others[i])),
        )
        for i in order
        if np.isfinite(others[i])
    )


def per_class(matrix: np.ndarray, class_names: Sequence[str]) -> tuple[ClassResult, ...]:
    """Return the result of each class, in order of labels."""
    names = class_labels(class_names, len(matrix))
    results = []
    for i, name in enumerate(names):
        images, taken, correct = int(matrix[i].sum()), int(matrix[:, i].sum()), int(matrix[i, i])
        mistaken = matrix[i].copy()
        mistaken[i] = 0
        results.append(
            ClassResult(
                name=name,
                images=images,
                correct=correct,
                recall=correct / images if images else None,
                precision=correct / taken if taken else None,
                f1=2 * correct / (images + taken) if images else None,
                taken_for=names[int(mistaken.argmax())] if mistaken.any() else "",
            )
        )
    return tuple(results)


def balanced_accuracy(matrix: np.ndarray) -> float:
    """Return the mean recall over the classes that have images."""
    recalls = [r.recall for r in per_class(matrix, ()) if r.recall is not None]
    return sum(recalls) / len(recalls) if recalls else float("nan")


def macro_f1(matrix: np.ndarray) -> float:
    """Return the mean F1 over the classes that have images or were guessed, as a trial's metric and scikit-learn do."""
    both = matrix.sum(axis=0) + matrix.sum(axis=1)
    there = both > 0
    return float((2 * matrix.diagonal()[there] / both[there]).mean()) if there.any() else float("nan")


def require_agreement(predictions: Predictions, accuracy: float | None, *, trial: int) -> None:
    """Refuse predictions that say something else than their trial's accuracy.

    Earlier versions kept the logits alone, in 16 bits: classes of which the largest two became equal are lost.  Few
    such images leave all statistics as they are, to that many; where large logits were cut, hardly any is right.

    Args:
        predictions: as stored.
        accuracy: as recorded of the trial, None where it has none.
        trial: its number.

    Raises:
        ArtifactError: they disagree.
    """
    images = len(predictions.labels)
    if accuracy is None or not images:
        return
    right = int(predictions.right.sum())
    missed = abs(right - accuracy * images)
    lost = 0.0
    if predictions.predicted is None:
        logits = predictions.logits
        ties = int(((logits == logits.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
        lost = min(ties, max(1.0, MOST_LOST * images))
    if missed >= lost + 0.5:
        raise ArtifactError(
            f"the stored predictions of trial {trial} have {right:,} of {images:,} images right, its accuracy says "
            f"{accuracy * images:,.0f}: they are not used",
            hint="an earlier version cut large logits; the accuracy is right. Trained anew, it has its predictions",
        )


def per_class_csv(predictions: Predictions, class_names: Sequence[str]) -> bytes:
    """Return the per-class results as CSV in UTF-8; cells that a spreadsheet would run are made harmless."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["class", "images", "correct", "recall", "precision", "f1", "most_often_taken_for"])
    for r in per_class(confusion_matrix(predictions), class_names):
        shares = ["" if x is None else f"{x:.6g}" for x in (r.recall, r.precision, r.f1)]
        taken_for = csv_text(r.taken_for) if r.taken_for else ""
        writer.writerow([csv_text(r.name), r.images, r.correct, *shares, taken_for])
    return out.getvalue().encode("utf-8", "replace")


def csv_text(text: str) -> str:
    """Return text as a CSV cell: harmless, and in quotes where `pandas.read_csv` would take it for a missing value."""
    return f'"{text}"' if text in _MISSING else harmless(text)


def harmless(text: str) -> str:
    """Return a CSV cell that no spreadsheet takes for a formula: an apostrophe comes before = + - @.

    What is nothing but a number stays one ("-5", "+1e3"), and control characters are shown as escapes: a table is
    often read on a terminal.  See OWASP, "CSV Injection".
    """
    text = escaped(text)
    if text.lstrip()[:1] not in ("=", "+", "-", "@") and text[:1] not in ("\t", "\r", "\n"):
        return text
    try:
        float(text)
    except ValueError:
        return "'" + text
    return text


def describe_pairs(pairs: Sequence[Confusion]) -> tuple[str, ...]:
    """Return each pair with its numbers: "Shirt taken for T-shirt/top, 10.9 % (109 of 1,000 images)"."""
    return tuple(f"{p.words} ({p.count:,} of {plural(p.images, 'image')})" for p in pairs)
