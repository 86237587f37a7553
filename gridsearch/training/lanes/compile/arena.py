"""Where everything of a step plan lies in one arena of memory.

Stands between the operations of a step (`step_plan`) and the plan that C runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.training.kernels.op import SLACK, activation_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gridsearch.training.lanes.compile.step_plan import Steps

_LINE = 64  # bytes of a cache line, and of the widest vector


@dataclass(frozen=True, slots=True)
class Memory:
    """Where things lie in an arena, in bytes from its beginning.

    Attributes:
        slots: each activation.
        gradients: each activation's gradient; None where it has none.
        saved: what each operation leaves for its backward pass.
        workspace: of whichever operation runs.
        size: of the whole arena.
    """

    slots: list[int]
    gradients: list[int | None]
    saved: list[int]
    workspace: int
    size: int


def lay_out(steps: Steps, batch: int, evaluated: int, dtype: torch.dtype) -> Memory:
    """Lay out an arena: what is not needed at the same time may have the same place.

    Args:
        steps: the operations.
        batch: most images of a training step.
        evaluated: most images of an evaluated batch.
        dtype: of the weights.
    """
    ops, slots = steps.ops, steps.slots
    count, size = len(ops), 8 if str(dtype) == "torch.float64" else 4
    most = max(batch, evaluated)

    def backward(op: int) -> int:  # when it runs, after all forward passes and the loss
        return 2 * count - op

    maker = {placed.output: n for n, placed in enumerate(ops)}
    readers: dict[int, list[int]] = {}
    for n, placed in enumerate(ops):
        for i in placed.inputs:
            readers.setdefault(i, []).append(n)
    wanted: list[tuple[int, int, int]] = []  # bytes, first and last time of use
    for s, slot in enumerate(slots):
        numbers = activation_numbers(slot.layout, slot.shape, most, dtype)
        wanted.append((numbers * size, maker.get(s, 0), backward(maker.get(s, 0))))
    with_gradient = [s for s, slot in enumerate(slots) if slot.trained]
    for s in with_gradient:
        numbers = activation_numbers(slots[s].layout, slots[s].shape, batch, dtype)
        begins = count if s == steps.logits else backward(max(readers[s]))
        wanted.append((numbers * size, begins, backward(maker[s])))
    wanted += [(placed.op.saved_bytes(batch), n, backward(n)) for n, placed in enumerate(ops)]
    wanted.append((max(placed.op.workspace_bytes(most) for placed in ops), 0, backward(0)))
    places, total = place_pieces(wanted)
    gradients: list[int | None] = [None] * len(slots)
    for s, place in zip(with_gradient, places[len(slots) :], strict=False):
        gradients[s] = place
    saved = places[len(slots) + len(with_gradient) : -1]
    return Memory(places[: len(slots)], gradients, saved, places[-1], total)


def place_pieces(wanted: Sequence[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Place pieces (bytes, first and last time of use), the largest first, each in the lowest gap that is free."""
    placed: list[tuple[int, int, int, int]] = []  # begin, end, first, last
    places = [0] * len(wanted)
    for i in sorted(range(len(wanted)), key=lambda i: -wanted[i][0]):
        size, first, last = wanted[i]
        size = -(-(size + SLACK) // _LINE) * _LINE
        at = 0
        for begin, end, others_first, others_last in sorted(placed):
            if others_first <= last and first <= others_last:
                if begin >= at + size:
                    break
                at = max(at, end)
        placed.append((at, at + size, first, last))
        places[i] = at
    return places, max((end for _, end, _, _ in placed), default=0)
