"""Maxima and sums of windows as stages: over dimensions, of pooling in any form, and of maps of another size.

Stands beside `stage_reader`, for `stage_layers` and `stage_calls`.  A window is a list of places, so that whatever
torch's layers say of windows becomes one table.

Shapes: B batch, C/H/W channels, height, width, T numbers of a window.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels.stages import Pick, Windows, numbers
from gridsearch.training.lanes.compile import stage_numbers
from gridsearch.training.lanes.compile.places import ImagesAt
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.training.kernels.stages import Pair
    from gridsearch.training.lanes.compile.stage_reader import StageReader

_MAP = 3  # dimensions of one image's maps
_MOST_NUMBERS = 2**22  # of a table
_NEAR = 1e-9


def over(
    r: StageReader, x: torch.Tensor, dims: Sequence[int], pick: Pick, *, keeps: bool, scale: float = 1.0
) -> torch.Tensor:
    """Return the codes of the sum, times a factor, or the largest over some dimensions.

    Raises:
        NoPlan: one is that of the images.
    """
    first, at = r.images_first(x)
    if at != ImagesAt(0, 1):
        own = stage_numbers.moved_dims(dims, x, at, "a sum or a maximum")
        found = at.back(over(r, first, own, pick, keeps=True, scale=scale))
        return stage_numbers.squeezed(found, dims, keeps=keeps)
    gone = sorted(stage_numbers.moved_dims(dims, x, at, "a sum or a maximum"))
    sides = r.one(x).shape
    rest = [d - 1 for d in range(1, x.dim()) if d not in gone]
    index = torch.arange(numbers(tuple(sides))).view(sides).permute(*rest, *(d - 1 for d in gone))
    index = index.flatten(len(rest))
    weights = torch.full(index.shape, scale, dtype=torch.float64) if pick is Pick.SUM else None
    found = _windows(r, x, index, pick, weights)
    for d in gone if keeps else []:
        found = found.unsqueeze(d)
    return found


def running_sum(r: StageReader, x: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the codes of the sums up to each number along a dimension.

    Raises:
        NoPlan: it is that of the images.
    """
    first, at = r.images_first(x)
    if at != ImagesAt(0, 1):
        (own,) = stage_numbers.moved_dims((dim,), x, at, "a sum")
        return at.back(running_sum(r, first, own))
    (along,) = stage_numbers.moved_dims((dim,), x, at, "a sum")
    sides = tuple(r.one(x).shape)
    count = sides[along - 1]
    _check(numbers(sides) * count)
    index = torch.arange(numbers(sides)).view(sides).movedim(along - 1, -1)
    below = torch.where(torch.ones(count, count, dtype=torch.bool).tril(), index[..., None, :], -1)
    below = below.movedim(-2, along - 1)
    return _windows(r, x, below, Pick.SUM, torch.ones(below.shape, dtype=torch.float64))


def folded(r: StageReader, x: torch.Tensor, sides: Pair, **how: Any) -> torch.Tensor:
    """Return the codes of maps of these sides, of which each number is the sum of the patches' that lie there.

    Args:
        r: what the network is read by.
        x: codes of patches [B, C * taps, L], as torch.nn.Fold takes them.
        sides: (height, width).
        how: the form of the patches, as torch.nn.functional.unfold takes it.

    Raises:
        NoPlan: they are none.
    """
    if x.dim() != _MAP:
        raise NoPlan("patches of one image")
    patches = tuple(r.one(x).shape)
    pixels = torch.arange(1, numbers(sides) + 1, dtype=torch.float64).view(1, 1, *sides)
    places = F.unfold(pixels, **how)[0].to(torch.int64) - 1  # [taps, L]: the pixel of each, -1 beside the map
    channels = patches[0] // len(places)
    if places.shape[1] != patches[1] or channels * len(places) != patches[0]:
        raise NoPlan("patches of other maps")
    owners = [torch.nonzero(places.flatten() == pixel).flatten() for pixel in range(numbers(sides))]
    taps = max(map(len, owners))
    _check(channels * numbers(sides) * max(taps, 1))
    index = torch.nn.utils.rnn.pad_sequence(owners, batch_first=True, padding_value=-1)
    if bool((index < 0).all(-1).any()):
        raise NoPlan("patches that leave pixels out")
    each = torch.arange(channels).view(-1, 1, 1) * places.numel()
    index = torch.where(index < 0, -1, index + each).view(channels, *sides, -1)
    return _windows(r, x, index, Pick.SUM, torch.ones(index.shape, dtype=torch.float64))


