"""A run from start to end: prepare, store, plan, train, report."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from gridsearch.advice import LOCATORS, Advice, named_again, place
from gridsearch.planning import OverheadLog
from gridsearch.records import TrialState
from gridsearch.reporting.figures.matplotlib_setup import backend_is_usable
from gridsearch.reporting.words.text import plural
from gridsearch.service.prepare import user_code
from gridsearch.service.prepare.joining import join
from gridsearch.service.prepare.preparation import joined_data, prepare, prepare_stored, require_prunable
from gridsearch.service.prepare.prepared import Given, Prepared
from gridsearch.service.queries.reports import make_report, preload_report, rank_study
from gridsearch.service.run import interruption
from gridsearch.service.run.machine import environment
from gridsearch.service.run.notification import Notifier, notifying
from gridsearch.service.run.patience import patiently
from gridsearch.service.run.progress import Observer, Silent
from gridsearch.service.run.study_training import Share, open_for_runner, train_waiting
from gridsearch.service.run.timing import Timing
from gridsearch.service.run.workers import arithmetic_cautions, devices_for, hardware, may_lack_devices
from gridsearch.store import RunnerIdentity, StudyDraft, store_exists

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.records import StudyData
    from gridsearch.records.study_kinds import StudyKind
    from gridsearch.reporting import Ranking
    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.prepare.replicates import MoreSeeds
    from gridsearch.service.queries.reports import Report
    from gridsearch.spec import StudySpec
    from gridsearch.store import Added, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What a run did.

    Attributes:
        study: the study's name.
        data: the study with all its trials, as it is now.
        ranking: its points, ranked.
        new: trials that were not there before.
        reused: trials whose results were there before.
        failed: trials of this run's grid that are failed now.
        open: trials of this run's grid without a result (budget, interruption).
        seconds: wall time of the run, the report included.
        signum: the signal that ended it, or None.
        report: the report, None where none was made.
        own: the ranking of what the run's own words describe, with the rest of the study apart; None where that is
            all.
    """

    study: str
    data: StudyData
    ranking: Ranking
    new: int
    reused: int
    failed: int
    open: int
    seconds: float
    signum: int | None
    report: Report | None
    own: Ranking | None = None

    @property
    def exit_code(self) -> int:
        """128 and a signal's number, 3 if a trial of this run's grid failed, else 0."""
        if self.signum is not None:
            return 128 + self.signum
        return 3 if self.failed else 0

    def to_json(self) -> dict[str, Any]:
        """Return the content of `report --json`, and what this run added."""
        from gridsearch import reporting

        content = reporting.report_json(self.data, ranking=self.ranking)
        return {**content, "new": self.new, "reused": self.reused, "seconds": round(self.seconds, 3)}


def run(
    spec: StudySpec,
    options: RunOptions,
    *,
    observer: Observer | None = None,
    objects: Mapping[str, Any] | None = None,
    dataset: Any = None,
    objective: Any = None,
) -> RunOutcome:
    """Expand a spec, train what is missing, report.

    Args:
        spec: what to search.
        options: how to run it.
        observer: is notified of what happens.
        objects: models given as classes or functions, by the name that the spec uses.
        dataset: a dataset given as an object.
        objective: the function of a study of one, given as an object.

    Raises:
        GridsearchError: what is wrong, before anything was written; or the store or the disk gave up.
    """
    watcher = observer or Silent()
    timing = Timing(time.monotonic())
    given = Given(objects=objects or {}, dataset=dataset, objective=objective)
    with ExitStack() as stack:
        notifier = stack.enter_context(notifying(options.notify, spec.name, watcher))
        # One that is there and cannot be used is refused before any data is fetched or code of the user's is run.
        store = _open(stack, options, watcher) if store_exists(options.places.store) else None
        require_prunable(spec.image_metric, options.prune)
        devices = devices_for(options, spec.kind) if may_lack_devices(options) else ()
        prepared = prepare(spec, options.places, given, fetch=True, say=watcher.say)
        devices = devices or _devices(options, spec.kind)
        _caution(prepared, options, devices, watcher)
        store = store or _open(stack, options, watcher)
        return _notified(notifier, _execute(store, prepared, options, devices, watcher, timing))


