"""The plain engine: one lane after the other, each as the program of `solo`.

Implements `training.context.Engine`, behind the engine of packs, which leaves to it what does not fit into one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gridsearch.errors import RAISED, StoreError
from gridsearch.training import seeds
from gridsearch.training.context import Stopped
from gridsearch.training.failures import failure
from gridsearch.training.lane_progress import LaneProgress
from gridsearch.training.metrics import Diverged
from gridsearch.training.model_setup import kept_beside_tensors
from gridsearch.training.precision import Precision
from gridsearch.training.solo import SoloProgram

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from gridsearch.records import EpochEnded, Event, ImageSettings, Lane, Pack, TrialFailed, TrialFinished
    from gridsearch.training.context import TrainContext
    from gridsearch.training.lane_progress import LaneState, LaneView


class SoloEngine:
    """Trains the lanes of a pack one after the other."""

    def accepts(self, pack: Pack[ImageSettings], device: torch.device) -> bool:  # noqa: ARG002  (part of the protocol)
        """Take any pack."""
        return True

    def train(self, pack: Pack[ImageSettings], context: TrainContext) -> Iterator[Event]:
        """Train a pack's lanes and yield their events."""
        try:
            yield from context.checkpoints.open(pack.lanes)
            for lane in pack.lanes:
                context.check_stop()
                if (result := context.checkpoints.result(lane)) is not None:
                    yield result
                else:
                    yield from train_lane(lane, context, context.checkpoints.state(lane))
        except Stopped:
            return


def train_lane(
    lane: Lane[ImageSettings], context: TrainContext, state: LaneState | None = None
) -> Iterator[Event]:
    """Train one lane to its end; an error of the user's model or data ends this lane alone.

    Args:
        lane: the trial.
        context: what it is trained with.
        state: where to go on from, else from the start.

    Raises:
        Stopped: asked to stop.
        StoreError: a file cannot be written.
    """
    context.training([lane])
    try:
        settings = lane.trial.settings
        data = context.data(settings)
        started = time.perf_counter()  # reading the data is the worker's cost, not the trial's
        progress = LaneProgress(lane, data, state, metric=context.metric)
        progress.alone = True
        precision = Precision.of(settings.dtype, context.device)
        with precision.products():
            seed = seeds.lane_seed(settings, lane.trial.seed)
            program = SoloProgram(settings, seed, data, context.build, precision, context.own(settings))
            if state is not None:
                program.load_lane_state(state)
            beside = kept_beside_tensors(program.model)
            progress.seconds += time.perf_counter() - started
            while not progress.done():
                try:
                    yield _epoch(progress, program, context)
                except Diverged as end:
                    progress.seconds += time.perf_counter() - program.epoch_started
                    yield context.checkpoints.keep(progress, progress.diverged(end))
                    return
                if progress.done():
                    break
                if lane.trial.id in context.dropped():
                    yield context.checkpoints.keep(progress, progress.pruned(program))
                    return
                if context.checkpoints.due:
                    saved = program.lane_state()
                    progress.save(saved)
                    saved.resumable = (
                        program.resumable
                        and beside is not None
                        and kept_beside_tensors(program.model) == beside
                    )
                    context.checkpoints.save([(lane, saved)])
                context.check_leave()
    except (Stopped, StoreError):
        raise
    except RAISED as error:  # a user's model may raise anything
        yield failure(lane, error)
        return
    yield context.checkpoints.keep(progress, finish(progress, program))


def finish(progress: LaneProgress, view: LaneView) -> TrialFinished | TrialFailed:
    """Return the result of a lane that has trained all its epochs, its files written.

    Raises:
        StoreError: a file cannot be written, which is no fault of this trial.
    """
    try:
        return progress.complete(view)
    except Diverged as end:
        return progress.diverged(end)
    except StoreError:
        raise
    except RAISED as error:  # a user's module may keep what no file takes
        return failure(progress.lane, error)


def _epoch(progress: LaneProgress, program: SoloProgram, context: TrainContext) -> EpochEnded:
    epoch = progress.epochs + 1
    started = program.epoch_started = time.perf_counter()
    totals = program.train_epoch(epoch, context.check_stop)
    trained = time.perf_counter()
    found = program.evaluate(epoch, context.check_stop)
    return progress.epoch_ended(
        program,
        totals,
        found,
        lr=program.lr,
        seconds=time.perf_counter() - started,
        training_seconds=trained - started,
    )
