"""Which trials may share a pack: those whose settings differ in fusible axes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from gridsearch.spec.axes import FUSIBLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gridsearch.records import Settings, Value

    GroupKey = tuple[tuple[str, Value], ...]

T = TypeVar("T")


def group_key(settings: Settings) -> GroupKey:
    """Return all shaping settings; trials with equal keys may train as lanes of one pack."""
    return tuple((name, value) for name, value in settings.flat().items() if name not in FUSIBLE)


def group_trials(trials: Iterable[T], settings: Callable[[T], Settings]) -> dict[GroupKey, list[T]]:
    """Sort trials (or drafts) into groups, both in the order of their first appearance."""
    groups: dict[GroupKey, list[T]] = {}
    for trial in trials:
        groups.setdefault(group_key(settings(trial)), []).append(trial)
    return groups
