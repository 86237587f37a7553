"""Trials that came to no full result, those with the same reason together: what they have in common, and the reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.records.axis import identity
from gridsearch.reporting.words.text import plural, printable, show_params, show_replicate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gridsearch.records import StudyData, TrialRecord, TrialState

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossGroup:
    """Trials of one state whose reasons are the same but for their numbers.

    Attributes:
        trials: in the order of their numbers.
        common: axes that vary in the study, and of which all of these trials have the same value.
        reason: the first trial's.
    """

    trials: tuple[TrialRecord, ...]
    common: tuple[str, ...]
    reason: str

    def in_words(self, axes: Sequence[str]) -> str:
        """Return one line: `16 trials, all model.hidden=13: ValueError: ...`, or what one trial is and why it ended.

        Args:
            axes: of the study, in the order in which they are shown.
        """
        first = self.trials[0]
        if len(self.trials) == 1:
            params = show_params(first.params, axes, limit=120)
            return f"#{first.number} {params} {show_replicate(first)}{_reason(self.reason)}"
        shared = f", all {show_params(first.params, self.common, limit=120)}" if self.common else ""
        return f"{plural(len(self.trials), 'trial')}{shared}{_reason(self.reason)} (first: #{first.number})"


def loss_groups(data: StudyData, state: TrialState) -> list[LossGroup]:
    """Return the trials of a state, grouped by their reasons; the largest group first."""
    found: dict[str, list[TrialRecord]] = {}
    for trial in data.trials:
        if trial.state is state:
            found.setdefault(_NUMBER.sub("#", trial.error or ""), []).append(trial)
    varying = [axis for axis in data.axes if len(_values(data.trials, axis)) > 1]
    groups = [
        LossGroup(
            trials=tuple(trials),
            common=tuple(
                axis for axis in varying if axis in trials[0].params and len(_values(trials, axis)) == 1
            ),
            reason=trials[0].error or "",
        )
        for trials in found.values()
    ]
    return sorted(groups, key=lambda group: -len(group.trials))


def _values(trials: Iterable[TrialRecord], axis: str) -> set[object]:
    return {identity(trial.params.get(axis)) for trial in trials}


def _reason(error: str) -> str:
    return f": {printable(error, 200)}" if error else ""
