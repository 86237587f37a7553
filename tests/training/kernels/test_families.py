"""Which of two compiled forms a pooled convolution gets, held against the times that both were measured to take."""

from __future__ import annotations

import json
import statistics

from tests.benchmarks import families
from tests.benchmarks.measure import RESULTS


def test_the_choice_between_two_forms_costs_little_where_both_were_measured():
    rows = json.loads((RESULTS / "families.json").read_text())["figures"]
    lost = []
    for shape in families.SHAPES:
        for images in families.IMAGES:
            row = rows[families.title(shape, images)]
            times = {
                form: row[f"{form}, forward"] + row[f"{form}, backward"]
                for form in ("pooled", "images innermost")
            }
            lost.append(times[families.chosen(shape, images)] / min(times.values()) - 1)
    assert statistics.fmean(lost) < 0.02
    assert max(lost) < 0.2
