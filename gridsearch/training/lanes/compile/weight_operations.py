"""The operations on parameters that a program can be made of: what each function of torch is as instructions.

Stands beside `weight_recorder`, which asks for them by the names that torch dispatches.
"""
# ruff: noqa: ARG001  (torch's arguments; all of a kind are called alike)

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gridsearch.training.kernels.weight_programs import Kind
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.training.lanes.compile.weight_recorder import Recorder


def _pair(kind: Kind, *, turned: bool = False, truth: bool = False) -> Callable[..., torch.Tensor]:
    def handle(r: Recorder, a: Any, b: Any, *, alpha: float = 1, rounding_mode: None = None) -> torch.Tensor:
        if rounding_mode is not None:
            raise NoPlan("a division of parameters that rounds")
        if alpha != 1:
            scaled = r.fresh(b.shape) if isinstance(b, torch.Tensor) else None
            b = b * alpha if scaled is None else r.emit(Kind.MULTIPLY, scaled, b, alpha)
        shapes = [x.shape for x in (a, b) if isinstance(x, torch.Tensor)]
        shape = np.broadcast_shapes(*shapes)
        a, b = (b, a) if turned else (a, b)
        return r.emit(kind, r.fresh(shape, torch.bool if truth else None), a, b)

    return handle


def _one(kind: Kind, *rest: float) -> Callable[..., torch.Tensor]:
    def handle(r: Recorder, a: torch.Tensor) -> torch.Tensor:
        return r.emit(kind, r.fresh(a.shape), a, *rest)

    return handle


def _inverted(kind: Kind | None) -> Callable[..., torch.Tensor]:
    """Return one divided by a number, or by a function of it."""

    def handle(r: Recorder, a: torch.Tensor) -> torch.Tensor:
        return r.emit(Kind.DIVIDE, r.fresh(a.shape), 1.0, a if kind is None else _one(kind)(r, a))

    return handle


def _power(r: Recorder, a: Any, exponent: Any) -> torch.Tensor:
    if exponent == 2:
        return r.emit(Kind.MULTIPLY, r.fresh(a.shape), a, a)
    if exponent == 1:
        return r.emit(Kind.COPY, r.fresh(a.shape), a)
    if exponent == 0.5:
        return _one(Kind.ROOT)(r, a)
    if exponent == -0.5:
        return _inverted(Kind.ROOT)(r, a)
    return _pair(Kind.POWER)(r, a, exponent)


def _where(r: Recorder, condition: torch.Tensor, a: Any, b: Any) -> torch.Tensor:
    shapes = [x.shape for x in (condition, a, b) if isinstance(x, torch.Tensor)]
    shape = np.broadcast_shapes(*shapes)
    return r.emit(Kind.CHOOSE, r.fresh(shape), condition, a, b)


def _masked_fill(r: Recorder, a: torch.Tensor, mask: torch.Tensor, value: Any) -> torch.Tensor:
    return _where(r, mask, value, a)


def _clamp(r: Recorder, a: torch.Tensor, least: Any = None, most: Any = None) -> torch.Tensor:
    for kind, bound in ((Kind.LARGER, least), (Kind.SMALLER, most)):
        a = a if bound is None else r.emit(kind, r.fresh(a.shape), a, bound)
    return a


def _clamp_max(r: Recorder, a: torch.Tensor, most: Any) -> torch.Tensor:
    return _clamp(r, a, None, most)


def _kept(a: torch.Tensor, dims: Any) -> tuple[tuple[int, ...], list[int]]:
    """Return a shape whose reduced dimensions are of one number, and these dimensions."""
    given = range(a.dim()) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    over = [d % a.dim() for d in given] if a.dim() else []
    return tuple(1 if d in over else side for d, side in enumerate(a.shape)), over


def _shaped(a: torch.Tensor, over: Sequence[int], *, keeps: bool) -> torch.Tensor:
    return a if keeps or not over else a.squeeze(tuple(over))


def _over(kind: Kind) -> Callable[..., torch.Tensor]:
    def handle(
        r: Recorder, a: torch.Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
    ) -> torch.Tensor:
        if dtype not in (None, r.dtype):
            raise NoPlan("a sum of parameters of another type")
        shape, over = _kept(a, dim)
        return _shaped(r.reduced(kind, shape, a), over, keeps=keepdim)

    return handle


