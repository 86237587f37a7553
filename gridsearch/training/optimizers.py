"""The optimizer of one lane: torch's own, in the implementation that measured fastest.

Milliseconds per step over LeNet's ten tensors, one thread: Adam .41 as a loop, .29 foreach, .12 fused; SGD
with momentum .12, .11, .03; NAdam .49, .36 and RMSprop .27, .20, which have no fused form.  Each is
deterministic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import Settings

OPTIMIZERS = ("sgd", "adam", "adamw", "nadam", "rmsprop")


def optimizer_of(settings: Settings, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over these parameters; the rest is as torch has it.

    `weight_decay` is decoupled from the gradient in adamw alone; elsewhere it is an L2 term of the gradient.
    `momentum` and `nesterov` are sgd's.
    """
    fused = _can_fuse(parameters)
    foreach = None if fused else True
    lr, decay = settings.lr, settings.weight_decay
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(
                parameters,
                lr=lr,
                momentum=settings.momentum,
                nesterov=settings.nesterov and settings.momentum > 0,
                weight_decay=decay,
                fused=fused,
                foreach=foreach,
            )
        case "adam":
            return torch.optim.Adam(parameters, lr=lr, weight_decay=decay, fused=fused, foreach=foreach)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=fused, foreach=foreach)
        case "nadam":
            return torch.optim.NAdam(parameters, lr=lr, weight_decay=decay, foreach=True)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=lr, weight_decay=decay, foreach=True)
    raise AssertionError(settings.optimizer)


def _can_fuse(parameters: Sequence[torch.nn.Parameter]) -> bool:
    """Fused kernels take dense floating tensors on the CPU, CUDA and MPS; a user's model may hold others."""
    return all(
        p.is_floating_point() and p.layout == torch.strided and p.device.type in ("cpu", "cuda", "mps")
        for p in parameters
    )
