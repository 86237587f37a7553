"""The executor that trains in this process: one pack at a time, in `poll`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.executors.pack_trainer import PackTrainer
from gridsearch.executors.worker import make_trainer
from gridsearch.records import ExportRequest, Pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.plugins import Plugin
    from gridsearch.records import Event, Lane, PruningDecision, Task, WorkerSetup


class InlineExecutor:
    """Trains packs in this process.

    Args:
        setup: as a worker process would get it.
        deliver: takes each event as it happens.
        interrupted: asked several times a second while a pack trains; True ends the pack.
        objects: plug-ins given as objects, by display name.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        deliver: Callable[[Event], None],
        *,
        interrupted: Callable[[], bool],
        objects: Mapping[str, Plugin] | None = None,
    ) -> None:
        self._setup = setup
        self._leaving = False
        self._trainer = make_trainer(setup, deliver, objects)
        self._deliver = deliver
        self._interrupted = interrupted
        self._task: Task | None = None
        self._given: Sequence[Lane] = ()
        self._pruned: set[int] = set()

    @property
    def free(self) -> int:
        """1 between packs."""
        return int(self._task is None)

    @property
    def busy(self) -> int:
        """1 while a pack waits for `poll`."""
        return int(self._task is not None)

    def submit(self, task: Task) -> None:
        """Keep the task for the next `poll`."""
        assert self._task is None
        self._task = task

    def send_lanes(self, pack: str, lanes: Sequence[Lane]) -> None:  # noqa: ARG002 - there is but one pack here
        """Keep the lanes for the pack that has just asked."""
        self._given = lanes

    def send_decision(self, pack: str, decision: PruningDecision) -> None:  # noqa: ARG002 - there is but one pack here
        """Note whether the trial shall end; the pack looks at the end of its epoch, which is this one."""
        if decision.prune:
            self._pruned.add(decision.trial)

    def leave(self) -> bool:
        """Leave the pack at its next epoch's end; return whether it then goes on from there."""
        self._leaving = True
        return self._setup.resumable

    def end_worker(self, task: str) -> None:
        """Do nothing: this process is not ours to end."""

    def use_fewer(self) -> bool:
        """Nothing to spare: there is but one pack here."""
        return False

    def expect(self, *, more: bool) -> None:
        """Do nothing: there is nothing to give back."""

    def poll(self, timeout: float) -> None:  # noqa: ARG002 - the protocol's; here work takes as long as it takes
        """Execute what was submitted, to its end."""
        task, self._task = self._task, None
        if isinstance(task, Pack):
            self._pruned.clear()
            self._trainer.train(
                task,
                stop=self._interrupted,
                leave=self._shall_leave,
                given=self._take,
                pruned=lambda: self._pruned,
            )
        elif task is not None:
            assert isinstance(self._trainer, PackTrainer)
            answer: Event = (
                self._trainer.export(task) if isinstance(task, ExportRequest) else self._trainer.probe(task)
            )
            self._deliver(answer)

    def stop(self) -> None:
        """Forget a task that has not begun."""
        self._task = None

    def _shall_leave(self) -> bool:
        self._interrupted()  # whoever is asked may call `leave`
        return self._leaving

    def _take(self) -> Sequence[Lane]:
        lanes, self._given = self._given, ()
        return lanes
