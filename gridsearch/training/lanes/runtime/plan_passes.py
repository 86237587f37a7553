"""A step plan's passes in the form of a network's, to be held against the models before anything trains.

Stands between the plan, which takes one lane after the other, and `lanes/compile/agreement.py`, which compares ways of
computing all lanes.

Shapes: K lanes, P elements of a lane's trained parameters, B batch, Y classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gridsearch.training.lanes.compile.lane_values import Form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.training.lanes.runtime.planned_steps import PlannedSteps
    from gridsearch.training.lanes.runtime.storage import Storage


class PlanNetwork:
    """A plan's passes in the form of a network's, to be held against the models; see `network.Network`.

    Args:
        planned: the steps.
        storage: the lanes' weights.
        has_dropout: some of its operations draw masks.
    """

    def __init__(self, planned: PlannedSteps, storage: Storage, *, has_dropout: bool) -> None:
        self._planned, self._storage = planned, storage
        self.has_dropout = has_dropout
        self.dropout = _Generators()

    def __call__(self, x: torch.Tensor, form: Form, *, training: bool) -> torch.Tensor:
        """Return logits [K, B, Y] of images in a form, shared or packed."""
        return torch.stack(
            [self._planned.forward(k, own, training=training, seed=s) for k, (own, s) in self._lanes(x, form)]
        )

    def forward_pass(self, x: torch.Tensor, form: Form) -> PlanPass:
        """Return the logits in training mode, with the pass that computes the gradients from theirs."""
        start = [t.clone() for t in self._storage.untrained()]
        logits = self(x, form, training=True)
        return PlanPass(self._planned, self._storage, list(self._lanes(x, form)), logits, start)

    def _lanes(self, x: torch.Tensor, form: Form) -> Sequence[tuple[int, tuple[torch.Tensor, int]]]:
        lanes = self._storage.lanes
        images = [x] * lanes if form is Form.SHARED else x.view(len(x), lanes, -1, *x.shape[2:]).unbind(1)
        given = [g.initial_seed() for g in self.dropout.generators] or [0] * lanes
        return list(enumerate(zip(images, given, strict=True)))


class _Generators:
    """Where the lanes' masks come from: a plan takes their seeds."""

    def __init__(self) -> None:
        self.generators: list[torch.Generator] = []


class PlanPass:
    """A forward pass of all lanes by a plan, and the backward pass from it.

    Args:
        planned: the steps.
        storage: the lanes' weights.
        lanes: each lane's number, images and seed.
        logits: that were found.
        start: what is not trained, as it was before.
    """

    def __init__(
        self,
        planned: PlannedSteps,
        storage: Storage,
        lanes: Sequence[tuple[int, tuple[torch.Tensor, int]]],
        logits: torch.Tensor,
        start: Sequence[torch.Tensor],
    ) -> None:
        self._planned, self._storage, self._lanes_of, self.logits = planned, storage, lanes, logits
        self._start = start

    def gradients(self, gradient_KBY: torch.Tensor, out_KP: torch.Tensor) -> None:
        """Write the gradients of all trained parameters; running statistics stay as the forward pass left them."""
        untrained = self._storage.untrained()
        after = [t.clone() for t in untrained]
        _copy(self._start, untrained)  # weights may be computed from buffers that a forward pass moves
        for k, (images, seed) in self._lanes_of:  # all lanes have one arena: each goes forward once more
            self._planned.forward(k, images, training=True, seed=seed)
            out_KP[k].copy_(self._planned.backward(gradient_KBY[k]))
        _copy(after, untrained)


def _copy(tensors: Sequence[torch.Tensor], to: Sequence[torch.Tensor]) -> None:
    for tensor, own in zip(tensors, to, strict=True):
        own.copy_(tensor)
