"""Marginals, parallel coordinates and cost: whole and legible for any number of axes and points."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from matplotlib.text import Text

from gridsearch.records import TrialState
from gridsearch.records.study_kinds import FUNCTION
from gridsearch.reporting import cost_figure, heatmap_figures, marginals_figure, parallel_figure, rank
from gridsearch.reporting.figures.cost import _short, cheapest
from gridsearch.reporting.figures.panels import missing_words
from gridsearch.reporting.figures.rendering import png_bytes, svg_bytes
from gridsearch.reporting.figures.scale import value_range
from gridsearch.reporting.output.figure_data import figure_data
from gridsearch.reporting.ranking.fronts import pareto_front
from gridsearch.reporting.ranking.pareto import front_words, quantities_of

FIVE = {
    "lr": [0.1, 0.01, 0.001],
    "batch": [10, 20, 50],
    "norm": ["none", "standard"],
    "optimizer": ["sgd", "adam"],
    "model.activation": ["relu", "a rather long name of an activation", "<b>$x$</b>"],
}


def boxes(figure, texts):
    return [
        t.get_window_extent(figure.canvas.get_renderer()) for t in texts if t.get_text() and t.get_visible()
    ]


def whole(figure, texts):
    sheet = figure.bbox
    return all(
        b.x0 >= -0.5 and b.y0 >= -0.5 and b.x1 <= sheet.x1 + 0.5 and b.y1 <= sheet.y1 + 0.5
        for b in boxes(figure, texts)
    )


def apart(figure, texts):
    found = boxes(figure, texts)
    return not any(
        a.x0 < b.x1 - 0.5 and b.x0 < a.x1 - 0.5 and a.y0 < b.y1 - 0.5 and b.y0 < a.y1 - 0.5
        for a, b in itertools.combinations(found, 2)
    )


def upright(axis):
    return [t for t in axis.get_ticklabels() if t.get_rotation() == 0]


def test_marginals_have_a_panel_an_axis_lr_and_batch_first(study):
    figure = marginals_figure(study(FIVE).data())
    titles = [a.get_xlabel() for a in figure.axes if a.get_xlabel()]
    assert titles[:2] == ["lr", "batch"]
    assert sorted(titles) == sorted(FIVE)
    assert sum(len(c.get_offsets()) for c in figure.axes[0].collections) == 108


def test_names_in_marginals_are_whole_and_never_overlap(study):
    figure = marginals_figure(study(FIVE).data())
    figure.draw_without_rendering()
    for axes in figure.axes:
        if axes.axison:
            assert apart(figure, upright(axes.xaxis))
            assert whole(figure, [*axes.get_xticklabels(), axes.xaxis.label, axes.yaxis.label])


def test_the_bar_of_a_column_is_the_median_of_its_points(study):
    builder = study({"lr": [0.1, 0.2], "batch": [1, 2, 3]})
    for number, value in enumerate([0.5, 0.7, 0.6, 0.8, 0.8, 0.9]):
        builder.score(number, value)
    panel = marginals_figure(builder.data()).axes[0]
    bars = [
        line.get_ydata() for line in panel.lines if len(line.get_xdata()) == 2 and line.get_linewidth() > 2
    ]
    assert [list(bar) for bar in bars] == [[0.6, 0.6], [0.8, 0.8]]


def test_a_median_off_the_scale_lies_at_its_edge_as_its_dots_do(study):
    builder = study({"lr": [0.1, 0.2, 0.3, 0.4], "batch": [1, 2]})
    for number, value in enumerate([0.1, 0.2, 0.3, 0.3, 0.2, 0.1, 900.0, 800.0]):
        builder.score(number, 0.5, val_loss=value)
    figure = marginals_figure(builder.data(metric="val_loss", direction="minimize"))
    panel = figure.axes[0]
    heights = np.concatenate([line.get_ydata() for line in panel.lines])
    assert heights.max() <= panel.get_ylim()[1] < 1
    assert heights.max() == max(y for c in panel.collections for _, y in c.get_offsets())


def test_a_value_of_an_axis_without_any_result_is_hatched(study):
    builder = study({"lr": [0.1, 0.2], "batch": [1, 2]})
    builder.lose(0, TrialState.FAILED, "x").lose(1, TrialState.PRUNED)
    figure = marginals_figure(builder.data())
    assert [p.get_x() for p in figure.axes[0].patches if p.get_hatch()] == [-0.4]
    assert "1 failed, 1 pruned" in figure._suptitle.get_text().replace("\n", " ")


def test_parallel_lines_join_every_point_and_draw_the_best_last(study):
    data = study(FIVE).data()
    panel = parallel_figure(data).axes[0]
    (lines,) = panel.collections
    assert len(lines.get_segments()) == 108
    assert lines.get_array()[-1] == lines.get_array().max() == 1.0
    (best,) = {tuple(line.get_ydata()) for line in panel.lines if len(line.get_xdata()) == len(FIVE) + 1}
    assert np.allclose(best, lines.get_segments()[-1][:, 1])


def test_names_in_parallel_coordinates_are_whole_and_never_overlap(study):
    figure = parallel_figure(study(FIVE).data())
    figure.draw_without_rendering()
    panel = figure.axes[0]
    assert apart(figure, [*panel.texts, *panel.get_xticklabels()])
    assert whole(figure, [*panel.texts, *panel.get_xticklabels()])


def test_a_point_without_a_result_has_no_line(study):
    builder = study({"lr": [0.1, 0.2], "batch": [1, 2, 3]})
    builder.lose(0, TrialState.FAILED, "x").lose(4, TrialState.DIVERGED)
    figure = parallel_figure(builder.data())
    assert len(figure.axes[0].collections[0].get_segments()) == 4
    title = figure._suptitle.get_text().replace("\n", " ")
    assert "1 diverged, 1 failed" in title


def test_the_front_of_cost_holds_what_no_cheaper_point_equals(study):
    builder = study({"lr": [0.1, 0.2, 0.3, 0.4, 0.5]})
    for number, (seconds, value) in enumerate([(1, 0.5), (2, 0.7), (3, 0.6), (4, 0.7), (9, 0.9)]):
        builder.score(number, value).change(number, seconds=float(seconds))
    ranking = rank(builder.data())
    front = cheapest(ranking.points, higher=True)
    assert [(p.seconds, p.mean) for p in front] == [(1, 0.5), (2, 0.7), (9, 0.9)]
    figure = cost_figure(builder.data())
    words = [t.get_text() for t in figure.legends[0].get_texts()]
    assert words[-1] == "3.  90.00 % in 9.0 s: lr=0.5"
    figure.draw_without_rendering()
    assert whole(figure, figure.legends[0].get_texts())


@pytest.mark.parametrize(
    ("times", "unit"),
    [((0.00045, 0.0009), "ms"), ((0.02, 0.16), "s"), ((70, 150), "min"), ((6000, 9000), "h")],
)
def test_times_of_cost_are_in_one_unit_that_fits_them(study, times, unit):
    builder = study({"lr": [0.1, 0.2]})
    for number, seconds in enumerate(times):
        builder.score(number, 0.5 + number / 10).change(number, seconds=seconds)
    figure = cost_figure(builder.data())
    figure.draw_without_rendering()
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks and all(re.fullmatch(rf"[\d.]+ {unit}", text) for text in ticks), ticks
    assert (
        _short(2e-5) == "20 µs" and _short(0.0) == "0 s" and _short(0.2) == "0.2 s" and _short(300) == "5 min"
    )


def test_a_point_whose_value_is_out_of_all_measure_is_not_on_the_front(study):
    builder = study({"lr": [0.1, 0.2, 0.3]})
    for number, value in enumerate((1.0, 2.0, 1e301)):
        builder.score(number, value).change(number, seconds=1.0 + number)
    words = [t.get_text() for t in cost_figure(builder.data()).legends[0].get_texts()]
    assert [text.partition("in")[0] for text in words] == ["1.  1 ", "2.  2 "], words


def test_a_point_of_which_pruning_left_the_better_seeds_is_on_no_front(study):
    """Its mean is too good: it would push out the points that were trained to their ends."""
    builder = study({"lr": [0.1, 0.2]}, seeds=2)
    for number, value in enumerate((0.9, 0.1, 0.5, 0.6)):
        builder.score(number, value).change(number, seconds=1.0 + number)
    data = builder.prune(1, 2).data()
    figure = cost_figure(data)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["1.  55.00 % in 3.5 s: lr=0.2"]
    assert "Points with pruned seeds are not numbered" in figure._suptitle.get_text().replace("\n", " ")
    points = figure_data(data, rank(data))["points"]
    assert [(p.get("flattered", False), p["values"][0][3]) for p in points] == [
        (False, "55.00 ± 7.07 %"),
        (True, "90.00 % (1 pruned)"),
    ]
    found = pareto_front(
        data,
        rank(data),
        quantities_of(["accuracy", "seconds"]),
        predictions=lambda _: None,
        latencies={},
        measured={},
    )
    assert [c.point.params["lr"] for c in found.candidates] == [0.2]
    assert "1 point without all of these, or with pruned seeds, is left out." in front_words(found)


def test_where_less_is_better_the_front_goes_down(study):
    builder = study({"lr": [0.1, 0.2]})
    for number, (seconds, value) in enumerate([(1, 0.5), (2, 0.4)]):
        builder.score(number, value).change(number, seconds=float(seconds))
    points = rank(builder.data(direction="minimize")).points
    assert [p.mean for p in cheapest(points, higher=False)] == [0.5, 0.4]


def test_the_time_of_a_function_is_not_said_to_be_a_share_of_a_packs(study):
    data = study({"lr": [0.1, 0.01]}).change(1, seconds=3.0).data()
    for kind, shared in ((rank(data).kind, True), (FUNCTION, False)):
        figure = cost_figure(data, ranking=dataclasses.replace(rank(data), kind=kind))
        words = " ".join(text.get_text() for text in figure.findobj(Text))
        assert ("share of its pack's time" in " ".join(words.split())) is shared


@pytest.mark.parametrize("figure_of", [marginals_figure, parallel_figure, cost_figure])
def test_one_point_or_none_has_no_such_figure(study, figure_of):
    assert figure_of(study({"lr": [0.1]}, seeds=3).data()) is None
    lost = study({"lr": [0.1, 0.2], "batch": [1, 2]})
    for number in range(4):
        lost.lose(number, TrialState.FAILED, "x")
    assert figure_of(lost.data()) is None


@pytest.mark.parametrize("figure_of", [marginals_figure, parallel_figure, cost_figure])
def test_thousands_of_points_are_drawn_as_pixels_and_stay_small(study, figure_of):
    data = study({"lr": [10 ** (-i / 20) for i in range(60)], "batch": list(range(1, 61))}, epochs=1).data()
    figure = figure_of(data)
    assert len(svg_bytes(figure)) < 1_500_000
    assert png_bytes(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("figure_of", [marginals_figure, parallel_figure, cost_figure])
def test_hostile_names_are_drawn_as_they_are_over_the_axes(study, hostile, figure_of):
    data = study({"model.<b>act</b>": list(hostile[:6]), "lr": [0.1, 0.2]}).data()
    svg = svg_bytes(figure_of(data)).decode()
    assert "<script" not in svg and "<b>" not in svg
    assert "&lt;" in svg


def test_a_scale_is_cut_only_where_the_worst_lies_far_off():
    assert value_range([0.8, 0.85, 0.9], better_high=True) == (0.8, 0.9, "")
    low, high, end = value_range([0.1, 0.88, 0.89, 0.9, 0.91, 0.92], better_high=True)
    assert (high, end) == (0.92, "min") and 0.8 < low < 0.88
    low, high, end = value_range([0.3, 0.31, 0.32, 0.33, 5.0], better_high=False)
    assert (low, end) == (0.3, "max") and high < 1
    assert value_range([0.5], better_high=True) == (0.495, 0.505, "")


def test_missing_points_are_counted_by_their_reason(study):
    builder = study({"lr": [0.1, 0.2, 0.3, 0.4]})
    builder.lose(0, TrialState.PRUNED).lose(1, TrialState.PRUNED).lose(2, TrialState.FAILED, "x")
    assert missing_words(rank(builder.data())) == "2 pruned, 1 failed"


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("macro_f1", "Macro F1"),
        ("auc", "AUC"),
        ("recall:T-shirt/top", "Recall of T-shirt/top"),
        ("mAP", "mAP"),
    ],
)
def test_titles_keep_the_letters_of_a_metric_and_of_a_class(study, metric, title):
    built = study({"lr": [0.1, 0.01], "batch": [10, 20]})
    for record in built.records:
        built.change(
            record.number, metrics={**record.metrics, metric: record.value}, seconds=1.0 + record.number
        )
    data = built.data(metric=metric)
    for figure, rest in ((heatmap_figures(data)["heatmap"], ", "), (cost_figure(data), " against time")):
        assert figure.get_suptitle().startswith(f"{title}{rest}")
