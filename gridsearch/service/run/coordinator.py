"""The loop of a run: claim what waits, hand it to the executor, write down what comes back.

The only writer: workers send events, this turns each batch of them into one transaction.  Several runners may
share a store; each claims while there is something to claim, and ends when nothing of its grid waits or runs.
"""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from gridsearch.errors import StoreError
from gridsearch.planning import SettledQueue, Unprobed, WorkQueue
from gridsearch.records import (
    Advance,
    EpochEnded,
    Exported,
    LanesWanted,
    LogText,
    Pack,
    PackEnded,
    PackStarted,
    Probed,
    StepEnded,
    TrialFailed,
    TrialFinished,
    TrialState,
    Unwritable,
    WorkerDied,
    WorkerReady,
)
from gridsearch.service.run.held_trials import Claim, HeldTrials
from gridsearch.service.run.publisher import TrialPublisher
from gridsearch.service.run.recorder import ResultWriter
from gridsearch.service.run.same_failure import FirstTrials
from gridsearch.service.run.sizing import Sizing, settled_packs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.executors import Executor
    from gridsearch.planning import CostModel, ProbeCache
    from gridsearch.plugins import ImageData
    from gridsearch.records import DataFacts, Event, Lane, Trial
    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.run.interruption import Interruption
    from gridsearch.service.run.progress import Observer, Progress
    from gridsearch.service.run.pruning import Pruning
    from gridsearch.service.run.recorder import Ended
    from gridsearch.store import RunnerIdentity, Store

_POLL_SECONDS = 0.25
_FLUSH_SECONDS = 1.0
"""Epochs wait that long for others to share a transaction: short epochs would else cost a commit each."""

_SHOWN = 12
"""So many numbers of trials are named in one line."""

_LOOK_AGAIN_SECONDS = 2.0
"""How often to look for trials that came back, and for runners that died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one runner is to do.

    Attributes:
        study: the study's name.
        study_id: its ledger id.
        ids: ledger ids of the grid's trials; nothing else is claimed.
        owner: who claims.
        options: how to run.
        pack_limit_mb: memory that one pack may take, None where that is not known.
        facts: what is known of the trials' images, by fingerprint.
        images: datasets that are at hand, by their fingerprint; pictures of trials show some of them.
        lanes: trials of a pack, None to measure what is best.
    """

    study: str
    study_id: int
    ids: Sequence[int]
    owner: RunnerIdentity
    options: RunOptions
    pack_limit_mb: float | None = None
    facts: Mapping[str, DataFacts] = field(default_factory=dict)
    images: Mapping[str, ImageData] = field(default_factory=dict)
    lanes: int | None = None


