"""Figures: names readable and whole, losses hatched, one scale, nothing of the user's own style touched."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Text

from gridsearch.records import TrialState
from gridsearch.reporting import (
    confusion_figure,
    confusion_matrix,
    curves_figure,
    heatmap_figures,
    rank,
)
from gridsearch.reporting.figures.curves import seed_curves
from gridsearch.reporting.figures.panels import panels_of, plan_layout
from gridsearch.reporting.figures.rendering import png_bytes, svg_bytes
from gridsearch.reporting.output.figure_data import figure_data
from tests.reporting.figures.drawn_texts import inside, overlaps, text_frames

pytestmark = pytest.mark.thorough


def test_lr_and_batch_are_the_axes_and_norm_the_facet(study):
    data = study(
        {"optimizer": ["sgd", "adam"], "lr": [0.1, 0.2], "norm": ["none", "standard"], "batch": [1, 2, 3]}
    ).data()
    layout = plan_layout(rank(data))
    assert (layout.x, layout.y, layout.facets, layout.collapsed) == ("batch", "lr", ("norm", "optimizer"), ())


def test_without_lr_and_batch_the_two_strongest_axes_are_drawn(study):
    builder = study({"dropout": [0.0, 0.5], "weight_decay": [0.0, 0.1], "norm": ["none", "standard"]})
    for record in list(builder.records):
        strong = 0.3 * record.params["dropout"] + 0.1 * (record.params["norm"] == "standard")
        builder.score(record.number, 0.5 + strong + 0.001 * record.params["weight_decay"])
    layout = plan_layout(rank(builder.data()))
    assert {layout.x, layout.y} == {"dropout", "norm"}
    assert layout.facets == ("weight_decay",)


def test_axes_beyond_the_panels_are_collapsed_to_the_best_point_and_said_so(study):
    axes = {"lr": [0.1, 0.2], "batch": [1, 2], "model.a": list(range(10)), "model.b": list(range(10))}
    data = study(axes).data()
    ranking = rank(data)
    layout = plan_layout(ranking)
    assert len(layout.collapsed) == 1
    panels = panels_of(ranking, layout, (1, 2), (0.1, 0.2))
    assert sum(p is ranking.best for panel in panels for row in panel.points for p in row) == 1
    figure = heatmap_figures(data)["heatmap"]
    assert f"its best point over {layout.collapsed[0]}" in figure._suptitle.get_text()


def mesh_of(axes):
    return next(c for c in axes.collections if hasattr(c, "get_coordinates"))


def test_a_lost_cell_is_hatched_and_never_drawn_as_a_value(study):
    builder = study({"lr": [0.1, 0.2], "batch": [1, 2, 3]}).without(5)
    builder.lose(0, TrialState.FAILED, "boom").lose(1, TrialState.DIVERGED)
    axes = heatmap_figures(builder.data())["heatmap"].axes[0]
    assert np.ma.getmaskarray(mesh_of(axes).get_array()).tolist() == [
        [True, True, False],
        [False, False, True],
    ]
    hatched = [
        (p.get_hatch(), tuple(shape.min(axis=0)))
        for p in axes.patches
        if p.get_hatch()
        for shape in p.get_path().to_polygons()
    ]
    assert sorted(hatched) == [("..", (2, 1)), ("///", (0, 0)), ("///", (1, 0))]
    words = [t.get_text() for t in axes.texts]
    assert "failed" in words and "diverged" in words


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_value_out_of_all_measure_has_no_colour_of_the_others(study, direction):
    """Maximized it ranks last: the colour of the scale's end would be that of the best."""
    builder = study({"lr": [0.1, 0.2], "batch": [1, 2]})
    for number, value in enumerate([0.2, 0.3, 1e181, 0.1]):
        builder.score(number, 0.5, val_loss=value)
    data = builder.data(metric="val_loss", direction=direction)
    figure = heatmap_figures(data)["heatmap"]
    mesh = mesh_of(figure.axes[0])
    assert np.ma.getmaskarray(mesh.get_array()).tolist() == [[False, False], [True, False]]
    assert mesh.get_clim() == (0.1, 0.3)
    assert "out of range\n1e+181" in [t.get_text() for t in figure.axes[0].texts]
    assert "Hatched: not drawn (1 out of range)." in figure._suptitle.get_text().replace("\n", " ")
    drawn = figure_data(data, rank(data))["points"]
    assert [p["lost"] for p in drawn if p["values"][0] is None] == ["out of range 1e+181"]


