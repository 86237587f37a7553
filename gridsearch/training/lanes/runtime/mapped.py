"""Operations of a network that have no stacked layer: as they are, over all lanes at once or one after the other.

Used by the compiled graph as its instructions; `compile.rule_any` writes them.

Shapes: K lanes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch.func import vmap

from gridsearch.training.failures import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.training.lanes.compile.lane_values import LaneCount, Order
    from gridsearch.training.lanes.runtime.stacked_layers import DropoutState

    Dims = Sequence[int | None]


def quiet() -> None:
    """Let `vmap` loop over the lanes without a word where an operation has no rule for it: it is right all the same."""
    torch._C._functorch._set_vmap_fallback_warning_enabled(False)  # type: ignore[attr-defined]


class Mapped:
    """A pure operation, vectorized by `torch.func.vmap`; lane by lane where that does not know it.

    Which of both it is shows its first call.

    Args:
        operation: of one lane's tensors.
        dims: for each argument 0 where it has a lane's part each, None where all lanes share it.
    """

    def __init__(self, operation: Callable[..., torch.Tensor], dims: Dims) -> None:
        quiet()
        self._operation, self._dims = operation, tuple(dims)
        self._call: Callable[..., torch.Tensor] = self._first

    def __call__(self, *arguments: Any) -> torch.Tensor:
        """Return [K, ...]."""
        return self._call(*arguments)

    def _first(self, *arguments: Any) -> torch.Tensor:
        before = [a.detach().clone() if isinstance(a, torch.Tensor) else None for a in arguments]
        try:
            result = self._vectorized(*arguments)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            _restore(arguments, before)
            self._call = self._lane_by_lane
            return self._call(*arguments)
        self._call = self._vectorized
        return result

    def _vectorized(self, *arguments: Any) -> torch.Tensor:
        result: torch.Tensor = vmap(self._operation, in_dims=self._dims, randomness="error")(*arguments)
        return result

    def _lane_by_lane(self, *arguments: Any) -> torch.Tensor:
        lanes = len(arguments[self._dims.index(0)])
        each = [
            self._operation(
                *(a if dim is None else a[lane] for a, dim in zip(arguments, self._dims, strict=True))
            )
            for lane in range(lanes)
        ]
        return torch.stack(each)


@torch.no_grad()
def _restore(arguments: Sequence[Any], before: Sequence[torch.Tensor | None]) -> None:
    """Undo what a call that failed has changed: a module counts its batches before it asks for their number."""
    for now, then in zip(arguments, before, strict=True):
        if then is not None and not torch.equal(now, then):
            now.copy_(then)


def padded_embedding(
    index: torch.Tensor,
    weight: torch.Tensor,
    padding_idx: int,
    *,
    scale_grad_by_freq: bool = False,
) -> torch.Tensor:
    """Return rows of a table, of which one has no gradient: an embedding with padding, also by `vmap`.

    Under `vmap` torch (2.13) takes the table of all lanes for one, of which it leaves out the first lane's row alone.
    """
    rows = F.embedding(index, weight, scale_grad_by_freq=scale_grad_by_freq)
    return torch.where((index == padding_idx % len(weight)).unsqueeze(-1), rows.detach(), rows)


class PlainResult:
    """An operation that gives no tensor but a size or a type, which is the same for all lanes."""

    def __init__(self, operation: Callable[..., Any], dims: Dims) -> None:
        self._operation, self._dims = operation, tuple(dims)

    def __call__(self, *arguments: Any) -> Any:
        """Return what it gives for one lane; it may ask for no value of a tensor that lanes do not share."""
        if 0 not in self._dims:
            return self._operation(*arguments)
        found: list[Any] = []

        def noted(*lane: Any) -> torch.Tensor:
            found.append(self._operation(*lane))
            one: torch.Tensor = lane[self._dims.index(0)]
            return one

        vmap(noted, in_dims=self._dims, randomness="error")(*arguments)
        return found[0]


class LaneByLane:
    """An operation that draws random numbers from torch's generator: called for each lane with the lane's own.

    Args:
        width: how many lanes there are.
        dropout: has their generators.
        operation: of one lane's tensors.
        dims: see `Mapped`.
        name: of its node.
        places: which of the nodes that it reads gives each argument; None for weights.
    """

    def __init__(
        self,
        width: LaneCount,
        dropout: DropoutState,
        operation: Callable[..., torch.Tensor],
        dims: Dims,
        name: str,
        places: Sequence[int | None],
    ) -> None:
        self._width, self._dropout = width, dropout
        self._operation, self._dims = operation, tuple(dims)
        self._name, self._places = name, tuple(places)

    def __call__(self, *arguments: Any) -> torch.Tensor:
        """Return [K, ...]."""
        known = self._dropout.orders.get(self._name)
        orders = [None if known is None or place is None else known[place] for place in self._places]
        triples = list(zip(arguments, self._dims, orders, strict=True))
        own, before = torch.default_generator, torch.default_generator.get_state()
        found = []
        try:
            for lane, generator in zip(range(self._width.lanes), self._dropout.generators, strict=True):
                own.set_state(generator.get_state())
                own_arguments = [a if dim is None else _laid(a[lane], order) for a, dim, order in triples]
                found.append(self._operation(*own_arguments))
                generator.set_state(own.get_state())
        finally:
            own.set_state(before)
        return torch.stack(found)


def _laid(x: torch.Tensor, order: Order | None) -> torch.Tensor:
    """Return a lane's tensor as it lies in memory where the lane is alone: torch draws in that order."""
    if not order:
        return x
    return x.permute(order).contiguous().permute([order.index(d) for d in range(x.dim())])
