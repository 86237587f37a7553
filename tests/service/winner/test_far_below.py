"""A test accuracy is called far below the validation's only where chance in both does not explain it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from scipy.stats import binomtest

from gridsearch.service.winner.publication import _far_below


def told(*, validated, tested, metric="val_accuracy"):
    """Return whether it is said of so many right of so many images each."""
    ends = [binomtest(*counts).proportion_ci(method="wilson") for counts in (validated, tested)]
    trial = SimpleNamespace(metrics={"val_accuracy": validated[0] / validated[1]})
    winner = SimpleNamespace(
        point=SimpleNamespace(trials=[trial], ci_low=ends[0].low), ranking=SimpleNamespace(metric=metric)
    )
    return bool(_far_below(winner, {"accuracy": tested[0] / tested[1], "ci_high": ends[1].high}))


@pytest.mark.parametrize(
    ("validated", "tested", "far"),
    [
        ((16, 17), (15, 20), False),  # Fisher's exact test: p = .19
        ((160, 170), (150, 200), True),
        ((17, 17), (5, 20), True),
        ((900, 1000), (850, 1000), False),  # beyond chance, but not far
        ((15, 20), (16, 17), False),
    ],
)
def test_a_gap_is_told_where_it_is_large_and_beyond_the_chance_in_both(validated, tested, far):
    assert told(validated=validated, tested=tested) is far


def test_an_interval_of_another_metric_says_nothing_of_the_accuracy():
    assert told(validated=(16, 17), tested=(15, 20), metric="macro_f1")
