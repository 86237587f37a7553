"""Trains what waits of one study, with a store that may be away for a while.

Between `running`, or `store_worker`, and the coordinator, which gets here all that it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.planning import ProbeCache
from gridsearch.records import TrialState
from gridsearch.records.image_metrics import known_metric
from gridsearch.reporting.words.text import plural
from gridsearch.service.queries.reports import preload_report
from gridsearch.service.run.coordinator import Coordinator
from gridsearch.service.run.ending import Ending
from gridsearch.service.run.final_metric import FinalMetric
from gridsearch.service.run.progress import Progress
from gridsearch.service.run.pruning import Pruning
from gridsearch.service.run.publisher import TrialPublisher
from gridsearch.service.run.run_context import RunContext
from gridsearch.service.run.sizing import Sizing
from gridsearch.service.run.workers import hardware, lanes_at_most, room_for_packs, starter, worker_setups
from gridsearch.spec.words import words_of
from gridsearch.store import RunnerIdentity, RunOf, RunStore, open_store, take_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import WorkerSetup
    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.prepare.prepared import Prepared
    from gridsearch.service.run.interruption import Interruption
    from gridsearch.service.run.progress import Observer
    from gridsearch.service.run.timing import Timing
    from gridsearch.store import Store


def open_for_runner(options: RunOptions, watcher: Observer, *, create: bool) -> Store:
    """Open the store, and write to it what a run that is gone could not.

    Args:
        options: say where it is.
        watcher: is notified of what came in.
        create: make it if it is not there.

    Raises:
        StoreError: it cannot be used.
    """
    store = open_store(options.places.store, home=options.places.home, create=create)
    if results := take_in(store, warn=watcher.warn):
        watcher.say(f"{plural(results, 'result')} of an earlier run, whose store was unavailable, came in")
    return store


@dataclass(frozen=True, slots=True)
class Share:
    """What of a study shall be trained.

    Attributes:
        study_id: the study's ledger id.
        ids: those of the trials; nothing else is claimed.
        stays: whether to wait for what other runners hold of them.
    """

    study_id: int
    ids: Sequence[int]
    stays: bool = True


def train_waiting(
    store: Store,
    prepared: Prepared,
    options: RunOptions,
    devices: Sequence[str],
    share: Share,
    observer: Observer,
    timing: Timing,
    *,
    interrupted: Interruption,
) -> Ending | None:
    """Train what waits, if anything does.

    Args:
        store: the store.
        prepared: the study's trials with what they need.
        options: how to train.
        devices: where.
        share: which of its trials.
        observer: is notified of what happens.
        timing: measures what is no training.
        interrupted: whether there was a signal.

    Returns:
        What may have ended it before all were trained; None where nothing waited.

    Raises:
        StudyDeleted: the study is there no more, or a trial of it.
        StoreError: it cannot be written any more.
        StoreUnreachable: the store was away for too long.
    """
    counts = store.open_counts(share.study_id, share.ids)
    if not counts.get(TrialState.WAITING) and not counts.get(TrialState.RUNNING):
        return None
    waiting = counts.get(TrialState.WAITING, 0)
    setups = worker_setups(prepared.catalog, options, devices, trials=waiting, metric=prepared.metric)
    with RunStore(store, _this_run(prepared, options, share, observer)) as lasting:
        run = _context(lasting, prepared, options, devices, share, observer, setups=setups)
        sizing = Sizing(
            lanes=lanes_at_most(options, prepared.kind),
            device=devices[0],
            cost=run.cost,
            probes=run.probes,
            room=room_for_packs(options, devices, len(setups), prepared.kind),
        )
        ending = Ending(run, interrupted)
        Coordinator(
            run,
            sizing=sizing,
            publisher=TrialPublisher(
                lasting.home, prepared.name, facts=prepared.facts, images=prepared.loaded
            ),
            ending=ending,
            pruning=_pruning(lasting, prepared, options, share, observer),
            idle=preload_report if options.report else None,
        ).run(
            starter(
                prepared.catalog,
                options,
                setups,
                settings=[draft.settings for draft in prepared.drafts],
                watch=timing.observe,
            )
        )
        lasting.require()
    return ending


def _this_run(prepared: Prepared, options: RunOptions, share: Share, observer: Observer) -> RunOf:
    """Return what the store needs to know of this run."""
    return RunOf(
        study=prepared.name,
        study_id=share.study_id,
        owner=RunnerIdentity.current(),
        lease=options.lease,
        patience=options.store_patience,
        warn=observer.warn,
        say=observer.say,
    )


def _context(
    store: RunStore,
    prepared: Prepared,
    options: RunOptions,
    devices: Sequence[str],
    share: Share,
    observer: Observer,
    *,
    setups: Sequence[WorkerSetup],
) -> RunContext:
    probes = ProbeCache(options.places.probes)
    cost = prepared.cost(hardware(prepared, devices, options), probes)
    assert cost is not None  # a run has loaded its data
    counts = store.open_counts(share.study_id, share.ids)
    progress = Progress(
        metric=prepared.metric,
        direction=prepared.direction,
        counts={state: counts.get(state, 0) for state in TrialState},
        total_units=sum(cost.units(trial.settings) for trial in store.waiting(share.study_id, share.ids)),
        workers=len(setups),
        device=devices[0],
        words=words_of(t.params for t in store.ledger(prepared.name)),
    )
    _recall_best(store, prepared, progress)
    return RunContext(
        study=prepared.name,
        study_id=share.study_id,
        ids=share.ids,
        owner=RunnerIdentity.current(),
        options=options,
        store=store,
        cost=cost,
        probes=probes,
        progress=progress,
        observer=observer,
        final_metric=FinalMetric(prepared.metric, home=store.home, study=prepared.name, facts=prepared.facts),
        order=prepared.order,
        leaves_files=setups[0].leaves_files,
        stays=share.stays,
    )


def _pruning(
    store: Store, prepared: Prepared, options: RunOptions, share: Share, observer: Observer
) -> Pruning | None:
    if options.prune == "none":
        return None
    metric = known_metric(prepared.metric) if prepared.kind.classifies else None
    if metric is not None and not metric.each_epoch:  # a worker takes the trials of any study
        observer.warn(
            f"study {prepared.name!r}: no trial ends early, since {metric.word} is computed when a trial has ended"
        )
    return Pruning(
        options.prune,
        store=store,
        study=prepared.name,
        study_id=share.study_id,
        metric=prepared.metric,
        direction=prepared.direction,
    )


def _recall_best(store: Store, prepared: Prepared, progress: Progress) -> None:
    """Let the best so far begin with the results that the grid had before."""
    keys = {draft.key for draft in prepared.drafts}
    for trial in store.study_data(prepared.name).trials:
        if trial.key in keys and trial.state is TrialState.COMPLETE:
            progress.consider(trial.value, trial.params)
