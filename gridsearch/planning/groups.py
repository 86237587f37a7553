"""Which trials may share a pack: those whose settings differ in fusible axes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from gridsearch.spec.axes import shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gridsearch.records import Settings
    from gridsearch.spec.axes import Shape

T = TypeVar("T")


def group_trials(trials: Iterable[T], settings: Callable[[T], Settings]) -> dict[Shape, list[T]]:
    """Sort trials (or drafts) into groups, both in the order of their first appearance."""
    groups: dict[Shape, list[T]] = {}
    for trial in trials:
        groups.setdefault(shape_of(settings(trial)), []).append(trial)
    return groups
