"""In which order lanes draw their masks: that in which a lone lane's module does.

Stands between a pack's program and its network.  Torch fills a mask in the order in which the tensor that it is for
lies in memory: maps by channels or by pixels, tokens either way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gridsearch.training.lanes.compile.lane_values import SAMPLE
from gridsearch.training.lanes.compile.tracing import orders
from gridsearch.training.model_setup import lone_layout
from gridsearch.training.weight_hooks import copy_of

if TYPE_CHECKING:
    from torch import nn

    from gridsearch.training.lanes.runtime.stacked_layers import DropoutState
    from gridsearch.training.precision import Precision
    from gridsearch.training.resident_data import ResidentData


def lay_out_masks(
    dropout: DropoutState, model: nn.Module, norm: str, data: ResidentData, precision: Precision
) -> None:
    """Let lanes that draw from generators of the host fill masks, and other draws, in the order of a lone lane's maps.

    Args:
        dropout: of the lanes; its orders are those of maps that lie contiguous.
        model: a lane's.
        norm: the first lane's normalization.
        data: the images.
        precision: how the lanes compute.
    """
    if not dropout.orders:
        return
    with torch.random.fork_rng(devices=[]):
        alone = lone_layout(model, norm, data, precision)
        if alone == torch.channels_last:
            own = copy_of(model).to(memory_format=alone)  # type: ignore[call-overload]
            make = data.batches(norm=norm, dtype=precision.weights, memory_format=alone)
            first = data.train[torch.arange(SAMPLE, device=data.device) % len(data.train)]
            dropout.orders = orders(own, make(first))
