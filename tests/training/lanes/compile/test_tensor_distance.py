"""Tensors are compared piece by piece as they would be at once."""

from __future__ import annotations

import math

import pytest
import torch

from gridsearch.training.lanes.compile import tensor_distance
from gridsearch.training.lanes.compile.tensor_distance import distance, is_close, largest, rms

SIZE = 2 * tensor_distance._PIECE + 7


def pair(at: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two tensors that differ at one place, and have NaN at another."""
    theirs = torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    theirs[5] = math.nan
    ours = theirs.clone()
    ours[at] += 50
    return ours, theirs


@pytest.mark.parametrize("at", [0, tensor_distance._PIECE, SIZE - 1])
def test_a_difference_counts_wherever_it_is(at):
    ours, theirs = pair(at)
    assert distance(ours, theirs) == pytest.approx(50 / math.sqrt(SIZE))
    assert largest(ours) == float(ours[at].abs())
    plain = ours.double().nan_to_num()
    assert rms(ours) == pytest.approx(float(plain.square().mean().sqrt()))
    assert not is_close(ours, theirs, rtol=0.01, atol=0.01)
    assert is_close(theirs, theirs.clone(), rtol=0.0, atol=0.0), "NaN at the same places"


def test_what_is_compared_stays_as_it_is_and_its_order_in_memory_does_not_count():
    values = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    values[0, 0, 0, 0] = math.nan
    before, other = values.clone(), values.contiguous(memory_format=torch.channels_last)
    assert distance(values, other) == 0.0
    assert rms(values) == rms(other) > 0
    assert torch.equal(values.nan_to_num(9), before.nan_to_num(9))


def test_tensors_of_other_shapes_are_no_pair():
    with pytest.raises(ValueError, match="shapes"):
        distance(torch.ones(2, 3), torch.ones(3, 2))
    assert largest(torch.ones(0)) == rms(torch.ones(0)) == 0.0
    assert is_close(torch.tensor([3]), torch.tensor([3]), rtol=0.0, atol=0.0), "counters are whole numbers"
