"""The README's picture shows what was measured: bars as long as their seconds, no word over another."""

from __future__ import annotations

import itertools
import json
import struct

import pytest
from matplotlib.text import Text

from tests.benchmarks import figure

SECONDS = {"script": 340.0, "resident": 100.5, "gridsearch-no-report": 45.0, "gridsearch": 50.0}
WHAT = {
    "script": "DataLoader loop, one process, default threads",
    "resident": "resident plain loop, channels_last, 2 processes x 1 thread",
    "gridsearch-no-report": "gridsearch run --no-report",
    "gridsearch": "gridsearch run, with its report",
}


def spread(median, unit="s", *, part=0.1, n=3):
    return {"median": median, "least": median * (1 - part), "most": median * (1 + part), "n": n, "unit": unit}


def hardware(cpu="Made-up Processor of a Rather Long Name (R) 9999X @ 3.00GHz"):
    versions = {"torch": "2.99.0+cpu", "optuna": "9.0.0", "ray": "9.9.9"}
    return {"cpu": cpu, "cores": 2, "python": "3.99.1", "versions": versions}


def peer(name):
    return {
        "what": WHAT[name],
        "versions": {"torch": "2.99.0+cpu", "scikit-learn": "9.9.9"},
        "seconds": spread(SECONDS[name]),
        "mean validation accuracy": 0.87654,
    }


@pytest.fixture
def measured():
    """Three results, of which the steps lie as close together as labels can be asked to bear."""
    peers = {
        "work": "LeNet on Fashion-MNIST, 16 trials, Adam",
        "epochs": 3,
        "images to train on": "all of the training split",
        **{name: peer(name) for name in SECONDS},
        "script / gridsearch": spread(6.5, "x"),
        "resident / gridsearch": spread(2.01, "x"),
        "failed": {"ray": "exit code 1"},
    }
    growth = {
        "work": "LeNet on 2000 images of Fashion-MNIST, batch 10, 2 epochs",
        "workers": 2,
        "trials while lanes vary": 64,
        **{f"lanes {k}: trials per second": spread(2.0 + k / 9, "/s") for k in (1, 2, 4, 8, 16, 32)},
        "4 trials: wall": spread(4.0),
    }
    lanes = {"matrix rate, float32, one thread": spread(90.0, "GFLOP/s")}
    for i, title in enumerate(
        ["lenet, batch 10", "lenet, batch 50", "lenet_bn, batch 100", "tinyvgg, batch 32"]
    ):
        gains = {f"lanes {k}: against lanes 1": spread(1 + k / 8 + i / 50, "x", n=5) for k in (4, 8, 16)}
        lanes[title] = {"lanes 1: per trial and step": spread(2.0, "ms", n=5), **gains}
    return {
        "peers": {"hardware": hardware(), "figures": peers},
        "growth": {"hardware": hardware(), "figures": growth},
        "lanes": {"hardware": hardware("Another Processor"), "figures": lanes},
    }


def words(sheet):
    """Every text that is drawn."""
    hidden = set()
    for axes in sheet.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks()
            hidden |= {
                t for tick in ticks if not low <= tick.get_loc() <= high for t in (tick.label1, tick.label2)
            }
            hidden |= {tick.label2 for tick in ticks} | {axis.offsetText}
    texts = [text for text in sheet.findobj(Text) if text.get_text().strip() and text.get_visible()]
    return [text for text in texts if text not in hidden]


def boxes(sheet):
    sheet.draw_without_rendering()
    return [(text.get_text(), text.get_window_extent()) for text in words(sheet)]


def overlapping(sheet):
    return [(a, b) for (a, one), (b, other) in itertools.combinations(boxes(sheet), 2) if one.overlaps(other)]


def texts(sheet):
    return "\n".join(text.get_text() for text in words(sheet))


def test_bars_are_as_long_as_their_seconds_and_whiskers_go_from_the_least_to_the_most(measured):
    axes = figure.draw(measured).axes[0]
    assert [bar.get_width() for bar in axes.patches] == sorted(SECONDS.values(), reverse=True)
    whiskers = [segment[:, 0].tolist() for c in axes.collections for segment in c.get_segments()]
    assert whiskers == [pytest.approx([0.9 * s, 1.1 * s]) for s in sorted(SECONDS.values(), reverse=True)]
    assert axes.get_xlim()[1] > 1.1 * max(SECONDS.values())


def test_beside_a_bar_stand_its_seconds_its_factor_and_its_accuracy(measured):
    axes = figure.draw(measured).axes[0]
    rows = {}
    for text in axes.texts:
        if text.xycoords == ("axes fraction", "data"):
            rows.setdefault(text.xy[1], []).append(text.get_text())
    assert list(rows.values()) == [
        ["340 s", "6.50", "87.7 %"],
        ["100 s", "2.01", "87.7 %"],
        ["50.0 s", "1.00", "87.7 %"],
        ["45.0 s", "0.90", "87.7 %"],
    ]
    assert [bar.get_facecolor() for bar in axes.patches][1] != axes.patches[2].get_facecolor()


def test_lines_go_through_the_measured_medians(measured):
    _, growth, lanes = figure.draw(measured).axes
    x, y = growth.lines[0].get_data()
    assert list(x) == [1, 2, 4, 8, 16, 32]
    assert list(y) == pytest.approx([2 + k / 9 for k in x])
    x, y = lanes.lines[0].get_data()
    assert list(x) == [1, 4, 8, 16]
    assert list(y) == pytest.approx([1, 1 / 1.5, 1 / 2, 1 / 3])


@pytest.mark.parametrize("there", [("peers", "growth", "lanes"), ("peers", "lanes"), ("growth",), ("peers",)])
def test_no_word_lies_over_another_or_leaves_the_sheet_whatever_panels_are_there(measured, there):
    sheet = figure.draw({name: measured[name] for name in there})
    assert len(sheet.axes) == len(there)
    assert overlapping(sheet) == []
    for text, box in boxes(sheet):
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= sheet.bbox.x1, text
        assert box.y1 <= sheet.bbox.y1, text


def test_the_check_sees_words_that_lie_over_another(measured, monkeypatch):
    monkeypatch.setattr(figure, "apart", lambda places, room, top: places)
    assert overlapping(figure.draw(measured))


def test_the_caption_names_each_machine_the_repeats_the_versions_and_what_failed(measured):
    caption = figure.draw(measured).texts[-1].get_text().replace("\n", " ")
    for part in (
        "9999X @ 3.00GHz, 2 cores. Programs: n = 3; python 3.99.1",
        "scikit-learn 9.9.9",
        "Failed: ray.",
        "2 workers, 64 trials",
        "Another Processor, 2 cores. Time of a step: n = 5; torch 2.99.0+cpu",
    ):
        assert part in caption


def test_a_program_that_was_measured_less_often_is_said_to_be(measured):
    measured["peers"]["figures"]["script"]["seconds"]["n"] = 1
    assert "n = 1 to 3" in texts(figure.draw(measured))


def test_the_file_is_drawn_of_the_results_that_are_there_at_twice_the_pixels_of_a_page(
    measured, tmp_path, monkeypatch
):
    monkeypatch.setattr(figure, "RESULTS", tmp_path)
    assert figure.main() == 1
    (tmp_path / "peers.json").write_text(json.dumps(measured["peers"]))
    assert figure.main() == 0
    content = (tmp_path / "benchmarks.png").read_bytes()
    assert struct.unpack(">I", content[16:20]) == (1800,)
