"""The loss that a recipe trains on, for one lane: cross-entropy or focal loss, with class weights and label smoothing.

Stands between the logits of a step and the backward pass.  `lanes.runtime.losses` computes the same for all lanes of a
pack.  What is reported of the validation images is always the plain cross-entropy (`training.metrics.Evaluation`), so
that trials with other losses can be compared.

Shapes: B batch, Y classes, N images of the training split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.errors import UsageError

if TYPE_CHECKING:
    from typing import Self

    from gridsearch.records import ImageSettings
    from gridsearch.training.resident_data import ResidentData


@dataclass(frozen=True, slots=True, eq=False)
class LossRecipe:
    """How a lane's loss is computed.

    Attributes:
        smoothing: label smoothing.
        gamma: the focal loss's exponent; 0 for cross-entropy.
        weights: of each class, [Y], float64 on the CPU unless `on` has moved them; None where all count alike.
    """

    smoothing: float = 0.0
    gamma: float = 0.0
    weights: torch.Tensor | None = None

    @classmethod
    def of(cls, settings: ImageSettings, data: ResidentData) -> Self:
        """Return the loss of a trial's recipe on its data.

        Raises:
            UsageError: see `class_weights`.
        """
        return cls(
            settings.label_smoothing,
            settings.focal_gamma if settings.loss == "focal" else 0.0,
            class_weights(data) if settings.class_weight == "balanced" else None,
        )

    def on(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Return the same with weights of this type, where the logits are."""
        return self if self.weights is None else replace(self, weights=self.weights.to(device, dtype))

    def __call__(self, logits_BY: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar, for autograd."""
        weights = self.weights
        if not self.gamma:
            return F.cross_entropy(logits_BY, labels_B, weight=weights, label_smoothing=self.smoothing)
        return focal_loss(logits_BY, labels_B, gamma=self.gamma, weights_Y=weights, smoothing=self.smoothing)


def focal_loss(
    logits_BY: torch.Tensor,
    labels_B: torch.Tensor,
    *,
    gamma: float,
    weights_Y: torch.Tensor | None = None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the mean focal loss of a batch.

    Each class's share of the target is taken times (1 - p)^gamma times -log p, p the softmax probability of that class
    (Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5, for one class; class weights are its alpha).
    The mean is that of `torch.nn.functional.cross_entropy`: over the weights of the images' classes.  A gamma of 0
    gives that function's result.

    Args:
        logits_BY: of the network.
        labels_B: int64.
        gamma: above 0.
        weights_Y: of each class.
        smoothing: of labels; the share of each class in the target is then not 0 or 1.
    """
    logp_BY = F.log_softmax(logits_BY, 1)
    own_B = _modulated(logp_BY.gather(1, labels_B.unsqueeze(1)).squeeze(1), gamma)
    weights_B = None if weights_Y is None else weights_Y[labels_B]
    loss = (own_B if weights_B is None else own_B * weights_B).sum()
    if smoothing:
        all_BY = _modulated(logp_BY, gamma)
        weighted_BY = all_BY if weights_Y is None else all_BY * weights_Y
        loss = (1 - smoothing) * loss + smoothing / logits_BY.shape[1] * weighted_BY.sum()
    return loss / (len(labels_B) if weights_B is None else weights_B.sum())


def _modulated(logp: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return -(1 - p)^gamma log p; where p is 1 in this precision, it and its gradient are 0."""
    missing = (-torch.expm1(logp)).clamp_min(torch.finfo(logp.dtype).tiny)
    return -(missing**gamma) * logp


def class_weights(data: ResidentData) -> torch.Tensor:
    """Return the weights [Y] that make classes count alike: N / (Y * images of the class) of the training split.

    They are scikit-learn's `compute_class_weight("balanced", ...)`.

    Raises:
        UsageError: a class has no image.
    """
    counts_Y = data.class_counts()
    if (missing := (counts_Y == 0).nonzero().flatten().tolist()) != []:
        raise UsageError(
            f"class_weight=balanced: no image of class {missing[0]} (counted from 0) is trained on",
            hint="leave class_weight out, or give each class an image",
        )
    return counts_Y.sum() / (len(counts_Y) * counts_Y.double())
