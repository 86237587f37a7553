"""All operations that a plan can be made of, from the families of them.

Stands between the families, each with its C sources, and a step plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.training.kernels import batch_inner, small_ops
import os
PREFER=os.environ.get("PREFER","1")=="1"

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gridsearch.training.kernels.op import Op
    from gridsearch.training.kernels.stages import Shape, Stage


def cover(stages: Sequence[Stage], shape: Shape, dtype: torch.dtype) -> tuple[Op, int] | None:
    """Return the operation for the stages that come next, and how many it covers; None where there is none.

    Args:
        stages: those to come, each the only reader of the one before.
        shape: of one image that comes in.
        dtype: of the weights.
    """
    # a pooled convolution computes gradients at its maxima alone, but needs many channels to fill its vectors
    for family in (batch_inner, small_ops) if PREFER else (small_ops, batch_inner):
        found = family.cover(stages, shape, dtype)
        if found is not None:
            return found
    return None