def resume(
    study: str,
    options: RunOptions,
    *,
    observer: Observer | None = None,
    dataset: Any = None,
    models: Sequence[str] = (),
    objective: Any = None,
    objects: Mapping[str, Any] | None = None,
    more: MoreSeeds | None = None,
) -> RunOutcome:
    """Finish what a stored study still lacks, failed trials included, or give its best points more seeds.

    Args:
        study: the study's name.
        options: how to run.
        observer: is notified of what happens.
        dataset: locator of the dataset, or the class or function itself; needed only for a user's own.
        models: locators of models, likewise.
        objective: the function, or its locator, for a study of one.
        objects: models given as classes or functions, by name.
        more: more seeds for the best points, instead of all that is missing.

    Raises:
        GridsearchError: there is no such study, or what it needs is not there or has changed.
    """
    watcher = observer or Silent()
    timing = Timing(time.monotonic())
    given = Given(dataset=dataset, models=models, objective=objective, objects=objects or {})
    with ExitStack() as stack:
        notifier = stack.enter_context(notifying(options.notify, study, watcher))
        # First what waits for the store comes in: it may decide which points are best.
        store = _open(stack, options, watcher) if store_exists(options.places.store) else None
        prepared = prepare_stored(
            study, options.places, given, more=more, changed=options.changed, say=watcher.say
        )
        require_prunable(prepared.metric if prepared.kind.classifies else None, options.prune)
        devices = _devices(options, prepared.kind)
        _caution(prepared, options, devices, watcher)
        store = store or _open(stack, options, watcher)
        return _notified(notifier, _execute(store, prepared, options, devices, watcher, timing))


def _devices(options: RunOptions, kind: StudyKind) -> tuple[str, ...]:
    """Return what trials train on; where torch says it, load what the report needs while a process imports that.

    Not where loading it changes the environment for a moment, which such processes are compared by.
    """
    if options.report and kind.packs and backend_is_usable():
        preload_report()
    return devices_for(options, kind)


def _caution(prepared: Prepared, options: RunOptions, devices: Sequence[str], watcher: Observer) -> None:
    """Refuse arithmetic that the devices cannot do, and say which is slow, before anything is written."""
    for caution in arithmetic_cautions(prepared, options, devices):
        watcher.warn(caution)


def _notified(notifier: Notifier, outcome: RunOutcome) -> RunOutcome:
    """Say how a run has ended to whom it may concern; return the same."""
    notifier.ended(
        outcome.data,
        outcome.ranking,
        failed=outcome.failed,
        left=outcome.open,
        seconds=outcome.seconds,
        signum=outcome.signum,
    )
    return outcome


@dataclass(frozen=True, slots=True)
class AddOutcome:
    """What became of a grid that was added.

    Attributes:
        study: the study's name.
        added: what was new, and what was there.
        again: the commands about it.
    """

    study: str
    added: Added
    again: Advice


def add(spec: StudySpec, options: RunOptions, *, observer: Observer | None = None) -> AddOutcome:
    """Put what is missing of a spec into the store and train nothing of it: workers take it from there.

    Args:
        spec: what to search.
        options: where; of how to run, only whether pruned trials are offered again.
        observer: is notified of what happens.

    Raises:
        GridsearchError: what is wrong, before anything was written.
    """
    watcher = observer or Silent()
    with ExitStack() as stack:
        store = _open(stack, options, watcher) if store_exists(options.places.store) else None
        prepared = prepare(spec, options.places, fetch=True, say=watcher.say)
        joined = _join(store or _open(stack, options, watcher), prepared, options, watcher)
    return _added(*joined, options)


def add_stored(
    study: str,
    options: RunOptions,
    *,
    observer: Observer | None = None,
    dataset: Any = None,
    models: Sequence[str] = (),
    objective: Any = None,
    more: MoreSeeds | None = None,
) -> AddOutcome:
    """Offer what a stored study lacks again, failed trials included, or more seeds; see `add` and `resume`.

    Raises:
        GridsearchError: there is no such study, or what it needs is not there or has changed.
    """
    watcher = observer or Silent()
    given = Given(dataset=dataset, models=models, objective=objective)
    prepared = prepare_stored(
        study, options.places, given, more=more, changed=options.changed, say=watcher.say
    )
    with open_for_runner(options, watcher, create=False) as store:
        return _added(*_join(store, prepared, options, watcher), options)


def _added(prepared: Prepared, added: Added, options: RunOptions) -> AddOutcome:
    uses = (use for draft in prepared.drafts for use in draft.settings.uses)
    named, lost = named_again({**prepared.spec, LOCATORS: prepared.catalog.named}, uses)
    places = options.places
    again = Advice(study=prepared.name, where=place(places.home, places.store), named=named, lost=lost)
    return AddOutcome(prepared.name, added, again)


