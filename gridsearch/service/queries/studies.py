"""What is there: studies and their counts, one trial, and taking studies away."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gridsearch import files
from gridsearch.advice import Advice
from gridsearch.errors import StoreError, StudyNotFound, UsageError
from gridsearch.planning.estimates import relative_cost
from gridsearch.records import TrialState
from gridsearch.records.image_metrics import ACCURACY
from gridsearch.service.prepare.options import LEASE_SECONDS
from gridsearch.service.run.silence import SILENT_SECONDS
from gridsearch.store import Home, open_store, store_exists, take_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gridsearch.records import EpochRow, StepRow, StudyData, TrialRecord
    from gridsearch.service.prepare.options import Places
    from gridsearch.store import IdleRunner, RunnerAtWork, Store, StudySummary


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """How far a study is.

    Attributes:
        running: the trials that train now.
        eta: seconds until nothing waits or runs, at the speed so far and with as many packs side by side as
            now; None where nothing runs or nothing has been measured.
        runners: who holds its trials, those included that are gone; their trials wait.
        idle: trials wait, and nobody is at work in this store.
        resumable: the trials that wait and have a checkpoint, with the epoch, or step, that they go on from.
        quiet: trials that train and of which no epoch or step has ended for minutes: for how many seconds, by number.
        again: the commands about it.
        metric: which metric ranks it, likewise `direction`.
    """

    name: str
    counts: dict[str, int]
    running: tuple[TrialRecord, ...]
    eta: float | None
    runners: tuple[RunnerAtWork, ...] = ()
    idle: bool = False
    resumable: tuple[tuple[TrialRecord, int], ...] = ()
    quiet: Mapping[int, float] = field(default_factory=dict)
    again: Advice = field(default_factory=Advice)
    metric: str = ACCURACY
    direction: str = "maximize"

    @property
    def open(self) -> int:
        """How many trials wait or train."""
        return self.counts["waiting"] + self.counts["running"]

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `status --json`."""
        runners = [
            {
                "host": runner.host,
                "pid": runner.pid,
                "seen": None if runner.seen is None else runner.seen.isoformat(timespec="seconds"),
                "since": None if runner.since is None else runner.since.isoformat(timespec="seconds"),
                "trials": list(runner.trials),
                "gone": runner.gone,
            }
            for runner in self.runners
        ]
        return {
            "study": self.name,
            "metric": self.metric,
            "direction": self.direction,
            "counts": self.counts,
            "eta_seconds": self.eta,
            "runners": runners,
            "resumable": [{"trial": trial.number, "epoch": epoch} for trial, epoch in self.resumable],
            "quiet_seconds": {str(number): round(seconds) for number, seconds in self.quiet.items()},
        }


@dataclass(frozen=True, slots=True)
class TrialView:
    """One trial with its epochs or steps, and its log; `log_path` is None where nothing was logged."""

    study: StudyData
    trial: TrialRecord
    epochs: Sequence[EpochRow]
    steps: Sequence[StepRow]
    log: str
    log_path: str | None


_NAMED = 20
"""So many studies are listed where one has to be named."""

DASHBOARD_TRIALS = 5000
"""Of more trials Optuna's dashboard takes seconds to open, and sends megabytes; see docs/scale.md."""


def existing(places: Places) -> Store:
    """Open the store that is there.

    Raises:
        StoreError: there is none.
    """
    if not store_exists(places.store):
        require_never_made(places)
        raise StoreError(
            f"no store at {places.store}",
            hint=f"`{places.again.first_run()}` makes one; --home or --store says where another is",
        )
    return open_store(places.store, home=places.home, create=False)


def require_never_made(places: Places) -> None:
    """Refuse the place of a store that is gone, or not there now, for one where there never was any.

    Raises:
        StoreError: the home has files of studies that this store holds.
    """
    lost = Home(places.home, store=places.store).held()
    if lost:
        shown = ", ".join(lost[:_NAMED]) + (f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else "")
        raise StoreError(
            f"store {places.store} is gone: {places.home} still has files of its studies {shown}",
            hint="bring it back, or restore a copy of it; a run begins a new store and trains everything again",
        )


