"""Whether a network of lanes computes what the models themselves do: asked of every network before it trains.

Stands between the networks and who chooses among them.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from gridsearch.training import seeds
from gridsearch.training.lanes.values import Form, NotStackable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from gridsearch.training.lanes.network import Network
    from gridsearch.training.lanes.storage import Storage
    from gridsearch.training.precision import Precision

    _Alone = tuple[torch.Tensor, Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]


class Disagrees(NotStackable):
    """A K-lane form gives other numbers than the model itself."""


AGREEMENT = {"float64": 1e-7, "float32": 1e-2, "tf32": 5e-2, "bfloat16": 0.2}
"""How far a network may be from the models, as a share of the largest value: mistakes are of the order of 1."""


def check(
    network: Network,
    storage: Storage,
    models: Sequence[nn.Module],
    x_BCHW: torch.Tensor,
    precision: Precision,
) -> None:
    """Compare a network with the models themselves.

    Raises:
        NotStackable: they differ.
    """
    before = [storage.take(slot) for slot in range(storage.lanes)]
    for training in (True, False):
        expected = [_alone(m, x_BCHW, precision, training=training) for m in models]
        for form in (Form.SHARED, Form.PACKED):
            try:
                _check_pass(network, storage, expected, x_BCHW, precision, form, training=training)
            finally:  # a pass moves running statistics, from which whatever comes next must not start
                for slot, weights in enumerate(before):
                    storage.put(slot, weights)


def _check_pass(
    network: Network,
    storage: Storage,
    expected: Sequence[_Alone],
    x_BCHW: torch.Tensor,
    precision: Precision,
    form: Form,
    *,
    training: bool,
) -> None:
    device = x_BCHW.device
    lanes = storage.lanes
    network.draws.generators = [
        torch.Generator(device).manual_seed(seeds.stream(0, "trial")) for _ in range(lanes)
    ]
    x = x_BCHW if form is Form.SHARED else x_BCHW.repeat(1, lanes, 1, 1)
    with torch.enable_grad(), precision.forward():
        descent = network.descend(x, form) if training else None
        logits = descent.logits if descent else network(x, form, training=False)
    if tuple(logits.shape) != (lanes, *expected[0][0].shape):
        raise NotStackable(f"its K-lane form gives {tuple(logits.shape)}")
    flat = torch.empty_like(storage.flat)
    gradients = storage.split(flat)
    if descent:
        descent.gradients(2 * logits.float().to(flat.dtype), flat)
    for slot, (own_logits, own_gradients, own_buffers) in enumerate(expected):
        pairs = [(logits[slot], own_logits)]
        if training and (device.type == "cpu" or not network.draws_masks):
            pairs += [(g[slot], own_gradients[name]) for name, g in gradients.items()]
        pairs += [(storage.tensors[n][slot], b) for n, b in own_buffers.items()]
        if device.type != "cpu" and network.draws_masks and training:
            pairs = []  # other streams on other devices
        _compare(pairs, AGREEMENT[precision.name])


def _compare(pairs: list[tuple[torch.Tensor, torch.Tensor]], limit: float) -> None:
    largest = max((float(b.detach().abs().max()) for _, b in pairs if b.numel()), default=0.0)
    for ours, theirs in pairs:
        if theirs.numel() and not torch.allclose(
            ours.detach().double(), theirs.detach().double(), rtol=limit, atol=limit * largest, equal_nan=True
        ):
            raise Disagrees("its K-lane form does not agree with the model itself")


def _alone(model: nn.Module, x_BCHW: torch.Tensor, precision: Precision, *, training: bool) -> _Alone:
    """Return a model's logits, gradients and buffers after one pass of a copy of it."""
    twin = copy.deepcopy(model)
    twin.train(training)
    seeds.reseed(x_BCHW.device, seeds.stream(0, "trial"))
    with torch.enable_grad(), precision.forward():
        logits = twin(x_BCHW)
    if training:
        logits.float().square().sum().backward()
    gradients = {n: p.grad for n, p in twin.named_parameters() if p.grad is not None}
    return logits.detach(), gradients, dict(twin.named_buffers())
