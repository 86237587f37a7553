"""In single precision a pack's results are those of lone runs but for rounding, on real images."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest

from tests.benchmarks import drift
from tests.benchmarks.measure import multiplies_bf16


@pytest.mark.fashion
@pytest.mark.thorough
def test_packs_move_validation_accuracy_neither_up_nor_down_and_no_farther_than_a_memory_layout_does(
    fashion_cache,
):
    found = drift.compare(Path(fashion_cache) / "data", trials=32)
    assert min(found.alone) > 0.5, "every trial has learned"
    assert found.packed != found.alone, "the two ways round differently, else there is nothing to compare"
    assert abs(found.mean) <= 0.3
    assert found.ratio <= 1.5


@pytest.mark.fashion
@pytest.mark.thorough
@pytest.mark.skipif(not multiplies_bf16(), reason="no instructions for bfloat16, and minutes without")
def test_bfloat16_moves_validation_accuracy_neither_up_nor_down(fashion_cache):
    found = drift.compare_dtypes(Path(fashion_cache) / "data", "lenet", trials=16)
    assert any(found), "the two round differently, else there is nothing to compare"
    # the benchmark holds the mean of more trials to 0.2 points; these are as far off as their number makes them
    assert abs(statistics.fmean(found)) <= 0.2 + 2 * statistics.stdev(found) / math.sqrt(len(found))


def test_the_trials_that_are_compared_are_each_another_one():
    packs = drift.packs_of(64)
    assert [len(pack) for pack in packs] == [8] * 8
    assert len({(settings.lr, seed) for pack in packs for settings, seed in pack}) == 64
    assert [len({seed for _, seed in pack}) for pack in packs] == [1] * 4 + [8] * 4


def test_the_figures_are_signed_means_and_ratios_of_spreads():
    found = drift.Drift(packed=[0.52, 0.50, 0.54], alone=[0.50, 0.50, 0.50], other=[0.51, 0.50, 0.49])
    assert found.mean == pytest.approx(2.0)
    assert found.ratio == pytest.approx(2.0)
