"""Programs of arithmetic on parameters alone: what the weights of layers are computed from, and back; see weights.c.

Stands between what records such arithmetic (`lanes/compile/weight_recorder.py`) and the plan that runs it.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch.training.kernels.calling import POINTER, REALS
from gridsearch.training.kernels.compiler import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

SIDES, OPERANDS = 5, 3  # as in weights.c


class Kind(StrEnum):
    """What an instruction computes, in the order of weights.c.

    Reductions add to their result, or take the largest or smallest, over the dimensions in which it does not move. The
    last two move in one operand alone: their second source tells where in it each number is read, or added.
    """

    COPY = "copy"
    ADD = "add"
    SUBTRACT = "subtract"
    MULTIPLY = "multiply"
    DIVIDE = "divide"
    LARGER = "larger of two"
    SMALLER = "smaller of two"
    POWER = "power"
    EQUAL = "equal"
    UNEQUAL = "unequal"
    LESS = "less"
    LESS_OR_EQUAL = "less or equal"
    CHOOSE = "choose"
    ROOT = "root"
    EXPONENTIAL = "exponential"
    LOGARITHM = "logarithm"
    TANH = "tanh"
    SIGMOID = "sigmoid"
    SIZE = "size"
    SIGN = "sign"
    SINE = "sine"
    COSINE = "cosine"
    ERROR_FUNCTION = "error function"
    SUM = "sum"
    LARGEST = "largest"
    SMALLEST = "smallest"
    PRODUCTS = "sum of products"
    TAKE = "take from places"
    PUT = "add at places"


REDUCTIONS = (Kind.SUM, Kind.LARGEST, Kind.SMALLEST, Kind.PRODUCTS)


class What(StrEnum):
    """What a memory holds."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    WEIGHT = "weight of a layer"
    WEIGHT_GRADIENT = "its gradient"
    GRADIENT = "gradient of a parameter"
    TEMPORARY = "temporary"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """Numbers that lie together.

    Attributes:
        what: they are.
        name: of the parameter, the buffer or the weight; "" for others.
        numbers: how many.
        content: of constants.
    """

    what: What
    name: str
    numbers: int
    content: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Operand:
    """Where an instruction reads or writes.

    Attributes:
        memory: in which.
        offset: of the first number.
        steps: to the next in each dimension.
    """

    memory: Memory
    offset: int
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Instruction:
    """Arithmetic on arrays.

    Attributes:
        kind: what is computed.
        sides: of all operands.
        to: where the result goes.
        sources: what it is computed from.
    """

    kind: Kind
    sides: tuple[int, ...]
    to: Operand
    sources: tuple[Operand, ...]

    @property
    def operands(self) -> tuple[Operand, ...]:
        """All of them, the result first."""
        return self.to, *self.sources


@dataclass(frozen=True, slots=True, eq=False)
class WeightProgram:
    """How weights of layers are computed from parameters.

    Attributes:
        forward: computes the weights.
        backward: computes the gradients of parameters from those of the weights.
        gradients: the last instruction of each parameter's gradient, by the parameter's name: as it is where no
            operation has written the gradient before, and as a sum with what is there.
        weights: numbers of each weight, by its name.
        trained: names of the weights that have a gradient.
    """

    forward: tuple[Instruction, ...]
    backward: tuple[Instruction, ...]
    gradients: Mapping[str, tuple[Instruction, Instruction]]
    weights: Mapping[str, int]
    trained: frozenset[str]

    @property
    def buffers(self) -> set[str]:
        """Names of the buffers that it reads or changes."""
        return {
            operand.memory.name
            for instruction in self.forward + self.backward
            for operand in instruction.operands
            if operand.memory.what is What.BUFFER
        }


class _Operand(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("memory", "offset")),
        ("steps", ctypes.c_int64 * SIDES),
    )


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int64),
        ("sides", ctypes.c_int64 * SIDES),
        ("to", _Operand),
        ("sources", _Operand * OPERANDS),
    )


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_int64), ("instructions", POINTER), ("memories", POINTER))


class CompiledProgram:
    """Instructions as C takes them.

    Args:
        instructions: in their order.
        places: address of each memory; 0 where it differs from lane to lane.
        dtype: of all numbers.

    Attributes:
        function: runs them.
        constants: address of what it reads.

    Raises:
        RuntimeError: nothing can be compiled here.
    """

    def __init__(
        self, instructions: Sequence[Instruction], places: Mapping[Memory, int], dtype: torch.dtype
    ) -> None:
        library = load(Path(__file__).with_name("weights.c"), {"DOUBLE": REALS.index(dtype)})
        if library is None:
            raise RuntimeError("no compiler for kernels")
        self.function: Any = library.run_program
        memories = {operand.memory: None for one in instructions for operand in one.operands}
        self._numbers = {memory: i for i, memory in enumerate(memories)}
        self._memories = (POINTER * max(1, len(memories)))(*(places[memory] or None for memory in memories))
        self._instructions = (_Instruction * len(instructions))(*map(self._compiled, instructions))
        self._program = _Program(
            len(instructions), ctypes.addressof(self._instructions), ctypes.addressof(self._memories)
        )
        self.constants = ctypes.addressof(self._program)

    def pointers(self, what: What) -> list[tuple[str, int]]:
        """Return the names of memories of a kind, and where the pointer to each is."""
        begin, size = ctypes.addressof(self._memories), ctypes.sizeof(POINTER)
        return [(m.name, begin + i * size) for m, i in self._numbers.items() if m.what is what]

    def _compiled(self, one: Instruction) -> _Instruction:
        before = SIDES - len(one.sides)

        def operand(of: Operand) -> _Operand:
            steps = (ctypes.c_int64 * SIDES)(*(0,) * before, *of.steps)
            return _Operand(self._numbers[of.memory], of.offset, steps)

        sources = [operand(each) for each in one.sources]
        unread = _Operand(sources[0].memory, sources[0].offset)  # a number that is there
        return _Instruction(
            list(Kind).index(one.kind),
            (ctypes.c_int64 * SIDES)(*(1,) * before, *one.sides),
            operand(one.to),
            (_Operand * OPERANDS)(*sources, *[unread] * (OPERANDS - len(sources))),
        )
