"""Images in the report: those that were judged, the surest mistakes, matrices side by side, names in any script."""

import numpy as np
import pytest

from gridsearch.errors import DataError
from gridsearch.plugins import ImageData
from gridsearch.reporting import (
    Predictions,
    confident_mistakes,
    confusion_matrix,
    confusions_figure,
    mistakes_figure,
    sample_figure,
    write_report,
)
from gridsearch.reporting.figures.fonts import keyed, readable_names
from gridsearch.reporting.figures.rendering import png_bytes, svg_bytes
from gridsearch.reporting.figures.samples import LARGEST_SIDE, sample_of, viewable

NAMES = ("cat", "dog", "<b>eel</b>")


def dataset(images=60, test=True):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (images, 1, 8, 8)).astype(np.uint8)
    labels = np.arange(images) % 3
    held = (pictures[:3], labels[:3]) if test else (None, None)
    return ImageData(
        train_images=pictures,
        train_labels=labels,
        test_images=held[0],
        test_labels=held[1],
        class_names=NAMES,
    )


def judged(data, places):
    """Predictions for these images: the first two are wrong, the second more surely so."""
    labels = data.train_labels[places]
    logits = np.zeros((len(places), 3), dtype=np.float32)
    logits[np.arange(len(places)), labels] = 5
    for row, sure in ((0, 7.0), (1, 9.0)):
        logits[row, (labels[row] + 1) % 3] = sure
    return Predictions(logits, labels, np.asarray(places))


def test_the_surest_mistake_comes_first_with_its_probability():
    data = dataset()
    found = confident_mistakes(judged(data, [10, 21, 32, 43]))
    assert [m.image for m in found] == [1, 0]
    logits = np.array([5.0, 9.0, 0.0])
    assert found[0].probability == pytest.approx(np.exp(9.0) / np.exp(logits).sum())
    assert (found[0].true, found[0].predicted) == (0, 1)
    assert confident_mistakes(judged(data, [10, 21, 32]), limit=1) == found[:1]


def test_saturated_probabilities_are_still_ordered_by_their_margin():
    logits = np.array([[0.0, 60.0], [0.0, 80.0]], dtype=np.float32)
    assert [m.image for m in confident_mistakes(Predictions(logits, np.array([0, 0])))] == [1, 0]


@pytest.mark.parametrize("limit", [1, 16])
def test_a_network_without_mistakes_has_none(limit):
    assert confident_mistakes(Predictions(np.eye(3), np.arange(3)), limit=limit) == ()


def texts_of(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts]


def test_a_mistake_is_drawn_with_both_classes_and_the_probability():
    data = dataset()
    found = judged(data, [10, 21, 32])
    mistakes = confident_mistakes(found)
    figure = mistakes_figure(data.train_images[[21, 10]], mistakes, class_names=NAMES)
    assert texts_of(figure) == ["cat", "dog, 98.2 %", "dog", "<b>eel</b>, 88.0 %"]
    assert len(figure.axes[0].images) == 2
    assert np.array_equal(figure.axes[0].images[0].get_array()[..., 0], data.train_images[21, 0])
    assert "&lt;b&gt;" in svg_bytes(figure).decode()


def test_captions_of_mistakes_never_overlap_and_none_is_cut(predictions):
    found = predictions(10)
    names = [f"a long name of class {i}" for i in range(10)]
    mistakes = confident_mistakes(found, limit=16)
    figure = mistakes_figure(np.zeros((16, 3, 32, 48), np.uint8), mistakes, class_names=names, note="n " * 90)
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for axes in figure.axes for t in axes.texts]
    for i, a in enumerate(boxes):
        assert a.x0 >= 0 and a.x1 <= figure.bbox.x1 and a.y0 >= 0
        assert not any(a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1 for b in boxes[i + 1 :])
    top = max(image.get_window_extent().y1 for image in figure.axes[0].images)
    assert figure._suptitle.get_window_extent().y0 >= top


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_a_sample_shows_images_of_each_class(classes):
    labels = np.arange(1000) % classes
    places = sample_of(labels, classes=classes)
    assert all((labels[own] == label).all() for label, own in enumerate(places))
    figure = sample_figure([np.zeros((len(p), 1, 8, 8), np.uint8) for p in places], class_names=[])
    assert len(figure.axes[0].images) == {2: 16, 10: 80, 100: 60}[classes]
    figure.draw_without_rendering()
    assert all(t.get_window_extent().x0 >= 0 for t in figure.axes[0].texts)
    top = max(image.get_window_extent().y1 for image in figure.axes[0].images)
    assert figure._suptitle.get_window_extent().y0 >= top


