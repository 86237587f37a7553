"""Records arithmetic on parameters alone, and its backward pass, as a program of plain instructions.

Stands between the nodes of a traced network that no image reaches (`derived_weights`) and the program that a plan runs
(`kernels.weight_programs`).  The arithmetic runs once on tensors without content, under torch's own autograd: what
torch dispatches then, forwards and backwards, is the program.  Views cost no instruction: where a tensor lies in its
memory is all that an instruction knows of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from gridsearch.training.dispatch_watch import DispatchWatch
from gridsearch.training.kernels.weight_programs import (
    REDUCTIONS,
    SIDES,
    Instruction,
    Kind,
    Memory,
    Operand,
    What,
)
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_MOST_CONSTANTS = 2**20
_MOST_PLACES = 2**24  # whole numbers up to which single precision has all


class Recorder(DispatchWatch):
    """Notes what is dispatched inside a `with` block.

    Args:
        dtype: of all numbers.
        handled: what takes in a function, by its name; see `weight_operations`.

    Attributes:
        instructions: what was noted.
    """

    def __init__(self, dtype: torch.dtype, handled: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._handlers = handled
        self.dtype = dtype
        self.instructions: list[Instruction] = []
        self._memories: dict[int, Memory] = {}
        self._kept: list[torch.UntypedStorage] = []
        self._constants: dict[float, Memory] = {}

    def tensor(self, what: What, name: str, like: torch.Tensor) -> torch.Tensor:
        """Return a tensor without content for a parameter, a buffer or a gradient, contiguous as lanes have them."""
        found = torch.empty(like.shape, dtype=self.dtype, device="meta")
        self._note(found, Memory(what, name, found.numel()))
        return found

    def constant(self, content: torch.Tensor) -> torch.Tensor:
        """Return a tensor whose content is known.

        Raises:
            NoPlan: it is large, or of whole numbers.
        """
        if content.numel() > _MOST_CONSTANTS or content.dtype not in (self.dtype, torch.bool):
            raise NoPlan("arithmetic of parameters with tensors of another type")
        found = torch.empty(content.shape, dtype=content.dtype, device="meta")
        numbers = tuple(float(number) for number in content.flatten().tolist())
        self._note(found, Memory(What.CONSTANT, "", len(numbers), numbers))
        return found

    def copied(self, tensor: torch.Tensor, memory: Memory) -> Instruction:
        """Return what copies a tensor to a memory, contiguous."""
        like = torch.empty(tensor.shape, dtype=self.dtype, device="meta")
        to = _Array(memory, 0, tuple(tensor.shape), like.stride())
        return _instruction(Kind.COPY, tuple(tensor.shape), to, self.array(tensor))

    def added(self, tensor: torch.Tensor, memory: Memory) -> Instruction:
        """Return what adds a tensor to a memory, contiguous."""
        like = torch.empty(tensor.shape, dtype=self.dtype, device="meta")
        to = _Array(memory, 0, tuple(tensor.shape), like.stride())
        return _instruction(Kind.ADD, tuple(tensor.shape), to, to, self.array(tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note what is called, and return a result without content."""
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        if name in _MAKERS:
            return self._made(func, name, args, kwargs)
        if _is_of_content(args, kwargs):
            return func(*args, **kwargs)
        if func._schema.is_mutable and _is_of_content(args[:1]):
            raise NoPlan("known numbers that parameters change")
        args, kwargs = pytree.tree_map(self._known, (tuple(args), kwargs))
        if name.rstrip("_") in self._handlers or func._schema.is_mutable:
            return self._handled(func, name, args, kwargs)
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") in (None, self.dtype):
            return self.emit(Kind.COPY, func(*args, **kwargs | {"device": "meta"}), args[0])
        if _is_view(func):
            found = func(*args, **kwargs)
            if _share(found, args):  # it is a copy where no view can be, as `reshape` gives one
                return found
        with self:
            if (found := func.decompose(*args, **kwargs)) is not NotImplemented:
                return found
            rule = _decomposition(func)
            if rule is None:
                raise NoPlan(f"{name} of parameters")
            return rule(*args, **kwargs)

    def emit(self, kind: Kind, to: torch.Tensor, *sources: torch.Tensor | float) -> torch.Tensor:
        """Note an instruction, whose operands broadcast; return its result."""
        shape = tuple(to.shape)
        if kind in REDUCTIONS:
            shapes = [source.shape for source in sources if isinstance(source, torch.Tensor)]
            shape = np.broadcast_shapes(to.shape, *shapes)
        arrays = [self._array(operand, shape) for operand in (to, *sources)]
        if math.prod(shape):
            self.instructions.append(_instruction(kind, shape, *arrays))
        return to

    def fresh(self, shape: Sequence[int], like: torch.dtype | None = None) -> torch.Tensor:
        """Return a new tensor."""
        return torch.empty(tuple(shape), dtype=like or self.dtype, device="meta")

    def reduced(self, kind: Kind, shape: Sequence[int], *sources: torch.Tensor) -> torch.Tensor:
        """Return a reduction of what broadcasts to more than a shape, in which reduced dimensions are of one number."""
        start = {Kind.LARGEST: -math.inf, Kind.SMALLEST: math.inf}.get(kind, 0.0)
        return self.emit(kind, self.emit(Kind.COPY, self.fresh(shape), start), *sources)

    def places(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return where in its memory each number of a tensor lies.

        Raises:
            NoPlan: a number of the tensor's type may not be exact there.
        """
        memory = self.memory(tensor)
        if memory.numbers > _MOST_PLACES:
            raise NoPlan("indices of many parameters")
        return torch.arange(memory.numbers).as_strided(
            tensor.shape, tensor.stride(), int(tensor.storage_offset())
        )

    def taken(self, tensor: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return the numbers at some places of a tensor's memory."""
        to = self.fresh(places.shape)
        flat = _Array(self.memory(to), 0, (places.numel(),), (1,))
        self._move(Kind.TAKE, flat, self._anywhere(tensor, places), places)
        return to

    def put(self, tensor: torch.Tensor, places: torch.Tensor, added: torch.Tensor) -> None:
        """Add numbers at some places of a tensor's memory."""
        own = self.emit(Kind.COPY, self.fresh(places.shape), added)  # in a row
        source = _Array(self.memory(own), 0, (places.numel(),), (1,))
        self._move(Kind.PUT, self._anywhere(tensor, places), source, places)

    def _anywhere(self, tensor: torch.Tensor, places: torch.Tensor) -> _Array:
        return _Array(self.memory(tensor), 0, (places.numel(),), (0,))

    def _move(self, kind: Kind, to: _Array, source: _Array, places: torch.Tensor) -> None:
        if places.numel():
            where = self.array(self.constant(places.flatten().to(self.dtype)))
            self.instructions.append(_instruction(kind, (places.numel(),), to, source, where))

    def copy_flipped(self, to: torch.Tensor, source: torch.Tensor, dims: Sequence[int]) -> None:
        """Note a copy in which some dimensions are in the order from their last number to their first."""
        turned = self.array(source).flipped(dims)
        self.instructions.append(_instruction(Kind.COPY, tuple(to.shape), self.array(to), turned))

    def _handled(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        out = kwargs.pop("out", None)
        stem = name.removesuffix("_") if func._schema.is_mutable and out is None else name
        handle = self._handlers.get(stem)
        if handle is None:
            raise NoPlan(f"{name} of parameters")
        if stem != name:
            out = args[0]
        found = handle(self, *args, **kwargs)
        if out is None or found is out:
            return found
        return self.emit(Kind.COPY, out, found)

    def _made(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        """Return a tensor that is made of nothing."""
        own = {k: v for k, v in kwargs.items() if k not in ("device", "layout", "pin_memory")}
        if name in _EMPTY:
            made: torch.Tensor = func(*args, **own, device="meta")  # of another type it may not be read
            return made
        if name in _FILLED:
            made = func(*args, **own, device="meta")
            value = _FILLED[name]
            return self.emit(Kind.COPY, made, args[-1] if value is None else value)
        known: torch.Tensor = func(*args, **own, device="cpu")
        return known

    def _known(self, value: Any) -> Any:
        """Return a tensor with content as a number, or as one whose content is known; indices stay what they are."""
        if not isinstance(value, torch.Tensor) or value.is_meta:
            return value
        if not value.dim():
            return value.item()
        return value if value.dtype == torch.int64 else self.constant(value)

    def _note(self, tensor: torch.Tensor, memory: Memory) -> None:
        storage = tensor.untyped_storage()
        self._memories[storage._cdata] = memory
        self._kept.append(storage)  # so that its number is given to no other

    def memory(self, tensor: torch.Tensor) -> Memory:
        """Return where a tensor lies."""
        key = tensor.untyped_storage()._cdata
        if key not in self._memories:
            if tensor.dtype not in (self.dtype, torch.bool):
                raise NoPlan("arithmetic of parameters with numbers of another type")
            numbers = tensor.untyped_storage().nbytes() // tensor.element_size()
            self._note(tensor, Memory(What.TEMPORARY, "", numbers))
        return self._memories[key]

    def array(self, tensor: torch.Tensor) -> _Array:
        """Return where a tensor lies."""
        return self._array(tensor, tensor.shape)

    def _array(self, value: torch.Tensor | float, shape: Sequence[int]) -> _Array:
        if isinstance(value, torch.Tensor):
            expanded = value.expand(tuple(shape))
            return _Array(
                self.memory(value), int(value.storage_offset()), tuple(shape), tuple(expanded.stride())
            )
        number = float(value)
        if number not in self._constants:
            self._constants[number] = Memory(What.CONSTANT, "", 1, (number,))
        return _Array(self._constants[number], 0, tuple(shape), (0,) * len(shape))


class _Array:
    """Where an operand of some shape lies."""

    def __init__(self, memory: Memory, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.memory, self.offset, self.shape, self.strides = memory, offset, shape, strides

    def flipped(self, dims: Sequence[int]) -> _Array:
        """Return it with some dimensions in the order from their last number to their first."""
        turned = {d % len(self.shape) for d in dims}
        steps = tuple(-s if d in turned else s for d, s in enumerate(self.strides))
        last = sum((self.shape[d] - 1) * self.strides[d] for d in turned)
        return _Array(self.memory, self.offset + last, self.shape, steps)


def _instruction(kind: Kind, shape: tuple[int, ...], *arrays: _Array) -> Instruction:
    """Return an instruction in as few dimensions as can be, the one innermost in which most operands lie in a row.

    Raises:
        NoPlan: it has too many.
    """
    sides = [
        (side, tuple(0 if array.shape[d] == 1 else array.strides[d] for array in arrays))
        for d, side in enumerate(shape)
        if side != 1
    ]
    sides.sort(key=lambda each: tuple(-step for step in each[1]))
    merged: list[tuple[int, tuple[int, ...]]] = []
    for side, steps in sides:
        before = merged[-1] if merged else None
        if before is not None and all(a == b * side for a, b in zip(before[1], steps, strict=True)):
            merged[-1] = before[0] * side, steps
        else:
            merged.append((side, steps))
    merged.sort(key=lambda each: (sum(step in (0, 1) for step in each[1]), min(each[0], 16)))
    if len(merged) > SIDES:
        raise NoPlan("arithmetic of parameters in too many dimensions")
    operands = [
        Operand(array.memory, array.offset, tuple(steps[i] for _, steps in merged))
        for i, array in enumerate(arrays)
    ]
    return Instruction(kind, tuple(side for side, _ in merged), operands[0], tuple(operands[1:]))


def _is_of_content(*given: Any) -> bool:
    """Whether tensors are given, and the content of all is known."""
    tensors = [leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, torch.Tensor)]
    return bool(tensors) and not any(t.is_meta for t in tensors)


def _is_view(func: Any) -> bool:
    """Whether a function gives a part of its argument's memory."""
    returns = func._schema.returns
    return bool(returns) and all(
        one.alias_info is not None and not one.alias_info.is_write for one in returns
    )


def _share(result: Any, args: Any) -> bool:
    """Whether the tensors of a result lie in memory of the arguments."""
    theirs = {t.untyped_storage()._cdata for t in pytree.tree_leaves(args) if isinstance(t, torch.Tensor)}
    own = [t.untyped_storage()._cdata for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor)]
    return all(one in theirs for one in own)


def _decomposition(func: Any) -> Any:
    from torch._decomp import decomposition_table

    return decomposition_table.get(func)


_EMPTY = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted")
_FILLED: dict[str, float | None] = {
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), 0.0),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), 1.0),
    **dict.fromkeys(("full", "full_like", "scalar_tensor"), None),
}
_MAKERS = {*_EMPTY, *_FILLED, "eye", "arange", "linspace"}
"""Functions that make a tensor of sizes."""
