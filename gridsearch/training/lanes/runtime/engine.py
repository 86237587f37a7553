"""The engine of packs: lanes of one group train as one program, and each ends or fails on its own.

Implements `training.context.Engine`, before the plain engine.  Lanes that cannot be packed, or whose pack raises, go
on one after the other from the last epoch's end, so that only the lane that raises fails; a pack that is too large for
the memory goes on in halves.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.errors import RAISED
from gridsearch.training.beside_weights import Beside
from gridsearch.training.context import Stopped
from gridsearch.training.failures import failure, is_out_of_memory
from gridsearch.training.lane_progress import LaneProgress, LaneState
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program_choice import build_program, min_lanes
from gridsearch.training.metrics import Diverged
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.seeds import lane_seed
from gridsearch.training.solo_engine import finish, train_lane

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    import torch
    from torch import nn

    from gridsearch.records import Event, ImageSettings, Lane, Pack, Shape, TrialFailed, TrialFinished
    from gridsearch.training.context import TrainContext
    from gridsearch.training.lanes.runtime.program import PackProgram
    from gridsearch.training.metrics import EpochTotals, Evaluation
    from gridsearch.training.resident_data import ResidentData


class LanesEngine:
    """Trains the lanes of a pack side by side, group by group."""

    def accepts(self, pack: Pack[ImageSettings], device: torch.device) -> bool:
        """Take what `min_lanes` says."""
        return len(pack.lanes) >= min_lanes(device)

    def train(self, pack: Pack[ImageSettings], context: TrainContext) -> Iterator[Event]:
        """Train a pack's lanes and yield their events."""
        groups: dict[Shape, list[Lane[ImageSettings]]] = {}
        for lane in pack.lanes:
            groups.setdefault(lane.trial.settings.shape(), []).append(lane)
        try:
            yield from context.checkpoints.open(pack.lanes)
            for lanes in groups.values():
                context.check_stop()
                entries = []
                for lane in lanes:
                    if (result := context.checkpoints.result(lane)) is not None:
                        yield result
                    entries.append(_Entry(lane, context.checkpoints.state(lane), ended=result is not None))
                # Both at once: a lane of the first may leave its program, and has trained then.
                together, alone = [e for e in entries if not e.alone], [e for e in entries if e.alone]
                if alone and all(entry.state is None for entry in together):
                    # They were refused a program when the first of them began: fewer may not be refused one.
                    together, alone = [], entries
                yield from _train(together, context)
                yield from _one_by_one(alone, context)
        except Stopped:
            return


@dataclass(frozen=True, slots=True)
class _Entry:
    """A lane that waits for its program, and the state from which it goes on.

    Attributes:
        ended: it has its result already, and comes along so that the program is made as it was made before: which
            network suits some lanes may depend on their number.
    """

    lane: Lane[ImageSettings]
    state: LaneState | None
    ended: bool = False

    @property
    def alone(self) -> bool:
        """Whether it has left its program before."""
        return self.state is not None and self.state.alone


def _train(entries: list[_Entry], context: TrainContext) -> Iterator[Event]:
    """Train lanes of one group as one program, or one after the other where that cannot be."""
    if all(entry.ended for entry in entries):
        return
    if len(entries) < min_lanes(context.device):
        yield from train_lane(entries[0].lane, context, entries[0].state)
        return
    context.training([entry.lane for entry in entries if not entry.ended])
    started = time.perf_counter()
    settings = entries[0].lane.trial.settings
    try:
        all_members = [_member(entry.lane, context) for entry in entries]
        precision = Precision.of(settings.dtype, context.device)
    except RAISED:  # each lane then reports it as its own failure
        yield from _one_by_one(entries, context)
        return
    with precision.products():
        ready, members, models = [], [], []
        for entry, member in zip(entries, all_members, strict=True):
            context.check_stop()
            try:
                models.append(_build(member, context, precision))
                ready.append(entry)
                members.append(member)
            except RAISED as error:  # a user's model may raise anything
                if not entry.ended:
                    yield failure(entry.lane, error)
        if len(ready) < min_lanes(context.device):
            yield from _one_by_one(ready, context)
            return
        group = _Group(ready, members, context, precision)
        refused: BaseException | None = None  # kept out of the traceback of a lane that then fails by itself
        try:
            group.start(models, started)
        except RAISED as error:  # likewise
            refused = error.with_traceback(None)  # whose frames hold tensors
        yield from _recover(refused, ready, context) if refused is not None else group.run()
    yield from _one_by_one(group.unfit, context)


