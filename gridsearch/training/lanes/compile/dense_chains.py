"""Instructions of a rewritten graph that become one: dense layers that follow each other.

Stands between the rewrite, which has chosen a layer for every operation, and the stage that runs them.  It sees layers,
not the model's own words for them: features may come from `flatten`, `view` or `reshape`, ReLU from a module or a call.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gridsearch.training.kernels import DenseLayers, DenseShape
from gridsearch.training.lanes.compile.compiled_graph import Fetch, Instruction
from gridsearch.training.lanes.runtime.products import JoinedLinear, Linear
from gridsearch.training.lanes.runtime.stacked_layers import Flatten, Relu

if TYPE_CHECKING:
    import torch

    from gridsearch.training.lanes.compile.compiled_graph import CompiledGraph
    from gridsearch.training.lanes.compile.lane_values import Value


@dataclass(slots=True)
class _Run:
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

    def takes(self, layer: Instruction) -> bool:
        """Whether none of a layer's weights is here already: each is to have its slopes written once."""
        return not {bound for bound in layer.bound[1:3] if bound[0]} & set(self.weights)


def join_dense(stage: CompiledGraph, result: Value, dtype: torch.dtype) -> None:
    """Make one compiled operation of dense layers that follow each other, where that pays.

    Args:
        stage: not yet closed.
        result: what it returns.
        dtype: of the weights.
    """
    for run in _runs(stage, result):
        kernel = DenseLayers.build(DenseShape(tuple(run.sizes), tuple(run.relu)), dtype)
        if kernel is None:
            return
        source, place = run.members[0].bound[0], run.members[-1].place
        joined = Instruction(JoinedLinear(kernel), (source, *run.weights), place)
        gone = {one.place for one in run.members[:-1]}
        left = (one for one in stage.instructions if one.place not in gone)
        stage.instructions = [joined if one.place == place else one for one in left]


def _runs(stage: CompiledGraph, result: Value) -> list[_Run]:
    """Return all runs of dense layers, with the flattening of maps before them."""
    fetched = {one.place: one.function for one in stage.instructions if isinstance(one.function, Fetch)}
    made = {one.place: one for one in stage.instructions}
    uses = Counter(slot for one in stage.instructions for is_slot, slot in one.bound if is_slot)
    uses[result.slot] += 1
    readers = {slot: one for one in stage.instructions for is_slot, slot in one.bound if is_slot}

    def only_reader(one: Instruction) -> Instruction | None:
        return readers.get(one.place) if uses[one.place] == 1 else None

    seen: set[int] = set()
    found = []
    for first in stage.instructions:
        size = _size(first, fetched)
        if first.place in seen or size is None:
            continue
        run = _Run(sizes=[size[0]])
        before = made.get(first.bound[0][1])
        if before is not None and isinstance(before.function, Flatten) and only_reader(before) is first:
            run.members.append(before)
        at: Instruction | None = first
        while at is not None and (size := _size(at, fetched)) is not None and run.takes(at):
            run.members.append(at)
            run.sizes.append(size[1])
            run.weights += at.bound[1:3]
            after = only_reader(at)
            run.relu.append(after is not None and isinstance(after.function, Relu))
            if after is not None and run.relu[-1]:
                run.members.append(after)
                after = only_reader(after)
            at = after
        seen |= {member.place for member in run.members}
        found.append(run)
    return found


def _size(one: Instruction, fetched: dict[int, Fetch]) -> tuple[int, int] | None:
    """Return the features that go into a dense layer and come out of it; None for what cannot be a part of a run.

    That is whatever is no dense layer over each lane's own features, whose weights are not as they are stored, or for
    which a kernel does not pay.
    """
    if not isinstance(one.function, Linear) or not one.function.joins:
        return None
    (_, weight), (has_bias, bias) = one.bound[1:3]
    if weight not in fetched or (bias not in fetched if has_bias else bias is not None):
        return None
    _, outputs, inputs = fetched[weight]().shape
    return (inputs, outputs) if DenseShape((inputs, outputs), (False,)).pays() else None
