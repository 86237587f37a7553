"""docs/scale.md and its figure show what was measured, and the simulation measures what it says."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import scale_figure, scale_table
from tests.benchmarks.measure import RESULTS
from tests.benchmarks.simulated import HandedOut, _summary, simulate


def measured():
    return json.loads((RESULTS / "scale.json").read_text())["sections"]


def test_the_pages_table_is_the_one_of_the_results():
    page = scale_table.PAGE.read_text()
    assert scale_table.inserted(page, measured()) == page


def test_the_table_names_each_size_with_its_own_numbers():
    sections = measured()
    figures = sections["bookkeeping"]["figures"]
    text = scale_table.table(sections)
    for size in (400, 2500, 10_000):
        assert f"{figures[f'{size} trials: processor time a trial']['median']:.3g} ms" in text
    changed = json.loads(json.dumps(sections))
    changed["stages"]["figures"]["report"]["median"] += 1
    assert scale_table.table(changed) != text


def test_the_figure_has_a_point_for_each_size_and_a_bar_for_each_step():
    sections = measured()
    left, right = scale_figure.draw(sections).axes
    figures = sections["bookkeeping"]["figures"]
    medians = [figures[f"{size} trials: processor time a trial"]["median"] for size in (400, 2500, 10_000)]
    assert list(left.lines[0].get_ydata()) == medians
    there = [sections[name]["figures"] for name in ("stages", "large") if name in sections]
    seconds = [found[step]["median"] for found in there for step in scale_figure.STEPS if step in found]
    assert [bar.get_width() for bar in right.patches] == seconds


def test_the_busy_share_is_that_of_the_time_in_which_all_workers_could_train():
    packs = [
        HandedOut(0.0, 10.0, 8),
        HandedOut(1.0, 10.0, 8),
        HandedOut(12.0, 8.0, 8),
        HandedOut(21.0, 1.0, 1),
    ]
    found = _summary(packs, 2, 8, work=2.5)
    assert found.trials == 25
    assert found.first == 1.0
    assert found.busy == (9.0 + 10.0 + 8.0) / (2 * 20.0)
    assert found.whole == 29.0 / (2 * 22.0)
    assert found.rate == pytest.approx(27.0 / 20.0 * 25 / 29.0)
    assert found.work == 0.1


def test_simulated_workers_train_every_trial_in_the_time_that_they_draw():
    found = simulate(workers=4, lanes=2, seconds=10.0, packs=3)
    assert found.trials == 24
    assert 0.9 < found.busy <= 1.0
    assert found.whole <= 1.0
