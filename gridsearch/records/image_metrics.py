"""The metrics by which trials on images are ranked: their names, directions, and when each is known.

Below the spec, which reads what a user asks for, and below reporting, which computes them from stored predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gridsearch.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ACCURACY: Final = "val_accuracy"
LOSS: Final = "val_loss"
TRAIN_ACCURACY: Final = "train_accuracy"
RECALL: Final = "recall:"
"""Begins the name of the recall of one class; the rest is the class's name, whatever it holds."""
TOP: Final = 3
"""The classes of `top3`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetric:
    """A metric of the validation images.

    Attributes:
        word: what a user types.
        name: what the store, JSON and tables call it.
        smaller: whether less is better.
        recorded: whether a trial records it when it ends; else its stored predictions give it.
        each_epoch: whether training computes it after each epoch.
    """

    word: str
    name: str
    smaller: bool = False
    recorded: bool = False
    each_epoch: bool = False

    @property
    def direction(self) -> str:
        """What a study by it says: "maximize" or "minimize"."""
        return "minimize" if self.smaller else "maximize"


METRICS: Final = (
    ImageMetric(word="accuracy", name=ACCURACY, recorded=True, each_epoch=True),
    ImageMetric(word="balanced_accuracy", name="balanced_accuracy", recorded=True, each_epoch=True),
    ImageMetric(word="macro_f1", name="macro_f1", recorded=True, each_epoch=True),
    ImageMetric(word="loss", name=LOSS, smaller=True, recorded=True, each_epoch=True),
    ImageMetric(word="top3", name="top3"),
    ImageMetric(word="auc", name="auc"),
    ImageMetric(word="ece", name="ece", smaller=True),
)
"""All but the recalls of single classes."""

_WORDS: Final = (*(metric.word for metric in METRICS), f"{RECALL}CLASS")
_BY_NAME: Final = {metric.name: metric for metric in METRICS}


def image_metric(asked: str) -> ImageMetric:
    """Return the metric of a word or name; which classes there are is not looked at (see `require_class`).

    Raises:
        UsageError: there is none.
    """
    if not isinstance(asked, str):
        raise UsageError(f"a metric is named by a word, not {asked!r}", hint=f"known: {' '.join(_WORDS)}")
    for metric in METRICS:
        if asked in (metric.word, metric.name):
            return metric
    if asked.startswith(RECALL) and asked != RECALL:
        return ImageMetric(word=asked, name=asked)
    raise UsageError(f"metric {asked!r} is not known{nearest(asked, _WORDS)}")


def known_metric(name: str) -> ImageMetric | None:
    """Return the metric of a name in a store or a ranking, None for one that is not of the validation images."""
    if name.startswith(RECALL) and name != RECALL:
        return ImageMetric(word=name, name=name)
    return _BY_NAME.get(name)


def label_of(metric: str, names: Sequence[str]) -> int | None:
    """Return the label of the class that a metric is about; None where it is about none, or that is not among them.

    Args:
        metric: its name.
        names: of the classes, by label; one without a name goes by its label.
    """
    if not metric.startswith(RECALL):
        return None
    asked = metric.removeprefix(RECALL)
    shown = [name or str(label) for label, name in enumerate(names)]
    return shown.index(asked) if asked in shown else None


def require_class(metric: ImageMetric, names: Iterable[str], *, of: str) -> None:
    """Refuse the recall of a class that is not there.

    Args:
        metric: see `image_metric`.
        names: of all classes that there are.
        of: what they are the classes of.

    Raises:
        UsageError: the class is not among them; the message names the nearest.
    """
    shown = [name or str(label) for label, name in enumerate(names)]
    asked = metric.name.removeprefix(RECALL)
    if not metric.name.startswith(RECALL) or asked in shown:
        return
    listed = ", ".join(map(repr, shown[:10])) + (", ..." if len(shown) > 10 else "")
    near = nearest(asked, shown)
    raise UsageError(
        f"{of} has no class {asked!r}{near if 'did you mean' in near else ''}", hint=f"its classes: {listed}"
    )
