"""Trains the winner again, as one pack over its seeds, and has a worker test and export it.

Stands between `best`, which says what to train, and the executors.  The lanes are no trials of the study: they
are not in the store, so that neither ranking nor numbers change.  Like trials of a settled pack they go on from their
checkpoints: after an interruption, in the next `best`, and here when their worker died.  If the kernel ended it for
lack of memory, they go on in packs of half as many, one after the other.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.checkpoints import checkpoints_in
from gridsearch.errors import ArtifactError, StoreError, TrainingFailed, Whole
from gridsearch.records import (
    EngineSays,
    EpochEnded,
    Exported,
    ExportRequest,
    Lane,
    LanesWanted,
    LogText,
    Pack,
    PackEnded,
    Trial,
    TrialFailed,
    TrialFinished,
    TrialResumed,
    TrialState,
    Unwritable,
    WorkerDied,
    WorkerLeft,
    trial_key,
)
from gridsearch.reporting.words.text import plural
from gridsearch.service.run.ending import SIGNAL_SECONDS, time_to_save
from gridsearch.service.run.progress import Progress, Running
from gridsearch.service.run.resumed_trials import where_text
from gridsearch.store.artifacts import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.executors import Executor
    from gridsearch.records import Event, ImageSettings, Task, Value
    from gridsearch.service.run.interruption import Interruption
    from gridsearch.service.run.progress import Observer

_POLL_SECONDS = 0.2
_LAST_LINES = 3


class Interrupted(Whole, Exception):
    """Somebody asked the refit to end.

    Args:
        epochs: up to which it goes on next time; 0 where it begins again.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs


class NothingTrained(TrainingFailed):
    """All lanes failed or diverged: they would again, and nothing of them is kept."""


