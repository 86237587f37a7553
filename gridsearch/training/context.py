"""The interface between a pack and the program that trains it.

`train_pack` picks the first engine that accepts a pack.  An engine is a generator of events, so that the loop
around it alone decides where they go; an error of whoever takes an event never looks like a trial's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import torch

from gridsearch.records.image_metrics import ACCURACY
from gridsearch.training.lane_checkpoints import LaneCheckpoints
from gridsearch.training.own_code import OwnCode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from torch import nn

    from gridsearch.records import Event, ImageSettings, Lane, Pack
    from gridsearch.training.resident_data import ResidentData

_STOP_INTERVAL = 0.1  # seconds between two questions to `stop`, which may cost a system call


class Stopped(Exception):
    """The pack shall be left as it is: its unfinished lanes stay unfinished."""


class TrainContext:
    """What a pack is trained with.

    Args:
        data: gives the data of a trial's settings, on `device`; see `ResidentCache`.
        build: gives a new, untrained model for settings and data.
        device: where to train.
        stop: asked at least every .2 seconds or once a step; when it says yes, the lanes that have not ended stay
            without a result.
        more: asked for up to so many more lanes, of any group, whenever lanes are free; may give none.
        drop: asked after each epoch for the trials (ledger ids) that shall end now, as PRUNED.
        checkpoints: writes and finds those of the lanes, which then go on from where they stood; None for none.
        own: gives what of the settings is code of the user's, beside the model.
        training: takes the lanes that train from now on, and no others of the pack: they may train one after the other.
        metric: which metric ranks the study; each epoch has it where it can be computed then.
    """

    def __init__(  # noqa: PLR0913  (what a pack is trained with, each by its name)
        self,
        *,
        data: Callable[[ImageSettings], ResidentData],
        build: Callable[[ImageSettings, ResidentData], nn.Module],
        device: torch.device | str,
        stop: Callable[[], bool] = lambda: False,
        more: Callable[[int], Sequence[Lane[ImageSettings]]] = lambda _: (),
        drop: Callable[[], Collection[int]] = lambda: (),
        checkpoints: LaneCheckpoints | None = None,
        own: Callable[[ImageSettings], OwnCode] = lambda _: OwnCode(),
        training: Callable[[Sequence[Lane[ImageSettings]]], None] = lambda _: None,
        metric: str = ACCURACY,
    ) -> None:
        self.data = data
        self.build = build
        self.own = own
        self.device = torch.device(device)
        self.more = more
        self.training = training
        self.metric = metric
        self.dropped = drop
        self.checkpoints = checkpoints or LaneCheckpoints()
        self._stop = stop
        self._asked = -_STOP_INTERVAL

    def check_stop(self) -> None:
        """Ask `stop`, at most ten times a second however often this is called.

        Raises:
            Stopped: it says so.
        """
        now = time.monotonic()
        if now - self._asked >= _STOP_INTERVAL:
            self._asked = now
            if self._stop():
                raise Stopped

    def check_leave(self) -> None:
        """Leave the pack at an epoch's end if that is asked for.

        Raises:
            Stopped: it is.
        """
        if self.checkpoints.leaving:
            raise Stopped


class Engine(Protocol):
    """A way to train the lanes of one pack."""

    def accepts(self, pack: Pack[ImageSettings], device: torch.device) -> bool:
        """Whether it shall train this pack there."""
        ...

    def train(self, pack: Pack[ImageSettings], context: TrainContext) -> Iterator[Event]:
        """Train a pack and yield, for each lane, its epochs and its end; return early when asked to stop.

        A lane whose model or data raises ends in a `TrialFailed`, and the others go on.
        """
        ...
