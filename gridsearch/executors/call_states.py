"""The states that a function yields beside its metrics, saved so that an interrupted call goes on from the last.

Stands beside the function trainer.  A function that has a parameter `state` gets the last state that it yielded, None
at its first start; a generator yields its metrics and its state as a pair.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

from gridsearch.checkpoints import (
    METADATA,
    CheckpointFile,
    Damaged,
    Pace,
    as_events,
    as_lines,
    checkpoints_in,
    facts_of,
    write_checkpoint,
)
from gridsearch.errors import unwritable
from gridsearch.records import TrialResumed

if TYPE_CHECKING:
    from typing import TypeAlias

    from gridsearch.records import Lane, StepEnded, TrialFailed, TrialFinished, WorkerSetup

    Ended: TypeAlias = TrialFinished | TrialFailed

_FORMAT = 1


class Unusable(Exception):
    """What a function gave back is no result; says what it gave, in words that follow the function's name."""


class CallStates:
    """What a call of a function goes on from, and what it leaves for the next.

    Args:
        lane: the trial and its scratch folder.
        setup: of the worker.

    Attributes:
        wanted: whether the function takes its state.
        state: what the call begins with, None at its first start.
        rows: the steps that have ended.
        seconds: how long they took.
    """

    def __init__(self, lane: Lane, setup: WorkerSetup) -> None:
        self.wanted = setup.takes_state
        self.state: Any = None
        self.rows: list[StepEnded] = []
        self.seconds = 0.0
        self._lane = lane
        self._keeps_results = setup.settled and setup.checkpoint is not None  # see `WorkerSetup.leaves_files`
        self._pace = Pace(setup.checkpoint)
        self._ended: Ended | None = None
        self._new: tuple[int, float, bytes | str] | None = None

    def open(self) -> TrialResumed | None:
        """Find what the call goes on from, and say so of a trial that was tried before."""
        trial = self._lane.trial
        damaged = 0
        for file in checkpoints_in(Path(self._lane.scratch)):
            try:
                self._read(file)
                break
            except Damaged:
                damaged += 1
                file.path.unlink(missing_ok=True)
        if trial.attempt <= 1:
            return None
        rows = tuple(self.rows)
        return TrialResumed(
            trial=trial.id, attempt=trial.attempt, epoch=len(rows), steps=rows, damaged=damaged
        )

    def _read(self, file: CheckpointFile) -> None:
        """Take in a checkpoint.

        Raises:
            Damaged: it is not what was written, or of another function than now.
        """
        content = file.read()
        facts, attempt = facts_of(content), self._lane.trial.attempt
        if (facts.get("format"), facts.get("key")) != (_FORMAT, self._lane.trial.key):
            raise Damaged("it is of another version, or another trial's")
        self.rows = list(as_events(facts["rows"], attempt))
        self.seconds = facts["seconds"]
        if "ended" in facts:
            self._ended = as_events(facts["ended"], attempt)[0]
        elif facts["bytes"]:
            self.state = safetensors.numpy.load(content)["state"].tobytes()
        else:
            self.state = facts["state"]

    def result(self) -> Ended | None:
        """Return how the call ended, if it had ended already."""
        return self._ended

    @property
    def due(self) -> bool:
        """Whether a state is to be saved now."""
        return self._pace.due

    def take(self, state: Any, *, step: int, seconds: float) -> None:
        """Take the state that came with a step, as it is now: the function may go on changing it.

        Raises:
            Unusable: it is neither bytes nor what JSON holds.
        """
        if not isinstance(state, bytes) and (wrong := _not_json(state)) is not None:
            raise Unusable(
                f"yielded at step {step} a state with {wrong}; a state is bytes, or what JSON holds"
            )
        self._new = step, seconds, state if isinstance(state, bytes) else json.dumps(state)

    def save(self) -> None:
        """Save the last state that is not saved yet, with the steps up to its own: later ones are computed again.

        Raises:
            StoreError: it cannot be written.
        """
        if self._new is None:
            return
        (step, seconds, state), self._new = self._new, None
        facts: dict[str, Any] = {"seconds": seconds, "bytes": isinstance(state, bytes), "state": None}
        tensors = {}
        if isinstance(state, bytes):
            tensors["state"] = np.frombuffer(state, np.uint8)
        else:
            facts["state"] = json.loads(state)
        with self._pace.writing():
            self._write(self.rows[:step], facts, tensors)

    def keep(self, event: Ended) -> Ended:
        """Return how a call ended, kept where results wait for the end of the pack.

        Raises:
            StoreError: it cannot be written.
        """
        if self._keeps_results:
            self._write(self.rows, {"seconds": self.seconds, "ended": as_lines([event])}, {})
        return event

    def _write(self, rows: list[StepEnded], facts: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        common = {"format": _FORMAT, "key": self._lane.trial.key, "rows": as_lines(rows)}
        text = json.dumps(common | facts, separators=(",", ":"))
        folder = Path(self._lane.scratch)
        try:
            content = safetensors.numpy.save(tensors, {METADATA: text})
            write_checkpoint(folder, content, epoch=len(rows))
        except OSError as error:
            raise unwritable(folder, error) from error


def _not_json(value: object) -> str | None:
    """Return what of a value JSON would not give back as it is, None if there is nothing."""
    if value is None or type(value) in (bool, int, float, str):
        return None
    if type(value) is list:
        return next((wrong for item in value if (wrong := _not_json(item)) is not None), None)
    if type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                return f"the key {key!r:.60}"
            if (wrong := _not_json(item)) is not None:
                return wrong
        return None
    return kind_of(value)


def kind_of(value: object) -> str:
    """Return what a value is, with its article: "a list", "an ndarray of shape (3,)"."""
    if value is None:
        return "None"
    shape = getattr(value, "shape", None)
    of_shape = f" of shape {tuple(shape)}" if isinstance(shape, tuple) and shape else ""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' or name == 'ndarray' else 'a'} {name}{of_shape}"
