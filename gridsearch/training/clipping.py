"""Clipping of gradients before the optimizer's step: the recipe's `clip_value` and `clip_norm`.

Stands between the backward pass and the optimizer, for one lane and for those of a pack.  A lane with both keys has
each number clipped first, then the norm of what is left.  Where an optimizer's step is compiled, it clips itself, see
optimizer_step.c.

Shapes: K lanes, P elements of a lane's trained parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gridsearch.training.model_outputs import ModelRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gridsearch.records import ImageSettings

_EPS = 1e-6  # of torch.nn.utils.clip_grad_norm_


def clip_gradients(parameters: Iterable[torch.Tensor], settings: ImageSettings) -> None:
    """Clip a lane's gradients in place as its recipe says."""
    given = list(parameters)
    for name in ("clip_value", "clip_norm"):
        if settings.get(name) is not None:
            refuse_sparse(given, f"{name} does not take")
    if settings.clip_value is not None:
        torch.nn.utils.clip_grad_value_(given, settings.clip_value)
    if settings.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(given, settings.clip_norm)


def refuse_sparse(parameters: Iterable[torch.Tensor], why: str) -> None:
    """Raise ModelRefused if a gradient is sparse; torch says of it that a backend lacks some operator.

    Args:
        parameters: those whose gradients are read.
        why: who cannot read it, as in "clip_norm does not take".
    """
    if any(p.grad is not None and p.grad.layout != torch.strided for p in parameters):
        raise ModelRefused(f"a gradient is sparse, which {why}: leave sparse=True out of the model")


class PackClipping:
    """Clips the gradients of K lanes, each as its own recipe says; the others' stay as they are, to the bit.

    Args:
        lanes: K.
        dtype: of the gradients.
        device: the lanes'.
    """

    def __init__(self, lanes: int, dtype: torch.dtype, device: torch.device) -> None:
        self._values_K1 = torch.empty(lanes, 1, dtype=dtype, device=device)
        self._norms_K1 = torch.empty_like(self._values_K1)
        self.form = False, False

    def set(self, settings: Sequence[ImageSettings]) -> None:
        """Take the lanes' recipes, into the same buffers.

        `form` then says whether any lane clips numbers, and whether any clips norms: with another form a step does
        something else.
        """
        values, norms = [s.clip_value for s in settings], [s.clip_norm for s in settings]
        self.form = any(v is not None for v in values), any(n is not None for n in norms)
        for buffer, limits in ((self._values_K1, values), (self._norms_K1, norms)):
            numbers = [float("inf") if limit is None else limit for limit in limits]
            buffer.copy_(torch.tensor(numbers, dtype=torch.float64).view(-1, 1))

    def __call__(self, gradient_KP: torch.Tensor) -> None:
        """Clip in place."""
        values, norms = self.form
        if values:
            torch.minimum(gradient_KP, self._values_K1, out=gradient_KP)
            torch.maximum(gradient_KP, -self._values_K1, out=gradient_KP)
        if norms:
            limits_K1 = self._norms_K1
            factors_K1 = limits_K1 / (torch.linalg.vector_norm(gradient_KP, dim=1, keepdim=True) + _EPS)
            # a lane that is not clipped keeps a gradient whose norm is too large for a number
            gradient_KP.mul_(factors_K1.clamp_(max=1.0).masked_fill_(limits_K1.isinf(), 1.0))
