"""Instructions of a rewritten graph that become one: dense layers that follow each other.

Stands between the rewrite, which has chosen a layer for every operation, and the graph that runs them.  It sees layers,
not the model's own words for them: features may come from `flatten`, `view` or `reshape`, ReLU from a module or a call.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gridsearch.training.kernels import DenseLayers, DenseShape
from gridsearch.training.lanes.compile.compiled_graph import Fetch, Instruction
from gridsearch.training.lanes.runtime.products import FusedLinear, Linear
from gridsearch.training.lanes.runtime.stacked_layers import Flatten, Relu

if TYPE_CHECKING:
    import torch

    from gridsearch.training.lanes.compile.compiled_graph import CompiledGraph
    from gridsearch.training.lanes.compile.lane_values import Value


@dataclass(slots=True)
class _Chain:
    """Instructions that follow each other, each the only reader of the one before.

    Attributes:
        members: all of them: perhaps one that flattens maps, then dense layers, some with ReLU after them.
        sizes: features that go into the first layer, come out of it, come out of the next, ...
        weights: arguments for each layer's weight and bias.
        relu: for each layer, whether ReLU comes after it.
    """

    members: list[Instruction] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    weights: list[tuple[bool, Any]] = field(default_factory=list)
    relu: list[bool] = field(default_factory=list)

    def accepts(self, layer: Instruction) -> bool:
        """Whether none of a layer's weights is here already: each is to have its gradient written once."""
        return not {operand for operand in layer.operands[1:3] if operand[0]} & set(self.weights)


def fuse_dense(graph: CompiledGraph, result: Value, dtype: torch.dtype) -> None:
    """Make one compiled operation of dense layers that follow each other, where that pays.

    Args:
        graph: not yet closed.
        result: what it returns.
        dtype: of the weights.
    """
    for chain in _chains(graph, result):
        kernel = DenseLayers.build(DenseShape(tuple(chain.sizes), tuple(chain.relu)), dtype)
        if kernel is None:
            return
        source, output = chain.members[0].operands[0], chain.members[-1].output
        fused = Instruction(FusedLinear(kernel), (source, *chain.weights), output)
        gone = {one.output for one in chain.members[:-1]}
        left = (one for one in graph.instructions if one.output not in gone)
        graph.instructions = [fused if one.output == output else one for one in left]


def _chains(graph: CompiledGraph, result: Value) -> list[_Chain]:
    """Return all runs of dense layers, with the flattening of maps before them."""
    fetched = {one.output: one.function for one in graph.instructions if isinstance(one.function, Fetch)}
    made = {one.output: one for one in graph.instructions}
    uses = Counter(slot for one in graph.instructions for is_slot, slot in one.operands if is_slot)
    uses[result.slot] += 1
    readers = {slot: one for one in graph.instructions for is_slot, slot in one.operands if is_slot}

    def only_reader(one: Instruction) -> Instruction | None:
        return readers.get(one.output) if uses[one.output] == 1 else None

    seen: set[int] = set()
    found = []
    for first in graph.instructions:
        size = _size(first, fetched)
        if first.output in seen or size is None:
            continue
        chain = _Chain(sizes=[size[0]])
        before = made.get(first.operands[0][1])
        if before is not None and isinstance(before.function, Flatten) and only_reader(before) is first:
            chain.members.append(before)
        at: Instruction | None = first
        while at is not None and (size := _size(at, fetched)) is not None and chain.accepts(at):
            chain.members.append(at)
            chain.sizes.append(size[1])
            chain.weights += at.operands[1:3]
            after = only_reader(at)
            chain.relu.append(after is not None and isinstance(after.function, Relu))
            if after is not None and chain.relu[-1]:
                chain.members.append(after)
                after = only_reader(after)
            at = after
        seen |= {member.output for member in chain.members}
        found.append(chain)
    return found


def _size(one: Instruction, fetched: dict[int, Fetch]) -> tuple[int, int] | None:
    """Return the features that go into a dense layer and come out of it; None for what cannot be in a chain.

    That is whatever is no dense layer over each lane's own features, whose weights are not as they are stored, or for
    which a kernel does not pay.
    """
    if not isinstance(one.function, Linear) or not one.function.can_fuse:
        return None
    (_, weight), (has_bias, bias) = one.operands[1:3]
    if weight not in fetched or (bias not in fetched if has_bias else bias is not None):
        return None
    _, outputs, inputs = fetched[weight]().shape
    return (inputs, outputs) if DenseShape((inputs, outputs), (False,)).pays() else None