def larger(r: StageReader, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the codes of the larger of each two numbers."""
    return over(r, torch.stack([a, b], -1), (-1,), Pick.ALL, keeps=False)


def pooled(
    r: StageReader, x: torch.Tensor, sides: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> torch.Tensor:
    """Return the codes of max pooling to maps of these sides, whose windows may leave the map."""
    rows, columns = (
        [
            [place for tap in range(k) if 0 <= (place := first * s - p + tap * d) < size]
            for first in range(count)
        ]
        for count, size, k, s, p, d in zip(
            sides, x.shape[-2:], kernel, stride, padding, dilation, strict=True
        )
    )
    return _of_maps(r, x, rows, columns)


def adaptive(r: StageReader, x: torch.Tensor, sides: Sequence[int]) -> torch.Tensor:
    """Return the codes of adaptive max pooling."""
    rows, columns = (
        [list(range(i * size // count, -(-(i + 1) * size // count))) for i in range(count)]
        for count, size in zip(sides, x.shape[-2:], strict=True)
    )
    return _of_maps(r, x, rows, columns)


def _of_maps(
    r: StageReader, x: torch.Tensor, rows: Sequence[Sequence[int]], columns: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Return the codes of the largest of windows that are products of rows and columns."""
    if x.dim() != 1 + _MAP:
        raise NoPlan("pooling of what is no map")
    channels, height, width = x.shape[1:]
    taps = max(map(len, rows)) * max(map(len, columns))
    _check(channels * len(rows) * len(columns) * taps)
    plane = torch.full((len(rows), len(columns), taps), -1)
    for (i, own_rows), (j, own_columns) in product(enumerate(rows), enumerate(columns)):
        places = [row * width + column for row in own_rows for column in own_columns]
        plane[i, j, : len(places)] = torch.tensor(places)
    each = torch.arange(channels).view(-1, 1, 1, 1) * height * width
    return _windows(r, x, torch.where(plane < 0, -1, plane + each), Pick.FIRST)


def resampled(r: StageReader, x: torch.Tensor, layer: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return the codes of what a layer makes of each map by itself: mean pooling, or maps of another size.

    What it does to rows and to columns is asked of the layer itself.

    Args:
        r: what the network is read by.
        x: codes of maps [B, C, H, W].
        layer: the layer.

    Raises:
        NoPlan: it does not do the same to all rows, and to all columns.
    """
    if x.dim() != 1 + _MAP:
        raise NoPlan("a layer for maps after what is none")
    channels, height, width = x.shape[1:]
    _check((height + width) * height * width)
    each_row = torch.eye(height, dtype=torch.float64)[:, None, :, None].expand(-1, 1, -1, width)
    each_column = torch.eye(width, dtype=torch.float64)[:, None, None, :].expand(-1, 1, height, -1)
    rows_HPQ, columns_WPQ = (layer(one)[:, 0] for one in (each_row, each_column))
    ones_PQ = rows_HPQ.sum(0)
    weights_PQHW = torch.einsum("hpq,wpq->pqhw", rows_HPQ, columns_WPQ) / ones_PQ[..., None, None]
    drawn = torch.rand(1, 1, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    apart = (torch.einsum("pqhw,hw->pq", weights_PQHW, drawn[0, 0]) - layer(drawn)[0, 0]).abs().max()
    if not float(apart) <= _NEAR:
        raise NoPlan("maps of another size whose rows and columns belong together")
    flat = weights_PQHW.flatten(2)
    taps = int((flat != 0).sum(-1).max())
    _check(channels * ones_PQ.numel() * taps)
    place = torch.argsort((flat != 0).to(torch.int8), dim=-1, descending=True, stable=True)[..., :taps]
    weight = flat.gather(-1, place)
    each = torch.arange(channels).view(-1, 1, 1, 1) * height * width
    index = torch.where(weight == 0, -1, place + each)
    return _windows(r, x, index, Pick.SUM, weight.expand(index.shape))


def _check(count: int) -> None:
    if count > _MOST_NUMBERS:
        raise NoPlan("windows of too many numbers")


def _windows(
    r: StageReader, x: Any, index: torch.Tensor, pick: Pick, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the codes of windows.

    Args:
        r: what the network is read by.
        x: codes of the activation.
        index: [..., T] of each number of the result those of an image, as torch counts them; -1 for none.
        pick: what becomes of them.
        weights: [..., T] of a sum.

    Raises:
        NoPlan: a window is empty.
    """
    _check(index.numel())
    if bool((index < 0).all(-1).any()):
        raise NoPlan("a window of nothing")
    value, places = r.whole(x)
    shape, order = r.laid_out(tuple(index.shape[:-1]))
    table = torch.where(index < 0, -1, places.flatten()[index.clamp(min=0)])
    rows = torch.empty(order.numel(), dtype=torch.int64)
    rows[order.flatten()] = torch.arange(order.numel())

    def laid(each: torch.Tensor, dtype: Any) -> bytes:
        found: bytes = np.ascontiguousarray(
            each.reshape(-1, each.shape[-1])[rows].numpy(), dtype=dtype
        ).tobytes()
        return found

    size = numbers(r.shape(value))
    by = b"" if weights is None else laid(weights, np.float64)
    return r.fresh(r.add(Windows(pick, shape, size, laid(table, np.int32), by), value), order)


def moved(x: torch.Tensor, layer: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return the codes of what a layer makes of an activation that moves numbers, or puts zeros, and takes no codes."""
    sides = x.shape[1:]
    counted = torch.arange(1, numbers(tuple(sides)) + 1, dtype=torch.float64).view(1, *sides)
    index = layer(counted)[0].to(torch.int64)
    with_zero = torch.cat([torch.zeros_like(x.flatten(1)[:, :1]), x.flatten(1)], 1)
    return with_zero[:, index.flatten()].view(len(x), *index.shape)


def pad(
    r: StageReader, x: torch.Tensor, sides: Sequence[int], mode: str = "constant", value: float | None = None
) -> torch.Tensor:
    """Return the codes of an activation with a number, or with numbers of its own, around it."""
    if mode != "constant":
        return moved(x, lambda numbers: F.pad(numbers, list(sides), mode))
    if not value:
        return F.pad(x, list(sides))
    padded = F.pad(x, list(sides), value=_NONE)
    return torch.where(padded == _NONE, r.constant(torch.tensor([float(value)])), padded)


_NONE = -1  # no code


def deviation(
    r: StageReader, centered_squares: torch.Tensor, dims: Sequence[int], correction: float, *, keeps: bool
) -> torch.Tensor:
    """Return the codes of variances, given squares of what is apart from the mean."""
    count = math.prod(centered_squares.shape[d] for d in dims)
    if count <= correction:
        raise NoPlan("a variance of one number")
    return over(r, centered_squares, dims, Pick.SUM, keeps=keeps, scale=1 / (count - correction))
