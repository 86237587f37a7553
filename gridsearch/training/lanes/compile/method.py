"""How a model's lanes will train, found before anything trains: for `plan` and `doctor`.

Stands beside the engine, and asks the same question of two lanes that differ in their seeds alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training import seeds
from gridsearch.training.lanes.compile.lane_values import NotPackable
from gridsearch.training.lanes.compile.remedies import with_remedy
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_outputs import check_logits
from gridsearch.training.model_setup import build_network, sample
from gridsearch.training.own_code import without_own_code
from gridsearch.training.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from gridsearch.records import ImageSettings
    from gridsearch.training.resident_data import ResidentData


def method_of(
    settings: ImageSettings,
    *,
    data: Callable[[ImageSettings], ResidentData],
    build: Callable[[ImageSettings, ResidentData], nn.Module],
    device: torch.device | str,
) -> tuple[str, str]:
    """Return how lanes of these settings train and why not better.

    Args:
        settings: a trial's recipe.
        data: gives the data of the settings, on `device`.
        build: gives a new model.
        device: where to train.

    Returns:
        "stacked", "vmap" or "solo", and the reason in one line with what changes it, "" for stacked.

    Raises:
        Exception: whatever the model or the data raises.
    """
    device = torch.device(device)
    settings = without_own_code(settings)
    precision = Precision.of(settings.dtype, device)
    resident = data(settings)
    with seeds.isolated(device), precision.products():
        members = [Member(settings, seed) for seed in (0, 1)]
        models = [build_network(settings, m.seed, resident, build, precision) for m in members]
        try:
            network = PackProgram(members, models, resident, precision).network
        except NotPackable as refusal:
            return "solo", with_remedy(str(refusal))
    return network.method, with_remedy(network.reason)


def try_out(
    settings: ImageSettings,
    *,
    data: Callable[[ImageSettings], ResidentData],
    build: Callable[[ImageSettings, ResidentData], nn.Module],
    device: torch.device | str,
) -> None:
    """Let a new model see a few images in both modes, backward pass included; the arguments are `method_of`'s.

    Raises:
        Exception: whatever the model or the data raises.
    """
    device = torch.device(device)
    precision = Precision.of(settings.dtype, device)
    resident = data(settings)
    with seeds.isolated(device), precision.products():
        model = build_network(settings, 0, resident, build, precision)
        x_BCHW = sample(resident, settings.norm, precision, torch.contiguous_format)
        with torch.enable_grad(), precision.forward():
            logits_BY = model.train()(x_BCHW)
        check_logits(logits_BY, len(x_BCHW), resident.num_classes, training=True)
        loss = F.cross_entropy(
            logits_BY.to(precision.weights), resident.labels[resident.train[: len(x_BCHW)]]
        )
        loss.backward()  # type: ignore[no-untyped-call]
