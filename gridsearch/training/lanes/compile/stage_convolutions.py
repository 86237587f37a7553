"""What convolutions and transposed ones are as stages, whether a layer or a function computes them.

Stands beside `stage_layers`, for it and `stage_functions`.

Shapes: C/O channels in and out, H/W height and width.
"""
# ruff: noqa: A002  (torch's argument names)

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.training.kernels.stages import Conv, Transposed, shape_after
from gridsearch.training.lanes.compile import stage_numbers, stage_windows
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.training.kernels.stages import Pair
    from gridsearch.training.lanes.compile.stage_reader import StageReader

_MAP, _PLANE = 3, 2  # dimensions of one image's maps, and of a map


def convolution(r: StageReader, m: Any, x: Any, params: Sequence[str | None]) -> torch.Tensor:
    """Return the codes of a convolution of maps or rows, with parameters of these names."""
    if isinstance(m, nn.Conv1d):
        return _conv_maps(r, m, x.unsqueeze(-2), params).squeeze(-2)
    return _conv_maps(r, m, x, params)


def _conv_maps(r: StageReader, m: Any, x: torch.Tensor, params: Sequence[str | None]) -> torch.Tensor:
    how = _convolution(m)
    if m.padding_mode != "zeros" or _pads_one_side(m):
        sides, mode = m._reversed_padding_repeated_twice, m.padding_mode
        x = stage_windows.pad(r, x, sides, "constant" if mode == "zeros" else mode)
        how = replace(how, padding=(0, 0))
    first = r.one(x)
    if first.dim() != _MAP:
        raise NoPlan("a convolution of what is no map")
    if tuple(first.shape[1:]) == (1, 1) and len(r.shape(r.whole(x)[0])) == 1:
        if how.kernel != (1, 1) or how.groups != 1 or how.padding != (0, 0):
            raise NoPlan("a convolution of one pixel with others")
        codes = stage_numbers.dense(r, x.flatten(1), m.in_channels, m.out_channels, params)
        return codes[..., None, None]
    return r.of_maps(r.add(how, r.maps(x), params=tuple(params)))


def _convolution(m: Any) -> Conv:
    kernel, stride, dilation = (of_rows(m, s) for s in (m.kernel_size, m.stride, m.dilation))
    if m.padding == "same":
        whole = [step * (side - 1) for step, side in zip(dilation, kernel, strict=True)]
        padding = whole[0] // 2, whole[1] // 2
    elif isinstance(m.padding, str):
        padding = 0, 0
    else:
        padding = of_rows(m, m.padding, 0)
    bias = m.bias is not None
    return Conv(m.in_channels, m.out_channels, kernel, stride, padding, dilation, m.groups, bias)


def _pads_one_side(m: Any) -> bool:
    """Whether a convolution pads one side by more than the other."""
    sides = zip(_pair(m.kernel_size), _pair(m.dilation), strict=True)
    return bool(m.padding == "same" and any(step * (side - 1) % 2 for side, step in sides))


def is_of_rows(m: Any) -> bool:
    """Whether a layer is for rows, not for maps."""
    return type(m).__name__.endswith("1d")


def of_rows(m: Any, sides: Any, down: int = 1) -> Pair:
    """Return a layer's kernel, step or padding for maps; for one of rows `down`, for maps have one row, and its own."""
    if not is_of_rows(m):
        return _pair(sides)
    return down, int(sides if isinstance(sides, int) else sides[0])


def _pair(sides: Any) -> Pair:
    return (sides, sides) if isinstance(sides, int) else (int(sides[0]), int(sides[-1]))


# As functions


def _convolution_by(kind: type[nn.Conv1d | nn.Conv2d]) -> Callable[..., torch.Tensor]:
    def call(
        r: StageReader,
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> torch.Tensor:
        outputs, own, *kernel = weight.shape
        sizes = own * groups, outputs, tuple(kernel)
        layer = kind(*sizes, stride, padding, dilation, groups, bias is not None, device="meta")  # type: ignore[arg-type]
        return convolution(r, layer, input, (r.parameter(weight), r.parameter(bias)))

    return call


def _transposed(rank: int) -> Callable[..., torch.Tensor]:
    def call(  # noqa: PLR0913, PLR0917  (torch's signature)
        r: StageReader,
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> torch.Tensor:
        params = r.parameter(weight), r.parameter(bias)
        given = (stride, 1), (padding, 0), (dilation, 1)
        steps, pads, holes = (_pair_of(each, rank, otherwise) for each, otherwise in given)
        inputs, own, *kernel = weight.shape
        height, width = (1, *kernel) if rank < _PLANE else kernel
        conv = Conv(own * groups, inputs, (height, width), steps, pads, holes, groups, bias is not None)
        maps = input.unsqueeze(-2) if rank < _PLANE else input
        found = _transposed_maps(r, conv, maps, _pair_of(output_padding, rank, 0), params)
        return found.squeeze(-2) if rank < _PLANE else found

    return call


def _transposed_maps(
    r: StageReader, conv: Conv, x: torch.Tensor, more: Pair, params: Sequence[str | None]
) -> torch.Tensor:
    """Return the codes of a transposed convolution, whose result has some more rows and columns at its end."""
    first = r.one(x)
    if first.dim() != _MAP:
        raise NoPlan("a convolution of what is no map")
    height, width = (
        (side - 1) * step - 2 * p + d * (k - 1) + 1 + rest
        for side, step, p, d, k, rest in zip(
            first.shape[1:], conv.stride, conv.padding, conv.dilation, conv.kernel, more, strict=True
        )
    )
    if shape_after(conv, (conv.channels, height, width)) != tuple(first.shape):
        raise NoPlan("a transposed convolution whose result is padded by whole steps")
    stage = Transposed(conv, (height, width))
    return r.of_maps(r.add(stage, r.maps(x), params=tuple(params)))


def _pair_of(sides: Any, rank: int, down: int) -> Pair:
    """Return an argument of a function on maps as a pair; of one on rows, which are maps of one row, too."""
    if rank == _PLANE:
        return _pair(sides)
    return down, int(sides if isinstance(sides, int) else sides[0])


CONVOLUTIONS: dict[Any, Callable[..., torch.Tensor]] = {
    **dict.fromkeys((F.conv2d, torch.conv2d), _convolution_by(nn.Conv2d)),
    **dict.fromkeys((F.conv1d, torch.conv1d), _convolution_by(nn.Conv1d)),
    **dict.fromkeys((F.conv_transpose2d, torch.conv_transpose2d), _transposed(_PLANE)),
    **dict.fromkeys((F.conv_transpose1d, torch.conv_transpose1d), _transposed(_PLANE - 1)),
}
"""What takes in a function."""
