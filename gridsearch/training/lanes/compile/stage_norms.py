"""Norms as stages, and functions that are given the parameters of norms and dense layers.

Stands beside `stage_layers`, for it and `stage_functions`.
"""
# ruff: noqa: A002  (torch's argument names)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels.stages import BatchNorm, ImageNorm
from gridsearch.training.lanes.compile import stage_numbers
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.training.lanes.compile.stage_reader import StageReader


def batch_norm(
    r: StageReader,
    x: Any,
    params: Sequence[str | None],
    buffers: Sequence[str | None],
    *,
    momentum: float | None,
    eps: float,
    counter: str | None,
) -> torch.Tensor:
    """Return the codes of a batch norm with running statistics, with parameters and buffers of these names."""
    first = r.one(x)
    value = r.features(x) if first.dim() == 1 else r.maps(x)
    norm = BatchNorm(len(first), eps, momentum, affine=params[0] is not None)
    there = tuple(name for name in buffers if name is not None)
    if momentum is None and r.reads_buffer(str(counter)):
        # the count moves between its calls
        raise NoPlan("a batch norm that averages over all batches, called twice")
    found = r.add(norm, value, params=tuple(params), buffers=there, counter=counter)
    return r.of_maps(found).reshape(x.shape)


def layer_norm(
    r: StageReader, x: Any, shape: Sequence[int], eps: float | None, params: Sequence[str | None], **how: bool
) -> torch.Tensor:
    """Return the codes of a norm over the last dimensions, of this shape."""
    if eps is None:
        raise NoPlan("a norm without an eps")
    first, at = r.images_first(x)
    value, rows = r.rows(first.flatten(-len(shape)))
    channels = r.shape(value)[0]
    if params[0] is None and params[1] is not None:
        raise NoPlan("a norm with a bias alone")
    norm = ImageNorm(channels, 0, float(eps), **how)
    return at.back(r.of_rows(r.add(norm, value, params=tuple(params)), rows).reshape(first.shape))


def group_norm(r: StageReader, x: Any, groups: int, eps: float, params: Sequence[str | None]) -> torch.Tensor:
    """Return the codes of a norm over groups of channels."""
    if params[0] is None and params[1] is not None:
        raise NoPlan("a norm with a bias alone")
    value = r.features(x) if r.one(x).dim() == 1 else r.maps(x)
    norm = ImageNorm(x.shape[1], groups, float(eps))
    return r.of_maps(r.add(norm, value, params=tuple(params))).reshape(x.shape)


def _linear(r: StageReader, input: torch.Tensor, weight: Any, bias: Any = None) -> torch.Tensor:
    outputs, inputs = weight.shape
    (whole, first), own = r.rows_of(weight), None if bias is None else r.rows_of(bias)
    rows = len(r.tensor(whole))
    if own is not None and (own[1] != first or tuple(r.tensor(own[0]).shape) != (rows,)):
        raise NoPlan("a dense layer whose weights and biases are of other rows")
    every = stage_numbers.dense(r, input, inputs, rows, (whole, None if own is None else own[0]))
    return every if outputs == rows else every[..., first : first + outputs].contiguous()


def _layer_norm(
    r: StageReader,
    input: torch.Tensor,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    return layer_norm(r, input, normalized_shape, eps, (r.parameter(weight), r.parameter(bias)))


def _group_norm(
    r: StageReader,
    input: torch.Tensor,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    return group_norm(r, input, num_groups, eps, (r.parameter(weight), r.parameter(bias)))


def _batch_norm(  # noqa: PLR0913, PLR0917  (torch's signature)
    r: StageReader,
    input: torch.Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    if running_mean is None or bool(training) != r.training:
        raise NoPlan("a batch norm without moving averages, or one that does not learn them")
    if (weight is None) != (bias is None):
        raise NoPlan("a norm with a bias or a weight alone")
    params, buffers = (
        [r.parameter(codes) for codes in pair] for pair in ((weight, bias), (running_mean, running_var))
    )
    counter = f"{str(buffers[0]).rpartition('running_mean')[0]}num_batches_tracked"
    own = counter if counter in r.counted else None
    r.counted.discard(counter)
    return batch_norm(r, input, params, buffers, momentum=momentum, eps=eps, counter=own)


PARAMETRIC: dict[Any, Callable[..., torch.Tensor]] = {
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
}
"""What takes in a function that is given parameters."""
