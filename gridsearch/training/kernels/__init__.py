"""Operations that torch does not have as one, compiled for the shapes at hand by the machine's own C compiler.

Stands under the stacked layers.  Without a compiler all is computed by torch, to the same results up to rounding.
"""

from __future__ import annotations

from gridsearch.training.kernels.choices import kept_choices
from gridsearch.training.kernels.compiler import (
    compilation_told,
    damaged_kernels,
    describe,
    find_compiler,
)
from gridsearch.training.kernels.dense import DenseLayers, DenseShape
from gridsearch.training.kernels.loss import CrossEntropy, LaneLosses
from gridsearch.training.kernels.pooled import PooledConvolution, PooledShape, can_compile
from gridsearch.training.kernels.step import OptimizerStep

__all__ = [
    "CrossEntropy",
    "DenseLayers",
    "DenseShape",
    "LaneLosses",
    "OptimizerStep",
    "PooledConvolution",
    "PooledShape",
    "can_compile",
    "compilation_told",
    "damaged_kernels",
    "describe",
    "find_compiler",
    "kept_choices",
]