def _mean(r: Recorder, a: torch.Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    total = _over(Kind.SUM)(r, a, dim, keepdim, dtype=dtype)
    count = a.numel() // max(1, total.numel())
    return r.emit(Kind.MULTIPLY, r.fresh(total.shape), total, 1 / count)


def _variance(
    r: Recorder,
    a: torch.Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: Any = None,
) -> torch.Tensor:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    shape, over = _kept(a, dim)
    apart = r.emit(Kind.SUBTRACT, r.fresh(a.shape), a, _mean(r, a, dim, True))
    count = a.numel() // math.prod(shape) - (int(unbiased) if correction is None else correction)
    squares = r.reduced(Kind.PRODUCTS, shape, apart, apart)
    return _shaped(r.emit(Kind.DIVIDE, r.fresh(shape), squares, count), over, keeps=keepdim)


def _variance_and_mean(
    r: Recorder, a: torch.Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, **kwargs: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    keeps = kwargs.get("keepdim", keepdim)
    variance = _variance(r, a, dim, unbiased, keeps, correction=kwargs.get("correction"))
    return variance, _mean(r, a, None if isinstance(dim, bool) else dim, keeps)


def _flip(r: Recorder, a: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    to = r.fresh(a.shape)
    r.copy_flipped(to, a, dims)
    return to


def _deviation(r: Recorder, a: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return _one(Kind.ROOT)(r, _variance(r, a, *args, **kwargs))


def _norm(
    r: Recorder, a: torch.Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> torch.Tensor:
    shape, over = _kept(a, dim)
    if dtype not in (None, r.dtype) or p not in (None, 1, 2, math.inf):
        raise NoPlan("a norm of parameters of another kind")
    if p in (None, 2):
        found = _one(Kind.ROOT)(r, r.reduced(Kind.PRODUCTS, shape, a, a))
    else:
        found = r.reduced(Kind.SUM if p == 1 else Kind.LARGEST, shape, _one(Kind.SIZE)(r, a))
    return _shaped(found, over, keeps=keepdim)


def _matrices(r: Recorder, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return [..., M, K] times [..., K, N], a vector being a matrix of one row or column."""
    left = a.unsqueeze(-2) if a.dim() == 1 else a
    right = b.unsqueeze(-1) if b.dim() == 1 else b
    shape = (*left.shape[:-1], 1, right.shape[-1])
    found = r.reduced(Kind.PRODUCTS, shape, left.unsqueeze(-1), right.unsqueeze(-3)).squeeze(-2)
    found = found.squeeze(-1) if b.dim() == 1 else found
    return found.squeeze(-1 if b.dim() == 1 else -2) if a.dim() == 1 else found


def _cat(r: Recorder, tensors: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
    parts = [t for t in tensors if t.dim() > 1 or t.numel()]
    shape = list(parts[0].shape)
    shape[dim] = sum(t.shape[dim] for t in parts)
    to, at = r.fresh(shape), 0
    for part in parts:
        r.emit(Kind.COPY, to.narrow(dim, at, part.shape[dim]), part)
        at += part.shape[dim]
    return to


def _copy(r: Recorder, a: torch.Tensor, *, memory_format: Any = None) -> torch.Tensor:
    return r.emit(Kind.COPY, r.fresh(a.shape, a.dtype), a)


def _copy_to(r: Recorder, a: torch.Tensor, source: Any, non_blocking: bool = False) -> torch.Tensor:
    return r.emit(Kind.COPY, a, source)


def _part(view: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return the backward pass of a view: zeros, with a gradient in a part of them."""

    def handle(r: Recorder, gradient: torch.Tensor, sizes: Sequence[int], *how: Any) -> torch.Tensor:
        whole = r.emit(Kind.COPY, r.fresh(sizes), 0.0)
        r.emit(Kind.COPY, view(whole, *how), gradient)
        return whole

    return handle


def _index(r: Recorder, a: torch.Tensor, indices: Sequence[Any]) -> torch.Tensor:
    return r.taken(a, r.places(a)[_chosen(indices)])


def _index_put(
    r: Recorder,
    a: torch.Tensor,
    indices: Sequence[Any],
    values: torch.Tensor,
    accumulate: bool = False,
    unsafe: bool = False,
) -> torch.Tensor:
    """Take in the backward pass of `_index`, which adds up what was taken from one place."""
    if not accumulate:
        raise NoPlan("parameters that are put in the place of others")
    found = r.emit(Kind.COPY, r.fresh(a.shape), a)
    places = r.places(found)[_chosen(indices)]
    r.put(found, places, values.expand(places.shape))
    return found


def _chosen(indices: Sequence[Any]) -> tuple[Any, ...]:
    """Return an index as Python writes it.

    Raises:
        NoPlan: it is computed from parameters.
    """
    if any(isinstance(i, torch.Tensor) and (i.is_meta or i.dtype != torch.int64) for i in indices):
        raise NoPlan("indices that are not known before")
    return tuple(slice(None) if i is None else i for i in indices)


def _index_select(r: Recorder, a: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    return r.taken(a, r.places(a).index_select(dim, *_chosen([index])))


def _gather(
    r: Recorder, a: torch.Tensor, dim: int, index: torch.Tensor, *, sparse_grad: bool = False
) -> torch.Tensor:
    return r.taken(a, r.places(a).gather(dim, *_chosen([index])))


def _index_add(
    r: Recorder, a: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, *, alpha: float = 1
) -> torch.Tensor:
    if alpha != 1:
        raise NoPlan("parameters that are added in part")
    found = r.emit(Kind.COPY, r.fresh(a.shape), a)
    r.put(found, r.places(found).index_select(dim, *_chosen([index])), source)
    return found


def _scatter_add(
    r: Recorder, a: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor
) -> torch.Tensor:
    found = r.emit(Kind.COPY, r.fresh(a.shape), a)
    r.put(found, r.places(found).gather(dim, *_chosen([index])), source)
    return found


def _triangle(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def handle(r: Recorder, a: torch.Tensor, diagonal: int = 0) -> torch.Tensor:
        there = r.constant(make(torch.ones(a.shape[-2:], dtype=r.dtype), diagonal))
        return r.emit(Kind.CHOOSE, r.fresh(a.shape), there, a, 0.0)

    return handle


def _not(r: Recorder, a: torch.Tensor) -> torch.Tensor:
    return r.emit(Kind.EQUAL, r.fresh(a.shape, torch.bool), a, 0.0)


def _weight_norm(
    r: Recorder, v: torch.Tensor, g: torch.Tensor, dim: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return direction v with length g, and the length of v: w = g v / |v|."""
    over = [d for d in range(v.dim()) if d != dim % v.dim()]
    norm = _norm(r, v, 2, over, True)
    return _pair(Kind.MULTIPLY)(r, v, _pair(Kind.DIVIDE)(r, g, norm)), norm


def _weight_norm_backward(
    r: Recorder, gradient: torch.Tensor, v: torch.Tensor, g: torch.Tensor, norm: torch.Tensor, dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of v, g / |v| (gradient - v (gradient v) / |v|^2), and of g, gradient v / |v|."""
    shape = tuple(v.shape[d] if d == dim % v.dim() else 1 for d in range(v.dim()))
    multiply, divide = _pair(Kind.MULTIPLY), _pair(Kind.DIVIDE)
    of_g = divide(r, r.reduced(Kind.PRODUCTS, shape, gradient, v), norm)
    along = multiply(r, v, divide(r, of_g, norm))
    across = _pair(Kind.SUBTRACT)(r, gradient, along)
    return multiply(r, across, divide(r, g, norm)), of_g


_SLICE: Any = torch.ops.aten.slice.Tensor

HANDLED: dict[str, Callable[..., Any]] = {
    "add": _pair(Kind.ADD),
    "sub": _pair(Kind.SUBTRACT),
    "rsub": _pair(Kind.SUBTRACT, turned=True),
    "mul": _pair(Kind.MULTIPLY),
    "div": _pair(Kind.DIVIDE),
    "maximum": _pair(Kind.LARGER),
    "minimum": _pair(Kind.SMALLER),
    "eq": _pair(Kind.EQUAL, truth=True),
    "ne": _pair(Kind.UNEQUAL, truth=True),
    "lt": _pair(Kind.LESS, truth=True),
    "le": _pair(Kind.LESS_OR_EQUAL, truth=True),
    "gt": _pair(Kind.LESS, truth=True, turned=True),
    "ge": _pair(Kind.LESS_OR_EQUAL, truth=True, turned=True),
    **dict.fromkeys(("logical_and", "bitwise_and"), _pair(Kind.MULTIPLY, truth=True)),
    **dict.fromkeys(("logical_or", "bitwise_or"), _pair(Kind.LARGER, truth=True)),
    **dict.fromkeys(("logical_not", "bitwise_not"), _not),
    "pow": _power,
    "where": _where,
    "masked_fill": _masked_fill,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp_max,
    "neg": _one(Kind.MULTIPLY, -1.0),
    "relu": _one(Kind.LARGER, 0.0),
    "sqrt": _one(Kind.ROOT),
    "exp": _one(Kind.EXPONENTIAL),
    "log": _one(Kind.LOGARITHM),
    "tanh": _one(Kind.TANH),
    "sigmoid": _one(Kind.SIGMOID),
    "abs": _one(Kind.SIZE),
    **dict.fromkeys(("sgn", "sign"), _one(Kind.SIGN)),
    "sin": _one(Kind.SINE),
    "cos": _one(Kind.COSINE),
    "erf": _one(Kind.ERROR_FUNCTION),
    "reciprocal": _inverted(None),
    "rsqrt": _inverted(Kind.ROOT),
    "sum": _over(Kind.SUM),
    "amax": _over(Kind.LARGEST),
    "amin": _over(Kind.SMALLEST),
    "mean": _mean,
    "var": _variance,
    "std": _deviation,
    "var_mean": _variance_and_mean,
    **dict.fromkeys(("norm", "linalg_vector_norm"), _norm),
    **dict.fromkeys(("mm", "mv", "bmm", "dot", "vdot"), _matrices),
    "cat": _cat,
    "flip": _flip,
    "clone": _copy,
    "_unsafe_view": lambda _, a, size: a.view(size),
    "copy": _copy_to,
    "fill": _copy_to,
    "zero": lambda r, a: r.emit(Kind.COPY, a, 0.0),
    "slice_backward": _part(_SLICE),
    "select_backward": _part(torch.select),
    "_weight_norm_interface": _weight_norm,
    "_weight_norm_interface_backward": _weight_norm_backward,
    "index": _index,
    **dict.fromkeys(("index_put", "_unsafe_index_put", "_index_put_impl"), _index_put),
    "index_select": _index_select,
    "index_add": _index_add,
    "gather": _gather,
    "scatter_add": _scatter_add,
    "triu": _triangle(torch.triu),
    "tril": _triangle(torch.tril),
}
"""What takes in a function, by its name; one in place likewise."""