def only(places: Places) -> str:
    """Return the name of the only study.

    Raises:
        UsageError: there are several, which it lists.
        StoreError: there is none.
    """
    with existing(places) as store:
        names = sorted(store.names())
    if len(names) == 1:
        return names[0]
    if not names:
        raise StoreError("there is no study yet", hint=f"`{places.again.first_run()}` makes one")
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    raise UsageError(f"which of {len(names)} studies? {shown}", hint=f"name one: --study {names[0]}")


def summaries(places: Places) -> list[StudySummary]:
    """Return the studies of a store; none where there is no store yet.

    Raises:
        StoreError: the store is gone: files of its studies are there.
    """
    if not store_exists(places.store):
        require_never_made(places)
        return []
    with existing(places) as store:
        return store.studies()


def too_large_for_dashboard(store: Store) -> list[tuple[str, int]]:
    """Return the studies that have more trials than a browser shows at ease, each with their number."""
    found = ((study.name, sum(study.counts.values())) for study in store.studies())
    return [(name, trials) for name, trials in found if trials > DASHBOARD_TRIALS]


def status(places: Places, study: str | None = None) -> list[StudyStatus]:
    """Return how far the studies are.

    Raises:
        StudyNotFound: the one that was asked for is not there.
        StoreError: the store is gone: files of its studies are there.
    """
    if study is None and not store_exists(places.store):
        require_never_made(places)
        return []
    with existing(places) as store:
        if study is not None:
            return [status_of(store, study)]
        found = []
        for summary in store.studies():
            with suppress(StudyNotFound):  # deleted at this moment
                found.append(status_of(store, summary.name))
        return found


def stop(places: Places, study: str, *, now: bool) -> list[RunnerAtWork]:
    """Ask the runners of a study, on any machine, to end; what they hold then waits for the next run.

    Args:
        places: where things lie.
        study: the study's name.
        now: at once, not at the end of the current epoch.

    Returns:
        The runners that hold trials of it; one that waits for others' is asked too.

    Raises:
        StudyNotFound: there is no such study.
    """
    with existing(places) as store:
        return store.request_stop(study, at_once=now)


def idle_runners(places: Places) -> list[IdleRunner]:
    """Return the runners, on any machine, that hold no trial: they wait for work."""
    if not store_exists(places.store):
        return []
    with existing(places) as store:
        return store.idle_runners(within=LEASE_SECONDS)


def anybody_at_work(places: Places) -> bool:
    """Return whether a runner may be at work in a store, though it holds no trial at this moment."""
    if not store_exists(places.store):
        return False
    with existing(places) as store:
        return store.anybody_at_work(within=LEASE_SECONDS)


def status_of(store: Store, name: str) -> StudyStatus:
    """Return how far a study of an open store is.

    Raises:
        StudyNotFound: there is none.
    """
    data = store.study_data(name)
    running = tuple(trial for trial in data.trials if trial.state is TrialState.RUNNING)
    waits = data.counts()[TrialState.WAITING] > 0 and not running
    own = store.is_folder_of(name)
    return StudyStatus(
        name=data.name,
        counts=data.counts(),
        running=running,
        eta=_eta(data, store.running_packs(name)) if running else None,
        runners=tuple(store.runners(name)),
        idle=waits and not store.anybody_at_work(within=LEASE_SECONDS),
        resumable=tuple(
            (trial, epoch)
            for trial in data.trials
            if own
            and trial.state is TrialState.WAITING
            and trial.epochs
            and (epoch := store.home.checkpoint_epoch(name, trial.number))
        ),
        quiet=_quiet(store, name, running) if own else {},
        again=data.again,
        metric=data.metric,
        direction=data.direction,
    )


def _quiet(store: Store, name: str, running: Sequence[TrialRecord]) -> dict[int, float]:
    """Return for how long nothing was recorded of trials that train, by their TensorBoard runs; minutes and more."""
    now, found = time.time(), {}
    for trial in running:
        written = []
        for file in store.home.tensorboard_dir(name, trial.number).glob("*"):
            with suppress(OSError):  # a trial that goes on has its files written anew
                written.append(file.stat().st_mtime)
        if written and now - max(written) >= SILENT_SECONDS:
            found[trial.number] = now - max(written)
    return found


