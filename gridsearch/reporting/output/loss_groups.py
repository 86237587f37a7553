"""Trials that came to no full result, those with the same reason together: what they have in common, and the reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.records import TrialState
from gridsearch.records.axis import identity
from gridsearch.reporting.words.text import plural, printable, show_params, show_replicate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gridsearch.records import StudyData, TrialRecord

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
        first, settings = self.trials[0], self.settings(axes, limit=120)
        reason = f": {printable(self.reason, 200)}" if self.reason else ""
        if len(self.trials) == 1:
            return f"#{first.number} {settings}{reason}"
        which = f", {settings}" if settings else ""
        return f"{plural(len(self.trials), 'trial')}{which}{reason} (first: #{first.number})"

    def settings(self, axes: Sequence[str], *, limit: int) -> str:
        """Return what one trial is: `lr=0.1 seed=0`; of several what they have in common: `all lr=0.1`, or "".

        Args:
            axes: of the study, in the order in which they are shown.
            limit: letters of the params.
        """
        first = self.trials[0]
        if len(self.trials) == 1:
            return f"{show_params(first.params, axes, limit=limit)} {show_replicate(first)}"
        return f"all {show_params(first.params, self.common, limit=limit)}" if self.common else ""


def loss_groups(data: StudyData, state: TrialState) -> list[LossGroup]:
    """Return the trials of a state, grouped by their reasons; the largest group first.

    Trials that were pruned are together by the epoch at which they were.
    """
    found: dict[tuple[str, int], list[TrialRecord]] = {}
    for trial in data.trials:
        if trial.state is state:
            reason = trial.error or ""
            pruned = state is TrialState.PRUNED
            same = (reason, trial.epochs) if pruned else (_NUMBER.sub("#", reason), 0)
            found.setdefault(same, []).append(trial)
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
