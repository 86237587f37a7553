"""A step plan as C takes it: one structure, whose operations find all that they read and write in one arena.

Stands between the operations that a network's step is made of (`lanes/compile/step_plan.py`) and the lanes that run
them (`planned_steps.py`).  What differs from lane to lane is named here, and put in place by plan.c when a lane's turn
comes.

Shapes: B batch, P elements of a lane's trained parameters.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import torch

from gridsearch.training.kernels import block_ops
from gridsearch.training.kernels.calling import POINTER
from gridsearch.training.kernels.op import SLACK, OpArgs
from gridsearch.training.kernels.plan import LAYOUTS, Call, PlanStruct, Relocation
from gridsearch.training.lanes.compile.arena import lay_out
from gridsearch.training.lanes.runtime.built_weights import BuiltWeights, Calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.training.lanes.compile.step_plan import Steps
    from gridsearch.training.lanes.runtime.storage import Storage
    from gridsearch.training.resident_data import ResidentData


class BuiltPlan:
    """The operations of a step with their memory.

    Args:
        steps: the operations.
        storage: the lanes' weights.
        data: the images.
        batch: the most images of a pass in training.
        evaluated: the most images of a pass in evaluation.
        random_bytes: that C wants for its random numbers.
        losses: address of the compiled cross-entropy.
        optimizer: address of the compiled optimizer.

    Attributes:
        struct: what C takes.
        gradient: of the lane that ran last, [P].
        tensors: names of a lane's tensors that are not trained, in the order in which a lane gives their addresses.
    """

    def __init__(
        self,
        steps: Steps,
        storage: Storage,
        data: ResidentData,
        *,
        batch: int,
        evaluated: int,
        random_bytes: int,
        losses: int,
        optimizer: int,
    ) -> None:
        self._steps, self._storage, self._dtype = steps, storage, storage.flat.dtype
        self._memory = lay_out(steps, batch, evaluated, self._dtype)
        self._arena = _aligned(self._memory.size)
        self._random = torch.zeros(random_bytes // 8 + 1, dtype=torch.int64)
        self.gradient = torch.empty(storage.flat.shape[1], dtype=self._dtype)
        self._weights = None if steps.weights is None else BuiltWeights(steps.weights, self._dtype)
        self._sums: dict[int, list[_Sum]] = {}
        self.tensors = [name for name in storage.tensors if storage.trained(name) is None]
        self.struct = self._build(data, batch, losses, optimizer)

    def view(self, place: int, count: int) -> torch.Tensor:
        """Return so many numbers of the arena, from an address on."""
        offset = place - self._arena.data_ptr()
        return self._arena[offset : offset + count * self.gradient.element_size()].view(self._dtype)

    def _build(self, data: ResidentData, batch: int, losses: int, optimizer: int) -> PlanStruct:
        """Return the C structure of the plan."""
        steps, size = self._steps, len(self._steps.ops)
        args, table = self._all_operands()
        none: tuple[Calls, Calls, Calls] = [], [], []
        before, before_infer, last = none if self._weights is None else self._weights.calls
        backwards: list[tuple[Any, OpArgs]] = []
        for n, placed in reversed(list(enumerate(steps.ops))):
            if steps.slots[placed.output].trained:  # what lies before all parameters has no gradient
                backwards.append((placed.op.library.backward, args[n]))
                backwards += [(one.function, one.args) for one in self._sums.get(n, ())]
        forwards = [(placed.op.library.forward, args[n]) for n, placed in enumerate(steps.ops)]
        infers = [(placed.op.library.infer, args[size + n]) for n, placed in enumerate(steps.ops)]
        forward, backward, infer = map(_calls, (before + forwards, backwards + last, before_infer + infers))
        labels, image = torch.empty(batch, dtype=torch.int64), torch.empty_like(data.pixels[0])
        self._parts = forward, backward, infer, args, table, labels, image
        logits = steps.slots[steps.logits]
        gradient = self._memory.gradients[steps.logits]
        assert gradient is not None
        return PlanStruct(
            forward=forward,
            backward=backward,
            infer=infer,
            forward_count=len(forward),
            backward_count=len(backward),
            infer_count=len(infer),
            infer_once=len(before_infer),
            relocations=table,
            relocation_count=len(table),
            args=args,
            args_count=len(args),
            images=self._at(self._memory.slots[0]),
            layout=LAYOUTS.index(steps.slots[0].layout),
            channels=data.channels,
            height=data.image_size[0],
            width=data.image_size[1],
            logits=self._at(self._memory.slots[steps.logits]),
            logits_gradient=self._at(gradient),
            classes=logits.shape[0],
            cross_entropy=losses,
            optimizer=optimizer,
            gradient=self.gradient.data_ptr(),
            size=self.gradient.numel(),
            bytes=data.pixels.data_ptr() if data.pixels.dtype == torch.uint8 else None,
            floats=data.pixels.data_ptr() if data.pixels.dtype != torch.uint8 else None,
            labels=data.labels.data_ptr(),
            batch_labels=labels.data_ptr(),
            image=image.data_ptr(),
            random=self._random.data_ptr() if any(p.draws for p in steps.ops) else None,
        )

    def _at(self, offset: int) -> int:
        return self._arena.data_ptr() + offset

    def _all_operands(self) -> tuple[ctypes.Array[OpArgs], ctypes.Array[Relocation]]:
        """Return each operation's operands, in training, then in evaluation, and what differs from lane to lane."""
        size = len(self._steps.ops)
        args = (OpArgs * (2 * size))()
        relocations: list[Relocation] = []
        written: set[int | str] = set()
        # in the order of the backward pass, which says who writes a gradient, and who adds to it
        for n in reversed(range(size)):
            self._operands(n, args[n], relocations, written)
            self._operands(size + n, args[size + n], relocations, None)
        if self._weights is not None:
            firsts = {name: self._storage.trained(name) for name in self._weights.parameters}
            pointers = self._weights.build(
                {name: self.gradient[self._offset(name) :].data_ptr() for name in firsts},
                summed={name for name, first in firsts.items() if first in written},
            )
            for name, place in pointers:
                self._relocate(relocations, place, name)
        return args, (Relocation * len(relocations))(*relocations)

    def _operands(
        self, n: int, args: OpArgs, relocations: list[Relocation], written: set[int | str] | None
    ) -> None:
        """Fill in an operation's pointers, and note those that differ from lane to lane.

        Args:
            n: its number; after all those in training come those in evaluation.
            args: where to write.
            relocations: likewise.
            written: slots and parameters whose gradients operations that run before it in the backward pass write; None
                in evaluation.
        """
        memory, steps = self._memory, self._steps
        training = written is not None
        number = n % len(steps.ops)
        placed = steps.ops[number]
        args.y = self._at(memory.slots[placed.output])
        args.workspace = self._at(memory.workspace)
        args.constants = placed.op.constants
        args.saved = self._at(memory.saved[number]) if training else None
        for i, slot in reversed(list(enumerate(placed.inputs))):  # as an operation writes their gradients
            args.x[i] = self._at(memory.slots[slot])
            gradient = memory.gradients[slot]
            if written is not None and gradient is not None:
                args.gx[i] = self._at(gradient)
                args.adds[i] = slot in written
                written.add(slot)
        own = memory.gradients[placed.output]
        args.gy = self._at(own) if training and own is not None else None
        for i, name in enumerate(placed.params):
            if name is None:
                continue
            if self._weights is not None and name in self._weights.tensors:
                args.params[i] = self._weights.tensors[name].data_ptr()
            else:
                self._relocate(relocations, _place(args, OpArgs.params, i), name)
            if written is not None:
                args.grads[i] = self._gradient_of(name, number, written).data_ptr()
        for i, name in enumerate(placed.buffers):
            self._relocate(relocations, _place(args, OpArgs.buffers, i), name)
        if placed.draws:
            args.buffers[0] = self._random.data_ptr()
            args.saved = self._at(memory.saved[number])

    def _gradient_of(self, name: str, op: int, written: set[int | str]) -> torch.Tensor:
        """Return where an operation writes a parameter's gradient: beside, where another one has written it before.

        What is written beside is added afterwards; that of a parameter that is not trained is forgotten.
        """
        if self._weights is not None and name in self._weights.tensors:
            first, whole, numbers = name, self._weights.gradients[name], self._weights.tensors[name].numel()
        else:
            first, offset = self._storage.trained(name) or "", self._offset(name)
            whole = None if offset is None else self.gradient[offset:]
            numbers = self._storage.tensors[name][0].numel()
        if whole is not None and first not in written:
            written.add(first)
            return whole
        beside, added = torch.empty(numbers, dtype=self._dtype), whole
        self._sums.setdefault(op, []).append(_Sum(beside, added, self._dtype))
        return beside

    def _relocate(self, relocations: list[Relocation], place: int, name: str) -> None:
        """Note that at a place is the address of a lane's tensor."""
        offset = self._offset(name)
        if offset is None:
            relocations.append(Relocation(place, 1 + self.tensors.index(name), 0))
        else:
            relocations.append(Relocation(place, 0, offset * self.gradient.element_size()))

    def _offset(self, name: str) -> int | None:
        """Return where a parameter lies in a lane's row of trained ones; None for what is not trained."""
        first = self._storage.trained(name)
        if first is None:
            return None
        return int(self._storage.split(self._storage.flat)[first].storage_offset())


