"""The entry into training: one pack in, its events out.

A worker calls `train_pack` for each pack it is sent; the inline executor calls it in its own process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gridsearch.records.image_metrics import ACCURACY
from gridsearch.training import seeds
from gridsearch.training.context import Engine, TrainContext
from gridsearch.training.lanes.runtime.engine import LanesEngine
from gridsearch.training.own_code import OwnCode
from gridsearch.training.solo_engine import SoloEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from torch import nn

    from gridsearch.records import Event, ImageSettings, Lane, Pack
    from gridsearch.training.lane_checkpoints import LaneCheckpoints
    from gridsearch.training.resident_data import ResidentData

ENGINES: tuple[Engine, ...] = (LanesEngine(), SoloEngine())
"""The engines, the one to prefer first; the last takes any pack."""


def engine_of(pack: Pack[ImageSettings], device: torch.device) -> Engine:
    """Return the engine that trains a pack on a device."""
    return next(engine for engine in ENGINES if engine.accepts(pack, device))


def train_pack(  # noqa: PLR0913  (what a pack is trained with, each by its name)
    pack: Pack[ImageSettings],
    *,
    data: Callable[[ImageSettings], ResidentData],
    build: Callable[[ImageSettings, ResidentData], nn.Module],
    device: torch.device | str,
    emit: Callable[[Event], None],
    stop: Callable[[], bool] = lambda: False,
    more: Callable[[int], Sequence[Lane[ImageSettings]]] = lambda _: (),
    drop: Callable[[], Collection[int]] = lambda: (),
    checkpoints: LaneCheckpoints | None = None,
    own: Callable[[ImageSettings], OwnCode] = lambda _: OwnCode(),
    training: Callable[[Sequence[Lane[ImageSettings]]], None] = lambda _: None,
    metric: str = ACCURACY,
) -> None:
    """Train the trials of a pack.

    For each lane that was tried before `TrialResumed`; for each `EpochEnded` after every epoch, then one of:
    `TrialFinished` with state COMPLETE (and its files in the lane's scratch folder) or DIVERGED, or `TrialFailed`,
    where the model or the data raised.
    The global random generators are given back as they were.

    Args:
        pack: the trials, with a scratch folder each.
        data: gives the data of a trial's settings, on `device`; see `ResidentCache`.
        build: gives a new, untrained model for settings and data.
        device: where to train.
        emit: takes each event.
        stop: asked at least every .2 seconds or once a step; when it says yes, the lanes that have not ended
            stay without a result.
        more: asked for up to so many more lanes, of any group, whenever lanes are free; may give none.
        drop: asked after each epoch for the trials (ledger ids) that shall end now, as PRUNED.
        checkpoints: writes and finds those of the lanes, which then go on from where they stood; None for none.
        own: gives what of the settings is code of the user's, beside the model.
        training: takes the lanes that train from now on, and no others of the pack: they may train one after the other.
        metric: which metric ranks the study; each epoch has it where it can be computed then.

    Raises:
        StoreError: a file cannot be written.
        Exception: whatever `emit` or `stop` raises.
    """
    device = torch.device(device)
    context = TrainContext(
        data=data,
        build=build,
        device=device,
        stop=stop,
        more=more,
        drop=drop,
        checkpoints=checkpoints,
        own=own,
        training=training,
        metric=metric,
    )
    with seeds.isolated(device):
        for event in engine_of(pack, device).train(pack, context):
            emit(event)
