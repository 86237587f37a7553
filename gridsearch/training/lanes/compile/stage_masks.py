"""What compares, and what chooses by that: masks of buffers, which are known, and masks of activations.

Stands between `stage_functions`, with all that is called, and the stages of numbers.  A mask of activations is a value
like any other, of ones and zeros, whose number is in `StageReader.masks`: torch adds, divides and averages its own
masks by other rules than numbers, or not at all.
"""
# ruff: noqa: A002  (torch's argument names; all of a kind are called alike)

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from gridsearch.training.kernels.activation_curves import Activation, Curve
from gridsearch.training.kernels.stages import View
from gridsearch.training.lanes.compile import stage_numbers
from gridsearch.training.lanes.compile.places import Known, all_values, is_activation
from gridsearch.training.lanes.compile.stage_arithmetic import ARITHMETIC
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridsearch.training.lanes.compile.stage_reader import StageReader


def is_mask(r: StageReader, codes: Any) -> bool:
    """Whether an activation has numbers of masks."""
    if not r.masks or not isinstance(codes, torch.Tensor):
        return False
    return not r.masks.isdisjoint(all_values(codes))


def _mark(r: StageReader, codes: torch.Tensor) -> torch.Tensor:
    """Take note that a new value is a mask."""
    r.masks.update(all_values(codes))
    return codes


