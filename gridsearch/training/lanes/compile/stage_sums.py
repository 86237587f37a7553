"""Sums of products in Einstein's notation as stages: of activations with each other, and with parameters.

Stands between `stage_functions` and the stages of numbers, windows and attention.  A product with parameters is a dense
layer, or one for each group of channels; its weights are the parameters in another order, laid so once for a step.

Shapes: B batch, a letter for each dimension.
"""
# ruff: noqa: ARG001  (torch's argument names)

from __future__ import annotations

import math
import string
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gridsearch.training.kernels.stages import Conv, Pick
from gridsearch.training.lanes.compile import stage_attention, stage_numbers, stage_windows
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.training.lanes.compile.stage_reader import StageReader


def einsum(r: StageReader, equation: str, *operands: Any) -> torch.Tensor:
    """Return the codes of a sum of products, as torch.einsum takes it.

    Raises:
        NoPlan: it is none of an image's own numbers, or takes diagonals.
    """
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    names, result = _letters(equation, operands)
    if (parted := _parted(r, names, operands, result)) is not None:
        return parted
    while len(operands) > 1:  # from the left, as torch does
        rest = names[2:]
        wanted = {*result, *(n for name in rest for n in name)}
        both = "".join(dict.fromkeys(n for n in names[0] + names[1] if n in wanted))
        own = result if not rest else both
        operands = (_pair(r, names[:2], operands[0], operands[1], own), *operands[2:])
        names = [own, *rest]
    (own,), (x,) = names, operands
    x, own = _summed(r, x, own, set(result))
    return x.permute(*(own.index(n) for n in result))


def _parted(
    r: StageReader, names: Sequence[str], operands: Sequence[torch.Tensor], result: str
) -> torch.Tensor | None:
    """Return the codes of a sum of products where images lie in one dimension with their parts, windows say.

    None where they have dimensions of their own.  A dimension of both is two letters meanwhile.
    """
    for own, x in zip(names, operands, strict=True):
        if stage_numbers.lacks_images(x):
            continue
        _, at = r.images_first(x)
        if at.parts == 1:
            continue
        both = own[at.dim]
        if both not in result or not all(
            y.shape[n.index(both)] == x.shape[at.dim]
            for n, y in zip(names, operands, strict=True)
            if both in n
        ):
            raise NoPlan("a product over images")
        part = next(letter for letter in string.ascii_letters if letter not in {*result, *"".join(names)})
        sides = x.shape[at.dim] // at.parts, at.parts
        given = list(operands)
        for k, n in enumerate(names):
            if both in n:
                shape = operands[k].shape
                d = n.index(both)
                given[k] = operands[k].reshape(*shape[:d], *sides, *shape[d + 1 :])
        apart = [n.replace(both, both + part) for n in (*names, result)]
        found = einsum(r, f"{','.join(apart[:-1])}->{apart[-1]}", *given)
        return found.flatten(result.index(both), result.index(both) + 1)
    return None


