"""Instructions of a rewritten graph that become one: dense layers that follow each other.

Stands between the rewrite, which has chosen a layer for every operation, and the stage that runs them.  It sees layers,
not the model's own words for them: features may come from `flatten`, `view` or `reshape`, ReLU from a module or a call.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gridsearch.training.kernels import DenseLayers, DenseShape
from gridsearch.training.lanes.layers import Flatten, Relu
from gridsearch.training.lanes.products import JoinedLinear, Linear
from gridsearch.training.lanes.stage import Fetch, Instruction

if TYPE_CHECKING:
    import torch

    from gridsearch.training.lanes.stage import Stage
    from gridsearch.training.lanes.values import Value


@dataclass(slots=True)
class _Run:
    """Instructions that follow each other, each the only reader of the one before.

    Attributes:
        members: all of them.
        weights: arguments for each dense layer's weight and bias.
        relu: for each dense layer, whether ReLU comes after it.
    """

    members: list[Instruction] = field(default_factory=list)
    weights: list[tuple[bool, object]] = field(default_factory=list)
    relu: list[bool] = field(default_factory=list)


def join_dense(stage: Stage, result: Value, dtype: torch.dtype) -> None:
    """Make one compiled operation of dense layers that follow each other, where that pays.

    Args:
        stage: not yet closed.
        result: what it returns.
        dtype: of the weights.
    """
    fetched = {one.place: one.function for one in stage.instructions if isinstance(one.function, Fetch)}
    for run in _runs(stage, result, fetched):
        sizes = [fetched[int(slot)]().shape for _, slot in run.weights[::2]]  # type: ignore[call-overload]
        shape = DenseShape((sizes[0][2], *(size[1] for size in sizes)), tuple(run.relu))
        kernel = DenseLayers.build(shape, dtype) if shape.pays() else None
        if kernel is None:
            continue
        source = run.members[0].bound[0]
        last = run.members[-1]
        joined = Instruction(JoinedLinear(kernel), (source, *run.weights), last.place)
        gone = {one.place for one in run.members}
        stage.instructions = [
            joined if one.place == last.place else one
            for one in stage.instructions
            if one.place not in gone or one.place == last.place
        ]


def _runs(stage: Stage, result: Value, fetched: dict[int, Fetch]) -> list[_Run]:
    """Return all runs of dense layers, with the flattening of maps before them."""
    readers = Counter(slot for one in stage.instructions for is_slot, slot in one.bound if is_slot)
    readers[result.slot] += 1
    made = {one.place: one for one in stage.instructions}
    reader = {slot: one for one in stage.instructions for is_slot, slot in one.bound if is_slot}
    seen: set[int] = set()
    found = []
    for one in stage.instructions:
        if one.place in seen or not _is_dense(one, fetched):
            continue
        run = _Run()
        before = made.get(one.bound[0][1])
        if before is not None and isinstance(before.function, Flatten) and readers[before.place] == 1:
            run.members.append(before)
        at: Instruction | None = one
        while (
            at is not None
            and _is_dense(at, fetched)
            and not {b for b in at.bound[1:3] if b[0]} & set(run.weights)
        ):
            run.members.append(at)
            run.weights += at.bound[1:3]
            after = reader.get(at.place) if readers[at.place] == 1 else None
            run.relu.append(after is not None and isinstance(after.function, Relu))
            if run.relu[-1] and after is not None:
                run.members.append(after)
                after = reader.get(after.place) if readers[after.place] == 1 else None
            at = after
        seen |= {member.place for member in run.members}
        found.append(run)
    return found


def _is_dense(one: Instruction, fetched: dict[int, Fetch]) -> bool:
    """Whether an instruction is a dense layer over each lane's own features, whose weights are as they are stored."""
    if not isinstance(one.function, Linear) or not one.function.joins:
        return False
    (_, weight), (has_bias, bias) = one.bound[1:3]
    return weight in fetched and (bias in fetched if has_bias else bias is None)
