"""What a study is of, in the few facts and words that differ: the type of its trials' settings bears one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyKind:
    """A kind of study.

    Attributes:
        name: what the program calls it.
        unit: what a trial's progress is counted in.
        free_axes: whether an axis may bear any name, so that its name says nothing of its type.
    """

    name: str
    unit: str
    free_axes: bool


IMAGES = StudyKind(name="images", unit="epoch", free_axes=False)
"""Networks trained on images, ranked by the accuracy on what was held out."""

FUNCTION = StudyKind(name="function", unit="step", free_axes=True)
"""A plain function of the user's own, called with params and a seed, ranked by a metric that it returns."""
