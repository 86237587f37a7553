"""What one run is to do, and what all that takes part in it shares; made in `running`, used by the coordinator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.records import TrialState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.planning import CostModel, ProbeCache
    from gridsearch.records import Trial
    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.run.final_metric import FinalMetric
    from gridsearch.service.run.progress import Observer, Progress
    from gridsearch.store import RunnerIdentity, RunStore


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """One runner's share of a study.

    Attributes:
        study: the study's name.
        study_id: its ledger id.
        ids: ledger ids of the grid's trials; nothing else is claimed.
        owner: who claims.
        options: how to run.
        store: the open store, with its files; it may be away for a while.
        cost: orders trials and calibrates the ETA.
        probes: takes the measured cost of each epoch.
        progress: is kept up to date.
        observer: is notified of what happens.
        final_metric: adds the metric that ranks to results that lack it.
        order: in which order the trials go, see `planning.rank_of`.
        leaves_files: whether workers write into the scratch folders of their trials.
        stays: whether it waits for what other runners hold of the grid, since that may come back.
    """

    study: str
    study_id: int
    ids: Sequence[int]
    owner: RunnerIdentity
    options: RunOptions
    store: RunStore
    cost: CostModel
    probes: ProbeCache
    progress: Progress
    observer: Observer
    final_metric: FinalMetric
    order: str
    leaves_files: bool = True
    stays: bool = True

    def waiting(self) -> Sequence[Trial]:
        """Return the trials of the grid that wait, as the store knows them now."""
        return self.store.waiting(self.study_id, self.ids)

    def count(self) -> None:
        """Take the numbers of trials in each state from the store."""
        if self.store.away:
            return
        counts = self.store.open_counts(self.study_id, self.ids)
        self.progress.counts = {state: counts.get(state, 0) for state in TrialState}

    def require_study(self) -> None:
        """Check that the study is still there.

        Raises:
            StoreError: somebody has deleted it.
        """
        self.store.open_counts(self.study_id, ())
