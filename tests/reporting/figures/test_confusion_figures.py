"""Confusion matrices: names readable and whole, numbers in their cells, what is drawn of many classes."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex

from gridsearch.reporting import (
    confusion_figure,
    confusion_matrix,
    confusions_figure,
)
from gridsearch.reporting.figures.confusion import MOST_CLASSES
from gridsearch.reporting.figures.rendering import png_bytes, svg_bytes
from gridsearch.reporting.stats.predictions import balanced_accuracy, macro_f1, most_confused, per_class
from tests.reporting.figures.drawn_texts import inside, overlaps, text_frames

pytestmark = pytest.mark.thorough

LONG = "a rather long name of a class, that nobody would choose ({})"


@pytest.mark.parametrize("names", ["short", "long"])
@pytest.mark.parametrize("classes", [2, 10, 25, 100])
def test_class_names_of_a_confusion_matrix_never_overlap_and_none_is_cut(predictions, classes, names):
    labels = [(LONG if names == "long" else "class {}").format(i) for i in range(classes)]
    figure = confusion_figure(confusion_matrix(predictions(classes)), class_names=labels, note="a note " * 12)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    columns, rows = axes.get_xticklabels(), axes.get_yticklabels()
    assert len(columns) == len(rows) == classes
    assert all(t.get_rotation() == 45 for t in columns)
    assert all(t.get_rotation() == 0 for t in rows)
    for ticks in (columns, rows):
        frames = text_frames(figure, ticks)
        assert not any(overlaps(a, b) for a, b in itertools.pairwise(frames))
        assert not overlaps(frames[0], frames[-1])
    assert inside(figure, [*columns, *rows, axes.xaxis.label, axes.yaxis.label, figure._suptitle])
    title = figure._suptitle.get_window_extent(figure.canvas.get_renderer())
    assert title.y0 >= axes.get_window_extent().y1


def test_the_overlap_check_sees_names_that_do_overlap(predictions):
    figure = confusion_figure(
        confusion_matrix(predictions(10)), class_names=[LONG.format(i) for i in range(10)]
    )
    columns = figure.axes[0].get_xticklabels()
    for text in columns:
        text.set(rotation=0, ha="center")
    figure.draw_without_rendering()
    assert any(overlaps(a, b) for a, b in itertools.pairwise(text_frames(figure, columns)))


@pytest.mark.parametrize("classes", [2, 10, 25])
def test_numbers_in_the_cells_of_a_confusion_matrix_fit_into_them(predictions, classes):
    figure = confusion_figure(confusion_matrix(predictions(classes, images=60_000)), class_names=[])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / classes
    assert len(axes.texts) >= classes
    for text in axes.texts:
        box = text.get_window_extent(figure.canvas.get_renderer())
        assert max(box.width, box.height) <= cell


def test_cells_hold_counts_and_shares_of_the_row():
    figure = confusion_figure(np.array([[90, 10], [0, 50]]), class_names=["cat", "dog"])
    assert [t.get_text() for t in figure.axes[0].texts] == ["90\n90.0%", "10\n10.0%", "50\n100%"]


@pytest.mark.parametrize(("classes", "images"), [(4, 60), (30, 400)])
def test_a_matrix_alone_looks_as_seaborn_draws_it_among_several(predictions, classes, images):
    matrix = confusion_matrix(predictions(classes, images=images, missing=1))
    alone = confusion_figure(matrix, class_names=[], title="t").axes[0]
    among = confusions_figure([matrix], titles=["t"], class_names=[]).axes[0]
    ours, theirs = alone.collections[0], among.collections[0]
    colours = [mesh.to_rgba(mesh.get_array()) for mesh in (ours, theirs)]
    np.testing.assert_allclose(*colours, atol=0.51 / 255)
    np.testing.assert_array_equal(ours.get_edgecolor(), theirs.get_edgecolor())
    assert (list(ours.get_linewidth()), ours.get_rasterized()) == (
        list(theirs.get_linewidth()),
        theirs.get_rasterized(),
    )
    assert [axes.get_aspect() for axes in (alone, among)] == [1, 1]
    assert (alone.get_xlim(), alone.get_ylim()) == (among.get_xlim(), among.get_ylim())
    assert not any(spine.get_visible() for axes in (alone, among) for spine in axes.spines.values())
    words = [
        [(t.get_text(), t.get_position(), to_hex(t.get_color())) for t in axes.texts if t.get_text()]
        for axes in (alone, among)
    ]
    assert words[0] == words[1]


def test_a_class_without_images_is_hatched_and_has_no_share(predictions):
    matrix = confusion_matrix(predictions(10, missing=3))
    figure = confusion_figure(matrix, class_names=[])
    hatched = [p for p in figure.axes[0].patches if p.get_hatch()]
    assert [p.get_y() for p in hatched] == [3]
    assert per_class(matrix, [])[3].recall is None
    assert balanced_accuracy(matrix) == pytest.approx(
        np.mean([r.recall for r in per_class(matrix, []) if r.images])
    )


def test_of_very_many_classes_the_most_mistaken_are_drawn(predictions):
    figure = confusion_figure(confusion_matrix(predictions(150, images=6000)), class_names=[], note="lr=0.1")
    assert len(figure.axes[0].get_xticklabels()) == MOST_CLASSES
    assert f"lr=0.1. The {MOST_CLASSES} classes with the most mistakes, of 150" in figure._suptitle.get_text()


def test_the_most_confused_pairs_are_said_in_words(fashion):
    matrix = np.diag([1000] * 10)
    matrix[6, 0], matrix[6, 6] = 109, 891
    matrix[2, 4], matrix[2, 2] = 80, 920
    pairs = most_confused(matrix, fashion)
    assert [p.words for p in pairs] == [
        "Shirt predicted as T-shirt/top, 10.9 %",
        "Pullover predicted as Coat, 8.0 %",
    ]


def test_per_class_results_agree_with_scikit_learn(predictions):
    from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score

    found = predictions(10)
    guess = found.logits.argmax(axis=1)
    matrix = confusion_matrix(found)
    assert macro_f1(matrix) == pytest.approx(f1_score(found.labels, guess, average="macro"))
    assert balanced_accuracy(matrix) == pytest.approx(balanced_accuracy_score(found.labels, guess))
    assert [r.precision for r in per_class(matrix, [])] == pytest.approx(
        precision_score(found.labels, guess, average=None)
    )


def test_hostile_names_are_drawn_as_they_are(predictions, hostile):
    figure = confusion_figure(confusion_matrix(predictions(10)), class_names=hostile)
    svg = svg_bytes(figure).decode()
    assert "<script>" not in svg
    assert "&lt;script&gt;" in svg
    assert "$\\frac{1}{0$" in svg
    assert png_bytes(figure).startswith(b"\x89PNG")
