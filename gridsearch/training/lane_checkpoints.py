"""Lanes' checkpoints: what a lane is at an epoch's end, as a file and back, and which of the files to go on from.

Stands between the engines, which know lanes as `LaneState`, and `gridsearch.checkpoints`, which knows files.

A lane's rounding depends on the lanes beside it.  Where the packs are settled before a run (`planning.fixed_packs`),
the lanes of a program therefore go on from one and the same epoch of the program, and the result of a lane that has
ended is kept as a checkpoint until those of the others are written: what comes then is, byte for byte, what would have
come.  Elsewhere each lane goes on from its newest.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from gridsearch.checkpoints import (
    KEPT,
    METADATA,
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
from gridsearch.training.lane_progress import LaneState
from gridsearch.training.metrics import EpochTotals, Evaluation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from gridsearch.checkpoints import CheckpointFile
    from gridsearch.records import ImageSettings, Lane, TrialFailed, TrialFinished
    from gridsearch.training.lane_progress import LaneProgress

    Ended: TypeAlias = TrialFinished | TrialFailed

_FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Saved:
    """A checkpoint that was verified.

    Attributes:
        file: where it lies.
        facts: all but its tensors.
    """

    file: CheckpointFile
    facts: Mapping[str, Any]

    @property
    def members(self) -> tuple[str, ...]:
        """The keys of all trials that began in one program with this one; none where there was no program."""
        return tuple(self.facts["members"])

    @property
    def turn(self) -> int:
        """Epochs of that program."""
        return int(self.facts["turn"])

    @property
    def alone(self) -> bool:
        """Whether the lane trained alone by then."""
        return bool(self.facts["alone"])

    @property
    def ended(self) -> bool:
        """Whether it is the result of a lane that had ended."""
        return "ended" in self.facts


class LaneCheckpoints:
    """Writes and finds the checkpoints of one pack's lanes.

    Args:
        interval: seconds between two, see `Pace`.
        settled: whether the packs are settled, see above.
        leave: asked at epochs' ends whether the pack shall be left, once there is a checkpoint of it.
    """

    def __init__(
        self,
        *,
        interval: float | None = None,
        settled: bool = False,
        leave: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pace = Pace(interval)
        self._settled = settled
        self._leave = leave
        self._found: dict[int, _Saved] = {}
        self._warned: set[int] = set()

    # Going on

    def open(self, lanes: Sequence[Lane[ImageSettings]]) -> Iterator[TrialResumed]:
        """Find where lanes go on from, and say so of each that was tried before; what lies beyond is removed."""
        saved: dict[int, list[_Saved]] = {}
        damaged: dict[int, int] = {}
        for lane in lanes:
            saved[lane.trial.id], damaged[lane.trial.id] = self._read_all(lane)
        chosen = _together(lanes, saved) if self._settled else _newest(saved)
        for lane in lanes:
            trial = lane.trial
            found = chosen.get(trial.id)
            order = 0 if found is None else found.file.order
            for file in checkpoints_in(Path(lane.scratch)):
                if file.order > order:
                    file.path.unlink(missing_ok=True)
            if found is not None:
                self._found[trial.id] = found
            if trial.attempt > 1:
                yield TrialResumed(
                    trial=trial.id,
                    attempt=trial.attempt,
                    epoch=0 if found is None else found.file.epoch,
                    epochs=() if found is None else as_events(found.facts["rows"], trial.attempt),
                    damaged=damaged[trial.id],
                )

    def _read_all(self, lane: Lane[ImageSettings]) -> tuple[list[_Saved], int]:
        """Return a lane's checkpoints that are whole, newest first, and how many are damaged."""
        found: list[_Saved] = []
        damaged = 0
        for file in checkpoints_in(Path(lane.scratch)):
            if found and not self._settled:
                break
            try:
                facts = facts_of(file.read())
                if (facts.get("format"), facts.get("key")) != (_FORMAT, lane.trial.key):
                    raise Damaged("it is of another version, or another trial's")
                found.append(_Saved(file, facts))
            except Damaged:
                damaged += 1
                file.path.unlink(missing_ok=True)
        return found, damaged

    def result(self, lane: Lane[ImageSettings]) -> Ended | None:
        """Return the result of a lane that had ended already, None for one that has not."""
        found = self._found.get(lane.trial.id)
        if found is None or not found.ended:
            return None
        result: Ended = as_events(found.facts["ended"], lane.trial.attempt)[0]
        return result

    def state(self, lane: Lane[ImageSettings]) -> LaneState | None:
        """Return where a lane goes on from, None for its start.

        Raises:
            Damaged: the file was whole a moment ago, and is not any more.
        """
        found = self._found.get(lane.trial.id)
        if found is None or found.ended:
            return None
        state = _state(found.file.read(), found.facts, lane.trial.attempt)
        state.alone &= self._settled  # elsewhere it may share a program again
        return state

    # Writing

    @property
    def leaving(self) -> bool:
        """Whether the pack is to be left where it stands."""
        return self._leave()

    @property
    def due(self) -> bool:
        """Whether there is to be a checkpoint now."""
        return self._pace.due or (self._pace.interval is not None and self.leaving)

    def save(self, lanes: Iterable[tuple[Lane[ImageSettings], LaneState]]) -> None:
        """Write a checkpoint of each of these lanes, if there are to be any.

        Raises:
            StoreError: one cannot be written.
        """
        if self._pace.interval is None:
            return
        with self._pace.writing():
            for lane, state in lanes:
                if state.resumable:
                    self._write(lane, state.epoch, *_content(lane, state))
                elif lane.trial.id not in self._warned:
                    self._warned.add(lane.trial.id)
                    _log.warning(
                        "trial %d has no checkpoint: its model keeps state beside its tensors",
                        lane.trial.number,
                    )

    def leave_program(self, lanes: Sequence[tuple[Lane[ImageSettings], LaneState]]) -> None:
        """Take note that lanes train alone from here on, each from where it stands.

        Where packs are settled this is written at once: those that were killed then must not go on as a program of
        fewer lanes.

        Raises:
            StoreError: it cannot be written.
        """
        for _, state in lanes:
            state.alone = True
        if self._settled:
            self.save(lanes)

    def keep(self, progress: LaneProgress, event: Ended) -> Ended:
        """Return how a lane ended, kept as a checkpoint where results wait for the end of the pack.

        Raises:
            StoreError: it cannot be written.
        """
        if self._settled and self._pace.interval is not None:
            facts = _facts(progress.lane, progress)
            facts |= {"ended": as_lines([event])}
            # The others may go on from before its end: two checkpoints stay beside it.
            self._write(progress.lane, progress.epochs, facts, {}, kept=KEPT + 1)
        return event

    def _write(
        self,
        lane: Lane[ImageSettings],
        epoch: int,
        facts: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor],
        *,
        kept: int = KEPT,
    ) -> None:
        folder = Path(lane.scratch)
        text = json.dumps(facts, separators=(",", ":"))
        content = safetensors.torch.save(dict(tensors), {METADATA: text})
        try:
            write_checkpoint(folder, content, epoch=epoch, kept=kept)
        except OSError as error:
            raise unwritable(folder, error) from error


