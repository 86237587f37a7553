"""Operations that have no stacked layer."""

from __future__ import annotations

import torch
from torch import nn

from gridsearch.training.lanes.runtime.mapped import Mapped
from tests.training.lanes.test_real_networks import hold


def test_what_a_vectorized_call_changed_before_it_failed_is_undone():
    def counts(counter, x):
        counter.add_(1)
        return x / float(counter)  # which vmap cannot say

    counters, x = torch.tensor([0.0, 3.0]), torch.ones(2, 5, dtype=torch.float64)
    mapped = Mapped(counts, (0, 0))
    assert mapped(counters, x)[:, 0].tolist() == [1, 1 / 4]
    assert mapped(counters, x)[:, 0].tolist() == [1 / 2, 1 / 5]
    assert counters.tolist() == [2, 5]


def test_a_batch_norm_with_a_cumulative_average_counts_each_batch_once(make_settings, make_images):
    def make():
        layers = nn.BatchNorm2d(4, momentum=None), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
        return nn.Sequential(nn.Conv2d(1, 4, 3), *layers)

    assert hold(make, make_settings, make_images(18)) == "stacked"