def test_a_line_leaves_out_what_is_hatched(study):
    builder = study({"lr": [0.1, 0.2, 0.3, 0.4]}, seeds=2)
    for number, value in enumerate([0.2, 0.3, 0.5, 0.4, 1e181, 1e181, 0.1, 0.1]):
        builder.score(number, 0.5, val_loss=value)
    data = builder.lose(7, TrialState.DIVERGED).data(metric="val_loss")
    axes = heatmap_figures(data)["heatmap"].axes[0]
    assert list(axes.lines[0].get_ydata()) == [0.25, 0.45]
    assert axes.get_ylim()[1] < 1
    assert sorted(t.get_text() for t in axes.texts if t.get_rotation()) == [
        "diverged 1 of 2",
        "out of range 1e+181",
    ]


def test_the_best_cell_alone_is_outlined_over_all_panels(study):
    data = study({"lr": [0.1, 0.001], "batch": [1, 2], "norm": ["none", "standard"]}).data()
    figure = heatmap_figures(data)["heatmap"]
    outlined = [
        (a.get_title(loc="left"), p.get_xy()) for a in figure.axes for p in a.patches if not p.get_fill()
    ]
    best = rank(data).best.params
    assert set(outlined) == {
        (f"norm {best['norm']}", ([1, 2].index(best["batch"]), [0.001, 0.1].index(best["lr"])))
    }


def test_all_panels_share_one_colour_scale(study):
    data = study({"lr": [0.1, 0.001], "batch": [1, 2], "norm": ["none", "standard"]}).data()
    figure = heatmap_figures(data)["heatmap"]
    limits = {mesh_of(a).get_clim() for a in figure.axes[:2]}
    assert len(limits) == 1


def test_cells_show_spread_and_n_only_with_several_seeds(study):
    axes = {"lr": [0.1, 0.2], "batch": [1, 2]}
    single = heatmap_figures(study(axes).data())["heatmap"].axes[0]
    several = heatmap_figures(study(axes, seeds=3).data())["heatmap"].axes[0]
    assert not any("±" in t.get_text() for t in single.texts)
    assert all("±" in t.get_text() and "n=3" in t.get_text() for t in several.texts)


def test_a_cell_of_one_seed_beside_cells_of_several_says_so(study):
    data = study({"lr": [0.1, 0.2], "batch": [1, 2]}, seeds=2).without(1).data()
    texts = [t.get_text() for t in heatmap_figures(data)["heatmap"].axes[0].texts]
    assert sorted(t.rpartition("n=")[2] for t in texts) == ["1", "2", "2", "2"]


def test_no_best_point_is_said_to_be_marked_where_there_is_none(study):
    for axes in ({"lr": [0.1, 0.2]}, {"lr": [0.1, 0.2], "batch": [1, 2]}):
        builder = study(axes)
        assert "Best point" in heatmap_figures(builder.data())["heatmap"]._suptitle.get_text()
        for number in range(len(builder.records)):
            builder.lose(number, TrialState.DIVERGED)
        assert "Best point" not in heatmap_figures(builder.data())["heatmap"]._suptitle.get_text()


def test_one_lost_corner_does_not_flatten_the_colours_of_the_rest(study):
    builder = study({"lr": [0.1, 0.2], "batch": [1, 2, 3]})
    for number, value in enumerate([0.1, 0.88, 0.89, 0.9, 0.91, 0.92]):
        builder.score(number, value)
    figure = heatmap_figures(builder.data())["heatmap"]
    low, high = mesh_of(figure.axes[0]).get_clim()
    assert 0.8 < low < 0.89
    assert high == 0.92
    assert "Lower values have the colour of the" in figure._suptitle.get_text()


