"""What a plain loop does of a recipe beside the optimizer, by torch's own functions and classes: for the oracles."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.utils.data import WeightedRandomSampler


class Objective:
    """The order of an epoch, the loss of batches and the clipping of gradients, as one would write them.

    Args:
        settings: the recipe.
        labels: of the images that are trained on.
    """

    def __init__(self, settings, labels):
        self.settings, self.labels = settings, labels
        counts = np.bincount(labels)
        self.weights = None
        if settings.class_weight == "balanced":
            self.weights = torch.tensor(len(labels) / (len(counts) * counts))

    def order(self, generator):
        """Return which of the labels an epoch takes, one after the other."""
        if self.settings.sampling == "none":
            return torch.randperm(len(self.labels), generator=generator)
        weights = 1 / np.bincount(self.labels)[self.labels]
        return torch.tensor(list(WeightedRandomSampler(weights, len(self.labels), generator=generator)))

    def loss(self, logits, labels):
        s = self.settings
        if s.loss == "cross_entropy":
            return F.cross_entropy(logits, labels, weight=self.weights, label_smoothing=s.label_smoothing)
        classes = logits.shape[1]
        targets = F.one_hot(labels, classes).double() * (1 - s.label_smoothing) + s.label_smoothing / classes
        weights = torch.ones(classes, dtype=torch.float64) if self.weights is None else self.weights
        p = logits.softmax(1)
        return (targets * weights * -((1 - p) ** s.focal_gamma) * p.log()).sum() / weights[labels].sum()

    def clip(self, model):
        if self.settings.clip_value is not None:
            nn.utils.clip_grad_value_(model.parameters(), self.settings.clip_value)
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), self.settings.clip_norm)
