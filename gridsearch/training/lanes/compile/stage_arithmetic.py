"""What arithmetic of activations is as stages: sums, products, powers, norms, maxima, by torch's functions and methods.

Stands between `stage_functions`, with all that is called, and the stages of numbers and of windows.
"""
# ruff: noqa: A002, ARG001  (torch's argument names; all of a kind are called alike)

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.utils import _pytree as pytree

from gridsearch.training.kernels.activation_curves import Activation, Curve
from gridsearch.training.kernels.stages import Pick
from gridsearch.training.lanes.compile import stage_bounds, stage_numbers, stage_windows
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridsearch.training.lanes.compile.stage_reader import StageReader


def _sum(r: StageReader, a: Any, b: Any) -> torch.Tensor:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return stage_numbers.add(r, a, b)
    codes, number = (a, b) if isinstance(a, torch.Tensor) else (b, a)
    return stage_numbers.affine(r, codes, 1.0, number)


def _difference(r: StageReader, a: Any, b: Any) -> torch.Tensor:
    if not isinstance(b, torch.Tensor):
        return stage_numbers.affine(r, a, 1.0, -b)
    if not isinstance(a, torch.Tensor):
        return stage_numbers.affine(r, b, -1.0, a)
    return stage_numbers.add(r, a, stage_numbers.affine(r, stage_numbers.shared(b, a), -1.0, 0.0))


def _product(r: StageReader, a: Any, b: Any) -> torch.Tensor:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return stage_numbers.multiply(r, a, b)
    codes, number = (a, b) if isinstance(a, torch.Tensor) else (b, a)
    return stage_numbers.affine(r, codes, number, 0.0)


def _quotient(r: StageReader, a: Any, b: Any, *, rounding_mode: None = None) -> torch.Tensor:
    if rounding_mode is not None:
        raise NoPlan("a division that rounds")
    if not isinstance(b, torch.Tensor):
        return stage_numbers.affine(r, a, 1 / b, 0.0)
    like = a if isinstance(a, torch.Tensor) else b
    return _product(r, a, _curved(r, stage_numbers.shared(b, like), Curve.RECIPROCAL))


def _curved(r: StageReader, x: torch.Tensor, curve: Curve, *bounds: float) -> torch.Tensor:
    return stage_numbers.each(r, x, Activation(curve, *(float(bound) for bound in bounds)))


_ODD = 3, 5  # powers that are products with the one before


def _power(r: StageReader, input: torch.Tensor, exponent: Any) -> torch.Tensor:
    curves = {
        2: (Curve.SQUARE,),
        4: (Curve.SQUARE, Curve.SQUARE),
        0.5: (Curve.ROOT,),
        -1: (Curve.RECIPROCAL,),
        -0.5: (Curve.ROOT, Curve.RECIPROCAL),
        1: (),
    }
    if isinstance(exponent, torch.Tensor):
        return _learned_power(r, input, exponent)
    if exponent in _ODD:
        return stage_numbers.multiply(r, input, _power(r, input, exponent - 1))
    if exponent in (-2, -3, -4):
        return _curved(r, _power(r, input, -exponent), Curve.RECIPROCAL)
    if isinstance(exponent, float) and exponent not in curves and exponent % 1 and exponent > 0:
        return _curved(r, input, Curve.POWER, exponent)
    if not isinstance(exponent, int | float) or exponent not in curves:
        raise NoPlan("a power of any exponent")
    found = input
    for curve in curves[exponent]:
        found = _curved(r, found, curve)
    return found


def _learned_power(r: StageReader, input: Any, exponent: torch.Tensor) -> torch.Tensor:
    """Take in a power whose exponent is no number, as pooling by a learned mean has it.

    Raises:
        NoPlan: the base may be zero, where the logarithm has no gradient and the power has one.
    """
    if not isinstance(input, torch.Tensor):
        if not input > 0:
            raise NoPlan("a power of what may be zero")
        return _curved(r, stage_numbers.affine(r, exponent, math.log(input), 0.0), Curve.EXPONENTIAL)
    if not stage_bounds.is_positive(r, input):
        raise NoPlan("a power of what may be zero")
    logarithm = _curved(r, input, Curve.LOGARITHM)
    return _curved(r, stage_numbers.multiply(r, logarithm, exponent), Curve.EXPONENTIAL)


def _running_sum(r: StageReader, input: torch.Tensor, dim: int, *, dtype: None = None) -> torch.Tensor:
    if dtype is not None:
        raise NoPlan("a sum of another type")
    return stage_windows.running_sum(r, input, dim)


