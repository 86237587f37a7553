"""Operations that have no stacked layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gridsearch.training.lanes.runtime.mapped import Mapped, padded_embedding
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


@pytest.mark.parametrize("scale_grad_by_freq", [False, True])
def test_the_padding_of_an_embedding_has_no_gradient_in_any_lane(scale_grad_by_freq):
    tables = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[1, 1, 4, 0], [0, 1, 3, 3], [1, 2, 2, 2]])
    how = {"padding_idx": -4, "scale_grad_by_freq": scale_grad_by_freq}
    given = torch.randn(3, 4, 2, dtype=torch.float64)
    mapped = Mapped(lambda own, table: padded_embedding(own, table, **how), (0, 0))
    (found,) = torch.autograd.grad((mapped(index, tables) * given).sum(), tables)
    for lane in range(3):
        rows = torch.nn.functional.embedding(index[lane], tables[lane], **how)
        (own,) = torch.autograd.grad((rows * given[lane]).sum(), tables)
        torch.testing.assert_close(found[lane], own[lane])


class Quantized(nn.Module):
    """Chooses rows of a table by what it computes, one of which is padding."""

    def __init__(self):
        super().__init__()
        self.into, self.table, self.head = (
            nn.Linear(64, 8),
            nn.Embedding(6, 8, padding_idx=2),
            nn.Linear(8, 3),
        )
        nn.init.normal_(self.table.weight)

    def forward(self, x):
        chosen = (x.flatten(1)[:, :8] * 100).long() % 6
        return self.head(self.into(x.flatten(1)) * self.table(chosen).mean(1))


def test_an_embedding_with_padding_of_what_images_choose_is_stacked(make_settings, make_images):
    assert hold(Quantized, make_settings, make_images(18)) == "stacked"


class Uneven(Quantized):
    """As a whole by `vmap`, since it asks how many images there are; no image chooses the padding."""

    def __init__(self, *, padding):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(6, 8))
        self.padding = padding

    def forward(self, x):
        h = self.into(x.flatten(1))
        if len(x) > 5:
            h = h * 2
        chosen = (x.flatten(1)[:, :8] * 100).long() % 5
        return self.head(h * nn.functional.embedding(chosen, self.rows, padding_idx=self.padding).mean(1))


@pytest.mark.parametrize(("padding", "method"), [(None, "vmap"), (5, "solo")])
def test_a_model_that_embeds_with_padding_is_not_vectorized_as_a_whole(
    make_settings, make_images, padding, method
):
    assert hold(lambda: Uneven(padding=padding), make_settings, make_images(18)) == method
