"""What a notebook shows of a result: short, and text whatever names hold."""

import csv
import io
import re
from dataclasses import replace

from rich.console import Console

from gridsearch.api.result import StudyResult
from gridsearch.reporting import (
    effects_frame,
    ensembles_frame,
    print_ranking,
    rank,
    ranking_csv,
    ranking_html,
    report_json,
)
from gridsearch.reporting.output.page import render_page
from gridsearch.reporting.ranking.ranking import with_others


def test_a_result_shows_its_headline_and_at_most_ten_points(study):
    data = study({"lr": [x / 100 for x in range(1, 16)]}, seeds=2).data()
    text = StudyResult(data, rank(data))._repr_html_()
    assert text.count("<tr>") == 11
    assert "is best" in text
    assert "and 5 more points" in text


def test_a_result_says_by_what_it_is_ranked_and_which_points_lost_seeds(study):
    from gridsearch.records import TrialState

    builder = study({"lr": [0.1, 0.2]}, seeds=2).score(0, 0.5).score(1, 0.5).score(2, 0.9)
    data = replace(builder.lose(3, TrialState.PRUNED).data(), own_metric="macro_f1")
    text = ranking_html(data, rank(data))
    assert "<td>90.00 % (1 pruned)</td>" in text
    assert "<p>Ranked by validation accuracy; the study itself is ranked by macro F1.</p>" in text
    data = study({"lr": [0.1], "epochs": [1, 2]}).data(axes=("lr",))
    assert ("mixes points with different settings" in ranking_html(data, rank(data))) == bool(
        rank(data).mixed
    )


def test_points_that_are_ranked_separately_are_told_and_counted(study):
    """They may have the better value below the winner, and a rank of their own."""
    whole = study({"lr": [0.1, 0.2, 0.3]}).data()
    first = rank(replace(whole, trials=whole.trials[:1]))
    others = rank(replace(whole, trials=whole.trials[1:]))
    ranking = with_others(first, [others], whole)
    text = ranking_html(whole, ranking)
    assert (
        "<p>2 points of other images, settings or code are ranked separately, below, with ranks in brackets, and not"
        in text
    )
    assert [row.count("<td>apart</td>") for row in text.split("<tr>")[2:]] == [0, 1, 1]
    assert re.findall(r"<tr>\s*<td>(.*?)</td>", text) == ["1", "(1)", "(2)"]
    assert ": 3 trials of 3 points (2 of them apart); best" in repr(StudyResult(whole, ranking))
    assert "apart" not in ranking_html(whole, rank(whole)) + repr(StudyResult(whole, rank(whole)))


def test_no_two_points_have_one_rank_among_the_same_points(study):
    """Groups of other images, settings or code begin at rank 1 again."""
    whole = study({"lr": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}).data()
    parts = [
        rank(replace(whole, trials=whole.trials[i : i + n])) for i, n in ((0, 1), (1, 2), (3, 1), (4, 2))
    ]
    inner = with_others(parts[2], [parts[3]], whole)
    ranking = with_others(with_others(parts[0], [parts[1]], whole), [inner], whole)
    frame = StudyResult(whole, ranking).points
    assert frame.columns[:2].tolist() == ["rank", "apart"]
    assert list(zip(frame["apart"], frame["rank"], strict=True)) == [
        (0, 1),
        (1, 1),
        (1, 2),
        (2, 1),
        (3, 1),
        (3, 2),
    ]
    rows = list(csv.DictReader(io.StringIO(ranking_csv(whole, ranking=ranking).decode())))
    assert [row["apart"] for row in rows] == ["0", "1", "1", "2", "3", "3"]
    points = report_json(whole, ranking=ranking)["points"]
    assert [p.get("apart", 0) for p in points] == [0, 1, 1, 2, 3, 3]
    assert not any("other_images" in p for p in points), "these are of the same images"
    shown = Console(width=100, record=True)
    print_ranking(whole, console=shown, ranking=ranking)
    told, page = shown.export_text(), render_page(whole, ranking)
    for place in ("1", "(1)", "(2)"):
        assert f"\n{place}\tlr=" in told and f">{place}</td>" in page
    assert "apart" not in StudyResult(whole, rank(whole)).points


def test_hostile_names_stay_text_in_a_notebook(study, hostile):
    data = study({"model.x": list(hostile[:9]), "lr": [0.1]}, name="<img src=x>").data(dataset="<script>")
    text = ranking_html(data, rank(data))
    tags = set(re.findall(r"<\s*/?\s*([a-zA-Z!]+)", text))
    assert tags == {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}


def test_effects_and_ensembles_are_frames_with_the_numbers_of_the_json(study, predictions):
    data = study({"lr": [0.1, 0.01], "batch": [10, 20]}, seeds=2).data()
    ranking = rank(data, predictions=lambda _: predictions(10))
    assert effects_frame(ranking).axis.iloc[0] == "lr"
    assert 0.9 < effects_frame(ranking).share.sum() <= 1.0001
    frame = ensembles_frame(ranking)
    assert list(frame.points) == [2, 3]
    assert list(frame.val_accuracy) == [e.accuracy for e in ranking.ensembles]
    assert list(ensembles_frame(rank(data)).columns) == list(frame.columns)
