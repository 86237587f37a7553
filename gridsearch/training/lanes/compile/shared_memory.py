"""Parameters whose memory another tensor of the model has, too: a K-lane form gives each tensor memory of its own.

Stands below `module_state`.  A step of such a parameter moves the other tensor with it, as in an autoencoder whose
decoder has `nn.Parameter(encoder.weight.t())`.  A tensor that has two names is one.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING

from gridsearch.training.lanes.compile.in_place import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


def sharing(named: Sequence[tuple[str, torch.Tensor]]) -> str | None:
    """Return which of two tensors has the memory of the other, where one of them is trained; None if there is none."""
    held = defaultdict(list)
    for name, tensor in named:
        held[tensor.untyped_storage().data_ptr()].append((name, tensor))
    for tensors in held.values():
        for (one, a), (other, b) in itertools.combinations(tensors, 2):
            harmless = a is b or not (a.requires_grad or b.requires_grad)
            if not harmless and any(p.overlaps(q) for p in Place.of_all(a) for q in Place.of_all(b)):
                return f"{other} has the memory of {one}"
    return None
