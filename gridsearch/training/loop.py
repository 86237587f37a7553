"""The entry into training: one pack in, its events out.

A worker calls `train_pack` for each pack it is sent; the inline executor calls it in its own process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.training import seeds
from gridsearch.training.lanes.runtime.engine import LanesEngine
from gridsearch.training.solo_engine import SoloEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from gridsearch.records import Event, ImageSettings, Pack
    from gridsearch.training.context import Engine, TrainContext

ENGINES: tuple[Engine, ...] = (LanesEngine(), SoloEngine())
"""The engines, the one to prefer first; the last takes any pack."""


def engine_of(pack: Pack[ImageSettings], device: torch.device) -> Engine:
    """Return the engine that trains a pack on a device."""
    return next(engine for engine in ENGINES if engine.accepts(pack, device))


def train_pack(pack: Pack[ImageSettings], context: TrainContext, *, emit: Callable[[Event], None]) -> None:
    """Train the trials of a pack.

    For each lane that was tried before `TrialResumed`; for each `EpochEnded` after every epoch, then one of:
    `TrialFinished` with state COMPLETE (and its files in the lane's scratch folder) or DIVERGED, or `TrialFailed`,
    where the model or the data raised.
    The global random generators are given back as they were.

    Args:
        pack: the trials, with a scratch folder each.
        context: what they are trained with.
        emit: takes each event.

    Raises:
        StoreError: a file cannot be written.
        Exception: whatever `emit` or the context's `stop` raises.
    """
    with seeds.isolated(context.device):
        for event in engine_of(pack, context.device).train(pack, context):
            emit(event)
