"""Folds are replicates: a point's value is their mean, its interval allows for what they share, points are paired by them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gridsearch.records import TrialState
from gridsearch.reporting.output.document import report_json
from gridsearch.reporting.output.fold_table import fold_table
from gridsearch.reporting.output.frames import epochs_frame, trials_frame
from gridsearch.reporting.output.headline import headline
from gridsearch.reporting.output.page import render_page
from gridsearch.reporting.output.plain_tables import trials_csv
from gridsearch.reporting.ranking.comparison import compare
from gridsearch.reporting.ranking.out_of_fold import predictions_of
from gridsearch.reporting.ranking.ranking import rank
from gridsearch.reporting.ranking.selection import filter_data
from gridsearch.reporting.ranking.winner_differences import Side
from gridsearch.reporting.stats.over_folds import Partitions, share
from gridsearch.reporting.stats.over_seeds import mean_intervals, seeds_needed
from gridsearch.reporting.stats.predictions import Predictions
from tests.benchmarks.folds import KINDS, RESULT, simulate

HARD = np.array([0.0, -0.2, 0.05, -0.1, 0.1])
"""What a fold does to all points alike."""


def folded(study, axes, *, folds=5, seeds=1, noise=0.002, shift=HARD, **fixed):
    """Return a study of which each replicate is one fold."""
    builder = study(axes, seeds=folds * seeds, noise=noise, val=1 / folds, folds=folds, epochs=2, **fixed)
    for number, record in enumerate(builder.records):
        fold, seed = record.seed % folds + 1, record.seed // folds
        settings = dataclasses.replace(record.settings, fold=fold, partition=seed)
        value = 0.7 + (record.metrics["val_accuracy"] - 0.9) + shift[fold - 1]
        builder.change(number, settings=settings, seed=seed).score(number, float(value))
    return builder


def test_the_folds_of_a_point_are_one_point_whose_interval_allows_for_shared_images(study):
    ranking = rank(folded(study, {"lr": [0.1, 0.01]}, seeds=2).data())
    assert len(ranking.points) == 2
    best = ranking.best
    assert (best.n, best.seeds, best.folds, best.replicates) == (10, 2, 5, "5 folds x 2 seeds")
    ratios = [5 * own.mean(1).var(ddof=1) / own.var(1, ddof=1).mean() for own in
              (np.reshape(p.values, (2, 5)) for p in ranking.points)]  # fmt: skip
    variance = np.var(best.values, ddof=1) * (1 / 10 + (1 - np.mean(ratios)) * (1 / 5 - 1 / 10) + 1 / 4)
    assert best.ci_high - best.mean == pytest.approx(stats.t.ppf(0.975, 9) * np.sqrt(variance), rel=1e-9)
    assert ranking.uncertainty.basis == "folds"


def test_points_are_compared_fold_by_fold_so_that_hard_folds_do_not_blur_them(study):
    axes = {"lr": [0.1, 0.01]}
    paired = rank(folded(study, axes, noise=0.001).data())
    assert not paired.tied and paired.uncertainty.runner_up_differs
    assert paired.best.ci_low < paired.runner_up.mean, "each by itself is known far less well"
    builder = folded(study, axes, noise=0.001)
    for number, record in enumerate(builder.records):  # the second point has another partition
        if record.params["lr"] == 0.1:
            other = dataclasses.replace(record.settings, split_seed=1)
            builder.change(number, settings=other)
    assert len(rank(builder.data()).tied) == 1


def test_correcting_for_folds_widens_intervals_by_what_nadeau_and_bengio_say_and_leaves_seeds_alone():
    values = np.random.default_rng(0).normal(0.8, 0.02, (3, 5))
    plain, same = (
        mean_intervals(values),
        mean_intervals(values, partitions=Partitions.by([1, 1, 1], range(5))),
    )
    assert np.array_equal(plain, same)
    wide = mean_intervals(values, partitions=Partitions.by([5, 5, 5], [0] * 5))
    assert np.diff(wide) / np.diff(plain) == pytest.approx(np.sqrt(1 + 5 / 4))


def test_several_partitions_take_away_what_they_differ_by_and_no_more():
    assert share(15, 5, 1.0) == pytest.approx(1 / 15 + 1 / 4), "the test of Bouckaert and Frank"
    assert share(15, 5, 0.0) == share(5, 5, 0.0) == pytest.approx(1 / 5 + 1 / 4), "that of one partition"
    assert share(4, 1, 0.0) == 1 / 4
    two = Partitions.by([3], list("aaabbb"))
    assert two.averaged(np.array([[0.1, 0.2, 0.3, 0.3, 0.1, 0.2]])) == pytest.approx(0), (
        "the same images, parted twice"
    )
    assert two.averaged(np.array([[0.1, 0.1, 0.1, 0.3, 0.3, 0.3]])) == 1
    half = np.array([[0.0, 0.0, 0.3, 0.1, 0.1, 0.4]])
    assert two.averaged(half) == pytest.approx(3 * 0.005 / 0.03)
    lacking = np.where(np.arange(6) == 5, np.nan, half)
    assert (two.averaged(lacking), two.averaged(lacking, unknown=1.0)) == (0.0, 1.0), "one whole partition"


def test_more_seeds_never_take_away_what_folds_share():
    how = {"df": 4, "level": 0.025}
    assert seeds_needed(1.0, variance=0.3, folds=5, **how) in range(1, 10)
    assert seeds_needed(0.5, variance=1.0, folds=5, **how) is None, "a fourth of the variance stays"
    assert seeds_needed(0.5, variance=1.0, **how) is not None


def test_headline_and_cautions_speak_of_folds(study):
    data = folded(study, {"lr": [0.1, 0.01]}).data()
    words = headline(data, rank(data))
    assert "(mean of 5 folds, 95 % interval" in words.won
    assert "between folds" in words.margin
    assert any(caution.startswith("5 folds per point; ± is") for caution in words.cautions)
    assert "Nadeau and Bengio 2003" in words.method


def test_a_lost_fold_is_told_of_and_compared_over_the_folds_that_both_have(study):
    builder = folded(study, {"lr": [0.1, 0.01]}, noise=0.001)
    data = builder.lose(6, TrialState.FAILED, "boom").data()
    ranking = rank(data)
    best = next(p for p in ranking.points if p.n == 4)
    assert best.replicates == "4 of 5 folds"
    assert ranking.uncertainty.over_fewer == (1,) and not ranking.tied


def test_tables_and_json_have_the_fold_only_where_there_is_one(study):
    data = folded(study, {"lr": [0.1, 0.01]}, seeds=2).data()
    assert list(trials_frame(data)["fold"]) == [1, 2, 3, 4, 5] * 4
    assert list(epochs_frame(data)["fold"][:4]) == [1, 1, 2, 2]
    assert b",seed,fold,state," in trials_csv(data).splitlines()[0]
    report = report_json(data)
    assert [t["fold"] for t in report["trials"][:5]] == [1, 2, 3, 4, 5]
    folds = report["points"][0]["folds"]
    assert [f["fold"] for f in folds] == [1, 2, 3, 4, 5] and all(len(f["trials"]) == 2 for f in folds)
    assert np.mean([f["mean"] for f in folds]) == pytest.approx(report["points"][0]["mean"])
    table = fold_table(rank(data))
    assert table.folds == (1, 2, 3, 4, 5) and len(table.rows) == 2 and not table.beyond
    plain = study({"lr": [0.1, 0.01]}).data()
    assert fold_table(rank(plain)) is None
    assert "fold" not in trials_frame(plain) and "fold" not in report_json(plain)["trials"][0]


def test_folds_without_a_column_are_counted(study, monkeypatch):
    monkeypatch.setattr("gridsearch.reporting.output.fold_table.MOST_FOLDS", 3)
    data = folded(study, {"lr": [0.1, 0.01]}).data()
    assert fold_table(rank(data)).beyond == 2
    assert "… and 2 more folds in ranking.json." in render_page(data, rank(data))


def test_a_report_can_be_about_one_fold(study):
    data = filter_data(folded(study, {"lr": [0.1, 0.01]}).data(), {"fold": "2"})
    assert len(data.trials) == 2 and {t.settings.fold for t in data.trials} == {2}


def stored(count, folds):
    """Return predictions of each fold of images, by trial, and those of all images."""
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(count, 3)), rng.integers(0, 3, count)
    owner = rng.permutation(count) % folds
    found = {}
    for fold in range(folds):
        places = np.flatnonzero(owner == fold)
        found[fold] = Predictions(logits[places], labels[places], places)
    return found, Predictions(logits, labels, np.arange(count))


def test_what_a_point_says_of_the_images_is_pooled_over_its_folds(study):
    ranking = rank(folded(study, {"lr": [0.1]}).data())
    by_trial, whole = stored(50, 5)
    found = predictions_of(ranking.best, by_trial.get)
    assert np.array_equal(found.indices, np.arange(50))
    assert np.array_equal(found.logits, whole.logits) and np.array_equal(found.labels, whole.labels)
    assert predictions_of(ranking.best, {**by_trial, 2: None}.get) is None, "a fold is missing"


def test_studies_of_the_same_folds_are_compared_fold_by_fold_with_the_same_allowance(study):
    one, two = (
        folded(study, {"lr": [lr]}, name=name).score(0, first).data()
        for lr, name, first in ((0.1, "a", 0.61), (0.001, "b", 0.75))
    )
    found = compare([Side(data=d, ranking=rank(d), predictions=lambda _: None) for d in (one, two)])
    (difference,) = found.differences
    assert difference.method.startswith("paired over 5 shared folds (Student's t, corrected")
    a, b = (np.array(rank(d).best.values) for d in (two, one))
    half = stats.t.ppf(0.975, 4) * np.std(a - b, ddof=1) * np.sqrt(1 / 5 + 1 / 4)
    assert difference.ci_high - difference.behind == pytest.approx(half, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_over_folds_hold_the_truth_in_simulated_studies_and_naive_ones_do_not(kind):
    found = simulate(kind, 5, 3, studies=40, seed=7)
    assert found.covered >= 0.92
    assert found.covered_as_if_independent < 0.92
    assert found.left_out <= 0.15 and found.left_out <= found.left_out_as_if_independent


def test_the_committed_simulation_keeps_its_promise():
    rows = json.loads(Path(RESULT).read_text())
    assert len({(row["kind"], row["folds"], row["seeds"]) for row in rows}) == len(rows) == 12
    assert all(row["covered"] >= 0.94 for row in rows)
    assert all(row["left_out"] <= (0.05 if row["kind"] == "features" else 0.1) for row in rows)
    assert min(row["covered_as_if_independent"] for row in rows) < 0.7