@pytest.mark.parametrize(
    "values", [[0.1, 0.01, 0.001], ["sgd", "adam", "<b>$x$</b>"], [True, False], [None, 0.5]]
)
def test_one_axis_gets_a_point_for_each_value(study, values):
    figure = heatmap_figures(study({"model.x": values}, seeds=2).data())["heatmap"]
    assert len(figure.axes[0].get_xticks()) == len(values)
    assert png_bytes(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("axes", [{"batch": [1, 2, 3]}, {"batch": [1, 2, 3], "lr": [0.1, 0.2]}])
def test_rounding_has_neither_colours_nor_a_slope(study, axes):
    builder = study(axes)
    for record in list(builder.records):
        builder.score(record.number, 0.5, val_loss=5 + 1e-13 * record.number)
    figure = heatmap_figures(builder.data(metric="val_loss", direction="minimize"))["heatmap"]
    low, high = mesh_of(figure.axes[0]).get_clim() if len(axes) > 1 else figure.axes[0].get_ylim()
    assert low < 4.96 and high > 5.04


def test_ticks_of_curves_are_whole_and_rounding_has_no_slope_there_either(study):
    builder = study({"lr": [0.1]}, epochs=3)
    rows = builder.epochs[0]
    for apart in (1e-9, 1e-14):
        builder.epochs[0] = tuple(
            replace(
                row, train_loss=5 + apart * i, val_loss=5 + apart * i, train_accuracy=0.5, val_accuracy=0.5
            )
            for i, row in enumerate(rows)
        )
        loss = curves_figure(builder.data()).axes[0]
        loss.figure.draw_without_rendering()
        assert loss.yaxis.get_offset_text().get_text() == ""
        ticks = [t.get_text() for t in loss.get_yticklabels()]
        assert len(set(ticks)) == len(ticks) and all(4.9 < float(text) < 5.1 for text in ticks), ticks


def test_a_single_point_has_no_heatmap(study):
    assert heatmap_figures(study({"lr": [0.1]}, seeds=3).data()) == {}


def test_a_study_without_any_result_is_still_drawn(study):
    builder = study({"lr": [0.1, 0.2], "batch": [1, 2]})
    for number in range(4):
        builder.lose(number, TrialState.FAILED, "boom")
    assert png_bytes(heatmap_figures(builder.data())["heatmap"]).startswith(b"\x89PNG")
    assert curves_figure(builder.data()) is None


def test_tick_labels_of_a_heatmap_never_overlap(study):
    axes = {
        "lr": [10**-i for i in range(1, 8)],
        "model.a very long name of an axis": [f"a longish value {i}" for i in range(9)],
    }
    figure = heatmap_figures(study(axes, seeds=2).data())["heatmap"]
    figure.draw_without_rendering()
    for ticks in (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()):
        assert not any(overlaps(a, b) for a, b in itertools.pairwise(text_frames(figure, ticks)))
        assert inside(figure, ticks)


def test_panel_titles_never_run_into_each_other(study):
    values = [f"quite a long value number {i}" for i in range(3)]
    data = study({"lr": [0.1, 0.2], "batch": [1, 2], "model.activation": values}).data()
    figure = heatmap_figures(data)["heatmap"]
    figure.draw_without_rendering()
    titles = [a._left_title for a in figure.axes if a.get_title(loc="left")]
    assert len(titles) == 3
    assert not any(overlaps(a, b) for a, b in itertools.combinations(text_frames(figure, titles), 2))


def test_curves_show_train_beside_validation_with_a_band_over_seeds(study):
    figure = curves_figure(study({"lr": [0.1, 0.2]}, seeds=3).data())
    loss, accuracy = figure.axes
    assert len(loss.lines) == len(accuracy.lines) == 4
    assert {line.get_linestyle() for line in loss.lines} == {"-", "--"}
    assert len(loss.collections) == 4


def test_curves_without_validation_show_train_alone(study):
    figure = curves_figure(study({"lr": [0.1]}, val=0.0).data())
    assert {line.get_linestyle() for line in figure.axes[0].lines} == {"--"}


def test_a_curve_is_cut_to_its_shortest_seed(study):
    builder = study({"lr": [0.1]}, seeds=2, epochs=6)
    builder.epochs[1] = builder.epochs[1][:4]
    data = builder.data()
    assert seed_curves(data, rank(data).points[0], "val_loss").shape == (2, 4)
    ends = "A line ends where its first seed does."
    assert not any(ends in text.get_text() for text in curves_figure(data).findobj(Text))
    data = builder.change(1, epochs=4).data()
    assert any(ends in text.get_text() for text in curves_figure(data).findobj(Text))


def test_figures_leave_the_users_own_style_and_pyplot_alone(study, predictions):
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    with mpl.rc_context({"font.size": 31, "axes.facecolor": "red", "text.usetex": True}):
        before = dict(mpl.rcParams)
        data = study({"lr": [0.1, 0.2], "batch": [1, 2]}).data()
        for figure in (*heatmap_figures(data).values(), curves_figure(data)):
            svg_bytes(figure)
        matrix = confusion_matrix(predictions(3))
        png_bytes(confusion_figure(matrix, class_names=["a", "b", "$c$"], title="t"))
        assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_the_same_study_gives_the_same_bytes(study):
    data = study({"lr": [0.1, 0.2], "batch": [1, 2]}).data()
    first, second = (heatmap_figures(data)["heatmap"] for _ in range(2))
    assert png_bytes(first) == png_bytes(second)
    assert svg_bytes(first) == svg_bytes(second)
