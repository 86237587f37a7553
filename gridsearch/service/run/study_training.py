"""Trains what waits of one study, with a store that may be away for a while.

Between `running` and the coordinator, which gets here all that it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.planning import ProbeCache
from gridsearch.records import TrialState
from gridsearch.service.queries.reports import preload_report
from gridsearch.service.run import interruption
from gridsearch.service.run.coordinator import Coordinator
from gridsearch.service.run.ending import Ending
from gridsearch.service.run.progress import Progress
from gridsearch.service.run.pruning import Pruning
from gridsearch.service.run.publisher import TrialPublisher
from gridsearch.service.run.run_context import RunContext
from gridsearch.service.run.sizing import Sizing
from gridsearch.service.run.workers import hardware, lanes_at_most, pack_limit, starter, worker_setups
from gridsearch.spec.words import words_of
from gridsearch.store import RunnerIdentity, RunOf, RunStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.prepare.prepared import Prepared
    from gridsearch.service.run.progress import Observer
    from gridsearch.service.run.timing import Timing
    from gridsearch.store import Added, Store


def train_waiting(
    store: Store,
    prepared: Prepared,
    options: RunOptions,
    devices: Sequence[str],
    added: Added,
    observer: Observer,
    timing: Timing,
) -> Ending | None:
    """Train what waits, if anything does; return what may have ended it before."""
    counts = store.open_counts(added.study_id, added.ids)
    if not counts.get(TrialState.WAITING) and not counts.get(TrialState.RUNNING):
        return None
    setups = worker_setups(prepared.catalog, options, devices, trials=counts.get(TrialState.WAITING, 0))
    this_run = RunOf(
        study=prepared.name,
        study_id=added.study_id,
        owner=RunnerIdentity.current(),
        lease=options.lease,
        patience=options.store_patience,
        warn=observer.warn,
        say=observer.say,
    )
    with RunStore(store, this_run) as lasting, interruption.listening() as interrupted:
        run = _context(lasting, prepared, options, devices, added, observer, workers=len(setups))
        sizing = Sizing(
            lanes=lanes_at_most(options, prepared.kind),
            device=devices[0],
            cost=run.cost,
            probes=run.probes,
            limit_mb=pack_limit(devices, len(setups), prepared.kind),
        )
        ending = Ending(run, interrupted)
        Coordinator(
            run,
            sizing=sizing,
            publisher=TrialPublisher(
                lasting.home, prepared.name, facts=prepared.facts, images=prepared.loaded
            ),
            ending=ending,
            pruning=_pruning(lasting, prepared, options, added),
            idle=preload_report if options.report else None,
        ).run(starter(prepared.catalog, options, setups, watch=timing.observe))
        lasting.require()
    return ending


def _context(
    store: RunStore,
    prepared: Prepared,
    options: RunOptions,
    devices: Sequence[str],
    added: Added,
    observer: Observer,
    *,
    workers: int,
) -> RunContext:
    probes = ProbeCache(options.places.probes)
    cost = prepared.cost(hardware(prepared, devices), probes)
    assert cost is not None  # a run has loaded its data
    counts = store.open_counts(added.study_id, added.ids)
    progress = Progress(
        metric=prepared.metric,
        direction=prepared.direction,
        counts={state: counts.get(state, 0) for state in TrialState},
        total_units=sum(cost.units(trial.settings) for trial in store.waiting(added.study_id, added.ids)),
        workers=workers,
        device=devices[0],
        words=words_of(t.params for t in store.ledger(prepared.name)),
    )
    _recall_best(store, prepared, progress)
    return RunContext(
        study=prepared.name,
        study_id=added.study_id,
        ids=added.ids,
        owner=RunnerIdentity.current(),
        options=options,
        store=store,
        cost=cost,
        probes=probes,
        progress=progress,
        observer=observer,
    )


def _pruning(store: Store, prepared: Prepared, options: RunOptions, added: Added) -> Pruning | None:
    if options.prune == "none":
        return None
    return Pruning(
        options.prune,
        store=store,
        study=prepared.name,
        study_id=added.study_id,
        metric=prepared.metric,
        direction=prepared.direction,
    )


def _recall_best(store: Store, prepared: Prepared, progress: Progress) -> None:
    """Let the best so far begin with the results that the grid had before."""
    keys = {draft.key for draft in prepared.drafts}
    for trial in store.study_data(prepared.name).trials:
        if trial.key in keys and trial.state is TrialState.COMPLETE:
            progress.consider(trial.value, trial.params)