def _eta(data: StudyData, packs: int) -> float | None:
    """Return the seconds left with as many packs side by side as now; a trial's seconds are its share of a pack."""
    seconds = units = left = 0.0
    for trial in data.trials:
        cost = relative_cost(trial.settings)
        share = trial.epochs / (trial.settings.length or math.inf)
        if trial.state is TrialState.COMPLETE and trial.seconds:
            seconds, units = seconds + trial.seconds, units + cost
        elif trial.state is TrialState.RUNNING and share:
            seconds += sum(row.seconds for row in data.epochs.get(trial.number, ()))
            units += share * cost
        if not trial.state.ended:
            left += (1 - share) * cost
    return left * seconds / units / packs if packs and units else None


def view_trial(places: Places, study: str, number: int) -> TrialView:
    """Return one trial.

    Raises:
        StoreError: the study, or the trial, is not there.
    """
    with existing(places) as store:
        data = store.study_data(study)
        own = store.is_folder_of(study)
    found = [trial for trial in data.trials if trial.number == number]
    if not found:
        highest = max((trial.number for trial in data.trials), default=None)
        there = "it has none" if highest is None else f"its trials are numbered up to {highest}"
        again = "a trial that was offered again after it failed has a new number"
        gone = highest is not None and 0 <= number < highest
        raise StoreError(f"study {study!r} has no trial {number}; {there}", hint=again if gone else None)
    home = Home(places.home)
    log = home.log(study, number)
    if own:
        home.fetch(log)
    path = str(log) if own and log.exists() else None
    text = log.read_text(errors="replace") if path else ""
    steps = data.steps.get(number, ())
    return TrialView(data, found[0], data.epochs.get(number, ()), steps, text, path)


def delete(places: Places, study: str, *, warn: Callable[[str], None] = lambda _: None) -> None:
    """Take a study away: its trials, Optuna's record of them, and its files, unless another store needs these.

    Args:
        places: where things lie.
        study: the study's name.
        warn: is called with which store that is.

    Raises:
        StudyNotFound: there is none.
        StoreError: a runner works on it, or `best`.
    """
    with existing(places) as store, files.if_free(store.home.best_work(study) / files.LOCK) as free:
        if not free:
            raise StoreError(
                f"study {study!r} cannot be deleted: `gridsearch best` trains its winner again",
                hint="wait until it ends, or end it with Ctrl-C",
            )
        # nothing is written before the deletion itself, which may find room on a full disk
        if running := sum(len(runner.trials) for runner in store.runners(study) if not runner.gone):
            raise StoreError(
                f"study {study!r} cannot be deleted: a runner trains {running} of its trials",
                hint=f"end that runner first: {replace(places.again, study=study).stop()}",
            )
        other = store.home.others(study)
        store.delete_study(study)
        if other:
            warn(f"the files of study {study!r} stay: store {other} needs them")


def end_deletion(places: Places, study: str) -> bool:
    """Remove the files of a study whose deletion was cut off; return whether there was one, and no such study."""
    with existing(places) as store:
        if study in store.names() or not store.home.removals(study):
            return False
        store.home.remove_study(study)
        return True


def clean(places: Places, study: str, *, warn: Callable[[str], None] = lambda _: None) -> int:
    """Take away what is left of unfinished attempts, and of deletions that were cut off; results stay.

    Args:
        places: where things lie.
        study: the study's name.
        warn: is called with what could not be read of results that waited for the store.

    Returns:
        How many bytes were freed.

    Raises:
        StudyNotFound: there is no such study, and nothing is left of one.
        FolderTaken: the files are those of another store's study.
    """
    with existing(places) as store:
        take_in(store, warn=warn)  # what a runner could not write needs the files that it left
        try:
            return store.clean(study)
        except StudyNotFound:
            if store.clear_remnant(study):
                return store.home.remove_study(study)
            if study in store.home.leftovers(()):
                return store.home.remove_trials(study)
            store.home.require(study, "")  # says whose files are there
            raise


def tensorboard_folder(places: Places, study: str | None) -> Path:
    """Return the folder of a study's TensorBoard runs by their numbers, or the one above those of all studies."""
    return places.home if study is None else Home(places.home).tensorboard_dir(study)
