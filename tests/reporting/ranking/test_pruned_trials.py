"""A pruned trial is told with its epoch and its pruner, and is never taken for a result or for a failure."""

from __future__ import annotations

import csv
import io

import pytest

from gridsearch.records import TrialState
from gridsearch.reporting import print_ranking, rank, report_json
from gridsearch.reporting.exports.paper_tables import latex_table, markdown_table
from gridsearch.reporting.figures.heatmap import heatmap_figures
from gridsearch.reporting.output.page import render_page
from gridsearch.reporting.output.plain_tables import ranking_csv, trials_csv

GRID = {"lr": [0.1, 0.2, 0.3], "batch": [10, 20]}


def printed(data) -> str:
    from rich.console import Console

    out = io.StringIO()
    print_ranking(data, console=Console(file=out, width=200))
    return out.getvalue()


def test_a_point_that_lost_seeds_to_pruning_ranks_below_those_that_did_not(study):
    builder = study({"lr": [0.1, 0.2, 0.3]}, seeds=2, noise=0.0)
    for number, value in enumerate((0.5, 0.5, 0.99, 0.99, 0.6, 0.6)):
        builder.score(number, value)
    data = builder.prune(3, 1).data()
    ranking = rank(data)
    assert [(p.rank, p.params["lr"], p.n) for p in ranking.points] == [(1, 0.3, 2), (2, 0.1, 2), (3, 0.2, 1)]
    assert "ranks below all points without" in printed(data)
    assert "ranks below" not in printed(builder.without(3).data())


def test_each_format_of_the_ranking_says_how_many_seeds_of_a_point_were_pruned_or_diverged(study):
    builder = study({"lr": [0.1, 0.2]}, seeds=4).prune(4, 1).prune(5, 1).lose(6, TrialState.DIVERGED)
    data = builder.data()
    rows = csv.DictReader(io.StringIO(ranking_csv(data).decode()))
    assert [(row["lr"], row["n"], row["pruned"], row["diverged"]) for row in rows] == [
        ("0.1", "4", "0", "0"),
        ("0.2", "1", "2", "1"),
    ]
    assert [(p["pruned"], p["diverged"]) for p in report_json(data)["points"]] == [(0, 0), (2, 1)]
    for table in (latex_table, markdown_table):
        assert "1 diverged, 2 pruned" in table(data, rank(data))


def test_a_pruned_trial_has_no_value_but_its_epochs_metrics_and_pruner(study):
    data = study(GRID).prune(2, 2, "hyperband").data()
    report = report_json(data)
    assert report["counts"]["pruned"] == 1
    trial = report["trials"][2]
    assert (trial["state"], trial["value"], trial["epochs"], trial["pruned_by"]) == (
        "pruned",
        None,
        2,
        "hyperband",
    )
    assert trial["val_accuracy"] > 0
    assert {t["pruned_by"] for t in report["trials"] if t["state"] == "complete"} == {None}
    point = next(p for p in report["points"] if p["params"] == trial["params"])
    assert (point["rank"], point["mean"], point["n"]) == (None, None, 0)
    row = list(csv.DictReader(io.StringIO(trials_csv(data).decode())))[2]
    assert (row["state"], row["value"], row["epochs"]) == ("pruned", "", "2")


def test_the_words_say_how_many_were_pruned_by_what_and_when(study):
    one = printed(study(GRID).prune(2, 1).data())
    assert "1 trial was pruned by asha after 1 epoch and has no final value" in one
    many = printed(study(GRID).prune(2, 1).prune(3, 2, "median").data())
    assert "2 trials were pruned by asha and median after 1 to 2 epochs and have no final value" in many
    assert "pruned by" not in printed(study(GRID).data())


def test_the_page_shows_pruned_trials_as_such_and_not_among_the_failures(study):
    data = study(GRID).prune(2, 1).data()
    page = render_page(data, rank(data))
    assert "pruned by asha after epoch 1" in page
    failed = study(GRID).lose(2, TrialState.FAILED, "boom").data()
    heading = 'id="failures"'
    assert heading in render_page(failed, rank(failed))
    assert heading not in page


@pytest.mark.parametrize(("epochs", "text"), [((1, 1), "pruned\nepoch 1"), ((1, 2), "pruned\nepoch 1 to 2")])
def test_a_cell_of_the_heatmap_says_that_it_was_pruned_and_when(study, epochs, text):
    builder = study(GRID, seeds=2).prune(4, epochs[0]).prune(5, epochs[1])
    data = builder.data()
    figure = heatmap_figures(data, ranking=rank(data))["heatmap"]
    assert text in {t.get_text() for axes in figure.axes for t in axes.texts}


def test_a_cell_says_of_how_many_seeds_its_mean_is_where_some_were_pruned(study):
    data = study(GRID, seeds=3).prune(4, 1).prune(6, 1).prune(7, 1).data()
    figure = heatmap_figures(data, ranking=rank(data))["heatmap"]
    lines = [t.get_text().split("\n") for axes in figure.axes for t in axes.texts]
    assert sorted(text[-1] for text in lines if " of " in text[-1]) == ["n=1 of 3", "n=2 of 3"]
    assert {len(text) for text in lines if text[-1] == "n=2 of 3"} == {3}  # the mean, its spread, n