def _place(args: OpArgs, field: Any, i: int) -> int:
    """Return the address of one of an operation's pointers."""
    return ctypes.addressof(args) + int(field.offset) + i * ctypes.sizeof(POINTER)


class _Sum:
    """A gradient that an operation writes beside the parameter's own, and the call that adds it, if any.

    Attributes:
        function: what adds it.
        args: its operands.
    """

    def __init__(self, beside: torch.Tensor, to: torch.Tensor | None, dtype: torch.dtype) -> None:
        self.beside = beside
        self.function, self._numbers = block_ops.gradient_sum(0 if to is None else beside.numel(), dtype)
        self.args = OpArgs(constants=ctypes.addressof(self._numbers))
        self.args.params[0] = beside.data_ptr()
        self.args.grads[0] = None if to is None else to.data_ptr()


def _aligned(size: int) -> torch.Tensor:
    """Return so many bytes that begin where a cache line does, with slack behind them."""
    raw = torch.zeros(size + SLACK + 64, dtype=torch.uint8)
    return raw[-raw.data_ptr() % 64 :]


def _calls(wanted: Sequence[tuple[Any, OpArgs]]) -> ctypes.Array[Call]:
    return (Call * len(wanted))(
        *(Call(ctypes.cast(function, POINTER).value, ctypes.pointer(args)) for function, args in wanted)
    )
