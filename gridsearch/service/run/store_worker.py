"""A runner without a grid: it trains what waits in a store, of any study, until it is told to stop or nothing waits.

Between the command line and `study_training`, which trains one study at a time, as it does for a run.  What a machine
cannot train (its code was not named, its data is not here or is another, its device or arithmetic is not) stays for
others, and is said once.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gridsearch.errors import (
    DataError,
    FolderTaken,
    StoreUnreachable,
    StudyDeleted,
    StudyNotFound,
    UsageError,
)
from gridsearch.random_streams import CHANCE
from gridsearch.records import TrialState
from gridsearch.reporting.words.text import plural
from gridsearch.service.prepare.preparation import prepare_open
from gridsearch.service.run.interruption import listening
from gridsearch.service.run.progress import Silent
from gridsearch.service.run.study_training import Share, open_for_runner, train_waiting
from gridsearch.service.run.timing import Timing
from gridsearch.service.run.workers import arithmetic_cautions, devices_for
from gridsearch.store import RunnerIdentity

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gridsearch.errors import GridsearchError
    from gridsearch.service.prepare.named_code import NamedCode
    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.prepare.prepared import Prepared
    from gridsearch.service.run.ending import Ending
    from gridsearch.service.run.interruption import Interruption
    from gridsearch.service.run.progress import Observer
    from gridsearch.store import OpenStudy, Store

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
"""Seconds between two looks at a store in which nothing can be done; each pause is half as long again as the last."""

_ANNOUNCE_SECONDS = 20.0
"""A worker without trials says so often that it is there; see `StoreReader.idle_runners`."""

_TRY_AGAIN_SECONDS = 600.0
"""So long after a vain try a study is tried again: data may have come."""

_SLICE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOutcome:
    """What a worker did.

    Attributes:
        counts: of each study that it took up, the trials that were open then, by the state that they are in now.
        left: why trials that wait were not taken, by study.
        signum: the signal that ended it, or None.
        refused: the exit code of the first such reason; 0 where it left nothing, or was told to stop.
    """

    counts: dict[str, dict[str, int]]
    left: dict[str, str]
    signum: int | None
    refused: int

    @property
    def failed(self) -> int:
        """How many trials failed of those that were open when it took their studies up."""
        return sum(counts[TrialState.FAILED] for counts in self.counts.values())

    @property
    def exit_code(self) -> int:
        """128 and a signal's number, 3 if trials failed, 2 or 4 if trials are left that it could not take, else 0."""
        if self.signum is not None:
            return 128 + self.signum
        return 3 if self.failed else self.refused

    def to_json(self) -> dict[str, Any]:
        """Return the content of `worker --json`."""
        studies = [{"study": study, "counts": counts} for study, counts in self.counts.items()]
        left = [{"study": study, "reason": reason} for study, reason in self.left.items()]
        return {"schema": 1, "studies": studies, "left": left}


def work(
    options: RunOptions,
    *,
    named: NamedCode,
    studies: Collection[str] = (),
    until_empty: bool = False,
    observer: Observer | None = None,
) -> WorkOutcome:
    """Train what waits in a store; see `StoreWorker`.

    A store that is not there yet is made, unless there is nothing to wait for.

    Raises:
        GridsearchError: the store cannot be used, or was away for too long; a study is not there.
    """
    watcher = observer or Silent()
    with (
        open_for_runner(options, watcher, create=not until_empty) as store,
        listening(watcher.say) as interrupted,
    ):
        return StoreWorker(
            store=store,
            options=options,
            named=named,
            studies=studies,
            until_empty=until_empty,
            observer=watcher,
            interrupted=interrupted,
        ).run()


@dataclass(frozen=True, slots=True)
class _LeftAlone:
    """A study that was not taken up: why, how many trials it had then, and when."""

    reason: str
    exit_code: int
    numbers: int
    since: float


