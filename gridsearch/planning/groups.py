"""Which trials may share a pack: those whose settings differ in fusible axes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gridsearch.records import Settings, Shape

T = TypeVar("T")


def group_trials(trials: Iterable[T], settings: Callable[[T], Settings]) -> dict[Shape, list[T]]:
    """Sort trials (or drafts) into groups, both in the order of their first appearance."""
    groups: dict[Shape, list[T]] = {}
    for trial in trials:
        groups.setdefault(settings(trial).shape(), []).append(trial)
    return groups