@dataclass(slots=True, kw_only=True)
class Refit:
    """A refit while it goes on.

    Attributes:
        settings: of all lanes.
        seeds: one lane each.
        params: what is shown of the point.
        export: the folder of the export; below the study's folder.
        scratch: gives a lane's seed a folder of its own for its next attempt, with the checkpoints of the last one, and
            that attempt's number.
        retries: how often lanes whose worker died are trained again.
        observer: gets progress.
        interruption: whether to end.
        beat: called now and then to show that this process is alive.
        device: for display.
    """

    settings: ImageSettings
    seeds: Sequence[int]
    params: Mapping[str, Value]
    export: Path
    scratch: Callable[[int], tuple[Path, int]]
    retries: int
    observer: Observer
    interruption: Interruption
    beat: Callable[[], None]
    device: str
    _executor: Executor | None = None
    _finished: dict[int, TrialFinished] = field(default_factory=dict)
    _failed: dict[int, str] = field(default_factory=dict)
    _log: list[str] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)
    _lanes: dict[int, Lane[ImageSettings]] = field(default_factory=dict)
    _resumed: dict[int, int] = field(default_factory=dict)
    _states: dict[int, TrialState] = field(default_factory=dict)
    _at_once: int = field(init=False)
    _together: Sequence[int] = ()
    _busy: bool = False
    _again: bool = False
    _died: int = 0
    _left: float | None = None
    _resumable: bool = False
    _exported: Exported | None = None
    _progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        """Start the progress at zero, with all lanes in one pack."""
        self._at_once = len(self.seeds)
        self._progress = Progress(
            metric="train_accuracy",
            counts=dict.fromkeys(TrialState, 0),
            total_units=0.0,
            workers=1,
            device=self.device,
        )

    def execute(
        self, start: Callable[[Callable[[Event], None], Callable[[], bool]], Executor]
    ) -> tuple[Exported, tuple[int, ...], tuple[str, ...]]:
        """Train, test and export.

        Args:
            start: gives an executor that delivers to a function and asks another whether to stop.

        Returns:
            What was exported, the seeds that were tested in their order, and
            what happened to the others, a sentence each.

        Raises:
            Interrupted: somebody asked for it; no process is left.
            NothingTrained: no lane came through.
            TrainingFailed: the worker died too often, or the model cannot be tested.
            StoreError: a file cannot be written.
        """
        self._executor = start(self._take, self._over)
        try:
            self._train()
            self.observer.ended(self._progress)
            done = [self._lanes[seed] for seed in self.seeds if seed in self._finished]
            if not done:
                raise NothingTrained(
                    f"the winner could not be trained again: {'; '.join(self._failed.values())}",
                    hint=self._hint(),
                )
            self.observer.say(
                f"reading the test set with {len(done)} network{'s' * (len(done) > 1)}, exporting"
            )
            self._do(ExportRequest(id="best", lanes=tuple(done), folder=str(self.export)))
        finally:
            self.observer.ended(self._progress)
            self._executor.stop()
        assert self._exported is not None
        if self._exported.error is not None:
            raise TrainingFailed(f"the winner cannot be tested: {self._exported.error}")
        lost = tuple(f"Seed {seed} gave no network: {why}." for seed, why in sorted(self._failed.items()))
        return self._exported, tuple(lane.trial.seed for lane in done), lost

    def _train(self) -> None:
        """Train all lanes, pack after pack; those of a worker that died again."""
        left = list(self.seeds)
        pack = self._pack(left)
        self.observer.started(self._progress)
        while True:
            self._do(pack)
            if not self._again:
                left = left[len(pack.lanes) :]
            if not left:
                break
            pack = self._pack(left[: self._at_once])

    def _pack(self, seeds: Sequence[int]) -> Pack[ImageSettings]:
        """Return lanes, which begin or go on from where the last attempt at them stood."""
        self._again = False
        self._together = seeds
        for seed in seeds:
            for known in (self._finished, self._failed, self._states):
                known.pop(seed, None)
            self._lanes[seed] = self._lane(seed)
        lanes = tuple(self._lanes[seed] for seed in seeds)
        progress, epochs = self._progress, self.settings.epochs
        ended = Counter(self._states.values())
        progress.counts = {state: ended[state] for state in TrialState}
        progress.counts[TrialState.RUNNING] = len(seeds)
        progress.counts[TrialState.WAITING] = len(self.seeds) - len(seeds) - ended.total()
        progress.done_units = float(ended.total() * epochs)
        progress.total_units = float(len(self.seeds) * epochs)
        progress.running = {lane.trial.seed: Running(lane.trial, "") for lane in lanes}
        return Pack("best", lanes)

    def _lane(self, seed: int) -> Lane[ImageSettings]:
        scratch, attempt = self.scratch(seed)
        trial = Trial(
            id=seed,
            number=seed,
            key=trial_key(self.settings, seed),
            seed=seed,
            settings=self.settings,
            params=self.params,
            state=TrialState.RUNNING,
            attempt=attempt,
        )
        return Lane(trial, str(scratch))

    def _do(self, task: Task) -> None:
        """Submit a task once there is a worker for it, and poll until it has ended."""
        assert self._executor is not None
        self._busy = True
        submitted = False
        while self._busy:
            if not submitted and self._executor.free:
                self._executor.submit(task)
                submitted = True
            if self._over():
                break
            self._executor.poll(_POLL_SECONDS)
        if self.interruption:
            raise Interrupted(self._kept())

    def _over(self) -> bool:
        """Return whether to end at once; besides, show that this process is alive, and the progress.

        Lanes under way are asked, once, to come to their epoch's end and be saved.
        """
        self.beat()
        self.observer.updated(self._progress)
        if not self.interruption:
            return False
        if self._left is None:
            assert self._executor is not None
            self._left = time.monotonic()
            self._resumable = self._executor.leave() and bool(self._progress.running)
            if self._resumable:
                self.observer.say(time_to_save("the winner's training has"))
        return not self._resumable or time.monotonic() - self._left > SIGNAL_SECONDS

    def _kept(self) -> int:
        """Return the epoch from which the lane of this pack that is furthest behind goes on next time.

        Where one of them begins again, that of the packs before counts.
        """
        saved = {seed: checkpoints_in(Path(lane.scratch)) for seed, lane in self._lanes.items()}
        epochs = {seed: found[0].epoch if found else 0 for seed, found in saved.items()}
        here = min((epochs[seed] for seed in self._together), default=0)
        return here or min((epochs[seed] for seed in epochs if seed not in self._together), default=0)

    def _take(self, event: Event) -> None:
        if not isinstance(event, TrialResumed):
            self._say_resumed()
        match event:
            case TrialResumed():
                self._resume(event)
            case EpochEnded():
                self._progress.epoch_ended(event, 1.0)
            case TrialFinished() | TrialFailed():
                self._end(event)
            case LanesWanted():
                assert self._executor is not None
                self._executor.send_lanes(event.pack, ())
            case LogText():
                self._log = [*self._log, *event.text.splitlines()][-_LAST_LINES:]
            case PackEnded():
                self._busy = False
            case Exported():
                self._exported, self._busy = event, False
            case Unwritable():
                raise StoreError(event.message, hint=event.hint)
            case EngineSays():
                self._of_the_engine(event)
            case WorkerDied() | WorkerLeft():
                self._lost(event)

    def _of_the_engine(self, event: EngineSays) -> None:
        """Say what an engine says, once: the networks that are trained one after another begin alike."""
        if event.message not in self._said:
            self._said.add(event.message)
            (self.observer.warn if event.warning else self.observer.say)(event.message)

    def _lost(self, event: WorkerDied | WorkerLeft) -> None:
        """Train the lanes of a worker that is gone again, from their checkpoints.

        Raises:
            TrainingFailed: that was tried often enough, or it had trained and was to export.
        """
        if isinstance(event, WorkerDied) and event.memory and event.pack and len(self._together) > 1:
            self._at_once = len(self._together) // 2
            self.observer.warn(f"worker {event.worker} died ({event.message})")
            self.observer.say(f"the winner is trained again with {plural(self._at_once, 'seed')} at a time")
            self._again, self._busy = True, False
            return
        self._died += isinstance(event, WorkerDied)
        if event.pack is None or self._died > self.retries:
            times = f" {self._died} times" if self._died > 1 else ""
            raise TrainingFailed(
                f"the worker died{times} while the winner was trained again ({event.message})",
                hint=self._hint(),
            )
        self.observer.warn(f"worker {event.worker} {self._how(event)}")
        self._again, self._busy = True, False

    def _how(self, event: WorkerDied | WorkerLeft) -> str:
        if isinstance(event, WorkerLeft):
            return f"left: {event.message}"
        return f"died ({event.message}); the winner is trained again (attempt {self._died + 1} of {self.retries + 1})"

    def _resume(self, event: TrialResumed) -> None:
        self._resumed[event.trial] = event.epoch
        running = self._progress.running[event.trial]
        running.epoch = running.resumed = event.epoch
        self._progress.total_units -= event.epoch
        if event.damaged:
            self.observer.warn(f"seed {event.trial}: its last checkpoint is damaged")

    def _say_resumed(self) -> None:
        """Say from where lanes go on, once all have told it."""
        if epochs := {epoch for epoch in self._resumed.values() if epoch}:
            where = where_text(min(epochs), self.settings)
            seeds = f" with {plural(len(self._together), 'seed')}" if len(self.seeds) > 1 else ""
            self.observer.say(f"the winner's training{seeds} continues from {where}")
        self._resumed.clear()

    def _end(self, event: TrialFinished | TrialFailed) -> None:
        """Take a lane's result.

        Raises:
            ArtifactError: its files are not those that were written, before an interruption.
        """
        if isinstance(event, TrialFinished):
            for ref in event.files:
                path = Path(self._lanes[event.trial].scratch) / ref.name
                if reference(path) != ref:
                    raise ArtifactError(
                        f"{path} is not what was written",
                        hint="remove its folder and run the same command again",
                    )
        running = self._progress.running.pop(event.trial)
        state = event.state if isinstance(event, TrialFinished) else TrialState.FAILED
        self._states[event.trial] = state
        if isinstance(event, TrialFinished) and state is TrialState.COMPLETE:
            self._finished[event.trial] = event
        else:
            self._failed[event.trial] = event.message or state.value
        self._progress.move(TrialState.RUNNING, state)
        self.observer.trial_ended(self._progress, running.trial, event)

    def _hint(self) -> str | None:
        return f"it last said: {' / '.join(self._log)}"[:300] if self._log else None
