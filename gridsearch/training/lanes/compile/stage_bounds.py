"""Which activations are more than zero, whatever the images: where a power may be taken by its logarithm.

Stands beside `stage_arithmetic`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridsearch.training.kernels.activation_curves import Activation, Curve
from gridsearch.training.kernels.stages import (
    Add,
    Arrange,
    AvgPool,
    Flatten,
    Gate,
    GlobalMean,
    MaxPool,
    Multiply,
    Pick,
    Relu,
    Softmax,
    View,
    Windows,
)
from gridsearch.training.lanes.compile.places import PARAMETERS, all_values, values_of

if TYPE_CHECKING:
    import torch

    from gridsearch.training.lanes.compile.stage_reader import StageReader

_LESS = float("-inf")
_MORE = 1e-30  # of what is more than zero, by no matter how little


def is_positive(r: StageReader, codes: torch.Tensor) -> bool:
    """Whether all numbers of an activation are more than zero."""
    if bool((values_of(codes) < 0).any()):
        return False
    values = all_values(codes)
    return all(value < PARAMETERS and _least(r, value) > 0 for value in values)


def _least(r: StageReader, value: int) -> float:
    """Return a number that no number of a value is less than; minus infinity if none is known."""
    if value == 0:
        return _LESS
    node = r.node(value)
    lowest = [_least(r, each) for each in node.inputs]
    match node.stage:
        case Activation():
            found = _after(node.stage, lowest[0])
        case Relu():
            found = max(0.0, lowest[0])
        case Softmax(logarithm=False):
            found = 0.0
        case Flatten() | View() | GlobalMean() | MaxPool(padding=(0, 0)) | AvgPool(padding=(0, 0)):
            found = lowest[0]
        case Arrange():
            found = min(*lowest, *(node.stage.constants if _has_constants(node.stage) else lowest))
        case Windows():
            found = _of_windows(node.stage, lowest[0])
        case Add():
            found = sum(lowest)
        case Multiply() | Gate():  # of what may be less than zero more is not known
            found = lowest[0] * lowest[1] if min(lowest) >= 0 else _LESS
        case _:
            found = _LESS
    return found


def _has_constants(stage: Arrange) -> bool:
    return bool((np.frombuffer(stage.places, np.int32)[::2] < 0).any())


def _of_windows(stage: Windows, least: float) -> float:
    """Return the least of sums and maxima; a sum of several positive numbers is at least one of these."""
    if stage.pick is not Pick.SUM:
        return least
    weights = np.frombuffer(stage.weights)
    there = np.frombuffer(stage.places, np.int32) >= 0
    if least < 0 or bool((weights[there] <= 0).any()):
        return _LESS
    return least * float(weights[there].min())


def _after(stage: Activation, least: float) -> float:
    """Return the least result of an activation, given that of its argument."""
    match stage.curve:
        case Curve.CLAMP | Curve.HARDTANH:
            found = max(stage.a, min(least, stage.b))
        case Curve.RELU6:
            found = max(0.0, min(least, 6.0))
        case Curve.AFFINE:
            found = stage.a * least + stage.b if stage.a > 0 else _LESS
        case Curve.EXPONENTIAL | Curve.SOFTPLUS | Curve.SIGMOID:
            found = _MORE
        case Curve.SQUARE | Curve.ABSOLUTE | Curve.HARDSIGMOID:
            found = 0.0
        case Curve.ROOT:
            found = float(max(0.0, least) ** 0.5)
        case _:
            found = _LESS
    return found
