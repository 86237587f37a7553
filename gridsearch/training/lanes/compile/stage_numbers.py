"""Stages of each number, or of pairs of numbers: activations, sums, products, means, dropout.

Stands beside `stage_reader`, for `stage_layers` and `stage_calls`.

Shapes: B batch, C/H/W channels, height, width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from gridsearch.training.kernels.activation_curves import Activation, Curve
from gridsearch.training.kernels.stages import (
    Add,
    Conv,
    Dropout,
    Gate,
    GlobalMean,
    LeakyRelu,
    Linear,
    Multiply,
    Relu,
    Where,
)
from gridsearch.training.lanes.compile.lane_values import SAMPLE
from gridsearch.training.lanes.compile.places import (
    PARAMETERS,
    ImagesAt,
    is_activation,
    only_value,
    values_of,
)
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.training.kernels.stages import Shape, Stage
    from gridsearch.training.lanes.compile.lane_values import Order
    from gridsearch.training.lanes.compile.stage_reader import StageReader


def for_all(r: StageReader, call: Callable[..., torch.Tensor], *given: torch.Tensor) -> torch.Tensor:
    """Return the codes of what is made of parameters alone, and so is the same for all images: it has none.

    A node that no image reaches is computed once a step (`derived_weights`). This is for such arithmetic within a
    function that torch.fx does not look into and that images reach: it has no node, and each image computes it.

    Args:
        r: what the network is read by.
        call: makes it, of codes that have images first.
        given: codes of parameters and constants.

    Raises:
        NoPlan: they are many, for each image computes them anew; or a node's that no image reaches.
    """
    if r.reached_by_none:
        raise NoPlan("arithmetic of parameters alone")
    if sum(codes.numel() for codes in given) > _MOST_SHARED:
        raise NoPlan("arithmetic of many parameters alone")
    if not any(codes.dim() for codes in given):
        return for_all(r, call, *(codes.view(1) for codes in given)).view(())
    return r.of_all(call(*(codes.expand(SAMPLE, *codes.shape) for codes in given)))


_MOST_SHARED = 2**12


def each(r: StageReader, x: Any, stage: Stage) -> torch.Tensor:
    """Return the codes of an activation after a stage that acts on each number."""
    if lacks_images(x):
        return for_all(r, lambda own: each(r, own, stage), x)
    first, at = r.images_first(x)
    value, places = r.whole(first)
    return at.back(r.fresh(r.add(stage, value), places))


def affine(r: StageReader, x: Any, slope: float, level: float) -> torch.Tensor:
    """Return the codes of a number times an activation, plus a number."""
    if (slope, level) == (1, 0):
        kept: torch.Tensor = x
        return kept
    return each(r, x, Activation(Curve.AFFINE, float(slope), float(level)))


def add(r: StageReader, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the codes of a sum."""
    return _together(r, Add(), *alike(a, b))


