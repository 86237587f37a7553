"""Whether a network, or a plan of its steps, gives for as many images as a step takes what the model itself gives.

Stands beside `agreement.py`, which compares all that a few images show.  They do not show everything: of three images
`x[:8]` is all, `x[8:]` is nothing, `x.roll(3, 0)` is no change, and `x.split(8)` has one part.  A forward pass of a
whole batch does, in the first lane alone: it costs less than a step.

Shapes: B batch, C/H/W channels, height, width, Y classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from gridsearch.training import seeds
from gridsearch.training.lanes.compile.agreement import (
    AGREEMENT,
    NUDGES,
    Disagrees,
    Undecided,
    compare_nudged,
    compare_rounding,
    last_digits,
    load_tensors,
)
from gridsearch.training.lanes.compile.lane_values import Form
from gridsearch.training.lanes.compile.tensor_distance import distance, rms

if TYPE_CHECKING:
    from torch import nn

    from gridsearch.training.lanes.compile.agreement import PassNetwork
    from gridsearch.training.lanes.runtime.storage import Storage
    from gridsearch.training.precision import Precision


class FirstLane(Protocol):
    """What gives the first lane's logits of a batch."""

    def __call__(self, x_BCHW: torch.Tensor, precision: Precision, *, training: bool) -> torch.Tensor:
        """Return logits [B, Y]; the lane's tensors are afterwards as they were."""
        ...


class OfModel:
    """The logits of the model itself, with the first lane's tensors.

    Args:
        model: a lane's.
        storage: the lanes' tensors.
    """

    def __init__(self, model: nn.Module, storage: Storage) -> None:
        self._model, self._storage = model, storage

    def __call__(self, x_BCHW: torch.Tensor, precision: Precision, *, training: bool) -> torch.Tensor:
        """Return logits [B, Y]."""
        load_tensors(self._model, self._storage.lane_tensors(0))
        seeds.reseed(x_BCHW.device, seeds.stream(0, "trial"))
        self._model.train(training)
        try:
            with torch.set_grad_enabled(training), precision.forward():
                logits: torch.Tensor = self._model(x_BCHW.clone())
        finally:
            self._model.train()
        return logits.detach()


class OfNetwork:
    """The logits of a network of all lanes, or of their plan.

    Args:
        network: of the lanes.
        storage: their tensors.
    """

    def __init__(self, network: PassNetwork, storage: Storage) -> None:
        self._network, self._storage = network, storage

    def __call__(self, x_BCHW: torch.Tensor, precision: Precision, *, training: bool) -> torch.Tensor:
        """Return logits [B, Y]."""
        lanes = range(self._storage.lanes)
        before = [self._storage.lane_tensors(slot) for slot in lanes]
        self._network.dropout.generators = [
            torch.Generator(x_BCHW.device).manual_seed(seeds.stream(0, "trial")) for _ in lanes
        ]
        try:
            with torch.no_grad(), precision.forward():
                return self._network(x_BCHW.clone(), Form.SHARED, training=training)[0].detach()
        finally:
            for slot, tensors in enumerate(before):
                self._storage.load_lane_tensors(slot, tensors)


def check_batch(
    ours: FirstLane, theirs: FirstLane, x_BCHW: torch.Tensor, precision: Precision, *, masks: bool = True
) -> None:
    """Compare two ways of computing the first lane's logits of a whole batch, which agree on a few images.

    Args:
        ours: one of them.
        theirs: the other, held to be right.
        x_BCHW: the images.
        precision: how ours computes.
        masks: whether both draw the same random numbers in training.

    Raises:
        Disagrees: they differ, and not by rounding.
        Exception: whatever they raise.
    """
    for training in (True, False) if masks else (False,):
        exact = theirs(x_BCHW, precision.unrounded, training=training)
        found = ours(x_BCHW, precision, training=training)
        if found.shape != exact.shape:
            raise Disagrees(f"its K-lane form gives {len(found)} logits for {len(exact)} images")
        if precision.rounds:
            rounded = theirs(x_BCHW, precision, training=training)
            compare_rounding(([(found, rounded)],), ([exact],))
        elif not distance(found, exact) <= (limit := AGREEMENT[precision.name]) * rms(exact):
            drawing = torch.Generator().manual_seed(0)
            nudged = (x_BCHW + last_digits(x_BCHW, drawing) for _ in range(NUDGES))
            spreads = [([theirs(x, precision, training=training)],) for x in nudged]
            try:
                compare_nudged(([(found, exact)],), spreads, [limit])
            except Undecided:
                continue  # of the few images both have made the same
