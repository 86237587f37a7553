"""Each lane's loss of a step and its gradient with respect to the logits, with the lane's own label smoothing.

Stands between the logits of all lanes and the network's backward pass.

Shapes: K lanes, L one column for all lanes or K, B batch, Y classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels import CrossEntropy

if TYPE_CHECKING:
    from collections.abc import Sequence


class PackLosses:
    """Cross-entropies of K lanes.

    Args:
        lanes: K.
        dtype: of the logits.
        device: the lanes'.
        compiles: a compiled kernel may do it, which recorded steps cannot run.

    Attributes:
        smooths: whether any lane smooths its labels: if none does, steps skip it.
    """

    def __init__(
        self, lanes: int, dtype: torch.dtype, device: torch.device, *, compiles: bool = False
    ) -> None:
        self.smooths = False
        self._kernel = CrossEntropy.build(dtype) if compiles and device.type == "cpu" else None
        self._smoothing_K1 = torch.zeros(lanes, 1, dtype=dtype, device=device)

    def set_smoothing(self, smoothing: Sequence[float]) -> None:
        """Set the lanes' label smoothing, in the same buffer."""
        self.smooths = any(smoothing)
        self._smoothing_K1.copy_(torch.tensor(smoothing, dtype=self._smoothing_K1.dtype).view(-1, 1))

    def __call__(
        self, logits_KBY: torch.Tensor, labels_LB: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each lane's mean cross-entropy [K] and its gradient with respect to the logits [K, B, Y].

        That is softmax - target: cheaper to compute than by autograd.
        """
        if self._kernel is not None:
            return self._kernel(logits_KBY, labels_LB, self._smoothing_K1.squeeze(1))
        lanes, count, classes = logits_KBY.shape
        labels_KB1 = labels_LB.expand(lanes, count).unsqueeze(2)
        logp_KBY = F.log_softmax(logits_KBY, 2)
        losses_K = logp_KBY.gather(2, labels_KB1).sum((1, 2)).neg_()
        gradient_KBY = logp_KBY.exp()
        if not self.smooths:
            gradient_KBY.scatter_add_(2, labels_KB1, gradient_KBY.new_full((), -1.0).expand(labels_KB1.shape))
        else:
            rest_K1 = self._smoothing_K1 / classes
            smooth_K = logp_KBY.sum((1, 2)).neg_() * rest_K1.squeeze(1)
            own_K = self._smoothing_K1.squeeze(1)
            losses_K = torch.where(own_K > 0, (1 - own_K) * losses_K + smooth_K, losses_K)
            gradient_KBY.sub_(rest_K1.unsqueeze(2))
            gradient_KBY.scatter_add_(
                2, labels_KB1, (self._smoothing_K1 - 1).unsqueeze(2).expand(labels_KB1.shape)
            )
        return losses_K.div_(count), gradient_KBY.div_(count)

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
