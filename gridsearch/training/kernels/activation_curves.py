"""Activations of each number, as the stage that they all are: a curve, and up to two numbers that shape it.

Stands below `stages`, beside the other stages.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Curve(StrEnum):
    """An activation that is no (leaky) ReLU, in the order of gates.c; those from SIGN on have no gradient."""

    RELU6 = "relu6"
    HARDSIGMOID = "hardsigmoid"
    HARDSWISH = "hardswish"
    HARDTANH = "hardtanh"
    GELU = "gelu"
    GELU_TANH = "gelu by tanh"
    SILU = "silu"
    SIGMOID = "sigmoid"
    TANH = "tanh"
    ELU = "elu"
    MISH = "mish"
    AFFINE = "affine"
    CELU = "celu"
    SOFTPLUS = "softplus"
    LOG_SIGMOID = "logarithm of sigmoid"
    SOFTSIGN = "softsign"
    TANHSHRINK = "tanhshrink"
    HARDSHRINK = "hardshrink"
    SOFTSHRINK = "softshrink"
    THRESHOLD = "threshold"
    CLAMP = "clamp"
    ABSOLUTE = "absolute"
    EXPONENTIAL = "exponential"
    LOGARITHM = "logarithm"
    SQUARE = "square"
    ROOT = "root"
    RECIPROCAL = "reciprocal"
    POWER = "power"
    SINE = "sine"
    COSINE = "cosine"
    SIGN = "sign"
    ROUND = "round"
    FLOOR = "floor"
    CEILING = "ceiling"
    GREATER = "greater"
    GREATER_EQUAL = "greater or equal"
    LESS = "less"
    LESS_EQUAL = "less or equal"
    EQUAL = "equal"
    NOT_EQUAL = "not equal"
    DETACHED = "detached"


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation of each number.

    Attributes:
        curve: which.
        a: the least result of a hardtanh or a clamp; an ELU's or a CELU's factor below zero; the slope of an affine
            function; a softplus's beta; up to where a threshold or a shrinkage acts; 1 for a root without a gradient at
            0; a power's exponent, which is no whole number; what a comparison, which gives 1 or 0, compares with.
        b: the largest result; an ELU's factor of all; the level; from where on a softplus is its argument; what a
            threshold gives.
    """

    curve: Curve
    a: float = 0.0
    b: float = 0.0

    @property
    def ceiling(self) -> float:
        """What a ReLU does not exceed; 0 for any other activation."""
        if self.curve is Curve.RELU6:
            return 6.0
        return self.b if self.curve is Curve.HARDTANH and self.a == 0 else 0.0
