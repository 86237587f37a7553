"""Trains the winner again, as one pack over its seeds, and has a worker test and export it.

Stands between `best`, which says what to train, and the executors.  The lanes are no trials of the study: they
are not in the store, so that neither ranking nor numbers change.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gridsearch.errors import StoreError, TrainingFailed
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
    TrialState,
    Unwritable,
    WorkerDied,
    WorkerLeft,
    trial_key,
)
from gridsearch.service.run.progress import Progress, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gridsearch.executors import Executor
    from gridsearch.records import Event, ImageSettings, Task, Value
    from gridsearch.service.run.interruption import Interruption
    from gridsearch.service.run.progress import Observer

_POLL_SECONDS = 0.2
_LAST_LINES = 3


class Interrupted(Exception):
    """Somebody asked the refit to end."""


@dataclass(slots=True, kw_only=True)
class Refit:
    """A refit while it goes on.

    Attributes:
        settings: of all lanes.
        seeds: one lane each.
        params: what is shown of the point.
        folder: where lanes and export leave their files; below the study's folder.
        observer: gets progress.
        interruption: whether to end.
        beat: called now and then to show that this process is alive.
        device: for display.
    """

    settings: ImageSettings
    seeds: Sequence[int]
    params: Mapping[str, Value]
    folder: Path
    observer: Observer
    interruption: Interruption
    beat: Callable[[], None]
    device: str
    _executor: Executor | None = None
    _finished: dict[int, TrialFinished] = field(default_factory=dict)
    _failed: dict[int, str] = field(default_factory=dict)
    _log: list[str] = field(default_factory=list)
    _busy: bool = False
    _exported: Exported | None = None
    _progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        """Start the progress at zero."""
        self._progress = Progress(
            metric="train_accuracy",
            counts=dict.fromkeys(TrialState, 0) | {TrialState.RUNNING: len(self.seeds)},
            total_units=float(len(self.seeds) * self.settings.epochs),
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
            What was exported (to the folder "export" in `folder`), the seeds that were tested in their order, and
            what happened to the others, a sentence each.

        Raises:
            Interrupted: somebody asked for it; no process is left.
            TrainingFailed: no lane came through, or the model cannot be tested.
            StoreError: a file cannot be written.
        """
        lanes = [self._lane(seed) for seed in self.seeds]
        self._executor = start(self._take, self._interrupted)
        try:
            self.observer.started(self._progress)
            self._do(Pack("best", tuple(lanes)))
            self.observer.ended(self._progress)
            done = [lane for lane in lanes if lane.trial.seed in self._finished]
            if not done:
                raise TrainingFailed(
                    f"the winner could not be trained again: {'; '.join(self._failed.values())}",
                    hint=self._hint(),
                )
            self.observer.say(
                f"reading the test set with {len(done)} network{'s' * (len(done) > 1)}, exporting"
            )
            self._do(ExportRequest(id="best", lanes=tuple(done), folder=str(self.folder / "export")))
        finally:
            self.observer.ended(self._progress)
            self._executor.stop()
        assert self._exported is not None
        if self._exported.error is not None:
            raise TrainingFailed(f"the winner cannot be tested: {self._exported.error}")
        lost = tuple(f"Seed {seed} gave no network: {why}." for seed, why in sorted(self._failed.items()))
        return self._exported, tuple(lane.trial.seed for lane in done), lost

    def _lane(self, seed: int) -> Lane[ImageSettings]:
        scratch = self.folder / "lanes" / str(seed)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        trial = Trial(
            id=seed,
            number=seed,
            key=trial_key(self.settings, seed),
            seed=seed,
            settings=self.settings,
            params=self.params,
            state=TrialState.RUNNING,
        )
        self._progress.running[seed] = Running(trial, "")
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
            if self.interruption:
                raise Interrupted
            self._executor.poll(_POLL_SECONDS)
            self._interrupted()
        if self.interruption:
            raise Interrupted

    def _interrupted(self) -> bool:
        """Return whether to end; besides, show that this process is alive, and the progress."""
        self.beat()
        self.observer.updated(self._progress)
        return bool(self.interruption)

    def _take(self, event: Event) -> None:
        match event:
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
                self.observer.say(event.message)
            case WorkerDied() | WorkerLeft():
                raise TrainingFailed(
                    f"the worker died while the winner was trained again ({event.message})", hint=self._hint()
                )

    def _end(self, event: TrialFinished | TrialFailed) -> None:
        running = self._progress.running.pop(event.trial)
        state = event.state if isinstance(event, TrialFinished) else TrialState.FAILED
        if isinstance(event, TrialFinished) and state is TrialState.COMPLETE:
            self._finished[event.trial] = event
        else:
            self._failed[event.trial] = event.message or state.value
        self._progress.move(TrialState.RUNNING, state)
        self.observer.trial_ended(self._progress, running.trial, event)

    def _hint(self) -> str | None:
        return f"it last said: {' / '.join(self._log)}"[:300] if self._log else None
