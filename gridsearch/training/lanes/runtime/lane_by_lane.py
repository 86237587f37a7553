"""A user's own optimizer in a pack: one for each lane, and one after the other takes its step.

Stands in the place of `PackOptimizer`; each lane has what it has alone (`own_optimizer`), over parameters of its own,
from which its row of the storage is copied after each step: code of a user's may give a parameter other memory, as
`p.data = p.data - lr * p.grad` does, or keep the old one.

Shapes: K lanes, P elements of a lane's trained parameters, M coefficients of a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gridsearch.training.clipping import clip_gradients
from gridsearch.training.lanes.compile.lane_values import NotPackable
from gridsearch.training.own_optimizer import OwnOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.training.lanes.runtime.planned_steps import PlannedLane
    from gridsearch.training.lanes.runtime.storage import Storage


class LaneByLane:
    """Moves the lanes by their gradients, each by an optimizer of its own.

    Args:
        make: the user's class.
        members: the lanes.
        storage: has the weights, which are changed in place.

    Raises:
        NotPackable: they have what cannot be taken from them.

    Attributes:
        lr: each lane's learning rate of the next step.
        form: what a step does beside its numbers, which is always the same.
        state: what recorded steps change; steps with code of the user's are not recorded.
    """

    form = None

    def __init__(self, make: Callable[..., Any], members: Sequence[PlannedLane], storage: Storage) -> None:
        self._make, self._storage = make, storage
        self._own = [self._new(slot, member) for slot, member in enumerate(members)]
        if keeps := next((own.keeps for own in self._own if own.keeps), ""):
            raise NotPackable(f"its optimizer keeps {keeps}, which no lane can go on with elsewhere")
        self._rates: list[list[float]] = []
        self.lr = [own.lr for own in self._own]
        self.state: list[torch.Tensor] = []

    def _new(self, slot: int, member: PlannedLane) -> OwnOptimizer:
        return OwnOptimizer(self._make, member.settings, self._parameters(slot), seed=member.seed)

    def _parameters(self, slot: int) -> list[torch.nn.Parameter]:
        """Return copies of a lane's parameters."""
        return [torch.nn.Parameter(view.detach().clone()) for view in self._views(slot)]

    def _views(self, slot: int) -> list[torch.Tensor]:
        """Return a lane's parameters in the storage."""
        return [view[slot] for view in self._storage.split(self._storage.flat).values()]

    def step(self, gradient: torch.Tensor, row: torch.Tensor | None = None) -> None:
        """Move all lanes.

        Args:
            gradient: [K, P]; may be overwritten.
            row: as for `PackOptimizer`; the rates are those that `coefficients` took last.
        """
        if row is not None:
            self.lr = self._rates.pop(0)
        for slot, (own, lr, gradient_P) in enumerate(
            zip(self._own, self.lr, gradient.unbind(0), strict=True)
        ):
            start = 0
            for parameter in own.parameters:
                parameter.grad = gradient_P[start : start + parameter.numel()].view_as(parameter)
                start += parameter.numel()
            own.lr = lr
            clip_gradients(own.parameters, own.settings)
            own.step()
            with torch.no_grad():
                for view, parameter in zip(self._views(slot), own.parameters, strict=True):
                    view.copy_(parameter)

    def coefficients(self, rates: Sequence[Sequence[float]]) -> torch.Tensor:
        """Take the rates of the steps to come, [steps, K]; the table says nothing of them."""
        self._rates = [list(row) for row in rates]
        return torch.zeros(len(rates), 1, len(self._own), 1, device=self._storage.flat.device)

    def advance(self, rates: Sequence[Sequence[float]]) -> None:
        """Take note that the steps of these rates were taken."""
        self.lr = list(rates[-1])

    def compact(self, slots: Sequence[int]) -> None:
        """Keep only these lanes, in this order; the storage has been compacted before."""
        self._own = [self._own[slot] for slot in slots]
        self.lr = [self.lr[slot] for slot in slots]

    def state_dict(self, slot: int) -> dict[str, dict[str, torch.Tensor]]:
        """Return a copy of a lane's state as `OwnOptimizer.state_dict` gives it."""
        return self._own[slot].state_dict(self._storage.names)

    def load_lane(
        self, slot: int, member: PlannedLane, state: Mapping[str, Mapping[str, torch.Tensor]]
    ) -> None:
        """Give a lane to another trial, with its state; an empty one is a fresh start."""
        self._own[slot] = self._new(slot, member)
        self._own[slot].load_state_dict(self._storage.names, state)
        self.lr[slot] = member.settings.lr