def _letters(equation: str, operands: Sequence[Any]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result; dots become letters of their own.

    Raises:
        NoPlan: an operand has one twice, or not as many as it has dimensions.
    """
    given, arrow, result = equation.replace(" ", "").partition("->")
    names = given.split(",")
    free = [n for n in string.ascii_letters if n not in equation]
    if len(names) != len(operands) or not all(isinstance(x, torch.Tensor) for x in operands):
        raise NoPlan("einsum of what is no activation")
    more = [x.dim() - len(n.replace("...", "")) for n, x in zip(names, operands, strict=True)]
    most = max((m for m, n in zip(more, names, strict=True) if "..." in n), default=0)
    dots = "".join(free[:most])
    names = [n.replace("...", dots[most - m :]) for n, m in zip(names, more, strict=True)]
    if not arrow:
        every = "".join(names)
        result = dots + "".join(sorted(n for n in set(every) - set(dots) if every.count(n) == 1))
    else:
        result = result.replace("...", dots)
    if any(len(set(n)) != len(n) or len(n) != x.dim() for n, x in zip(names, operands, strict=True)):
        raise NoPlan("einsum of diagonals")
    return names, result


def _summed(r: StageReader, x: torch.Tensor, own: str, wanted: set[str]) -> tuple[torch.Tensor, str]:
    """Return an operand after sums over the letters that nothing else has."""
    gone = [d for d, n in enumerate(own) if n not in wanted]
    if not gone:
        return x, own
    if stage_numbers.lacks_images(x):
        raise NoPlan("einsum that sums over parameters")
    return stage_windows.over(r, x, gone, Pick.SUM, keeps=False), "".join(n for n in own if n in wanted)


def _pair(
    r: StageReader, names: Sequence[str], a: torch.Tensor, b: torch.Tensor, result: str
) -> torch.Tensor:
    """Return the codes of a sum of products of two operands."""
    (a, first), (b, second) = (
        _summed(r, x, own, {*other, *result})
        for x, own, other in ((a, names[0], names[1]), (b, names[1], names[0]))
    )
    sides = dict(zip(first + second, (*a.shape, *b.shape), strict=True))
    for x, own in ((a, first), (b, second)):
        if any(sides[n] != side for n, side in zip(own, x.shape, strict=True)):
            raise NoPlan("einsum of unlike shapes")
    if all(n in result for n in first if n in second):
        return stage_numbers.multiply(r, _spread(a, first, result), _spread(b, second, result))
    if stage_numbers.lacks_images(a):
        a, first, b, second = b, second, a, first
    both = [n for n in first if n in second and n in result]
    summed = [n for n in first if n in second and n not in result]
    rows, columns = ([n for n in own if n not in other] for own, other in ((first, second), (second, first)))

    def matrices(codes: torch.Tensor, own: str, *parts: list[str]) -> torch.Tensor:
        turned = codes.permute(*(own.index(n) for part in parts for n in part))
        return turned.reshape(*(math.prod(sides[n] for n in part) for part in parts))

    order = [*both, *rows, *columns]
    if stage_numbers.lacks_images(b):
        where = next(n for n, side in zip(first, _images(r, a), strict=True) if side)
        rows = [n for n in rows if n != where]
        x = matrices(a, first, [where], rows, both, summed)
        weight = second, both, columns, summed
        y = _layer(r, x, b, *weight, sizes=tuple(math.prod(sides[n] for n in p) for p in weight[1:]))
        order = [where, *rows, *both, *columns]
        return y.reshape(*(sides[n] for n in order)).permute(*(order.index(n) for n in result))
    shape = [sides[n] for n in both]
    x, y = matrices(a, first, both, rows, summed), matrices(b, second, both, summed, columns)
    found = stage_attention.product(r, x.reshape(*shape, *x.shape[1:]), y.reshape(*shape, *y.shape[1:]))
    return found.reshape(*(sides[n] for n in order)).permute(*(order.index(n) for n in result))


def _spread(x: torch.Tensor, own: str, result: str) -> torch.Tensor:
    """Return an operand with all dimensions of the result, of one number where it lacks them."""
    there = [n for n in result if n in own]
    x = x.permute(*(own.index(n) for n in there))
    return x[tuple(slice(None) if n in own else None for n in result)]


def _images(r: StageReader, x: torch.Tensor) -> list[bool]:
    """Return of each dimension whether it is that of the images.

    Raises:
        NoPlan: they are beside something else in a dimension.
    """
    _, at = r.images_first(x)
    if at.parts != 1:
        raise NoPlan("a product over images")
    return [d == at.dim for d in range(x.dim())]


def _layer(
    r: StageReader,
    x: torch.Tensor,
    b: torch.Tensor,
    own: str,
    both: list[str],
    columns: list[str],
    summed: list[str],
    *,
    sizes: tuple[int, ...],
) -> torch.Tensor:
    """Return the codes [B, R, G, O] of a product of rows [B, R, G, I] and parameters, which have groups G, O and I."""
    groups, outputs, inputs = sizes
    weight = r.in_order(r.parameter(b) or "", tuple(own.index(n) for n in (*both, *columns, *summed)))
    rows = x.shape[1]
    first = x.flatten(2)
    if groups == 1:
        y = stage_numbers.dense(r, first, inputs, outputs, (weight, None))
        return y.view(len(x), rows, 1, outputs)
    value = r.maps(first.transpose(1, 2).unsqueeze(2))
    layer = Conv(groups * inputs, groups * outputs, (1, 1), groups=groups, bias=False)
    y = r.of_maps(r.add(layer, value, params=(weight, None)))
    return y.squeeze(2).transpose(1, 2).view(len(x), rows, groups, outputs)


def product(r: StageReader, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the codes of a product of matrices, or of a matrix and a vector, as torch.matmul has it."""
    if not any(stage_numbers.lacks_images(x) for x in (a, b)):
        return stage_attention.product(r, a, b)
    left = "" if a.dim() == 1 else "y"
    right = "" if b.dim() == 1 else "z"
    before = "..." if a.dim() > 2 or b.dim() > 2 else ""
    first = (before if a.dim() > 1 else "") + left + "x"
    second = (before if b.dim() > 1 else "") + "x" + right
    return einsum(r, f"{first},{second}->{before}{left}{right}", a, b)


def tensordot(
    r: StageReader, a: torch.Tensor, b: torch.Tensor, dims: Any = 2, out: None = None
) -> torch.Tensor:
    """Return the codes of a sum over some dimensions of two operands, as torch.tensordot takes it."""
    over = (range(a.dim() - dims, a.dim()), range(dims)) if isinstance(dims, int) else dims
    names = [list(string.ascii_lowercase[: a.dim()]), list(string.ascii_uppercase[: b.dim()])]
    for i, j in zip(*([d] if isinstance(d, int) else d for d in over), strict=True):
        names[1][j] = names[0][i]
    result = [n for n in names[0] if n not in names[1]] + [n for n in names[1] if n not in names[0]]
    return einsum(r, f"{''.join(names[0])},{''.join(names[1])}->{''.join(result)}", a, b)


def bilinear(
    r: StageReader, input1: torch.Tensor, input2: torch.Tensor, weight: Any, bias: Any = None
) -> torch.Tensor:
    """Return the codes of a bilinear form for each of the results: x W y + b."""
    found = einsum(r, "...x,zxy,...y->...z", input1, weight, input2)
    return found if bias is None else stage_numbers.add(r, found, bias)


def bilinear_layer(
    r: StageReader, place: str, m: nn.Bilinear, x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """Return the codes of torch's bilinear layer."""
    prefix = f"{place}." if place else ""
    bias = None if m.bias is None else r.tensor(f"{prefix}bias")
    return bilinear(r, x, y, r.tensor(f"{prefix}weight"), bias)
