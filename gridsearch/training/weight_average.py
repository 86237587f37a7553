"""The moving average of a lane's weights, which is evaluated instead of them: the recipe's `ema`.

Temporal averaging as in Kingma & Ba 2015, "Adam: A Method for Stochastic Optimization", section 7.2.  After every
step of the optimizer

    average <- ema * average + (1 - ema) * weights

from zero, and what is evaluated, selected and exported after n steps is average / (1 - ema^n), which corrects
the bias towards that zero.  Training itself goes on with the weights.

Averaged are the parameters that are trained and the floating-point buffers (batch norm's running statistics), as
they stand after the step.  All else is taken as it is: counters, parameters that are not trained, and buffers that a
user's model makes or resizes while it trains, or that are expanded, into which nothing can be written.

Stands beside the optimizer of the plain engine; `lanes.runtime.averages` does the same for all lanes of a pack.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn


def weight_of(ema: float, steps: int) -> float:
    """Return what the weights of all steps so far count for in an average that began at zero: 1 - ema^steps.

    Args:
        ema: the decay, above 0 and below 1.
        steps: at least 1.
    """
    return -math.expm1(steps * math.log(ema))  # the difference itself loses digits where ema is close to 1


def averaged_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a model's buffers that are averaged, by name."""
    return {n: b for n, b in model.named_buffers() if b.is_floating_point() and 0 not in b.stride()}


class WeightAverage:
    """The average of one lane.

    Args:
        ema: the decay, above 0 and below 1.
        model: the lane's.
    """

    def __init__(self, ema: float, model: nn.Module) -> None:
        self._ema = ema
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        buffers = averaged_buffers(model)
        self._averages = {
            name: torch.zeros_like(t, requires_grad=False) for name, t in (trained | buffers).items()
        }
        self._trained: list[tuple[torch.Tensor, torch.Tensor]] = [
            (self._averages[name], parameter) for name, parameter in trained.items()
        ]
        # by module and name, since a user's code may put other tensors there
        self._buffers = [
            (self._averages[name], model.get_submodule(place), own)
            for name in buffers
            for place, _, own in (name.rpartition("."),)
        ]

    @torch.no_grad()
    def add(self, parameters: Mapping[str, torch.nn.Parameter], steps: int) -> None:
        """Average these parameters too, by name, which have not changed for so many steps."""
        for name, parameter in parameters.items():
            self._averages[name] = parameter.detach() * (weight_of(self._ema, steps) if steps else 0.0)
            self._trained.append((self._averages[name], parameter))

    @torch.no_grad()
    def step(self) -> None:
        """Update with the weights as they are now, after a step of the optimizer."""
        averages, tensors = zip(*self._pairs(), strict=True)
        torch._foreach_lerp_(averages, tensors, 1 - self._ema)

    @contextmanager
    def swapped_in(self, steps: int) -> Iterator[None]:
        """Swap the average in for the weights; they come back at the end, to the bit.

        Args:
            steps: how many were taken; before the first there is no average, and the weights stay.
        """
        if steps == 0:
            yield
            return
        pairs = [(average, tensor.detach()) for average, tensor in self._pairs()]
        weights = [tensor.clone() for _, tensor in pairs]
        try:
            for average, tensor in pairs:
                torch.div(average, weight_of(self._ema, steps), out=tensor)
            yield
        finally:
            for (_, tensor), own in zip(pairs, weights, strict=True):
                tensor.copy_(own)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return a copy of the average, not yet divided, by the tensors' names in the model."""
        return {name: t.clone() for name, t in self._averages.items()}

    def load_state_dict(self, averages: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `state_dict` gave, which is copied; what is missing begins at zero."""
        for name, average in self._averages.items():
            average.copy_(averages[name]) if name in averages else average.zero_()

    def _pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Each average with what it is of."""
        buffers = [(average, getattr(module, name, None)) for average, module, name in self._buffers]
        there = [(a, b) for a, b in buffers if isinstance(b, torch.Tensor) and b.shape == a.shape]
        return self._trained + there
