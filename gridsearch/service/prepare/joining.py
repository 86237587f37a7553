"""How a grid joins a study that is there: which values it means by the words it uses, and what it adds.

Between `prepare` and the store, for `run` and for `plan`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gridsearch.records import Settings, TrialDraft, point_address, trial_key
from gridsearch.reporting.words.text import plural
from gridsearch.spec.words import exact, spelled

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gridsearch.records import Trial
    from gridsearch.service.prepare.prepared import Prepared


@dataclass(frozen=True, slots=True)
class Joined:
    """A grid as it joins a study.

    Attributes:
        prepared: its trials; a value that was typed as the study shows one is that one.
        notes: what to say of it, a line each.
    """

    prepared: Prepared
    notes: tuple[str, ...]


def join(prepared: Prepared, ledger: Sequence[Trial], studies: Collection[str]) -> Joined:
    """Let a grid join what its study holds.

    Args:
        prepared: the grid's trials; those of a stored study give no notes.
        ledger: the trials that are there.
        studies: the names of all studies, so that another one can be proposed.
    """
    if not ledger or prepared.stored:
        return Joined(prepared, ())
    prepared, notes = _as_shown(prepared, ledger)
    return Joined(prepared, (*notes, *_extended(prepared, ledger, studies)))


def _extended(prepared: Prepared, ledger: Sequence[Trial], studies: Collection[str]) -> list[str]:
    """Say so where a grid adds to points that it does not contain itself."""
    asked = {d.key for d in prepared.drafts}
    there = {t.key for t in ledger}
    if not asked - there or not there - asked:
        return []
    points = {point_address(s) for s in {id(d.settings): d.settings for d in prepared.drafts}.values()}
    old = {point_address(t.settings) for t in ledger}
    if not points - old or not old - points:  # more seeds, or a grid that contains the one before
        return []
    new = len(points - old)
    line = (
        f"this grid extends study {prepared.name!r}, which has {plural(len(old), 'point')}, by {plural(new, 'point')}; "
        f"to start another study: --study {_free(prepared.name, studies)}"
    )
    return [line]


def _free(name: str, studies: Collection[str]) -> str:
    """Return a name that no study bears: this one with a number."""
    number = 2
    while f"{name[:58]}-{number}" in studies:
        number += 1
    return f"{name[:58]}-{number}"


def _as_shown(prepared: Prepared, ledger: Sequence[Trial]) -> tuple[Prepared, list[str]]:
    """Take each number that spells a value of the study as that study shows it for that value."""
    changes: dict[str, dict[float, float]] = {}
    for axis in prepared.axes:
        asked = {v for d in prepared.drafts if isinstance(v := d.settings.get(axis), float)}
        words = spelled({t.settings.get(axis) for t in ledger})
        if found := {v: words[v] for v in sorted(asked & set(words)) if words[v] not in asked}:
            changes[axis] = found
    if not changes:
        return prepared, []
    made: dict[int, Settings] = {}
    drafts: dict[str, TrialDraft] = {}
    for draft in prepared.drafts:
        settings = made.setdefault(id(draft.settings), _changed(draft.settings, changes))
        key = draft.key if settings is draft.settings else trial_key(settings, draft.seed)
        drafts.setdefault(key, replace(draft, settings=settings, key=key))
    notes = [
        f"{axis}={exact(asked)} is the {exact(value)} that study {prepared.name!r} shows so"
        for axis, found in changes.items()
        for asked, value in found.items()
    ]
    return replace(prepared, drafts=tuple(drafts.values())), notes


def _changed(settings: Settings, changes: dict[str, dict[float, float]]) -> Settings:
    """Return settings with the values that are meant; the same object where none is another."""
    for axis, found in changes.items():
        value = settings.get(axis)
        if isinstance(value, float) and value in found:
            settings = settings.changed(axis, found[value])
    return settings
