"""Each lane's loss of a step and its gradient with respect to the logits, each by the lane's own recipe.

Stands between the logits of all lanes and the network's backward pass.  Lanes may differ in all of it: cross-entropy is
a focal loss whose exponent is 0, and classes without weights have weights of 1.

Shapes: K lanes, L one column for all lanes or K, B batch, Y classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels import CrossEntropy, LaneLosses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.training.lane_loss import LossRecipe


class PackLosses:
    """Losses of K lanes.

    Args:
        lanes: K.
        classes: Y.
        dtype: of the logits.
        device: the lanes'.
        compiles: a compiled kernel may do it, which recorded steps cannot run.

    Attributes:
        form: whether any lane smooths its labels, whether any weighs its classes, and whether any has a focal loss:
            steps skip what none has, and with another form they are another program.
    """

    def __init__(
        self, lanes: int, classes: int, dtype: torch.dtype, device: torch.device, *, compiles: bool = False
    ) -> None:
        self.form = False, False, False
        self._kernel = CrossEntropy.build(dtype) if compiles and device.type == "cpu" else None
        self._dtype = dtype
        self._smoothing_K1 = torch.zeros(lanes, 1, dtype=dtype, device=device)
        self._gamma_K11 = torch.zeros(lanes, 1, 1, dtype=dtype, device=device)
        self._weights_KY = torch.ones(lanes, classes, dtype=dtype, device=device)
        self._recipes = LaneLosses((), dtype)

    def set_recipes(self, recipes: Sequence[LossRecipe]) -> None:
        """Set how the lanes' losses are computed, in the same buffers."""
        self.form = (
            any(r.smoothing for r in recipes),
            any(r.weights is not None for r in recipes),
            any(r.gamma for r in recipes),
        )
        if self._kernel is not None:
            self._recipes = LaneLosses(recipes, self._dtype)
            return
        self._smoothing_K1.copy_(torch.tensor([[r.smoothing] for r in recipes], dtype=torch.float64))
        self._gamma_K11.copy_(torch.tensor([[[r.gamma]] for r in recipes], dtype=torch.float64))
        for own_Y, recipe in zip(self._weights_KY, recipes, strict=True):
            own_Y.fill_(1.0) if recipe.weights is None else own_Y.copy_(recipe.weights)

    def __call__(
        self, logits_KBY: torch.Tensor, labels_LB: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each lane's mean loss [K] and its gradient with respect to the logits [K, B, Y].

        That is softmax - target, or little more: cheaper to compute than by autograd.
        """
        if self._kernel is not None:
            return self._kernel(logits_KBY, labels_LB, self._recipes)
        lanes, count, _ = logits_KBY.shape
        labels_KB1 = labels_LB.expand(lanes, count).unsqueeze(2)
        logp_KBY = F.log_softmax(logits_KBY, 2)
        smooths, weighs, focal = self.form
        if weighs or focal:
            return self._weighted(logp_KBY, labels_KB1)
        losses_K = logp_KBY.gather(2, labels_KB1).sum((1, 2)).neg_()
        gradient_KBY = logp_KBY.exp()
        if not smooths:
            gradient_KBY.scatter_add_(2, labels_KB1, gradient_KBY.new_full((), -1.0).expand(labels_KB1.shape))
        else:
            rest_K1 = self._smoothing_K1 / logits_KBY.shape[2]
            smooth_K = logp_KBY.sum((1, 2)).neg_() * rest_K1.squeeze(1)
            own_K = self._smoothing_K1.squeeze(1)
            losses_K = torch.where(own_K > 0, (1 - own_K) * losses_K + smooth_K, losses_K)
            gradient_KBY.sub_(rest_K1.unsqueeze(2))
            gradient_KBY.scatter_add_(
                2, labels_KB1, (self._smoothing_K1 - 1).unsqueeze(2).expand(labels_KB1.shape)
            )
        return losses_K.div_(count), gradient_KBY.div_(count)

    def _weighted(
        self, logp_KBY: torch.Tensor, labels_KB1: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what a call does, where classes have weights or losses are focal; see `lane_loss.focal_loss`."""
        smoothing_K11 = self._smoothing_K1.unsqueeze(2)
        shares_KBY = (smoothing_K11 / logp_KBY.shape[2]).expand(logp_KBY.shape).clone()
        shares_KBY.scatter_add_(2, labels_KB1, (1 - smoothing_K11).expand(labels_KB1.shape))
        weights_K1Y = self._weights_KY.unsqueeze(1)
        total_K11 = weights_K1Y.expand(logp_KBY.shape).gather(2, labels_KB1).sum(1, keepdim=True)
        shares_KBY.mul_(weights_K1Y).div_(total_K11)
        without_KBY = shares_KBY == 0  # an infinite loss of another class must not count
        p_KBY = logp_KBY.exp()
        terms_KBY, derivatives_KBY = -logp_KBY, -shares_KBY
        if self.form[2]:
            missing_KBY = torch.expm1(logp_KBY).neg_().clamp_min_(torch.finfo(logp_KBY.dtype).tiny)
            factors_KBY = missing_KBY**self._gamma_K11
            terms_KBY = terms_KBY * factors_KBY
            pulls_KBY = (self._gamma_K11 * p_KBY * logp_KBY).div_(missing_KBY).sub_(1)
            derivatives_KBY = shares_KBY * factors_KBY * pulls_KBY
        losses_K = (shares_KBY * terms_KBY).masked_fill_(without_KBY, 0.0).sum((1, 2))
        derivatives_KBY = derivatives_KBY.masked_fill(without_KBY, 0.0)
        return losses_K, derivatives_KBY - p_KBY * derivatives_KBY.sum(2, keepdim=True)

    def mixed(
        self,
        logits_KBY: torch.Tensor,
        labels_LB: torch.Tensor,
        others_LB: torch.Tensor,
        shares_L: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return losses and gradients of mixed images: the same mixture of both labels'.

        Args:
            logits_KBY: of the network.
            labels_LB: of the images.
            others_LB: of those that are mixed in.
            shares_L: of the images' own labels.
        """
        own_K, own_KBY = self(logits_KBY, labels_LB)
        other_K, other_KBY = self(logits_KBY, others_LB)
        shares_K = shares_L.expand(len(logits_KBY))
        return torch.lerp(other_K, own_K, shares_K), torch.lerp(other_KBY, own_KBY, shares_K.view(-1, 1, 1))