_MOST_FACTORS = 64


def _total_product(
    r: StageReader, input: torch.Tensor, dim: Any = None, keepdim: bool = False, *, dtype: None = None
) -> torch.Tensor:
    if not isinstance(dim, int) or dtype is not None or input.shape[dim] > _MOST_FACTORS:
        raise NoPlan("a product of many numbers")
    first, *others = input.unbind(dim)
    for other in others:
        first = stage_numbers.multiply(r, first, other)
    return first.unsqueeze(dim) if keepdim else first


def _distances(
    r: StageReader, x1: torch.Tensor, x2: torch.Tensor, p: float = 2.0, **how: Any
) -> torch.Tensor:
    apart = _difference(r, x1.unsqueeze(-2), x2.unsqueeze(-3))
    return _norm(r, apart, p, -1)


def _log_sum(r: StageReader, input: torch.Tensor, dim: Any, keepdim: bool = False) -> torch.Tensor:
    """Take in the logarithm of a sum of exponentials, which are taken of what is less than the largest."""
    most = _amax(r, input, dim, True)
    total = _total(r, _curved(r, _difference(r, input, most), Curve.EXPONENTIAL), dim, keepdim)
    shape = total.shape
    return stage_numbers.add(r, _curved(r, total, Curve.LOGARITHM), most.reshape(shape))


def _interpolated(r: StageReader, input: torch.Tensor, end: torch.Tensor, weight: Any) -> torch.Tensor:
    return _sum(r, input, _product(r, _difference(r, end, input), weight))


def _plus_product(r: StageReader, input: Any, one: Any, two: Any, *, value: float = 1.0) -> torch.Tensor:
    return _sum(r, input, stage_numbers.affine(r, _product(r, one, two), value, 0.0))


def _lp_pool(
    r: StageReader,
    input: torch.Tensor,
    norm_type: float,
    kernel_size: Any,
    stride: Any = None,
    ceil_mode: bool = False,
) -> torch.Tensor:
    """Take in the root of a window's mean of powers, times how many there are, as torch computes it."""
    if ceil_mode:
        raise NoPlan("a window that leaves the map")
    count = kernel_size**2 if isinstance(kernel_size, int) else math.prod(kernel_size)
    means = r.layer("", nn.AvgPool2d(kernel_size, stride), _power(r, input, norm_type))
    return _power(r, stage_numbers.affine(r, means, float(count), 0.0), 1.0 / norm_type)


def _cosine(
    r: StageReader, x1: torch.Tensor, x2: torch.Tensor, dim: int = 1, eps: float = 1e-8
) -> torch.Tensor:
    a, b = stage_numbers.alike(*(stage_numbers.shared(x, y) for x, y in ((x1, x2), (x2, x1))))

    def unit(x: torch.Tensor) -> torch.Tensor:
        return _quotient(r, x, _clamp(r, _norm(r, x, 2, dim, True), eps))

    return _total(r, stage_numbers.multiply(r, unit(a), unit(b)), dim)


def _clamp(r: StageReader, input: torch.Tensor, min: Any = None, max: Any = None) -> torch.Tensor:
    if isinstance(min, torch.Tensor) or isinstance(max, torch.Tensor):
        raise NoPlan("bounds that are tensors")
    return _curved(r, input, Curve.CLAMP, -math.inf if min is None else min, math.inf if max is None else max)


def _clamp_max(r: StageReader, input: torch.Tensor, max: float) -> torch.Tensor:
    return _clamp(r, input, None, max)


def _dims(x: torch.Tensor, dim: Any) -> tuple[int, ...]:
    return tuple(range(x.dim())) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)


def _total(r: StageReader, input: torch.Tensor, dim: Any = None, keepdim: bool = False) -> torch.Tensor:
    return stage_windows.over(r, input, _dims(input, dim), Pick.SUM, keeps=keepdim)


def _amax(r: StageReader, input: torch.Tensor, dim: Any = (), keepdim: bool = False) -> torch.Tensor:
    return stage_windows.over(r, input, _dims(input, dim), Pick.ALL, keeps=keepdim)


class Largest(NamedTuple):
    """What torch's maximum over a dimension gives; whose places are no activation."""

    values: torch.Tensor
    indices: None = None


def _max(r: StageReader, input: torch.Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, torch.Tensor):
        return stage_windows.larger(r, *stage_numbers.alike(input, dim))
    if not isinstance(dim, int):
        raise NoPlan("a maximum over images")
    return Largest(stage_windows.over(r, input, (dim,), Pick.FIRST, keeps=keepdim))


