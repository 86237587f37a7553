"""The formula for minimal filtering, held against the times that both forms were measured to take."""

from __future__ import annotations

import json

import pytest

from gridsearch.training.kernels import filtered_passes
from gridsearch.training.kernels.minimal_filtering import PASSES
from tests.benchmarks import filtering
from tests.benchmarks.measure import RESULTS


@pytest.mark.parametrize(
    ("name", "numbers"), [("filtering", 16), ("filtering-avx2", 8), ("filtering-bfloat16", 16)]
)
def test_the_formula_never_chooses_the_slower_form_where_it_is_sure(name, numbers):
    bf16 = name.endswith("bfloat16")
    rows = json.loads((RESULTS / f"{name}.json").read_text())["figures"]
    sure = wrong = 0
    for title, conv, shape, images in filtering.cases():
        for which in PASSES:
            by_taps, filtered = filtered_passes.costs(which, conv, shape, images, numbers, bf16=bf16)
            if max(by_taps, filtered) > filtered_passes._SURE[which] * min(by_taps, filtered):
                sure += 1
                times = rows[title][which]
                gain = times[filtered_passes.BY_TAPS] / times[filtered_passes.FILTERED]
                wrong += gain < 0.95 if filtered < by_taps else gain > 1.05
    assert sure > len(PASSES) * len(rows) / 2
    assert not wrong
