"""What a value of a model's graph is in its K-lane form, and how one form turns into another.

The rewrite knows the form of every value before anything runs; the layers compute with plain tensors.

    shared    [B, ...]           the same for all lanes: the images, and what is made of them without weights
    packed    [B, K*C, H, W]     maps: a lane's channels side by side, as grouped convolutions want them
    stacked   [K, ...]           all else
    plain     not a tensor: a size, a shape

Shapes: K lanes, B batch, C/H/W channels, height, width.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch


Order = tuple[int, ...]
"""Dimensions of a tensor, the outermost in memory first."""


class NotStackable(Exception):
    """A model has no stacked form; the message says why, in one line."""


class TrainsAlone(NotStackable):
    """A model draws random numbers of its own, or keeps state outside of its tensors: its lanes train alone."""


class NotPackable(Exception):
    """Lanes of this model train one after the other; the message says why, in one line."""


class Form(StrEnum):
    """How a value holds its lanes."""

    SHARED = "shared"
    PACKED = "packed"
    STACKED = "stacked"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the graph.

    Attributes:
        slot: its place in the running program's memory.
        form: how it holds its lanes.
        shape: of one lane, for a batch of `SAMPLE` images; () for plain values.
    """

    slot: int
    form: Form
    shape: tuple[int, ...] = ()

    @property
    def rank(self) -> int:
        """Dimensions of one lane."""
        return len(self.shape)


class Parts(list[Any]):
    """The values of an operation that gives several tensors, None where nobody asks for one.

    Args:
        values: one for each tensor.
        names: places of values that have a name.
    """

    def __init__(self, values: Sequence[Value | None], names: Mapping[str, int]) -> None:
        super().__init__(values)
        self.names = names


SAMPLE = 3
"""Images of the batch with which shapes are found; not 1, which broadcasts."""


class LaneCount:
    """How many lanes the program has now; every layer that must know asks here."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes


def unflatten(x: torch.Tensor, dim: int, *sizes: int) -> torch.Tensor:
    """Split one dimension into several; a view (`Tensor.unflatten`, typed)."""
    return x.view(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def unpack(x: torch.Tensor, lanes: int) -> torch.Tensor:
    """[B, K*C, H, W] to [K, B, C, H, W], a view."""
    return unflatten(x, 1, lanes, -1).transpose(0, 1)


def pack(x: torch.Tensor) -> torch.Tensor:
    """[K, B, C, H, W] to [B, K*C, H, W]."""
    return x.transpose(0, 1).flatten(1, 2)


def converter(width: LaneCount, value: Value, form: Form) -> Callable[[torch.Tensor], Any] | None:
    """Return what turns a value into another form; None if it has that form."""
    if value.form is form:
        return None
    match (value.form, form):
        case (Form.SHARED, Form.STACKED):
            return lambda x: x.expand(width.lanes, *x.shape)
        case (Form.SHARED, Form.PACKED):
            return lambda x: x.repeat(1, width.lanes, 1, 1)
        case (Form.PACKED, Form.STACKED):
            return lambda x: unpack(x, width.lanes)
        case (Form.STACKED, Form.PACKED):
            return pack
    raise AssertionError((value.form, form))