def test_a_class_without_images_is_said_to_have_none():
    places = sample_of(np.array([0, 0, 2]), classes=3)
    figure = sample_figure([np.zeros((len(p), 1, 8, 8), np.uint8) for p in places], class_names=NAMES)
    assert "no images" in texts_of(figure)


@pytest.mark.parametrize(
    ("image", "shape"),
    [
        (np.zeros((1, 8, 6), np.uint8), (8, 6, 3)),
        (np.full((3, 300, 200), 0.5, np.float32), (100, 66, 3)),
        (np.full((5, 4, 4), np.nan, np.float32), (4, 4, 3)),
        (np.zeros((2, 4, 4), np.uint8), (4, 4, 3)),
    ],
)
def test_any_image_can_be_looked_at(image, shape):
    seen = viewable(image)
    assert seen.shape == shape and seen.dtype == np.uint8
    assert max(seen.shape) <= LARGEST_SIDE


def test_matrices_side_by_side_share_one_scale_and_have_their_titles(predictions):
    matrices = [confusion_matrix(predictions(3, images=n)) for n in (300, 600)]
    figure = confusions_figure(matrices, titles=["trial 1: <b>", "trial 2"], class_names=NAMES)
    panels = figure.axes[:2]
    assert [a.get_title(loc="left") for a in panels] == ["trial 1: <b>", "trial 2"]
    assert {a.collections[0].norm.vmax for a in panels} == {1.0}
    assert panels[0].get_position().x1 < panels[1].get_position().x0
    with pytest.raises(ValueError, match="one size"):
        confusions_figure([matrices[0], np.eye(2)], titles=["a", "b"], class_names=NAMES)


def test_a_name_that_no_font_here_can_draw_is_a_number_and_the_key_says_which():
    with keyed() as key:
        assert readable_names(["cat", "\U000143ff"], 2, limit=20) == ["cat", "class 1"]
        assert readable_names(["class 1", "\U000143ff"], 2, limit=20) == ["class 1", "(class 1)"]
    assert key == {"class 1": "\U000143ff", "(class 1)": "\U000143ff"}
    assert readable_names(["žluťoučký", "Ελλάδα"], 2, limit=20) == ["žluťoučký", "Ελλάδα"]


def test_the_report_shows_the_images_that_the_winner_was_judged_by(tmp_path, study):
    data = dataset()
    built = study({"lr": [0.1, 0.2]}, class_names=NAMES).data()
    asked = []

    def images(trial):
        asked.append(trial.number)
        return data

    files = write_report(
        built, folder=tmp_path, predictions=lambda _: judged(data, [10, 21, 32, 43]), images=images
    )
    assert asked == [files.ranking.best_trial.number]
    assert {"samples.png", "samples.svg", "mistakes.png", "mistakes.svg"} <= {p.name for p in files.files}
    page = files.page.read_text()
    assert (
        "The 2 images that the winner got wrong with most confidence: cat predicted as dog at 98.2 %" in page
    )


def absent(trial):
    raise DataError("dataset 'fmnist' is not on this machine")


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (absent, "No images are shown: dataset 'fmnist' is not on this machine."),
        (
            lambda trial: dataset(images=30),
            "No images are shown: they have changed since the winner was trained.",
        ),
    ],
)
def test_without_the_same_images_they_are_left_out_with_a_sentence(tmp_path, study, images, words):
    import html

    (tmp_path / "mistakes.png").write_text("of an earlier winner")
    built = study({"lr": [0.1, 0.2]}, class_names=NAMES).data()
    files = write_report(
        built, folder=tmp_path, predictions=lambda _: judged(dataset(), [10, 21, 32, 43]), images=images
    )
    assert not {p.name for p in tmp_path.iterdir()} & {"samples.png", "mistakes.png"}
    assert words in html.unescape(files.page.read_text())


def test_no_image_that_may_be_a_test_image_is_shown(tmp_path, study):
    built = study({"lr": [0.1, 0.2]}, val=0.0, class_names=NAMES).data()
    files = write_report(
        built, folder=tmp_path, predictions=lambda _: None, images=lambda _: dataset(test=False)
    )
    assert "samples.png" not in {p.name for p in files.files}
    files = write_report(built, folder=tmp_path, predictions=lambda _: None, images=lambda _: dataset())
    assert "samples.png" in {p.name for p in files.files}


def test_figures_of_images_are_the_same_bytes_each_time():
    data = dataset()
    mistakes = confident_mistakes(judged(data, [10, 21, 32]))
    one, two = (mistakes_figure(data.train_images[[21, 10]], mistakes, class_names=NAMES) for _ in range(2))
    assert png_bytes(one) == png_bytes(two)
