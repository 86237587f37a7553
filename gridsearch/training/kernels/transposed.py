"""Transposed convolutions of maps as operations: the gradient of a convolution's input; see map_transposed.h.

Stands between the plan of a network's step and the machine code of `batch_inner`, whose products these are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.training.kernels.batch_inner import MapRun, MapStages, library_of
from gridsearch.training.kernels.compiled_op import calls_of

if TYPE_CHECKING:
    import torch

    from gridsearch.training.kernels.stages import Transposed


def cover(stage: Transposed, dtype: torch.dtype) -> MapStages | None:
    """Return the operation of a transposed convolution; None where nothing can be compiled.

    Args:
        stage: the stage.
        dtype: of the weights; it is also what is multiplied.
    """
    library = library_of(dtype)
    if library is None:
        return None
    run, shape = MapRun(conv=stage.conv), (stage.conv.channels, *stage.size)
    found = MapStages(run, shape, dtype, library, bf16=False, filtered=())
    found.library = calls_of(library, "transposed")
    return found
