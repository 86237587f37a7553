"""Frames and CSV: complete, typed, and harmless in a spreadsheet."""

import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from pandas._libs.parsers import STR_NA_VALUES

from gridsearch.records import TrialState
from gridsearch.reporting import (
    curves_figure,
    epochs_frame,
    per_class_csv,
    points_frame,
    rank,
    ranking_csv,
    trials_csv,
    trials_frame,
)
from gridsearch.reporting.output.figure_data import figure_data
from gridsearch.reporting.output.page_tables import filter_example, point_columns
from gridsearch.reporting.output.plain_tables import PlainTable, to_csv
from gridsearch.reporting.output.trial_table import TrialColumns
from gridsearch.reporting.stats.predictions import harmless


def test_the_trials_frame_has_a_row_a_trial_with_params_and_results(study):
    frame = trials_frame(study({"lr": [0.01, 0.001], "batch": [10, 20]}, seeds=2).data())
    assert len(frame) == 8
    assert {
        "number",
        "lr",
        "batch",
        "seed",
        "state",
        "value",
        "val_accuracy",
        "train_loss",
        "seconds",
    } <= set(frame)
    assert frame["batch"].dtype.kind == "i"
    assert frame["lr"].dtype.kind == "f"


def test_an_axis_that_bears_a_results_name_stays_apart(study):
    builder = study({"epochs": [2, 10]}).lose(1, TrialState.FAILED, "boom")
    frame = trials_frame(builder.data())
    assert list(frame["params.epochs"]) == [2, 10]
    assert list(frame["epochs"]) == [2, 0]


def test_no_two_columns_bear_one_name_whatever_metrics_are_called(study):
    clashing = {"epochs": 1.0, "params.epochs": 2.0, "metrics.epochs": 3.0, "seed": 4.0}
    data = study({"epochs": [2]}).score(0, 0.5, **clashing).data()
    frame = trials_frame(data)
    assert frame.columns.is_unique
    named = [
        "metrics.metrics.epochs",
        "params.epochs",
        "metrics.epochs",
        "metrics.seed",
        "params.params.epochs",
    ]
    assert frame.loc[0, named].tolist() == [1.0, 2.0, 3.0, 4.0, 2]
    assert trials_csv(data).decode().splitlines()[0].split(",") == list(frame.columns)


def test_the_points_frame_is_in_order_of_the_ranking_with_gaps_where_nothing_is(study):
    frame = points_frame(
        study({"lr": [0.01, 0.001]}, seeds=2).lose(0, TrialState.FAILED).lose(1, TrialState.FAILED).data()
    )
    assert frame["rank"].tolist() == [1, pd.NA]
    assert frame["trials"].tolist() == ["2 3", "0 1"]
    assert frame["mean"].isna().tolist() == [False, True]


def test_the_epochs_frame_has_a_row_an_epoch(study):
    data = study({"lr": [0.01, 0.001]}, epochs=4).data()
    frame = epochs_frame(data)
    assert len(frame) == 8
    assert frame["epoch"].tolist() == [1, 2, 3, 4] * 2


def test_tables_of_an_empty_study_have_their_columns(study):
    data = study({"lr": [0.01]}).without(0).data()
    assert len(trials_frame(data)) == len(points_frame(data)) == len(epochs_frame(data)) == 0
    assert trials_csv(data).decode().startswith("number,lr,seed,state")


def test_csv_cells_that_would_run_as_formulas_are_made_harmless(study, hostile):
    builder = study({"model.act": ["=1+1", "@sum", "-cmd", "plain"]}).lose(0, TrialState.FAILED, "+boom")
    frame = pd.read_csv(io.BytesIO(trials_csv(builder.data())))
    assert frame["model.act"].tolist() == ["'=1+1", "'@sum", "'-cmd", "plain"]
    assert frame["error"][0] == "'+boom"


def test_negative_numbers_stay_numbers_in_csv():
    text = to_csv(PlainTable("xyz", [[-1.5, "-3", -1], [2.0, "-x", "=a"]], words="yz")).decode()
    assert text.splitlines() == ["x,y,z", "-1.5,-3,-1", "2.0,'-x,'=a"]


def test_the_ranking_csv_writes_words_as_the_command_line_does(study):
    data = study({"nesterov": [True, False], "dropout": [None, 0.5]}).data()
    text = ranking_csv(data).decode()
    assert "True" not in text and "None" not in text
    assert text.count("true") >= 2


@given(st.text())
def test_no_harmless_cell_begins_like_a_formula_unless_it_is_a_number(text):
    cell = harmless(text)
    if cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
        float(cell)


def test_words_that_pandas_takes_for_missing_values_stay_words_in_csv(study, predictions):
    words = [*sorted(STR_NA_VALUES), "none", "plain"]
    data = study({"model.act": words}).data()
    back = pd.read_csv(io.BytesIO(ranking_csv(data)), index_col="trials")["model.act"].sort_index()
    assert back.tolist() == [*(f'"{word}"' for word in words[:-2]), "none", "plain"]
    classes = ["NA", "null", "None"]
    frame = pd.read_csv(io.BytesIO(per_class_csv(predictions(3), classes)))
    assert frame["class"].tolist() == ['"NA"', '"null"', '"None"']
    assert trials_frame(data)["model.act"].tolist() == words


def test_the_per_class_csv_counts_images_and_mistakes(predictions, fashion):
    text = per_class_csv(predictions(10), fashion).decode()
    frame = pd.read_csv(io.StringIO(text))
    assert frame["class"].tolist() == list(fashion)
    assert frame["images"].sum() == 2000
    assert frame["most_often_taken_for"][6] == "T-shirt/top"
    assert (frame["correct"] / frame["images"]).tolist() == pytest.approx(frame["recall"].tolist(), rel=1e-5)


def test_the_ranking_of_a_function_has_all_its_metrics_and_curves_say_how_many_are_not_drawn(of_a_function):
    names = [f"m{i}" for i in range(20)]
    data = of_a_function(
        [{"x": 1}, {"x": 2}],
        lambda p: {name: p["x"] + i for i, name in enumerate(names)},
        lambda _, end: [end + 1, end],
    )
    frame = points_frame(data)
    assert set(names[1:]) <= set(frame)
    assert [frame[name][0] for name in names[1:]] == [1 + i for i in range(1, 20)]
    assert all(name in ranking_csv(data).decode().splitlines()[0].split(",") for name in names[1:])
    words = " ".join(text.get_text() for text in curves_figure(data).findobj(Text))
    assert "Not drawn: 16 more metrics." in " ".join(words.split())
    assert figure_data(data, rank(data))["curves"]["moreMetrics"] == 16


def test_no_two_columns_of_the_pages_tables_bear_one_heading(of_a_function):
    grid = [{"n": i, "seconds": 1, "seed": i, "state": "x", "loss": 0.1, "trial": i} for i in (1, 2)]
    data = of_a_function(grid, lambda p: {"loss": p["n"]})
    ranking = rank(data)
    points = [column.title for column in point_columns(ranking, data.axes)]
    trials = [column.title for column in TrialColumns.of([ranking], data.axes).headings]
    for titles in (points, trials):
        assert len(set(titles)) == len(titles)
    assert {"params.n", "params.seconds", "state", "seed"} <= set(points)
    assert {"n", "params.seed", "params.state", "params.seconds", "params.trial"} <= set(trials)
    assert filter_example(ranking).startswith("words, or params.n=1, or loss<")