def _one_by_one(entries: Iterable[_Entry], context: TrainContext) -> Iterator[Event]:
    for entry in entries:
        context.check_stop()
        if not entry.ended:
            yield from train_lane(entry.lane, context, entry.state)


def _recover(error: BaseException, entries: list[_Entry], context: TrainContext) -> Iterator[Event]:
    """Go on with lanes whose pack raised: in halves if memory ran out, else one by one."""
    if is_out_of_memory(error):
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the step that was too large
    if is_out_of_memory(error) and len(entries) > 1:
        half = (len(entries) + 1) // 2
        yield from _train(entries[:half], context)
        context.check_stop()
        yield from _train(entries[half:], context)
    else:
        context.checkpoints.leave_program([(e.lane, e.state) for e in entries if e.state is not None])
        yield from _one_by_one(entries, context)


def _member(lane: Lane[ImageSettings], context: TrainContext) -> Member:
    settings = lane.trial.settings
    return Member(settings, lane_seed(settings, lane.trial.seed), context.data(settings))


def _split(member: Member) -> ResidentData:
    assert member.split is not None, "every lane of an engine has a split of its own"
    return member.split


def _build(member: Member, context: TrainContext, precision: Precision) -> nn.Module:
    return build_network(member.settings, member.seed, _split(member), context.build, precision)


class PackLaneView:
    """A lane of a program as `LaneProgress` sees it."""

    def __init__(self, program: PackProgram, slot: int) -> None:
        self._program, self._slot = program, slot

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return self._program.members[self._slot].step

    @property
    def parameter_count(self) -> int:
        """Trainable parameters; a tied one counts once."""
        return self._program.storage.parameter_count

    def state_dict(self) -> Mapping[str, object]:
        """Return the lane's model's state_dict as it is evaluated; its tensors may change with the next step."""
        return self._program.averages.evaluated_state_dict(self._slot, self.step)

    def parameters(self) -> list[torch.Tensor]:
        """Return the lane's parameters, likewise."""
        return self._program.averages.evaluated_parameters(self._slot, self.step)

    def beside(self) -> Beside:
        """Return what the lane has besides, likewise."""
        return Beside(tensors=self._program.averages.evaluated_beside(self._slot, self.step))