# Which to go on from


def _newest(saved: Mapping[int, Sequence[_Saved]]) -> dict[int, _Saved]:
    return {trial: found[0] for trial, found in saved.items() if found}


def _together(
    lanes: Sequence[Lane[ImageSettings]], saved: Mapping[int, Sequence[_Saved]]
) -> dict[int, _Saved]:
    """Let all lanes that began in one program go on from the same epoch of it."""
    chosen = _newest(saved)
    ids = {lane.trial.key: lane.trial.id for lane in lanes}
    programs = {one.members for found in saved.values() for one in found if one.members}
    for members in programs:
        there = {ids[key]: saved[ids[key]] for key in members if key in ids}
        if all(found and (found[0].alone or found[0].ended) for found in there.values()):
            continue  # the program is gone, and each goes on by itself
        turns = sorted({one.turn for found in there.values() for one in found}, reverse=True)
        picked = next((p for turn in turns if len(p := _at(turn, there)) == len(there)), {})
        for trial in there:
            chosen.pop(trial, None)
        chosen |= picked
    return chosen


def _at(turn: int, saved: Mapping[int, Sequence[_Saved]]) -> dict[int, _Saved]:
    """Return where lanes of a program stood after so many of its epochs: those of which there is a checkpoint."""
    found = {}
    for trial, all_of_them in saved.items():
        for one in all_of_them:
            if not one.alone and (one.turn <= turn if one.ended else one.turn == turn):
                found[trial] = one
                break
    return found


# States as facts and tensors


def _content(lane: Lane[ImageSettings], state: LaneState) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    tensors = {f"weights/{name}": t for name, t in state.weights.items()}
    tensors |= {f"averages/{name}": t for name, t in state.averages.items()}
    for kind, of_kind in state.optimizer_state.items():
        tensors |= {f"optimizer/{kind}/{name}": t for name, t in of_kind.items()}
    facts = _facts(lane, state)
    facts |= {"epoch": state.epoch, "step": state.step, "seconds": state.seconds}
    if lane.trial.settings.select == "best" and state.selected is not None:  # else the next epoch counts
        epoch, totals, evaluation = state.selected
        facts |= {"best_score": state.best_score, "selected": [epoch, dataclasses.asdict(totals), None]}
        if evaluation is not None:
            facts["selected"][2] = {"loss": evaluation.loss, "accuracy": evaluation.accuracy}
            tensors["logits"] = evaluation.logits
        best = (state.best_weights or {}).items()
        tensors |= {f"best/{name}": t for name, t in best if isinstance(t, torch.Tensor)}
    return facts, {name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}


def _facts(lane: Lane[ImageSettings], at: LaneState | LaneProgress) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "key": lane.trial.key,
        "members": list(at.members),
        "turn": at.turn,
        "alone": at.alone,
        "rows": as_lines(at.rows),
    }


def _state(content: bytes, facts: Mapping[str, Any], attempt: int) -> LaneState:
    tensors = safetensors.torch.load(content)
    optimizer: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, kind, parameter = name.split("/", 2)
            optimizer.setdefault(kind, {})[parameter] = tensor
    state = LaneState(
        epoch=facts["epoch"],
        step=facts["step"],
        weights=_below("weights/", tensors),
        optimizer_state=optimizer,
        averages=_below("averages/", tensors),
        seconds=facts["seconds"],
        rows=as_events(facts["rows"], attempt),
        members=tuple(facts["members"]),
        turn=facts["turn"],
        alone=facts["alone"],
    )
    if "selected" in facts:
        epoch, totals, evaluation = facts["selected"]
        found = None if evaluation is None else Evaluation(tensors["logits"], **evaluation)
        state.selected = epoch, EpochTotals(**totals), found
        state.best_score = tuple(facts["best_score"])
        state.best_weights = _below("best/", tensors)
    return state


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
