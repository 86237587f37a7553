"""Operations of a traced graph whose result is as long as what a tensor holds says: `w[w > 0]`, `torch.nonzero(w)`.

Stands below `tracing`.  A graph is made for the sizes that a sample shows.  Those that follow from constants stay;
those that follow from weights, or from images, change from step to step.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.utils import _pytree as pytree

from gridsearch.training.dispatch_watch import DispatchWatch
from gridsearch.training.lanes.compile.lane_values import NotStackable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from torch import fx, nn

_MASKS = (torch.bool, torch.uint8)


class SizeWatch(DispatchWatch):
    """Notes whether an operation took the size of its result from what a tensor holds.

    Attributes:
        seen: whether one has, in the block.
    """

    seen = False

    def __enter__(self) -> Self:
        self.seen = False
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if torch.Tag.dynamic_output_shape in func.tags:
            # that of indices has the tag, too, and needs none where these are places
            indices = (t for t in pytree.tree_leaves(args[1:]) if isinstance(t, torch.Tensor))
            masks = any(t.dtype in _MASKS for t in indices)
            self.seen |= masks or func.overloadpacket is not torch.ops.aten.index
        return func(*args, **kwargs or {})


def check_sizes_fixed(
    model: nn.Module,
    sized: Collection[fx.Node],
    draws: Collection[fx.Node],
    results: Mapping[fx.Node, Any],
    run: Callable[[], object],
) -> None:
    """Refuse a graph in which weights, images or random numbers decide how long a tensor is.

    Args:
        model: of the graph.
        sized: nodes that a `SizeWatch` has seen.
        draws: nodes that draw random numbers.
        results: of each node.
        run: runs the graph once more, which shows the buffers that it changes.

    Raises:
        NotStackable: it is one.
    """
    if not sized:
        return
    before = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        run()
    moving = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    moving |= {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for node in sized:
        waiting = _deciding(node, results)
        known = set(waiting)
        while waiting:
            one = waiting.pop()
            if one.op in ("placeholder", "call_module") or one in draws or str(one.target) in moving:
                name = getattr(node.target, "__name__", node.target)
                raise NotStackable(f"what tensors hold decides how long the result of {name} is")
            new = [n for n in one.all_input_nodes if n not in known]
            known.update(new)
            waiting += new


def _deciding(node: fx.Node, results: Mapping[fx.Node, Any]) -> list[fx.Node]:
    """Return those of a node's arguments that decide how long its result is."""
    given = node.all_input_nodes
    masks = [one for one in given if getattr(results[one], "dtype", None) in _MASKS]
    if masks or node.target is operator.getitem:  # which else has a list for a mask
        return masks
    repeats = getattr(node.target, "__name__", node.target) == "repeat_interleave"
    return given[1:] if repeats and len(given) > 1 else given
