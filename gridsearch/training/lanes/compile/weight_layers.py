"""Layers that take parameters or constants in the place of images: convolutions, and maps of another size.

Stands beside `weight_operations`, for weights that are computed by layers: a projection of fixed positions, position
embeddings that are resized to the images.

Shapes: C/H/W channels, height, width, O results of a convolution.
"""

# ruff: noqa: ARG001  (torch's arguments)

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import torch

from gridsearch.training.kernels.weight_programs import Kind
from gridsearch.training.lanes.compile.step_graph import NoPlan
from gridsearch.training.lanes.compile.weight_operations import HANDLED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gridsearch.training.lanes.compile.weight_recorder import Recorder


def _taps(
    x: torch.Tensor, w: torch.Tensor, sides: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield, for each place of a window, what it sees [N, 1, C, H, W] and its weights [O, C, 1, 1]."""
    for i, j in itertools.product(range(w.shape[2]), range(w.shape[3])):
        rows, columns = (
            slice(at * d, at * d + (side - 1) * s + 1, s)
            for at, d, side, s in zip((i, j), dilation, sides, stride, strict=True)
        )
        yield x[:, :, rows, columns].unsqueeze(1), w[:, :, i, j, None, None]


def _check_plain(x: torch.Tensor, padding: Sequence[int], how: Sequence[Any]) -> None:
    transposed, _, groups = how
    if x.dim() != 4 or any(padding) or transposed or groups != 1:
        raise NoPlan("a convolution of parameters")


def _convolution(
    r: Recorder,
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *how: Any,
) -> torch.Tensor:
    _check_plain(x, padding, how)
    sides = [
        (side - d * (k - 1) - 1) // s + 1
        for side, k, s, d in zip(x.shape[2:], w.shape[2:], stride, dilation, strict=True)
    ]
    begin = 0.0 if bias is None else bias[:, None, None]
    found = r.emit(Kind.COPY, r.fresh((len(x), len(w), *sides)), begin)
    for seen, weights in _taps(x, w, sides, stride, dilation):
        r.emit(Kind.PRODUCTS, found.unsqueeze(2), seen, weights)
    return found


def _convolution_backward(
    r: Recorder,
    gradient: torch.Tensor,
    x: torch.Tensor,
    w: torch.Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *how: Any,
) -> tuple[torch.Tensor | None, ...]:
    wanted: Sequence[bool] = how[-1]
    _check_plain(x, padding, how[:-1])
    of_x, of_w = (
        r.emit(Kind.COPY, r.fresh(t.shape), 0.0) if wants else None
        for t, wants in zip((x, w), wanted[:2], strict=True)
    )
    results, how_far = gradient.unsqueeze(2), (gradient.shape[2:], stride, dilation)
    given = _taps(x, w, *how_far)
    to = _taps(x if of_x is None else of_x, w if of_w is None else of_w, *how_far)
    for (seen, weights), (to_seen, to_weights) in zip(given, to, strict=True):
        if of_x is not None:
            r.emit(Kind.PRODUCTS, to_seen, results, weights)
        if of_w is not None:
            r.emit(Kind.PRODUCTS, to_weights, results, seen)
    of_bias = r.reduced(Kind.SUM, (1, len(w), 1, 1), gradient).view(len(w)) if wanted[2] else None
    return of_x, of_w, of_bias


def _resized(name: str) -> Callable[..., torch.Tensor]:
    """Return what takes in a function that makes maps of another size: a product with a matrix that is known.

    So is its backward pass, whose second argument after the gradient is the shape of what it gives.
    """
    function = getattr(torch.ops.aten, name)

    def handle(r: Recorder, a: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        sides = a.shape[-2:]
        count = math.prod(sides)
        given = list(args)
        if name.endswith("_backward"):
            given[1] = [1, count, *given[1][2:]]
        planes = torch.eye(count, dtype=r.dtype).view(1, count, *sides)
        made: torch.Tensor = function(planes, *given, **kwargs)
        matrix = r.constant(made.view(count, -1))
        rows = r.emit(Kind.COPY, r.fresh(a.shape), a).view(-1, count)
        found: torch.Tensor = HANDLED["mm"](r, rows, matrix)
        return found.view(*a.shape[:2], *made.shape[2:])

    return handle


_SIZES = (
    *("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d"),
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
)

LAYERS: dict[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    **{name: _resized(name) for one in _SIZES for name in (one, f"{one}_backward")},
}
"""What takes in a function, by its name."""