def _open(stack: ExitStack, options: RunOptions, watcher: Observer) -> Store:
    return stack.enter_context(open_for_runner(options, watcher, create=True))


def _execute(
    store: Store,
    prepared: Prepared,
    options: RunOptions,
    devices: Sequence[str],
    watcher: Observer,
    timing: Timing,
) -> RunOutcome:
    prepared, added = _join(store, prepared, options, watcher)
    store.take_folder(prepared.name)
    store.drop_leftovers(prepared.name)
    share = Share(added.study_id, added.ids)
    with interruption.listening(watcher.say) as interrupted:
        ending = train_waiting(
            store, prepared, options, devices, share, watcher, timing, interrupted=interrupted
        )
    patient = partial(patiently, patience=options.store_patience, say=watcher.say)
    patient(lambda: store.depart(RunnerIdentity.current()))  # this process may live on, and waits for nothing
    data = patient(lambda: store.study_data(prepared.name))
    counts = patient(lambda: store.open_counts(added.study_id, added.ids))
    done = any(trial.state is TrialState.COMPLETE for trial in data.trials)
    report = None
    if options.report and done and not (ending is not None and ending.at_once):
        watcher.say("writing the report")
        with timing.part("report"):
            report = patient(
                lambda: make_report(
                    store, prepared.name, data=data, images=prepared.loaded, root=options.places.data
                )
            )
    own = None
    if not prepared.stored:
        own = user_code.own_words_first(
            data, prepared.drafts, lambda part: patient(lambda: rank_study(store, part))
        )
    if added.new or added.offered_again or added.in_flight:
        for warning in user_code.changed_meanwhile(prepared.catalog.own, version=prepared.catalog.version):
            watcher.warn(warning)
    if timing.parts["start"]:  # something was trained
        OverheadLog(options.places.overheads).add(hardware(prepared, devices, options), timing.parts)
    return RunOutcome(
        study=prepared.name,
        data=data,
        ranking=report.ranking if report is not None else patient(lambda: rank_study(store, data)),
        new=added.new,
        reused=added.reused,
        failed=counts.get(TrialState.FAILED, 0),
        open=counts.get(TrialState.WAITING, 0) + counts.get(TrialState.RUNNING, 0),
        seconds=time.monotonic() - timing.began,
        signum=None if ending is None else ending.signum,
        report=report,
        own=own,
    )


def _join(store: Store, prepared: Prepared, options: RunOptions, watcher: Observer) -> tuple[Prepared, Added]:
    """Put trials into the store; return them as they join what is there, and what became of them."""
    for warning in prepared.warnings:
        watcher.warn(warning)
    joined = join(prepared, store.ledger(prepared.name), set(store.names()))
    return joined.prepared, _add(store, joined.prepared, options, watcher, notes=joined.notes)


def _add(
    store: Store, prepared: Prepared, options: RunOptions, observer: Observer, *, notes: Sequence[str]
) -> Added:
    """Put the grid into the store, and say how it joins what is there and what of it is new."""
    joined = joined_data(store, prepared, options.places)
    draft = StudyDraft(
        name=prepared.name,
        dataset=prepared.catalog.subject,
        metric=prepared.metric,
        direction=prepared.direction,
        axes=prepared.axes,
        class_names=prepared.class_names,
        facts=prepared.facts,
        same_images=joined.same,
        command=options.command,
        environment=environment(prepared.kind),
        spec=user_code.kept(
            {**prepared.spec, LOCATORS: prepared.catalog.named},
            _stored_spec(store, prepared.name),
            prepared.catalog.own,
        ),
        where=place(options.places.home, options.places.store, kept=True),
    )
    added = store.add(draft, prepared.drafts, prune=options.prune != "none")
    if joined.earlier:
        observer.say(
            f"the images differ from those of the {plural(joined.earlier, 'trial')} that study {prepared.name!r} "
            "holds: new trials are added beside them and not compared with them"
        )
    for note in notes:
        observer.say(note)
    for axis in added.varied:
        observer.say(f"study {prepared.name!r} now holds points with different settings: {axis} varies")
    words = [plural(len(prepared.drafts), "trial")]
    words += [f"{n} {what}" for n, what in ((added.new, "new"), (added.reused, "done before")) if n]
    words += [
        f"{n} {what}" for n, what in ((added.offered_again, "offered again"), (added.in_flight, "open")) if n
    ]
    observer.say(f"study {prepared.name!r}: {', '.join(words)}")
    return added


def _stored_spec(store: Store, study: str) -> Mapping[str, Any]:
    return store.spec(study) if study in store.names() else {}