def _has_images(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and bool(is_activation(value).any())


def codes_of(r: StageReader, value: Any) -> torch.Tensor:
    """Return codes of an activation, of a number, or of what is known."""
    if isinstance(value, Known):
        return r.constant(value.content)
    return value if isinstance(value, torch.Tensor) else r.constant(torch.tensor(float(value)))


# Comparisons

_CURVES = {
    "eq": (Curve.EQUAL, Curve.EQUAL),
    "ne": (Curve.NOT_EQUAL, Curve.NOT_EQUAL),
    "lt": (Curve.LESS, Curve.GREATER),
    "le": (Curve.LESS_EQUAL, Curve.GREATER_EQUAL),
    "gt": (Curve.GREATER, Curve.LESS),
    "ge": (Curve.GREATER_EQUAL, Curve.LESS_EQUAL),
}
"""Of a comparison with a number, and of the same with its sides changed."""


def _compared(name: str) -> Callable[..., Any]:
    compare, (curve, turned) = getattr(torch, name), _CURVES[name]

    def call(r: StageReader, input: Any, other: Any) -> Any:
        if not (_has_images(input) or _has_images(other)):
            return Known(compare(*(_content(r, each) for each in (input, other))))
        a, b = (_number_of(each) for each in (input, other))
        if not isinstance(b, torch.Tensor | Known):
            return _mark(r, stage_numbers.each(r, a, Activation(curve, float(b))))
        if not isinstance(a, torch.Tensor | Known):
            return _mark(r, stage_numbers.each(r, b, Activation(turned, float(a))))
        apart = ARITHMETIC[operator.sub](r, codes_of(r, a), codes_of(r, b))
        return _mark(r, stage_numbers.each(r, apart, Activation(curve)))

    return call


def _content(r: StageReader, value: Any) -> Any:
    known = r.content(value) if isinstance(value, torch.Tensor) else value
    return known.content if isinstance(known, Known) else known


def _number_of(value: Any) -> Any:
    return value.content.item() if isinstance(value, Known) and not value.content.dim() else value


# Choices


def _where(r: StageReader, condition: Any, input: Any, other: Any) -> torch.Tensor:
    first, second = codes_of(r, input), codes_of(r, other)
    if isinstance(condition, Known):
        return torch.where(condition.content.bool(), first, second)
    if not is_mask(r, condition):
        raise NoPlan("a mask that is no comparison's")
    found: torch.Tensor = stage_numbers.where(r, condition, first, second)
    return _mark(r, found) if is_mask(r, first) and is_mask(r, second) else found


def _masked_fill(r: StageReader, input: Any, mask: Any, value: Any) -> torch.Tensor:
    return _where(r, mask, value, input)


# Masks of masks, and masks as numbers


def _both(r: StageReader, input: Any, other: Any) -> Any:
    return _of_masks(r, torch.logical_and, lambda a, b: stage_numbers.multiply(r, a, b), input, other)


def _either(r: StageReader, input: Any, other: Any) -> Any:
    def either(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return stage_numbers.each(r, stage_numbers.add(r, a, b), Activation(Curve.GREATER))

    return _of_masks(r, torch.logical_or, either, input, other)


def _one_of_both(r: StageReader, input: Any, other: Any) -> Any:
    def one(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return stage_numbers.each(r, stage_numbers.add(r, a, b), Activation(Curve.EQUAL, 1.0))

    return _of_masks(r, torch.logical_xor, one, input, other)


def _neither(r: StageReader, input: Any) -> Any:
    return _of_masks(r, torch.logical_not, lambda a: stage_numbers.each(r, a, Activation(Curve.EQUAL)), input)


def _of_masks(
    r: StageReader, known: Callable[..., torch.Tensor], made: Callable[..., torch.Tensor], *given: Any
) -> Any:
    if all(isinstance(each, Known) for each in given):
        return Known(known(*(each.content for each in given)))
    if not all(
        is_mask(r, each) or (isinstance(each, Known) and each.content.dtype == torch.bool) for each in given
    ):
        raise NoPlan("logic of what is no mask")
    return _mark(r, made(*(codes_of(r, each) for each in given)))


def _as_numbers(r: StageReader, mask: torch.Tensor) -> torch.Tensor:
    """Return a mask as the ones and zeros that it is made of."""
    first, at = r.images_first(mask)
    value, places = r.whole(first)
    return at.back(r.fresh(r.add(View(r.shape(value)), value), places))


def _to(r: StageReader, input: Any, *to: Any, **how: Any) -> torch.Tensor:
    """Take in a change of type, or to that of another tensor."""
    given = pytree.tree_leaves((to, how))
    like = [each for each in given if isinstance(each, torch.Tensor | Known)]
    types = [each for each in given if isinstance(each, torch.dtype)]
    types += [each.content.dtype for each in like if isinstance(each, Known)]
    if any(is_mask(r, each) for each in (*like, *(() if is_mask(r, input) else (input,)))):
        raise NoPlan("numbers as a mask")
    if any(not each.is_floating_point for each in types):
        raise NoPlan("a mask as whole numbers")
    kept: torch.Tensor = input
    return _as_numbers(r, kept) if like or types else kept


def _count(r: StageReader, input: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    found: torch.Tensor = ARITHMETIC["sum"](r, _as_numbers(r, input), *args, **kwargs)
    return found


def _times(r: StageReader, input: Any, other: Any) -> torch.Tensor:
    if is_mask(r, input) and is_mask(r, other):
        both: torch.Tensor = _both(r, input, other)
        return both
    a, b = (_number_of(each) for each in (input, other))
    product: torch.Tensor = ARITHMETIC[operator.mul](
        r, *(codes_of(r, each) if isinstance(each, Known) else each for each in (a, b))
    )
    return product


OF_MASKS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("mul", "imul", "mul_", "multiply"), _times),
    **dict.fromkeys(("to", "type_as"), _to),
    "float": _as_numbers,
    "sum": _count,
}
"""What takes in functions and methods of masks alone, by their names."""

CHOICES: dict[str, Callable[..., Any]] = {
    "where": _where,
    "masked_fill": _masked_fill,
    **{name: _compared(name) for name in _CURVES},
    **dict.fromkeys(("logical_and", "and_", "__and__", "bitwise_and"), _both),
    **dict.fromkeys(("logical_or", "or_", "__or__", "bitwise_or"), _either),
    **dict.fromkeys(("logical_xor", "xor", "__xor__", "bitwise_xor"), _one_of_both),
    **dict.fromkeys(("logical_not", "invert", "__invert__", "bitwise_not"), _neither),
}
"""What takes in comparisons, choices and logic, of what is known and of activations, by their names."""
