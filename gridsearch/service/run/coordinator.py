"""The loop of a run: claim what waits, hand it to the executor, write down what comes back.

The only writer: workers send events, this turns each batch of them into one transaction.  Several runners may
share a store; each claims while there is something to claim, and ends when nothing of its grid waits or runs.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, assert_never

from gridsearch.errors import StoreError
from gridsearch.records import (
    EngineSays,
    EpochEnded,
    Exported,
    LanesTraining,
    LanesWanted,
    LogText,
    PackEnded,
    PackStarted,
    Probed,
    ProbeRequest,
    StepEnded,
    StillTraining,
    TrialFailed,
    TrialFinished,
    TrialResumed,
    Unwritable,
    WorkerDied,
    WorkerLeft,
    WorkerReady,
)
from gridsearch.service.run.held_trials import HeldTrials
from gridsearch.service.run.lost_trials import LostTrials
from gridsearch.service.run.recorder import Recorder
from gridsearch.service.run.resumed_trials import ResumedTrials
from gridsearch.service.run.silence import Silence
from gridsearch.service.run.trial_limits import TrialLimits
from gridsearch.service.run.trial_source import TrialSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridsearch.executors import Executor
    from gridsearch.records import Advance, Event
    from gridsearch.service.run.ending import Ending
    from gridsearch.service.run.held_trials import Claim
    from gridsearch.service.run.pruning import Pruning
    from gridsearch.service.run.publisher import TrialPublisher
    from gridsearch.service.run.recorder import Ended
    from gridsearch.service.run.run_context import RunContext
    from gridsearch.service.run.sizing import Sizing

_POLL_SECONDS = 0.25

_IDLE_SECONDS = 0.5
"""So long a worker has nothing to do before this process prepares the end of the run."""


class Coordinator:
    """Runs the trials of one grid.

    Args:
        run: what to do, where, and who watches.
        sizing: says how many lanes a pack gets.
        publisher: keeps the trials' TensorBoard runs and pictures.
        ending: says whether the run ends although trials wait or train.
        pruning: decides after each epoch, None where every trial trains to its end.
        idle: called once: when a worker has had nothing left to do for a while and others train, or at the end.
    """

    def __init__(
        self,
        run: RunContext,
        *,
        sizing: Sizing,
        publisher: TrialPublisher,
        ending: Ending,
        pruning: Pruning | None = None,
        idle: Callable[[], object] | None = None,
    ) -> None:
        self._run = run
        self._ending = ending
        self._pruning = pruning
        self._idle = idle
        self._idle_since = math.inf
        self._held = HeldTrials(run, publisher)
        self._recorder = Recorder(run, held=self._held, publisher=publisher, pruning=pruning)
        self._source = TrialSource(run, held=self._held, sizing=sizing, write=self._recorder.flush)
        self._resumed = ResumedTrials(run, held=self._held, publisher=publisher, pruning=pruning)
        self._lost = LostTrials(run, held=self._held, source=self._source, resumed=self._resumed)
        self._limits = TrialLimits(run, self._held)
        self._silence = Silence(run)
        self._executor: Executor | None = None
        self._resumable: bool | None = None
        self._last_heartbeat = time.monotonic()
        self._last_said = ""

    def run(self, start: Callable[[Callable[[Event], None], Callable[[], bool]], Executor]) -> None:
        """Train until nothing of the grid waits or runs, or the run ends before, as `Ending` says.

        Args:
            start: makes the executor from the function that takes its events and the function that it asks,
                now and then, whether to give up.

        Raises:
            StoreError: the study was deleted meanwhile, or the store cannot be written any more.
        """
        executor = self._executor = start(self._take, self._interrupted)
        self._run.observer.started(self._run.progress)
        try:
            while not self._ending.begun:
                self._submit(executor)
                if not executor.busy and not self._source.worth_waiting():
                    break
                self._use_idle_time(executor)
                self._poll(executor)
            while executor.busy and not self._over(executor):
                self._poll(executor)
            self._recorder.finish(meanwhile=self._prepare_end)
            if self._source.stopped_because:
                self._ending.alike = self._source.stopped_because
                self._run.observer.warn(self._source.stopped_because)
        finally:
            executor.stop()
            self._leave()
            self._run.observer.ended(self._run.progress)

    def _use_idle_time(self, executor: Executor) -> None:
        """Prepare the run's end once a worker has had nothing to do for a while; in shorter runs, the end does it."""
        now = time.monotonic()
        if not (executor.free and executor.busy):
            self._idle_since = math.inf
        elif now - min(self._idle_since, now) >= _IDLE_SECONDS:
            self._prepare_end()
        else:
            self._idle_since = min(self._idle_since, now)

    def _prepare_end(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            idle()

    def _poll(self, executor: Executor) -> None:
        """Take what the workers say, or wait a moment for it, and do what the time asks for."""
        executor.poll(min(_POLL_SECONDS, self._recorder.patience))
        self._tend()

    def _over(self, executor: Executor) -> bool:
        """Whether packs under way have had their time, once they are asked to be left at their next epoch's end."""
        if not self._ending.begun:
            return False
        if self._resumable is None:
            self._resumable = executor.leave()
            self._limits.end_probes(executor)
        return self._ending.over(resumable=self._resumable)

    def _submit(self, executor: Executor) -> None:
        """Give every free worker a pack, or a pack's size to measure."""
        while executor.free and (task := self._source.next()) is not None:
            if isinstance(task, ProbeRequest):
                self._limits.probing(task)
            executor.submit(task)
        all_busy = executor.busy and not executor.free
        executor.expect(more=bool(all_busy or self._source.more()))

    def _tend(self) -> None:
        """Write what has waited long enough, renew the leases, show how it goes.

        Raises:
            StoreError: the study was deleted.
            StoreUnreachable: the store was away for too long.
        """
        self._run.store.tend()
        self._recorder.flush_in_time()
        self._heartbeat()
        if self._executor is not None:
            self._limits.check(self._executor)
        self._silence.check()
        self._run.observer.updated(self._run.progress)

    def _interrupted(self) -> bool:
        """Answer an inline executor, and use the moment: nobody else has the thread meanwhile."""
        self._tend()
        return self._executor is not None and self._over(self._executor)

    # Events

    def _take(self, event: Event) -> None:
        """Take one event of the executor; those that say where the trials of a pack go on from come in a row."""
        if isinstance(event, TrialResumed):
            self._resumed.add(event)
        else:
            self._resumed.flush()
            self._handle(event)

    def _handle(self, event: Event) -> None:
        assert self._executor is not None
        match event:
            case EpochEnded() | StepEnded():
                self._advanced(event, self._executor)
            case TrialFinished() | TrialFailed():
                self._trial_ended(self._limits.settle(event))
            case LogText():
                self._recorder.log(event)
            case PackStarted() | LanesTraining() | StillTraining():
                self._note_work(event)
            case PackEnded():
                self._pack_ended(event.pack)
            case LanesWanted():
                lanes = () if self._ending.begun else self._source.refill(event)
                self._executor.send_lanes(event.pack, lanes)
            case Probed():
                self._limits.probed(event)
                self._source.probed(event)
            case WorkerDied():
                self._worker_died(event, self._executor)
            case WorkerLeft() | EngineSays():
                self._of_the_engine(event)
            case Unwritable():
                self._unwritable(event)
            case WorkerReady() | Exported() | TrialResumed():  # no export is asked for in a run
                pass
            case _:
                assert_never(event)

    def _note_work(self, event: PackStarted | LanesTraining | StillTraining) -> None:
        """Take note of who trains what, and that it goes on."""
        progress, trials = self._run.progress, self._held.numbers_of(event.pack)
        if isinstance(event, PackStarted):
            progress.assign(event.trials, event.worker)
        elif isinstance(event, LanesTraining):
            progress.training(trials, event.trials)
        else:
            progress.heard(trials)

    def _advanced(self, event: Advance, executor: Executor) -> None:
        self._source.went_on()
        claim = self._held.get(event.trial)
        if claim is not None and self._pruning is not None:  # first: the worker waits for it
            self._recorder.flush_results()  # which decide with
            executor.send_decision(claim.pack, self._pruning.decide(claim.trial, event))
        self._recorder.advance(event)

    def _trial_ended(self, event: Ended) -> None:
        if claim := self._held.get(event.trial):
            self._source.ended(claim.trial, event)
        self._recorder.ended(event)

    def _pack_ended(self, pack: str) -> None:
        """Write what waited for this, if the pack came to its end, and release what has no result."""
        self._recorder.pack_ended(pack)
        self._source.pack_ended(pack)
        left = self._held.of(pack)
        if self._ending.begun:  # it was left
            self._recorder.flush()
            self._held.release(left)
        elif left:
            self._lost.offer_again(left, "its pack ended without it")

    def _unwritable(self, event: Unwritable) -> None:
        """End the run, unless home itself is away: what the worker trained for it then waits, and is no try.

        Raises:
            StoreError: a worker cannot write its files.
        """
        if not self._run.store.home_is_away():
            raise StoreError(event.message, hint=event.hint)
        running = self._run.progress.running
        self._held.release([claim for claim in self._held if running[claim.trial.id].worker == event.worker])
        self._source.look_soon()

    def _of_the_engine(self, event: WorkerLeft | EngineSays) -> None:
        """Say what an engine says; what a worker has left waits again, from its checkpoints, and it is no try less."""
        if isinstance(event, EngineSays):
            if event.message != self._last_said:  # workers that start together say the same
                (self._run.observer.warn if event.warning else self._run.observer.say)(event.message)
            self._last_said = event.message
            return
        left: list[Claim] = []
        if event.pack is not None:
            self._recorder.pack_ended(event.pack)
            self._source.pack_ended(event.pack)
            left = self._held.of(event.pack)
        self._recorder.flush()
        self._lost.offer_at_once(left)
        numbers = ", ".join(str(claim.trial.number) for claim in left)
        rest = f"; trial{'s' * (len(left) > 1)} {numbers} wait{'s' * (len(left) == 1)} again" if left else ""
        self._run.observer.say(f"worker {event.worker} left: {event.message}{rest}")

    def _worker_died(self, event: WorkerDied, executor: Executor) -> None:
        self._recorder.flush()
        if event.pack is not None:
            self._recorder.pack_lost(event.pack)
            self._source.pack_ended(event.pack)
        elif self._ending.begun:  # it measured something that nobody needs any more
            return
        lost = self._held.of(event.pack)
        if (ended := self._limits.lost(event.pack, lost)) is None:
            self._lost.worker_died(event, executor)
            return
        failed, others = ended
        self._recorder.take(failed)
        self._lost.offer_at_once(others)

    # Time

    def _heartbeat(self) -> None:
        """Renew our leases in time."""
        now = time.monotonic()
        if now - self._last_heartbeat < self._run.options.lease / 4:
            return
        self._last_heartbeat = now
        if not self._held:
            return
        for lost in self._held.heartbeat():
            self._held.drop([lost])
            self._run.observer.warn(f"trial {lost.trial.number}: lost its lease; its result will not count")
        self._run.require_study()
        self._run.probes.save()

    def _leave(self) -> None:
        """Release what has not ended, so that the store is consistent whatever ended the run."""
        with suppress(StoreError):
            self._recorder.flush()
        with suppress(StoreError):
            self._held.release(list(self._held))
        self._run.probes.save()