class Coordinator:
    """Runs the trials of one grid.

    Args:
        store: the open store, with its files.
        task: what to do.
        cost: orders trials and calibrates the ETA.
        probes: takes the measured cost of each epoch.
        progress: is kept up to date.
        observer: is notified of what happens.
        interruption: is checked between polls.
        pruning: decides after each epoch, None where every trial trains to its end.
        idle: called once, when a worker first has nothing left to do while others train.
    """

    def __init__(  # noqa: PLR0913  (the collaborators of one run, each by its name)
        self,
        *,
        store: Store,
        task: Task,
        cost: CostModel,
        probes: ProbeCache,
        progress: Progress,
        observer: Observer,
        interruption: Interruption,
        pruning: Pruning | None = None,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._home = store.home
        self._study, self._study_id, self._ids = task.study, task.study_id, task.ids
        self._options = task.options
        self._cost = cost
        self._probes = probes
        self._progress = progress
        self._observer = observer
        self._interruption = interruption
        self._pruning = pruning
        self._idle: Callable[[], None] | None = idle
        self._sizing = Sizing(
            lanes=task.lanes,
            device=progress.device,
            cost=cost,
            probes=probes,
            limit_mb=task.pack_limit_mb,
        )
        self._queue = self._make_queue(progress.workers)
        self._publisher = TrialPublisher(store.home, self._study, facts=task.facts, images=task.images)
        self._claims = HeldTrials(
            store=store,
            study=self._study,
            owner=task.owner,
            lease=task.options.lease,
            publisher=self._publisher,
            progress=progress,
            cost=cost,
        )
        self._results = ResultWriter(
            store,
            study=self._study,
            publisher=self._publisher,
            progress=progress,
            observer=observer,
            pruning=pruning,
        )
        self._first = FirstTrials(
            keep_going=task.options.keep_going, waiting=lambda: store.waiting(task.study_id, task.ids)
        )
        self._packs: dict[str, Pack] = {}
        self._held: dict[str, list[Ended]] = {}
        self._executor: Executor | None = None
        self._epochs: list[Advance] = []
        self._named = ""
        self._last_look = float("-inf")
        self._last_heartbeat = self._last_flush = time.monotonic()

    def run(self, start: Callable[[Callable[[Event], None], Callable[[], bool]], Executor]) -> None:
        """Train until nothing of the grid waits or runs, the budget is spent, or somebody interrupts.

        Args:
            start: makes the executor from the function that takes its events and the function that it asks,
                now and then, whether to give up.

        Raises:
            StoreError: the study was deleted meanwhile, or the store cannot be written any more.
        """
        executor = self._executor = start(self._handle, self._interrupted)
        self._observer.started(self._progress)
        try:
            while not self._interruption:
                self._claim(executor)
                if not executor.busy and not self._worth_waiting():
                    break
                if executor.free and executor.busy and self._idle is not None:
                    self._idle()
                    self._idle = None
                executor.poll(_POLL_SECONDS)
                self._flush_in_time()
                self._heartbeat()
                self._observer.updated(self._progress)
            if self._first.reason:
                self._observer.warn(self._first.reason)
        finally:
            executor.stop()
            self._leave()
            self._observer.ended(self._progress)

    # Claiming

    def _make_queue(self, workers: int) -> WorkQueue[Trial] | SettledQueue[Trial]:
        """Return what says which trials go together: the settled packs, or whatever suits at the moment."""
        if self._options.settled:
            return SettledQueue(settled_packs(self._store.ledger(self._study), self._options))
        return WorkQueue(
            workers=workers,
            lanes=lambda trial, count: self._sizing.lanes(trial.settings, count),
            cost=lambda trial: self._cost.guess(trial.settings),
            share=lambda trial, lanes: self._cost.share(trial.settings, lanes),
        )

    def _claim(self, executor: Executor) -> None:
        """Give every free worker a pack, or a pack's size to measure."""
        while executor.free and not self._spent():
            if not self._queue and not self._look():
                return
            work = self._queue.next(self._claims.ahead())
            if work is None:
                return
            if isinstance(work, Unprobed):
                settings = work.trial.settings
                self._observer.say(f"measuring packs of {settings.model} at batch {settings.batch}")
                executor.submit(self._sizing.request(settings, work.count))
                continue
            pack = uuid.uuid4().hex[:12]
            if lanes := self._claims.claim(work, pack):
                self._packs[pack] = Pack(pack, lanes)
                executor.submit(self._packs[pack])

    def _refill(self, event: LanesWanted) -> None:
        """Give the free lanes of a pack to trials of its group that wait."""
        assert self._executor is not None
        pack = self._packs[event.pack]
        lanes: tuple[Lane, ...] = ()
        if self._queue and not self._spent() and not self._interruption:
            ahead = self._claims.ahead(but=pack.id)
            wanted = self._queue.refill(pack.lanes[0].trial.settings, event.count, ahead)
            lanes = self._claims.claim(wanted, pack.id) if wanted else ()
            for lane in lanes:
                self._progress.running[lane.trial.id].worker = event.worker
        self._executor.send_lanes(pack.id, lanes)

    def _look(self) -> bool:
        """Fill the queue with what waits now; the store is asked every other second at most."""
        now = time.monotonic()
        if now - self._last_look < _LOOK_AGAIN_SECONDS:
            return False
        self._last_look = now
        self._reclaim()
        self._queue.fill(self._store.waiting(self._study_id, self._ids))
        counts = self._store.open_counts(self._study_id, self._ids)
        self._progress.counts = {state: counts.get(state, 0) for state in TrialState}
        self._name_other_runners()
        return bool(self._queue)

    def _name_other_runners(self) -> None:
        """Name the runners that hold what is left of our grid, once, while we have nothing to do."""
        if self._queue or self._claims:
            self._named = ""
            return
        others = [runner for runner in self._store.runners(self._study) if not runner.gone]
        named = ", ".join(f"process {runner.pid} on {runner.host}" for runner in others)
        if named and named != self._named:
            numbers = sorted(number for runner in others for number in runner.trials)
            shown = ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")
            trains = "trains" if len(others) == 1 else "train"
            self._observer.say(f"waiting for {named}, which {trains} trial{'s' * (len(numbers) > 1)} {shown}")
        self._named = named

    def _reclaim(self) -> None:
        for back in self._store.reclaim(self._study_id):
            self._home.drop_scratch(self._study, back.number, back.attempt)
            self._observer.say(f"trial {back.number}: its runner is gone; offered again")

    def _worth_waiting(self) -> bool:
        """Whether another runner still works on our grid, so that something may come back to us."""
        if self._spent():
            return False
        if self._queue:
            return True
        counts = self._store.open_counts(self._study_id, self._ids)
        self._progress.counts = {state: counts.get(state, 0) for state in TrialState}
        return bool(counts.get(TrialState.WAITING) or counts.get(TrialState.RUNNING))

    def _spent(self) -> bool:
        """Whether no more trials shall begin: the time is over, or they would fail as the first have."""
        budget = self._options.budget
        return self._first.reason is not None or (budget is not None and self._progress.seconds > budget)

    # Events

    def _handle(self, event: Event) -> None:
        """Handle one event of the executor."""
        match event:
            case EpochEnded() | StepEnded():
                self._first.went_on()
                self._epochs.append(event)
                self._note_epoch(event)
            case TrialFinished() | TrialFailed():
                self._trial_ended(event)
            case LogText():
                self._log(event)
            case PackStarted():
                self._pack_started(event)
            case PackEnded():
                self._pack_ended(event.pack)
            case LanesWanted():
                self._refill(event)
            case Probed():
                self._queue.sized(self._sizing.record(event))
            case WorkerDied():
                self._worker_died(event)
            case Unwritable():
                raise StoreError(event.message, hint=event.hint)
            case WorkerReady() | Exported():  # no export is asked for in a run
                pass
            case _:
                assert_never(event)

    def _log(self, event: LogText) -> None:
        for trial in event.trials:
            if claim := self._claims.get(trial):
                self._home.append_log(self._study, claim.trial.number, event.text)

    def _pack_started(self, event: PackStarted) -> None:
        for trial in event.trials:
            if running := self._progress.running.get(trial):
                running.worker = event.worker

    def _note_epoch(self, event: Advance) -> None:
        claim = self._claims.get(event.trial)
        if claim is None:
            return
        if self._pruning is not None and self._executor is not None:
            self._executor.send_decision(claim.pack, self._pruning.decide(claim.trial, event))
        self._publisher.epoch(event)
        settings = claim.trial.settings
        self._progress.epoch_ended(event, self._claims.epoch_units(settings))
        if not isinstance(event, EpochEnded):
            return
        lanes = len(self._claims.of(claim.pack))
        self._probes.observe(self._cost.key(settings), lanes, event.seconds / self._cost.images(settings))

    def _require_study(self) -> None:
        """Raise StoreError if somebody has deleted the study."""
        self._store.open_counts(self._study_id, ())

    def _flush_in_time(self) -> None:
        if self._epochs and time.monotonic() - self._last_flush > _FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        """Write all epochs that came in, of all lanes, in one transaction."""
        self._last_flush = time.monotonic()
        if self._epochs:
            epochs, self._epochs = self._epochs, []
            if not self._store.record_epochs(epochs):
                self._require_study()

    def _trial_ended(self, event: Ended) -> None:
        """Write a result at once, or let it wait for the rest of its settled pack: half a pack is not the same pack."""
        claim = self._claims.get(event.trial)
        if isinstance(event, TrialFinished):
            self._first.went_on()
        elif claim is not None and event.reason == "error":
            self._first.failed(claim.trial.settings, event.message)
        if claim is not None and self._options.settled:
            self._held.setdefault(claim.pack, []).append(event)
        elif claim is not None:
            self._write([event])

    def _pack_ended(self, pack: str) -> None:
        """Write what waited for this, if the pack came to its end, and release what has no result."""
        held = [event for event in self._held.pop(pack, ()) if event.trial in self._claims]
        if len(held) == len(self._claims.of(pack)):
            self._write(held)
        self._packs.pop(pack, None)
        left = self._claims.of(pack)
        if self._interruption:  # it was stopped
            self._claims.release(left)
        elif left:
            self._offer_again(left, "its pack ended without it")

    def _write(self, events: Sequence[Ended]) -> None:
        ended = [(self._claims.end(event.trial), event) for event in events]
        for trial, event in ended:
            if trial.settings.length is None and isinstance(event, TrialFinished):
                self._probes.observe(self._cost.key(trial.settings), 1, event.seconds)
        epochs, self._epochs = self._epochs, []
        if not self._results.write(ended, epochs):
            self._require_study()

    def _worker_died(self, event: WorkerDied) -> None:
        """Offer again what a worker was working on when it died."""
        self._flush()
        self._packs.pop(event.pack or "", None)
        self._held.pop(event.pack or "", None)
        lost = self._claims.of(event.pack)
        numbers = ", ".join(str(claim.trial.number) for claim in lost)
        self._observer.warn(
            f"worker {event.worker} died ({event.message})"
            + (f" while training trial {numbers}" if lost else "")
        )
        if lost and event.memory and (relief := self._take_less_memory(lost)):
            self._observer.say(relief)
            self._claims.release(lost)  # no try of theirs: the next one is another
            self._last_look = float("-inf")
            return
        self._offer_again(lost, event.message, failed="its worker died")

    def _take_less_memory(self, lost: Sequence[Claim]) -> str | None:
        """Make smaller packs, else fewer at a time; return what was done, None where nothing is left to do."""
        assert self._executor is not None
        if self._options.settled:  # what was settled stays: the user named both numbers
            return None
        if len(lost) > 1:
            fewer = self._sizing.cap(lost[0].trial.settings, len(lost) // 2)
            return f"packs of {lost[0].trial.settings.model} get {fewer} lane{'s' * (fewer > 1)} at most"
        return "one worker fewer trains at a time" if self._executor.use_fewer() else None

    def _offer_again(self, lost: Sequence[Claim], reason: str, *, failed: str | None = None) -> None:
        """Let trials wait again that ended without a result; those tried often enough have failed."""
        self._claims.drop(lost)
        held = [claim.held for claim in lost]
        for back in self._store.requeue(held, retries=self._options.retries, reason=reason):
            if back.requeued:
                tries = f"attempt {back.tries + 1} of {self._options.retries + 1}"
                self._observer.say(f"trial {back.number}: starts again ({tries})")
                self._last_look = float("-inf")
            else:
                self._progress.move(TrialState.WAITING, TrialState.FAILED)
                self._observer.warn(f"trial {back.number}: failed, {failed or reason} {back.tries} times")

    # Time

    def _interrupted(self) -> bool:
        """Answer an inline executor, and use the moment: nobody else has the thread meanwhile."""
        self._flush_in_time()
        self._heartbeat()
        self._observer.updated(self._progress)
        return bool(self._interruption)

    def _heartbeat(self) -> None:
        """Renew our leases in time."""
        now = time.monotonic()
        if now - self._last_heartbeat < self._options.lease / 4:
            return
        self._last_heartbeat = now
        if not self._claims:
            return
        for lost in self._claims.heartbeat():
            self._claims.drop([lost])
            self._observer.warn(f"trial {lost.trial.number}: lost its lease; its result will not count")
        self._require_study()
        self._probes.save()

    def _leave(self) -> None:
        """Release what has not ended, so that the store is consistent whatever ended the run."""
        with suppress(StoreError):
            self._claims.release(list(self._claims))
        self._probes.save()
