"""Studies beside each other: ranked together only where that has a meaning, told apart only where luck is ruled out."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from gridsearch.errors import ArtifactError
from gridsearch.reporting import rank, write_comparison
from gridsearch.reporting.output.comparison_page import print_comparison
from gridsearch.reporting.ranking.comparison import compare
from gridsearch.reporting.ranking.winner_differences import Side
from gridsearch.reporting.stats.predictions import Predictions


def side(data, predictions=lambda _: None):
    return Side(data=data, ranking=rank(data), predictions=predictions)


def answers(right, *, labels=None):
    """Predictions that are right where they are told to be."""
    right = np.asarray(right, bool)
    labels = np.arange(len(right)) % 2 if labels is None else labels
    logits = np.zeros((len(right), 2))
    logits[np.arange(len(right)), np.where(right, labels, 1 - labels)] = 1.0
    return Predictions(logits, labels, np.arange(len(right)))


def printed(sides):
    """What the terminal shows of a comparison, on one line."""
    out = io.StringIO()
    Console(file=out, width=80, no_color=True).print(print_comparison(compare(sides)))
    return " ".join(out.getvalue().split())


def scored(study, name, values, lr, **more):
    builder = study({"lr": [lr]}, seeds=len(values), name=name, **more)
    for number, value in enumerate(values):
        builder.score(number, value)
    return builder.data()


def test_the_better_winner_comes_first_whatever_the_order_given(study):
    one, two = scored(study, "one", [0.8], 0.1), scored(study, "two", [0.9], 0.2)
    assert compare([side(one), side(two)]).names == compare([side(two), side(one)]).names == ("two", "one")


def test_shared_seeds_are_compared_seed_by_seed(study):
    a, b = [0.95, 0.91, 0.93], [0.94, 0.905, 0.918]
    (found,) = compare([side(scored(study, "a", a, 0.1)), side(scored(study, "b", b, 0.2))]).differences
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high))
    assert found.behind == pytest.approx(np.mean(a) - np.mean(b))
    assert found.differs == (stats.ttest_rel(a, b).pvalue < 0.05)
    assert "3 shared seeds" in found.method


def test_other_validation_images_are_compared_unpaired_and_said_so(study):
    a, b = [0.95, 0.91, 0.93], [0.94, 0.905, 0.918, 0.9]
    one = side(scored(study, "a", a, 0.1))
    other = side(scored(study, "b", b, 0.2, val=0.3))
    (found,) = compare([one, other]).differences
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high))
    assert "unpaired because the validation images differ (Welch's t)" in found.method


def test_one_seed_each_is_compared_image_by_image(study):
    n, won, lost = 1000, 60, 20
    a = answers(np.r_[np.ones(won), np.zeros(lost), np.ones(n - won - lost)])
    b = answers(np.r_[np.zeros(won), np.ones(lost), np.ones(n - won - lost)])
    sides = [
        side(scored(study, "a", [0.98], 0.1), lambda _: a),
        side(scored(study, "b", [0.94], 0.2), lambda _: b),
    ]
    (found,) = compare(sides).differences
    assert found.behind == pytest.approx(0.04)
    gap = 40 / (n + 2)
    half = 1.959964 * math.sqrt(81 - 40**2 / (n + 2)) / (n + 2)
    assert (found.ci_low, found.ci_high) == pytest.approx((gap - half, gap + half))
    assert found.differs
    assert "1,000 validation images that both were asked about" in found.method


def test_one_seed_on_other_images_is_a_difference_of_two_proportions(study):
    a, b = answers(np.arange(70) < 56), answers(np.arange(80) < 48)
    sides = [
        side(scored(study, "a", [0.8], 0.1), lambda _: a),
        side(scored(study, "b", [0.6], 0.2, split_seed=1), lambda _: b),
    ]
    (found,) = compare(sides).differences
    # Newcombe 1998, table II, 56/70 - 48/80 by his method 10
    assert (found.ci_low, found.ci_high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def damaged(_):
    raise ArtifactError("altered")


@pytest.mark.parametrize("told", [lambda _: None, damaged])
def test_without_seeds_and_predictions_nobody_says_whether_they_differ(study, told):
    sides = [side(scored(study, n, [v], lr), told) for n, v, lr in (("a", 0.9, 0.1), ("b", 0.8, 0.2))]
    (found,) = compare(sides).differences
    assert (found.differs, found.ci_low) == (None, None)
    assert found.behind == pytest.approx(0.1)


def test_the_same_winner_does_not_differ_from_itself(study):
    (found,) = compare([side(scored(study, n, [0.9, 0.91], 0.1)) for n in "ab"]).differences
    assert (found.differs, found.method) == (False, "both winners are the same point")


def test_with_three_studies_the_intervals_are_wider_so_that_they_hold_together(study):
    sides = [side(scored(study, n, v, lr)) for n, v, lr in (
        ("a", [0.95, 0.91, 0.93], 0.1), ("b", [0.94, 0.905, 0.918], 0.2), ("c", [0.9, 0.89, 0.88], 0.3))]  # fmt: skip
    two, three = compare(sides[:2]).differences[0], compare(sides).differences[0]
    assert three.ci_high - three.ci_low > 1.3 * (two.ci_high - two.ci_low)


@pytest.mark.parametrize(
    ("other", "word"),
    [({"data_fingerprint": "cd" * 32}, "different images"), ({"val": 0}, "different metrics")],
)
def test_other_images_or_another_metric_are_shown_side_by_side_and_not_ranked_together(
    study, tmp_path, other, word
):
    sides = [
        side(study({"lr": [0.1, 0.01]}, name="a").data()),
        side(study({"lr": [0.1]}, name="b", **other).data()),
    ]
    files = write_comparison(sides, folder=tmp_path)
    found = files.comparison.to_json()
    assert (found["ranked_together"], found["differences"]) == (False, [])
    assert word in found["why_not"]
    assert [s["rank"] for s in found["studies"]] == [None, None]
    assert word in files.page.read_text()


def test_points_that_both_hold_are_matched_by_their_key_and_not_by_their_axes(study):
    one = study({"lr": [0.1, 0.01], "batch": [10, 20]}, name="one")
    two = study({"lr": [0.01, 0.5]}, name="two", batch=20).score(0, 0.5)
    found = compare([side(one.data()), side(two.data())])
    (shared,) = found.shared
    assert (shared.params["lr"], shared.params["batch"]) == (0.01, 20)
    values = {t.value for t in one.data().trials if t.params == {"lr": 0.01, "batch": 20}}
    assert dict(zip(found.names, shared.means, strict=True)) == {"one": values.pop(), "two": 0.5}


def test_numbers_that_were_worked_out_are_shown_short_and_never_two_alike(study, tmp_path):
    one = side(scored(study, "one", [0.8], 0.0284803586844))
    other = side(scored(study, "other", [0.9], 0.0284799999999))
    said = printed([one, other])
    assert "The winner of other, lr=0.02848, has" in said and "one lr=0.0284804 " in said
    page = write_comparison([one, other], folder=tmp_path).page.read_text()
    assert "0.0284799999999" not in page and "lr=0.0284804" in page


def test_the_folder_holds_page_figures_and_strict_json_and_loses_old_figures(study, tmp_path, predictions):
    (tmp_path / "heatmap-old.png").write_bytes(b"")
    told = predictions(10)
    sides = [side(study({"lr": lr, "batch": [10, 20]}, name=n).data(), lambda _: told)
             for n, lr in (("a", [0.1, 0.01]), ("b", [0.1, 0.001]))]  # fmt: skip
    files = write_comparison(sides, folder=tmp_path)
    stems = ("curves", "heatmap-a", "heatmap-b", "confusion")
    wanted = {f"{s}.{k}" for s in stems for k in ("png", "svg")} | {"index.html", "comparison.json"}
    assert {p.name for p in tmp_path.iterdir()} == wanted
    assert (
        json.loads((tmp_path / "comparison.json").read_text(), parse_constant=pytest.fail)
        == files.comparison.to_json()
    )


def test_heatmaps_of_two_studies_share_one_scale(study):
    from gridsearch.reporting import heatmap_figures
    from gridsearch.reporting.figures.scale import common_scale

    studies = [study({"lr": lr, "batch": [10, 20]}).data() for lr in ([0.1, 0.01], [0.003, 0.001])]
    rankings = [rank(d) for d in studies]
    scale = common_scale(rankings)
    limits = []
    for data, ranking in zip(studies, rankings, strict=True):
        (figure,) = heatmap_figures(data, ranking=ranking, scale=scale).values()
        limits.append(figure.axes[0].collections[0].get_clim())
    assert limits[0] == limits[1] == (scale.low, scale.high)
    means = [p.mean for r in rankings for p in r.points]
    assert scale.high == max(means)


def test_classes_that_differ_get_a_matrix_each_and_missing_predictions_a_sentence(
    study, tmp_path, predictions
):
    a = side(study({"lr": [0.1]}, name="a", class_names="xyz").data(), lambda _: predictions(3))
    b = side(study({"lr": [0.2]}, name="b", class_names="uvw").data(), lambda _: predictions(3))
    files = write_comparison([a, b], folder=tmp_path)
    assert (tmp_path / "confusion-a.png").exists() and (tmp_path / "confusion-b.png").exists()
    assert files.notes == ("The studies' classes differ, so each matrix stands by itself.",)
    c = side(study({"lr": [0.3]}, name="c").data(), damaged)
    files = write_comparison([a, c], folder=tmp_path)
    assert files.notes == ("The winner of c has no usable predictions, so no confusion matrix.",)


def test_the_terminal_says_who_won_by_how_much_and_where_the_interval_comes_from(study):
    sides = [
        side(scored(study, "a", [0.95, 0.91, 0.93], 0.1)),
        side(scored(study, "b", [0.8, 0.77, 0.79], 0.2)),
    ]
    text = printed(sides)
    assert "The winner of a, lr=0.1, has the best validation accuracy: 93.00 ± 2.00 %." in text
    assert "ahead of that of b" in text and "more than chance explains" in text
    assert "paired over 3 shared seeds (Student's t)" in text
    assert "There is no point that both studies have." in text


def test_winners_of_functions_stand_beside_their_function_and_not_a_dataset(study):
    from gridsearch.records import FunctionSettings
    from gridsearch.reporting.output.comparison_page import _winner_table

    def of(name):
        built = study({"x": [1]}, name=name)
        settings = FunctionSettings(objective=f"{name}.py:f", params={"x": 1})
        built.change(0, value=1.0, metrics={"score": 1.0}, settings=settings)
        return side(built.data(metric="score", dataset=f"{name}.py:f"))

    columns, _ = _winner_table(compare([of("a"), of("b")]))
    assert "objective" in [column.title for column in columns]
