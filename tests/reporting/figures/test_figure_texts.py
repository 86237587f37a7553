"""Every text of a drawn figure is whole and beside every other, at any length of names and any number of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.records import FunctionSettings, StepRow, TrialState
from gridsearch.reporting import (
    confusion_figure,
    confusion_matrix,
    confusions_figure,
    cost_figure,
    curves_figure,
    heatmap_figures,
    marginals_figure,
    parallel_figure,
    rank,
)
from gridsearch.reporting.figures.cost import _MARK, spread_out
from gridsearch.reporting.figures.curves import winners_figure
from gridsearch.reporting.figures.fonts import distinct_lines, fitted, text_width
from gridsearch.reporting.figures.mpl_style import key_of
from gridsearch.reporting.figures.rendering import svg_bytes
from gridsearch.reporting.figures.samples import mistakes_figure, sample_figure
from gridsearch.reporting.stats.predictions import confident_mistakes
from gridsearch.reporting.words.labels import distinct_labels, level_labels

from .drawn_texts import collisions, texts_drawn

pytestmark = pytest.mark.thorough

PATHS = [f"/data/checkpoints/resnet-{i:04d}.safetensors" for i in range(40)]
LONG = "model.feature_extractor_learning_rate"
WIDE = "model." + "W" * 70

SHAPES = {
    "long names of axes": ({LONG: [0.1, 0.01], "model.classifier_head_hidden_units": [32, 64, 128]}, 3),
    "names of wide letters": ({WIDE: [1, 2], WIDE + "M": [1, 2]}, 1),
    "values that differ near their ends": ({"model.path": PATHS[:12], "model.y": [1, 2]}, 1),
    "many columns": ({"model.y": [1, 2], "model.path": PATHS}, 1),
    "one axis of words": ({LONG: PATHS[:20]}, 2),
    "one axis of two": ({WIDE: ["W" * 60, "W" * 61]}, 1),
    "panels": ({"lr": [0.1, 0.2], "batch": [1, 2, 3], LONG: PATHS[:3], "norm": ["none", "standard"]}, 1),
    "eight axes": ({f"model.axis_number_{i}_with_a_name": [1, 2] for i in range(7)}, 1),
    "two rows": ({"lr": [10 ** (-i / 9) for i in range(30)], "batch": [1, 2]}, 1),
    "names no font has": ({"model.\U000143ff\U000143fe": ["\U000143ff", "\U000143fe"], "lr": [0.1, 0.2]}, 1),
}
FIGURES = {
    "heatmap": lambda data: heatmap_figures(data)["heatmap"],
    "marginals": marginals_figure,
    "parallel": parallel_figure,
    "cost": cost_figure,
    "curves": curves_figure,
}


@pytest.fixture(scope="module")
def data_of(study):
    made = {}

    def data(shape):
        if shape not in made:
            axes, seeds = SHAPES[shape]
            built = study(axes, seeds=seeds, epochs=2)
            for record in built.records:  # the better, the longer, so that several are numbered
                built.change(record.number, seconds=1.0 + 0.01 * record.number + 5 * record.value)
            made[shape] = built.lose(1, TrialState.DIVERGED, "x").data()
        return made[shape]

    return data


@pytest.mark.parametrize(("shape", "kind"), [*itertools.product(SHAPES, FIGURES)])
def test_no_text_of_a_figure_lies_over_another_or_is_cut(data_of, shape, kind):
    figure = FIGURES[kind](data_of(shape))
    if figure is not None:
        assert collisions(figure) == []


@pytest.mark.parametrize(
    "value",
    [
        lambda v: v * 1e-300,
        lambda v: v * 1e160,
        lambda v: v + 12345,
        lambda v: 1e-9 * v + 1,
        lambda v: v * 1e308,
    ],
)
def test_a_metric_of_any_size_is_drawn_with_its_own_numbers(study, value):
    built = study({"x": [1, 2, 3], "y": [1, 2]}, epochs=1)
    for record in built.records:
        result = value(0.1 + 0.01 * record.params["x"] + 0.003 * record.params["y"])
        settings = FunctionSettings(objective="f", params=record.params)
        built.change(record.number, value=result, metrics={"score": result}, settings=settings)
        built.change(record.number, seconds=1.0 + record.number)
    steps = {r.number: (StepRow(step=1, seconds=1.0, metrics=r.metrics),) for r in built.records}
    data = built.data(metric="score", steps=steps, epochs={})
    for kind, draw in FIGURES.items():
        figure = draw(data)
        assert collisions(figure) == [], kind
    numbers = {t.get_text() for t in heatmap_figures(data)["heatmap"].axes[0].texts}
    assert len(numbers) == 6


def test_steps_of_nan_and_values_beyond_all_floats_apart_are_drawn_without_a_warning(study):
    built = study({"x": [1, 2, 3]}, epochs=1)
    for record, result in zip(built.records, (-1.7e308, 8e307, 1.7e308), strict=True):
        settings = FunctionSettings(objective="f", params=record.params)
        built.change(record.number, value=result, metrics={"score": result}, settings=settings)
    middle = {r.number: (1.0, float("nan"), r.value) for r in built.records}
    steps = {
        number: tuple(StepRow(step=i, seconds=1.0, metrics={"score": v}) for i, v in enumerate(values, 1))
        for number, values in middle.items()
    }
    data = built.data(metric="score", steps=steps, epochs={})
    assert len(curves_figure(data).axes[0].lines) == 3
    assert heatmap_figures(data)["heatmap"] is not None


@pytest.mark.parametrize("classes", [1, 2, 11, 26, 130])
def test_no_name_of_a_class_lies_over_another_or_is_cut(predictions, classes):
    names = [
        f"n0212{i:03d}_{'a_long_prefix_that_all_share' * 2}_{i}_{'and_a_suffix' * 3}" for i in range(classes)
    ]
    found = predictions(classes, images=900)
    matrix = confusion_matrix(found)
    figure = confusion_figure(matrix, class_names=names, title="W" * 200, note="a note " * 30)
    assert collisions(figure) == []
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert len(set(labels)) == len(labels) == min(classes, 120)
    images = np.zeros((900, 1, 8, 8), dtype=np.uint8)
    own = [images[:3]] * classes
    assert collisions(sample_figure(own, class_names=names, title="of " + "W" * 99)) == []
    if mistakes := confident_mistakes(found):
        assert collisions(mistakes_figure(images[: len(mistakes)], mistakes, class_names=names)) == []


def test_titles_of_matrices_and_legends_of_winners_stand_apart(study, predictions):
    matrices = [confusion_matrix(predictions(3))] * 3
    titles = [f"{'study_' * 12}{i}: trial 3" for i in range(3)]
    figure = confusions_figure(matrices, titles=titles, class_names=["a" * 60, "a" * 61, "a" * 62])
    assert collisions(figure) == []
    assert len({a.get_title(loc="left") for a in figure.axes[:3]}) == 3
    sides = [
        (d, rank(d).points[0], f"{'W' * 150} {i}") for i in range(3) if (d := study({"lr": [0.1]}).data())
    ]
    figure = winners_figure(sides)
    assert collisions(figure) == []
    assert len({t.get_text() for t in figure.legends[0].get_texts()}) == 3


def test_the_measure_sees_texts_that_overlap_or_are_cut(study):
    figure = heatmap_figures(study({"lr": [0.1, 0.2], "batch": [1, 2]}).data())["heatmap"]
    figure._suptitle.set_position((0.5, 0.5))
    figure.axes[0].set_ylabel("W" * 80)
    assert any("over" in c for c in collisions(figure))
    assert any("is cut" in c for c in collisions(figure))


def test_the_ring_is_around_the_best_points_dot(study):
    data = study({"lr": [0.1, 0.2], "batch": [1, 2, 3], "norm": ["none", "standard"]}).data()
    for panel in marginals_figure(data).axes:
        ring = next(line for line in panel.lines if line.get_label() == "best")
        dots = panel.collections[0].get_offsets()
        assert np.abs(dots - ring.get_xydata()).max(axis=1).min() < 1e-9


@given(
    st.lists(st.tuples(st.floats(0, 400), st.floats(0, 250)), min_size=1, max_size=6),
)
def test_numbered_marks_never_cover_each_other(places):
    marks = spread_out(np.array(places), area=np.array([400.0, 250.0]))
    for one, other in itertools.combinations(marks, 2):
        assert np.linalg.norm(one - other) >= _MARK - 1e-9


def test_marks_of_a_front_in_one_spot_are_drawn_apart(study):
    built = study({"lr": [0.1, 0.2, 0.3, 0.4, 0.5]})
    for number in range(5):
        built.score(number, 0.9 + 1e-6 * number).change(number, seconds=1.0 + 1e-3 * number)
    figure = cost_figure(built.lose(4, TrialState.FAILED, "x").data())
    boxes = [b for b in texts_drawn(figure) if b.text in "12345"]
    middles = [b.corners.mean(axis=0) for b in boxes]
    assert len(middles) == 4
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(middles, 2)) > 12


TEXTS = st.one_of(
    st.text(max_size=60),
    st.builds(
        "{}{}{}".format, st.just("/data/checkpoints/resnet-"), st.integers(0, 9999), st.just(".safetensors")
    ),
    st.sampled_from(
        ["", "a  b", "a b", "a\u200bb", "1: a", "2: 1: a", "\u00e9", "e\u0301", "x" * 90, "x" * 91]
    ),
)


@given(st.lists(TEXTS, max_size=12), st.integers(8, 40))
def test_any_texts_get_labels_that_are_told_apart(texts, limit):
    labels = distinct_labels(texts, limit)
    assert len({label.encode("utf-8", "surrogatepass") for label in labels}) == len(texts)
    assert all(len(label) <= limit + 12 for label in labels)
    assert not any("\n" in label for label in labels)


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-2, 2), TEXTS)


@given(st.lists(VALUES, max_size=8, unique_by=lambda v: (isinstance(v, bool), v)))
def test_any_values_of_an_axis_get_labels_that_are_told_apart(values):
    assert len(set(level_labels(values))) == len(values)


def test_labels_are_cut_where_they_are_the_same():
    assert level_labels(PATHS[1:3]) == ["/data/…-0001.safetensors", "/data/…-0002.safetensors"]
    assert level_labels([0.3, 0.1 + 0.2]) == ["0.3", "0.30000000000000004"]
    assert level_labels([3, "3", None, "none"]) == ["3", '"3"', "none", '"none"']
    assert level_labels([0.00464158883361, 1e-05]) == ["0.004642", "1e-05"]
    assert distinct_labels(["cat", "cat", "dog"], 20) == ["1: cat", "2: cat", "dog"]


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=90), st.floats(0.5, 3))
def test_a_text_is_broken_into_lines_that_fit(text, inches):
    lines = fitted(text, inches, 9).split("\n")
    assert len(lines) <= 3
    assert all(text_width(line, 9) <= inches for line in lines if len(line) > 1)


def test_what_no_font_draws_is_numbered_and_explained(study):
    axis = "model.\U000143ff"
    data = study({axis: ["\U000143ff", "\U000143fe"], "lr": [0.1, 0.2]}).data()
    figure = heatmap_figures(data)["heatmap"]
    drawn = {box.text for box in texts_drawn(figure)}
    assert {"axis 1", "value 1", "value 2"} <= drawn
    assert all(text.replace("…", "").replace("±", "").isascii() for text in drawn)
    assert dict(key_of(figure)) == {"axis 1": axis, "value 1": "\U000143ff", "value 2": "\U000143fe"}
    assert "\U000143ff" not in svg_bytes(figure).decode()
    assert key_of(heatmap_figures(study({"lr": [0.1, 0.2]}).data())["heatmap"]) == ()


def test_lines_of_a_legend_stay_apart_in_any_width():
    lines = distinct_lines(
        [f"{'x' * 80}{i}{'y' * 80}" for i in range(9)], [str(i) for i in range(9)], 3.0, 8.5
    )
    assert len(set(lines)) == 9
    assert all(text_width(line, 8.5) <= 3.0 for line in lines)