@dataclass(slots=True)
class StoreWorker:
    """Takes up one study after another, the oldest first.

    Args:
        store: the store, open.
        options: how to train; the budget is for all studies together.
        named: the user's own code that may run here.
        studies: their names, empty for any.
        until_empty: end when nothing waits, or runs elsewhere, that could be trained here.
        observer: is notified of what happens.
        interrupted: whether there was a signal.
    """

    store: Store
    options: RunOptions
    named: NamedCode
    studies: Collection[str]
    until_empty: bool
    observer: Observer
    interrupted: Interruption
    _began: float = field(default_factory=time.monotonic)
    _stops: dict[str, int] = field(default_factory=dict)
    _stopped: set[str] = field(default_factory=set)
    _alone: dict[str, _LeftAlone] = field(default_factory=dict)
    _taken: dict[int, tuple[str, set[int]]] = field(default_factory=dict)
    _announced: float = float("-inf")
    _away_since: float | None = None
    _said: str = ""

    def run(self) -> WorkOutcome:
        """Work until the end.

        Raises:
            StudyNotFound: a study that was named is not there, and nobody is waited for.
            StoreError: the store cannot be written any more.
            StoreUnreachable: it was away for too long.
        """
        pause = _SHORTEST_PAUSE
        found: Sequence[OpenStudy] | None = None
        while not self._over:
            found = self._look()
            if found is not None and self._done(found):
                break
            if any(self._take_up(each) for each in found or () if each.waiting and self._may_take(each)):
                pause = _SHORTEST_PAUSE
                continue
            self._wait(pause)
            pause = min(1.5 * pause, _LONGEST_PAUSE)
        return self._outcome(found or ())

    # What there is to do

    @property
    def _over(self) -> bool:
        return bool(self.interrupted) or self._budget_left == 0.0

    @property
    def _budget_left(self) -> float | None:
        if self.options.budget is None:
            return None
        return max(0.0, self.options.budget - (time.monotonic() - self._began))

    def _look(self) -> Sequence[OpenStudy] | None:
        """Return the studies that this worker serves; None while the store is away.

        Raises:
            StoreUnreachable: it has been away for too long.
        """
        now = time.monotonic()
        try:
            found = self.store.open_studies()
            if now - self._announced > _ANNOUNCE_SECONDS:
                self.store.announce(RunnerIdentity.current())
                self._announced = now
        except StoreUnreachable as error:
            if self._away_since is None:
                self._away_since = now
                patience = f"for up to {self.options.store_patience:.0f} s more"
                self.observer.warn(f"{error.message}; waits {patience}")
            if now - self._away_since > self.options.store_patience:
                raise
            return None
        if self._away_since is not None:
            self._away_since = None
            self.observer.say("the store is back")
        served = [each for each in found if not self.studies or each.name in self.studies]
        for each in served:
            self._heed_stop(each)
        return served

    def _heed_stop(self, study: OpenStudy) -> None:
        """Leave a study alone once somebody has asked its runners to stop since this worker first saw it."""
        if study.uid not in self._stopped and self._stops.setdefault(study.uid, study.stops) != study.stops:
            self._stopped.add(study.uid)
            self.observer.say(f"study {study.name!r}: asked to stop; this worker takes no more of its trials")

    def _done(self, found: Sequence[OpenStudy]) -> bool:
        """Return whether nothing is left for this worker: all studies were stopped, or nothing waits.

        Raises:
            StudyNotFound: a study that was named is not there, and nobody is waited for.
        """
        missing = [name for name in self.studies if name not in {each.name for each in found}]
        if self.until_empty and missing and not self._taken:
            raise StudyNotFound(missing[0], [each.name for each in self.store.open_studies()])
        live = [each for each in found if each.uid not in self._stopped]
        if found and not live and not missing:
            return True
        if any(each.waiting and self._may_take(each) for each in live):
            return False
        running = sum(each.running for each in live if each.uid not in self._alone)
        if self.until_empty and not running:
            return True
        self._say_what_it_waits_for(running, missing)
        return False

    def _say_what_it_waits_for(self, running: int, missing: Sequence[str]) -> None:
        elsewhere = f"; {plural(running, 'trial')} of other runners may come back" if running else ""
        absent = f"; there is no study {missing[0]!r} yet" if missing else ""
        line = f"no waiting trial can be trained here{elsewhere}{absent}"
        if line != self._said:
            self._said = line
            self.observer.say(line)

    def _may_take(self, study: OpenStudy) -> bool:
        """Whether a study may be taken up: not stopped, and not tried in vain as it is."""
        if study.uid in self._stopped:
            return False
        before = self._alone.get(study.uid)
        if before is None:
            return True
        long_ago = time.monotonic() - before.since > _TRY_AGAIN_SECONDS
        return study.numbers != before.numbers or (long_ago and not self.until_empty)

    def _wait(self, pause: float) -> None:
        """Pause; many workers that began together do not look at the store together."""
        until = time.monotonic() + pause * CHANCE.uniform(0.5, 1.0)
        while not self._over and (left := until - time.monotonic()) > 0:
            time.sleep(min(_SLICE, left))

    # A study

    def _take_up(self, study: OpenStudy) -> bool:
        """Train what waits of a study and can be trained here; return whether anything could be."""
        try:
            prepared = prepare_open(study.name, self.options.places, self.named, say=self.observer.say)
            if prepared is None:
                return False
            devices = self._devices(prepared)
            ids = self._open_ids(study, prepared)
            self.store.take_folder(study.name)
        except (StudyNotFound, StoreUnreachable):  # the next look says more
            return False
        except (UsageError, DataError, FolderTaken) as error:
            self._leave_alone(study, _reason(error), error.exit_code)
            return False
        if not ids:
            return False
        self._alone.pop(study.uid, None)
        self._said = ""
        self.observer.say(f"study {study.name!r}: {plural(study.waiting, 'trial')} waiting")
        for warning in prepared.warnings:
            self.observer.warn(warning)
        try:
            ending = self._train(prepared, devices, ids)
        except StudyDeleted as error:
            self.observer.warn(f"study {study.name!r}: {error.message}")
            return True
        if ending is not None and ending.asked:
            self._stopped.add(study.uid)
        elif ending is not None and ending.alike:
            self._leave_alone(study, ending.alike, 3, said=True)
        return True

    def _devices(self, prepared: Prepared) -> Sequence[str]:
        """Return where a study's trials train.

        Raises:
            DeviceError: there is no such device here.
            UsageError: it cannot do the arithmetic that they want.
        """
        devices = devices_for(self.options, prepared.kind)
        for caution in arithmetic_cautions(prepared, self.options, devices):
            self.observer.warn(caution)
        return devices

    def _open_ids(self, study: OpenStudy, prepared: Prepared) -> list[int]:
        """Return the ledger ids of the open trials among those that were prepared; none if none of them waits.

        Raises:
            DataError: what waits of the study is not among them.
        """
        keys = {draft.key for draft in prepared.drafts}
        there = self.store.open_trials(study.name)
        ours = [trial for trial in there if trial.key in keys]
        if any(trial.waits for trial in ours):
            return [trial.id for trial in ours]
        if any(trial.waits for trial in there):
            raise DataError("what waits of it was made with other images than are here")
        return []

    def _train(self, prepared: Prepared, devices: Sequence[str], ids: Sequence[int]) -> Ending | None:
        study_id = self.store.study_id(prepared.name)
        self._taken.setdefault(study_id, (prepared.name, set()))[1].update(ids)
        return train_waiting(
            self.store,
            prepared,
            replace(self.options, budget=self._budget_left),
            devices,
            Share(study_id, ids, stays=False),
            self.observer,
            Timing(time.monotonic()),
            interrupted=self.interrupted,
        )

    def _leave_alone(self, study: OpenStudy, reason: str, exit_code: int, *, said: bool = False) -> None:
        before = self._alone.get(study.uid)
        if not said and (before is None or before.reason != reason):
            self.observer.warn(f"study {study.name!r} is skipped: {reason}")
        self._alone[study.uid] = _LeftAlone(reason, exit_code, study.numbers, time.monotonic())

    # The end

    def _outcome(self, found: Sequence[OpenStudy]) -> WorkOutcome:
        counts: dict[str, dict[str, int]] = {}
        with suppress(StoreUnreachable):
            for study_id, (name, ids) in self._taken.items():
                with suppress(StudyDeleted):
                    counts[name] = {k.value: n for k, n in self.store.open_counts(study_id, ids).items()}
            self.store.depart(RunnerIdentity.current())
        waits = [each for each in found if each.waiting and each.uid not in self._stopped]
        left = {each.name: self._alone[each.uid] for each in waits if each.uid in self._alone}
        ended_by_itself = not self._over and self.until_empty
        codes = [alone.exit_code for alone in left.values()] if ended_by_itself else []
        return WorkOutcome(
            counts=counts,
            left={name: alone.reason for name, alone in left.items()},
            signum=self.interrupted.signum,
            refused=codes[0] if codes else 0,
        )


def _reason(error: GridsearchError) -> str:
    return error.message if error.hint is None else f"{error.message} ({error.hint})"
