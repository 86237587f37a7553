"""The moving averages of all lanes' weights, which are evaluated instead of them; see `training.weight_average`.

Stands beside the optimizer of a pack.  A lane without `ema` has a row here too, which is never read: it is evaluated as
it is, to the bit.  In a pack without any lane with `ema` nothing is kept or done.

An average begins at zero and is corrected for that bias only where it is read, so that the coefficient is the same at
every step: one operation moves all lanes, in place, and needs nothing from the host.

Shapes: K lanes, P elements of a lane's trained parameters.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from gridsearch.training.weight_average import weight_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gridsearch.training.lanes.runtime.storage import Storage


class PackAverages:
    """The averages of K lanes.

    Args:
        storage: has the weights.

    Attributes:
        state: what a step changes: the averages [K, P] of the trained parameters, and those [K, ...] of the
            buffers; empty where no lane has one.
    """

    def __init__(self, storage: Storage) -> None:
        self.state: list[torch.Tensor] = []
        self._storage = storage
        self._emas: list[float] = []
        self._shares_K1 = torch.empty(0)

    @property
    def active(self) -> bool:
        """Whether any lane has an average: if none does, steps skip it."""
        return bool(self.state)

    def set_decays(self, emas: Sequence[float]) -> None:
        """Set each lane's decay; averages that exist stay at their addresses."""
        self._emas = list(emas)
        if not any(emas):
            self.state = []
            return
        flat = self._storage.flat
        if not self.active:
            self.state = [torch.zeros_like(t) for t in self._tensors()]
        if self._shares_K1.shape != (len(flat), 1):
            self._shares_K1 = torch.empty(len(flat), 1, dtype=flat.dtype, device=flat.device)
        self._shares_K1.copy_(torch.tensor([1 - ema for ema in emas], dtype=torch.float64).view(-1, 1))

    @torch.no_grad()
    def step(self) -> None:
        """Update with the weights as they are now, after a step of the optimizer."""
        if not self.active:
            return
        for average, tensor in zip(self.state, self._tensors(), strict=True):
            average.lerp_(tensor, _for(self._shares_K1, average))

    @contextmanager
    def swapped_in(self, steps: Sequence[int]) -> Iterator[None]:
        """Swap the averages in for the weights of the lanes that have one; these come back at the end, to the bit.

        Args:
            steps: how many each lane took; before its first a lane has no average.
        """
        weights_K = [self._weight(slot, n) for slot, n in enumerate(steps)]
        if not any(weights_K):
            yield
            return
        device = self._storage.flat.device
        weights_K1 = torch.tensor(weights_K, dtype=torch.float64).view(-1, 1).to(self._storage.flat)
        averaged_K1 = torch.tensor([w > 0 for w in weights_K], device=device).view(-1, 1)
        tensors = self._tensors()
        own = [tensor.clone() for tensor in tensors]
        try:
            for tensor, average, before in zip(tensors, self.state, own, strict=True):
                torch.div(average, _for(weights_K1, average), out=tensor)
                torch.where(_for(averaged_K1, average), tensor, before, out=tensor)
            yield
        finally:
            for tensor, before in zip(tensors, own, strict=True):
                tensor.copy_(before)

    def evaluated_state_dict(self, slot: int, steps: int) -> dict[str, object]:
        """Return the lane's model's state_dict as it is evaluated; its tensors may change with the next step."""
        return self._storage.state_dict(slot, self._values(slot, steps))

    def evaluated_beside(self, slot: int, steps: int) -> dict[str, torch.Tensor]:
        """Return the lane's tensors that its model's state_dict lacks, likewise."""
        return self._storage.beside(slot, self._values(slot, steps))

    def evaluated_parameters(self, slot: int, steps: int) -> list[torch.Tensor]:
        """Return the lane's parameters, likewise."""
        return self._storage.parameters(slot, self._values(slot, steps))

    def pairs(self, slot: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return a lane's averages, each with what it is of, as views."""
        return [(a[slot], t.detach()[slot]) for a, t in zip(self.state, self._tensors(), strict=True)]

    def state_dict(self, slot: int) -> dict[str, torch.Tensor]:
        """Return a copy of a lane's average as `WeightAverage.state_dict` would give it."""
        return {name: row.clone() for name, row in self._rows(slot).items()} if self._emas[slot] else {}

    def load_state_dict(self, slot: int, averages: Mapping[str, torch.Tensor]) -> None:
        """Give a lane this average, which is copied; what is missing begins at zero."""
        for name, row in self._rows(slot).items():
            row.copy_(averages[name]) if name in averages else row.zero_()

    def compact(self, slots: Sequence[int]) -> None:
        """Keep only these lanes, in this order; the storage has been compacted before."""
        chosen = torch.tensor(slots, device=self._storage.flat.device)
        self.state = [t.index_select(0, chosen) for t in self.state]

    def _tensors(self) -> list[torch.Tensor]:
        """What is averaged, in the order of `state`."""
        storage = self._storage
        return [storage.flat, *(storage.tensors[name] for name in storage.averaged_buffers)]

    def _weight(self, slot: int, steps: int) -> float:
        """What an average is divided by; 0 for a lane that has none."""
        ema = self._emas[slot]
        return weight_of(ema, steps) if ema and steps else 0.0

    def _values(self, slot: int, steps: int) -> dict[str, torch.Tensor]:
        """A lane's average as it is evaluated, by name; empty for a lane that has none."""
        weight = self._weight(slot, steps)
        return {name: row / weight for name, row in self._rows(slot).items()} if weight else {}

    def _rows(self, slot: int) -> dict[str, torch.Tensor]:
        """A lane's row by name, as views."""
        if not self.active:
            return {}
        flat, *buffers = self.state
        found = {name: t[slot] for name, t in self._storage.split(flat).items()}
        return found | {
            name: t[slot] for name, t in zip(self._storage.averaged_buffers, buffers, strict=True)
        }


def _for(each_K1: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Shape a number for each lane so that it goes with [K, ...]."""
    return each_K1.view(-1, *(1,) * (tensor.dim() - 1))