def multiply(r: StageReader, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the codes of a product: of maps or tokens with a number for each channel, or number by number."""
    return _together(r, Multiply(), *alike(a, b))


def where(r: StageReader, condition: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the codes of one of two activations, number by number: the first where a condition is not zero."""
    a, b = alike(a, b)
    condition, a = alike(condition, a)
    _, at = r.images_first(condition)
    given = [at.first(codes, SAMPLE) for codes in (condition, a, b.expand(a.shape))]
    value, places = r.whole(_leading(r, *given))
    inputs = [r.value(r.in_order_of(codes, places), r.shape(value)) for codes in given]
    return at.back(r.fresh(r.add(Where(), *inputs), places))


def _together(r: StageReader, stage: Stage, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if all(_is_parameter(codes) for codes in (a, b)):
        return for_all(r, lambda *own: _pair(r, stage, *own), a, b)
    return _pair(r, stage, a, b)


def _is_parameter(codes: torch.Tensor) -> bool:
    return bool((values_of(codes) >= PARAMETERS).all())


def lacks_images(codes: Any) -> bool:
    """Whether codes are those of parameters and constants, as they are and not for every image."""
    if not isinstance(codes, torch.Tensor) or codes.numel() == 0:
        return False
    values = values_of(codes)
    made_of = bool(((values < 0) | (values >= PARAMETERS)).all()) and bool((values >= PARAMETERS).any())
    repeated = codes.dim() > 0 and len(codes) == SAMPLE and bool((codes == codes[:1]).all())
    return made_of and not repeated


def shared(codes: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return codes of parameters and constants, which have no images, as those of every image of an activation."""
    if bool(is_activation(codes).any()) or codes.dim() > like.dim():
        return codes
    as_many = codes.view((1,) * (like.dim() - codes.dim()) + tuple(codes.shape))
    return as_many.expand(len(like), *as_many.shape[1:]) if len(as_many) == 1 else as_many


def alike(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the codes of two activations of one shape, or of as many dimensions as one has."""
    try:
        shape = np.broadcast_shapes(a.shape, b.shape)
    except ValueError as error:
        raise NoPlan("a sum or a product of unlike shapes") from error
    return a.expand(shape), b.expand(shape)


def _pair(r: StageReader, stage: Stage, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the codes of two activations' numbers taken together; in the order of the later one, if it is whole."""
    _, at = r.images_first(b if _is_parameter(a) else a)
    a, b = (at.first(codes, SAMPLE) for codes in (a, b))
    last = _leading(r, a, b)
    other = b if last is a else a
    value, places = r.whole(last)
    wanted = r.in_order_of(other, places)
    if isinstance(stage, Multiply) and (gates := _gates(wanted, r.shape(value))) is not None:
        return at.back(r.fresh(r.add(Gate(), value, r.value(gates, tuple(gates.shape))), places))
    return at.back(r.fresh(r.add(stage, value, r.value(wanted, r.shape(value))), places))


def _leading(r: StageReader, *given: torch.Tensor) -> torch.Tensor:
    """Return the activation in whose order all are taken together: the latest one that is whole, if there is one."""
    return max(given, key=lambda codes: (r.is_whole(codes), not _is_parameter(codes), _spread(r, codes)))


def _gates(wanted: torch.Tensor, shape: Shape) -> torch.Tensor | None:
    """Return the codes of a number for each channel where what is wanted are these in each pixel; else None."""
    by_pixel = wanted.view(-1, shape[0])
    alike = len(by_pixel) > 1 and bool((by_pixel == by_pixel[0]).all())
    return by_pixel[0] if alike else None


def _spread(r: StageReader, codes: torch.Tensor) -> tuple[bool, int]:
    """Return whether an activation has no number twice, and its value, if it has one."""
    value = only_value(codes)
    distinct = len(r.one(codes).unique()) == r.one(codes).numel()  # type: ignore[no-untyped-call]
    return distinct, -1 if value is None else value


def mean(r: StageReader, x: torch.Tensor, dims: tuple[int, ...], *, keeps: bool) -> torch.Tensor:
    """Return the codes of means over some dimensions."""
    first, at = r.images_first(x)
    if at != ImagesAt(0, 1):
        found = mean(r, first, moved_dims(dims, x, at, "a mean"), keeps=True)
        return squeezed(at.back(found), dims, keeps=keeps)
    over = sorted(d % x.dim() for d in dims)
    if not over or over[0] == 0:
        raise NoPlan("a mean over images")
    rest = [d for d in range(1, x.dim()) if d not in over]
    sizes = [x.shape[d] for d in rest]
    pixels = [x.shape[d] for d in over]
    maps = x.permute(0, *rest, *over).reshape(len(x), math.prod(sizes), pixels[0], math.prod(pixels[1:]))
    found = r.of_maps(r.add(GlobalMean(), r.maps(maps))).reshape(len(x), *sizes)
    for d in over if keeps else []:
        found = found.unsqueeze(d)
    return found


def moved_dims(dims: Sequence[int], x: torch.Tensor, at: ImagesAt, what: str) -> tuple[int, ...]:
    """Return dimensions of an activation as they are with its images first.

    Raises:
        NoPlan: one is that of the images.
    """
    given = [d % x.dim() for d in dims]
    if not given or at.dim in given:
        raise NoPlan(f"{what} over images")
    return tuple(own for d in given for own in at.dims(d))


def squeezed(x: torch.Tensor, dims: Sequence[int], *, keeps: bool) -> torch.Tensor:
    """Return codes without some dimensions, which are of one number each, unless they are kept."""
    return x if keeps else x.squeeze(tuple(dims))


def dropout(
    r: StageReader,
    x: Any,
    rate: float,
    order: Order = (),
    *,
    from_recipe: bool,
    whole: int = 0,
    alpha: bool = False,
) -> torch.Tensor:
    """Return the codes of an activation after dropout; in evaluation it stays as it is.

    Torch fills a mask in the order in memory of what it drops.

    Args:
        r: what the network is read by.
        x: codes of the activation.
        rate: of dropout.
        order: its dimensions, the outermost in memory first; () for that of its rows.
        from_recipe: a lane's recipe may set the rate.
        whole: 1 where whole channels are dropped, -1 where whole images are, else 0.
        alpha: see `Dropout`.
    """
    if rate == 0 and not from_recipe:  # torch draws nothing then
        kept: torch.Tensor = x
        return kept
    given, at = r.images_first(x)
    if at != ImagesAt(0, 1):
        if whole < 0 and at.dim == 0:  # each part of an image, a window say, by itself
            return at.back(dropout(r, given, rate, from_recipe=from_recipe, whole=1, alpha=alpha))
        if whole:
            raise NoPlan("dropout of channels whose images are not first")
        own = tuple(moved for d in order or range(x.dim()) for moved in at.dims(d))
        return at.back(dropout(r, given, rate, own, from_recipe=from_recipe, alpha=alpha))
    first = r.one(x)
    value, places = r.whole(x)
    if not r.training:
        return r.fresh(value, places)
    r.dropouts += 1
    if whole:
        drawn = 1 if whole < 0 else len(first)
        shape = (-1, *(1,) * (first.dim() - 1)) if drawn > 1 else (1,) * first.dim()
        step, mask = drawn, torch.arange(drawn).view(shape).expand(first.shape)
    else:
        order = order or tuple(range(x.dim()))
        images = order.index(0)
        laid = [d - 1 for d in order if d]
        step, drawn = math.prod(x.shape[d] for d in order[images + 1 :]), first.numel()
        mask = (
            torch.arange(drawn)
            .view([first.shape[d] for d in laid])
            .permute([laid.index(d) for d in range(len(laid))])
        )
    by_place = torch.empty(first.numel(), dtype=torch.int32)
    by_place[places.flatten()] = mask.flatten().to(torch.int32)
    stage = Dropout(rate, from_recipe, r.dropouts, drawn, step, by_place.numpy().tobytes(), alpha)
    return r.fresh(r.add(stage, value), places)


def dense(r: StageReader, x: Any, inputs: int, outputs: int, params: Sequence[str | None]) -> torch.Tensor:
    """Return the codes of a dense layer's result: of features, or of tokens as a convolution of single pixels."""
    bias = params[1] is not None
    first, at = r.images_first(x)
    value, rows = r.rows(first)
    layer = Conv(inputs, outputs, (1, 1), bias=bias) if rows.dim() else Linear(inputs, outputs, bias)
    return at.back(r.of_rows(r.add(layer, value, params=tuple(params)), rows))


def leaky(slope: float) -> LeakyRelu:
    """Return a leaky ReLU.

    Raises:
        NoPlan: it falls.
    """
    if slope <= 0:
        raise NoPlan("leaky ReLU that falls")
    return LeakyRelu(slope)


_SELU = 1.6732632423543772, 1.0507009873554805

_ACTIVATIONS: dict[Any, Any] = {
    nn.ReLU: lambda _: Relu(),
    nn.LeakyReLU: lambda m: leaky(m.negative_slope),
    nn.ReLU6: lambda _: Activation(Curve.RELU6),
    nn.Hardsigmoid: lambda _: Activation(Curve.HARDSIGMOID),
    nn.Hardswish: lambda _: Activation(Curve.HARDSWISH),
    nn.Hardtanh: lambda m: Activation(Curve.HARDTANH, m.min_val, m.max_val),
    nn.GELU: lambda m: Activation(Curve.GELU if m.approximate == "none" else Curve.GELU_TANH),
    nn.SiLU: lambda _: Activation(Curve.SILU),
    nn.Sigmoid: lambda _: Activation(Curve.SIGMOID),
    nn.Tanh: lambda _: Activation(Curve.TANH),
    nn.ELU: lambda m: Activation(Curve.ELU, m.alpha, 1.0),
    nn.SELU: lambda _: Activation(Curve.ELU, *_SELU),
    nn.Mish: lambda _: Activation(Curve.MISH),
    nn.CELU: lambda m: Activation(Curve.CELU, m.alpha),
    nn.Softplus: lambda m: Activation(Curve.SOFTPLUS, m.beta, m.threshold),
    nn.LogSigmoid: lambda _: Activation(Curve.LOG_SIGMOID),
    nn.Softsign: lambda _: Activation(Curve.SOFTSIGN),
    nn.Tanhshrink: lambda _: Activation(Curve.TANHSHRINK),
    nn.Hardshrink: lambda m: Activation(Curve.HARDSHRINK, m.lambd),
    nn.Softshrink: lambda m: Activation(Curve.SOFTSHRINK, m.lambd),
    nn.Threshold: lambda m: Activation(Curve.THRESHOLD, m.threshold, m.value),
}
"""Layers that act on each number."""


def acts(m: Any) -> bool:
    """Whether a layer acts on each number."""
    return type(m) in _ACTIVATIONS


def activation(m: Any) -> Stage | None:
    """Return a layer that acts on each number as a stage; None for any other layer."""
    read = _ACTIVATIONS.get(type(m))
    return None if read is None else read(m)