class _Group:
    """The lanes of one program from the first epoch to the last lane's end.

    Args:
        entries: the lanes.
        members: the same as the program takes them.
        context: what they are trained with.
        precision: how they compute.

    Attributes:
        unfit: lanes that were sent for a free slot and do not fit; they train alone afterwards.
    """

    def __init__(
        self, entries: list[_Entry], members: list[Member], context: TrainContext, precision: Precision
    ) -> None:
        self.unfit: list[_Entry] = []
        self._entries, self._members = entries, members
        self._context = context
        self._precision = precision
        self._key = entries[0].lane.trial.settings.shape()
        self._progress = [
            LaneProgress(e.lane, _split(m), e.state, metric=context.metric)
            for e, m in zip(entries, members, strict=True)
        ]
        self._turn = self._first_turn = max((p.turn for p in self._progress), default=0)
        keys = tuple(entry.lane.trial.key for entry in entries)
        for progress in self._progress:
            progress.members = keys

    def start(self, models: list[nn.Module], started: float) -> None:
        """Make the program.

        Raises:
            NotPackable: the lanes must train one after the other.
            Exception: whatever the models raise.
        """
        members = self._members
        own = self._context.own(members[0].settings)
        self._program = build_program(members, models, _split(members[0]), self._precision, own)
        for slot, entry in enumerate(self._entries):
            if entry.state is not None:
                self._program.load_lane_state(slot, members[slot], entry.state)
        share = (time.perf_counter() - started) / len(members)
        for progress in self._progress:
            progress.seconds += share

    def run(self) -> Iterator[Event]:
        """Train epoch after epoch until no lane is left.

        Raises:
            Stopped: asked to stop.
            StoreError: a file cannot be written.
        """
        try:
            yield from self._run()
        finally:
            self._close()

    def _close(self) -> None:
        """Close the program and free its memory."""
        if hasattr(self, "_program"):
            self._program.close()
            del self._program

    def _run(self) -> Iterator[Event]:
        before = {slot for slot, entry in enumerate(self._entries) if entry.ended}
        yield from self._end_lanes(before, dropped=())  # a lane may come with nothing left to train
        while self._progress:
            kept = self._lane_states()
            if self._turn > self._first_turn and self._context.checkpoints.due:
                self._context.checkpoints.save([(e.lane, e.state) for e in kept if e.state is not None])
            self._context.check_leave()
            started = time.perf_counter()
            try:
                totals = self._program.train_epoch(self._context.check_stop)
                trained = time.perf_counter()
                found = self._program.evaluate(self._context.check_stop)
            except Stopped:
                raise
            except RAISED as error:  # a user's model may raise anything
                self._close()
                yield from _recover(error, kept, self._context)
                return
            seconds = (time.perf_counter() - started) / len(self._progress)
            ended = set()
            self._turn += 1
            for progress in self._progress:
                progress.turn = self._turn
            for slot in range(len(self._progress)):
                event = self._epoch_ended(slot, totals[slot], found[slot], seconds, trained - started)
                if not isinstance(event, Diverged):
                    yield event
                    continue
                ended.add(slot)
                yield self._ended(self._progress[slot], self._progress[slot].diverged(event))
            yield from self._end_lanes(ended, dropped=self._context.dropped())

    def _epoch_ended(
        self,
        slot: int,
        totals: EpochTotals | Diverged,
        found: Evaluation | None,
        seconds: float,
        training_seconds: float,
    ) -> Event | Diverged:
        progress = self._progress[slot]
        if isinstance(totals, Diverged):
            progress.seconds += seconds
            return totals
        try:
            return progress.epoch_ended(
                PackLaneView(self._program, slot),
                totals,
                found,
                lr=self._program.lr(slot),
                seconds=seconds,
                training_seconds=training_seconds,
            )
        except Diverged as end:
            progress.seconds += seconds
            return end

    def _end_lanes(self, ended: set[int], *, dropped: Collection[int]) -> Iterator[Event]:
        """End lanes that have finished or shall be pruned, and give the free slots to other trials."""
        for slot, progress in enumerate(self._progress):
            if slot in ended:
                continue
            view = PackLaneView(self._program, slot)
            if progress.done():
                ended.add(slot)
                yield self._ended(progress, finish(progress, view))
            elif progress.lane.trial.id in dropped:
                ended.add(slot)
                yield self._ended(progress, progress.pruned(view))
        if ended:
            yield from self._refill(ended)

    def _ended(self, progress: LaneProgress, event: TrialFinished | TrialFailed) -> Event:
        return self._context.checkpoints.keep(progress, event)

    def _refill(self, free: set[int]) -> Iterator[Event]:
        more = False
        while free and (lanes := self._context.more(len(free))):
            more = True
            for lane in lanes:
                yield from self._fill_slot(lane, free)
        live = [slot for slot in range(len(self._progress)) if slot not in free]
        if free and live:
            self._program.compact(live)
        self._progress = [self._progress[slot] for slot in live]
        if more:
            self._context.training([progress.lane for progress in self._progress])

    def _fill_slot(self, lane: Lane[ImageSettings], free: set[int]) -> Iterator[Event]:
        """Put a lane into a free slot; one that does not fit trains alone, afterwards."""
        started = time.perf_counter()
        trial = lane.trial
        yield from self._context.checkpoints.open([lane])
        entry = _Entry(lane, self._context.checkpoints.state(lane))
        fits = bool(free) and trial.settings.shape() == self._key and not entry.alone
        if fits:
            try:
                member = _member(lane, self._context)
                model = _build(member, self._context, self._precision)
                fits = self._program.network.alike(model, member.settings.dropout)
            except RAISED as error:  # a user's model may raise anything
                yield failure(lane, error)
                return
        if not fits:
            self.unfit.append(entry)
            return
        slot = min(free)
        free.discard(slot)
        tensors = dict(model.named_parameters()) | dict(model.named_buffers())
        state = entry.state
        self._program.load_lane_state(slot, member, LaneState(weights=tensors) if state is None else state)
        self._progress[slot] = LaneProgress(lane, _split(member), state, metric=self._context.metric)
        self._progress[slot].turn = self._turn
        self._progress[slot].seconds += time.perf_counter() - started

    def _lane_states(self) -> list[_Entry]:
        """Return each lane's state, from which it goes on if the next epoch fails."""
        kept = []
        for slot, progress in enumerate(self._progress):
            state = self._program.lane_state(slot)
            progress.save(state)
            kept.append(_Entry(progress.lane, state))
        return kept
