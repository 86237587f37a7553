"""What a study is of, in the few facts and words that differ between kinds of studies.

Which kind a study is follows from its options (`kind_of`) or from the settings of its trials, which bear it
(`Settings.kind`).  Other modules ask for what they need to know (does it classify? are its axes free?), not which
kind it is; each layer has what it does for a kind in a table by the kind's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyKind:
    """A kind of study.

    Attributes:
        name: what the program calls it.
        options: the options of a study that say something of this kind alone; the first names what it is of.
        code: the option that names the code which a trial runs.
        noun: what a trial trains or calls.
        unit: what a trial's progress is counted in.
        work: what a trial does, in a word.
        preposition: between "a study" and what it is of.
        differ: how results are to each other that cannot be compared.
        alike: what the same point of two studies shares.
        does: what such a study does, after its name.
        free_axes: whether an axis may bear any name, so that its name says nothing of its type.
        packs: whether trials are lanes of packs on a device; else they run one after another, each with a CPU core.
        classifies: whether trials classify labelled images: their metrics are those that this program knows, and
            their predictions are kept.  Else all metrics are the user's own.
    """

    name: str
    options: tuple[str, ...]
    code: str
    noun: str
    unit: str
    work: str
    preposition: str
    differ: str
    alike: str
    does: str
    free_axes: bool
    packs: bool
    classifies: bool

    @property
    def subject(self) -> str:
        """The option that names what a study is of."""
        return self.options[0]


IMAGES = StudyKind(
    name="images",
    options=("dataset", "model", "val", "subset", "folds", "group", "metric"),
    code="model",
    noun="a network",
    unit="epoch",
    work="training",
    preposition="on",
    differ="on different images",
    alike="same settings on the same images and split",
    does="trains on images",
    free_axes=False,
    packs=True,
    classifies=True,
)
"""Networks trained on images, ranked by the accuracy on what was held out."""

FUNCTION = StudyKind(
    name="function",
    options=("objective", "metric", "direction"),
    code="objective",
    noun="a plain function",
    unit="step",
    work="computing",
    preposition="of",
    differ="by different functions",
    alike="same function, same params",
    does="is of a plain function",
    free_axes=True,
    packs=False,
    classifies=False,
)
"""A plain function of the user's own, called with params and a seed, ranked by a metric that it returns."""

KINDS = (FUNCTION, IMAGES)


def kind_of(options: Mapping[str, object]) -> StudyKind:
    """Return the kind of study that options ask for: of images, unless they name what another kind is of.

    Args:
        options: by name; None is an option that was not given.
    """
    return next((kind for kind in KINDS if options.get(kind.subject) is not None), IMAGES)