def _maximum(r: StageReader, input: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return stage_windows.larger(r, *stage_numbers.alike(input, other))


def _least(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the minimum, given the maximum: the largest of what is turned around."""

    def turned(r: StageReader, value: Any) -> Any:
        return _negative(r, value) if isinstance(value, torch.Tensor) else value

    def least(r: StageReader, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = pytree.tree_map(lambda value: turned(r, value), (args, kwargs))
        return pytree.tree_map(lambda value: turned(r, value), call(r, *args, **kwargs))

    return least


def _variance(
    r: StageReader,
    input: torch.Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> torch.Tensor:
    dims = _dims(input, dim)
    apart = _difference(r, input, stage_numbers.mean(r, input, dims, keeps=True))
    less = float(unbiased) if correction is None else float(correction)
    return stage_windows.deviation(r, _curved(r, apart, Curve.SQUARE), dims, less, keeps=keepdim)


def _deviation(r: StageReader, input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return _curved(r, _variance(r, input, *args, **kwargs), Curve.ROOT, 1.0)


def _norm(
    r: StageReader,
    input: torch.Tensor,
    p: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    out: None = None,
    dtype: None = None,
) -> torch.Tensor:
    if dtype is not None:
        raise NoPlan("a norm of another type")
    if p in (2, "fro", None):
        return _curved(r, _total(r, _curved(r, input, Curve.SQUARE), dim, keepdim), Curve.ROOT, 1.0)
    if p == 1:
        return _total(r, _curved(r, input, Curve.ABSOLUTE), dim, keepdim)
    if p == math.inf:
        return _amax(r, _curved(r, input, Curve.ABSOLUTE), dim, keepdim)
    raise NoPlan("a norm of another kind")


def _negative(r: StageReader, a: torch.Tensor) -> torch.Tensor:
    return stage_numbers.affine(r, a, -1.0, 0.0)


def _mean(r: StageReader, input: torch.Tensor, dim: Any = None, keepdim: bool = False) -> torch.Tensor:
    dims = (dim,) if isinstance(dim, int) else tuple(dim or ())
    return stage_numbers.mean(r, input, dims, keeps=keepdim)


def _rsqrt(r: StageReader, input: torch.Tensor) -> torch.Tensor:
    return _power(r, input, -0.5)


ARITHMETIC: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.cumsum, "cumsum"), _running_sum),
    **dict.fromkeys((torch.prod, "prod"), _total_product),
    torch.cdist: _distances,
    **dict.fromkeys((torch.rsqrt, "rsqrt"), _rsqrt),
    **dict.fromkeys((torch.logsumexp, "logsumexp"), _log_sum),
    **dict.fromkeys((torch.lerp, "lerp"), _interpolated),
    **dict.fromkeys((torch.addcmul, "addcmul"), _plus_product),
    F.lp_pool2d: _lp_pool,
    **dict.fromkeys((F.cosine_similarity, torch.cosine_similarity), _cosine),
    **dict.fromkeys((operator.pow, torch.pow, "pow"), _power),
    **dict.fromkeys(
        (torch.clamp, torch.clip, "clamp", "clip", "clamp_", torch.clamp_min, "clamp_min"), _clamp
    ),
    **dict.fromkeys((torch.clamp_max, "clamp_max"), _clamp_max),
    **dict.fromkeys((torch.sum, "sum"), _total),
    **dict.fromkeys((torch.amax, "amax"), _amax),
    **dict.fromkeys((torch.amin, "amin"), _least(_amax)),
    **dict.fromkeys((torch.max, "max"), _max),
    **dict.fromkeys((torch.min, "min"), _least(_max)),
    **dict.fromkeys((torch.maximum, "maximum"), _maximum),
    **dict.fromkeys((torch.minimum, "minimum"), _least(_maximum)),
    **dict.fromkeys((torch.var, "var"), _variance),
    **dict.fromkeys((torch.std, "std"), _deviation),
    **dict.fromkeys((torch.norm, "norm"), _norm),
    **dict.fromkeys((torch.linalg.norm, torch.linalg.vector_norm), _norm),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _sum),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), _difference),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), _product),
    **dict.fromkeys((operator.truediv, torch.div, "div", "div_"), _quotient),
    **dict.fromkeys((operator.neg, torch.neg, "neg"), _negative),
    **dict.fromkeys(("mean", torch.mean), _mean),
}
"""What takes in a function or a method."""
