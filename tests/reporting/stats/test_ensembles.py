"""The best points asked together: the mean of probabilities, on the same images, said with its caveat."""

import io

import numpy as np
import pytest
from rich.console import Console

from gridsearch.errors import ArtifactError
from gridsearch.records import TrialState
from gridsearch.reporting import print_ranking, rank, report_json
from gridsearch.reporting.output.headline import headline
from gridsearch.reporting.output.page import render_page
from gridsearch.reporting.stats.ensemble import SIZES, probabilities
from gridsearch.reporting.stats.predictions import Predictions

IMAGES, CLASSES = 400, 3


@pytest.fixture
def stored():
    """Predictions of any trial: each is right on its own random three of four images, and unsure where it is wrong."""
    labels = np.arange(IMAGES) % CLASSES
    asked = []

    def predictions(number):
        asked.append(number)
        rng = np.random.default_rng(number)
        logits = np.zeros((IMAGES, CLASSES), np.float32)
        wrong = rng.random(IMAGES) < 0.25
        logits[np.arange(IMAGES), labels] = np.where(wrong, -1.0, 3.0)
        return Predictions(logits, labels, np.arange(IMAGES))

    predictions.asked = asked
    return predictions


def test_an_ensemble_is_the_mean_of_its_members_probabilities(study, stored):
    data = study({"lr": [0.01, 0.001], "batch": [10, 20, 50]}).data()
    ranking = rank(data, predictions=stored)
    assert [len(e.trials) for e in ranking.ensembles] == [2, 3, 5]
    labels = np.arange(IMAGES) % CLASSES
    for ensemble in ranking.ensembles:
        assert ensemble.trials == tuple(p.complete[0].number for p in ranking.points[: len(ensemble.trials)])
        odds = [np.exp(stored(n).logits.astype(float)) for n in ensemble.trials]
        mean = np.mean([o / o.sum(axis=1, keepdims=True) for o in odds], axis=0)
        assert ensemble.accuracy == np.mean(mean.argmax(axis=1) == labels)
        assert ensemble.ci_low < ensemble.accuracy < ensemble.ci_high
        assert ensemble.alone == np.mean(stored(ensemble.trials[0]).logits.argmax(axis=1) == labels)
    assert ranking.ensembles[-1].accuracy > ranking.ensembles[-1].alone


def test_a_sure_member_outweighs_unsure_ones_which_a_vote_would_not_let_it(study):
    sure, unsure = [[9.0, 0.0]], [[0.0, 0.1]]
    data = study({"lr": [0.1, 0.2, 0.3]}, noise=0.0).data()
    winner = rank(data).best_trial.number
    ranking = rank(
        data,
        predictions=lambda n: Predictions(np.array(sure if n == winner else unsure), np.array([0])),
    )
    assert [e.accuracy for e in ranking.ensembles] == [1.0, 1.0]


def test_of_ten_thousand_points_ten_are_read_beside_those_of_the_ranking(study, stored):
    builder = study({"lr": [x / 1000 for x in range(1, 501)]}, seeds=2, epochs=1)
    ranking = rank(builder.data(), predictions=stored)
    assert len(stored.asked) == SIZES[-1] == len(ranking.ensembles[-1].trials)


def test_each_point_gives_its_first_seed_and_not_its_luckiest(study, stored):
    data = study({"lr": [0.01, 0.001]}, seeds=2, noise=0.0).score(3, 0.99).data()
    assert rank(data, predictions=stored).ensembles[0].trials == (2, 0)


@pytest.mark.parametrize("how", ["missing", "altered", "other images", "other classes"])
def test_an_ensemble_ends_where_a_points_predictions_cannot_be_used(study, stored, how):
    data = study({"lr": [0.01, 0.001], "batch": [10, 20, 50]}, seeds=2).data()
    third = rank(data).points[2].complete[0].number

    def predictions(number):
        told = stored(number)
        if number != third:
            return told
        if how == "missing":
            return None
        if how == "altered":
            raise ArtifactError("altered")
        if how == "other images":
            return Predictions(told.logits, told.labels, told.indices + 1)
        return Predictions(np.pad(told.logits, ((0, 0), (0, 1))), told.labels, told.indices)

    assert [len(e.trials) for e in rank(data, predictions=predictions).ensembles] == [2]


@pytest.mark.parametrize("lost", [TrialState.DIVERGED, TrialState.FAILED])
def test_a_point_without_a_network_is_no_member(study, stored, lost):
    data = study({"lr": [0.01, 0.001, 0.0001]}).lose(1, lost).data()
    (pair,) = rank(data, predictions=stored).ensembles
    assert set(pair.trials) == {0, 2}


def test_without_predictions_or_held_out_images_or_a_second_point_there_is_none(study, stored):
    two = study({"lr": [0.01, 0.001]})
    assert rank(two.data()).ensembles == ()
    assert rank(two.data(), predictions=lambda _: None).ensembles == ()
    assert rank(study({"lr": [0.01]}).data(), predictions=stored).ensembles == ()
    assert rank(study({"lr": [0.01, 0.001]}, val=0).data(), predictions=stored).ensembles == ()
    assert headline(two.data(), rank(two.data())).ensembles == ""


def test_terminal_page_and_json_tell_of_the_ensembles_and_that_they_are_flattered(study, stored):
    data = study({"lr": [0.01, 0.001], "batch": [10, 20]}).data()
    ranking = rank(data, predictions=stored)
    best = ranking.ensembles[-1]
    out = io.StringIO()
    print_ranking(data, console=Console(file=out, width=1000, no_color=True), ranking=ranking)
    for text in (out.getvalue(), render_page(data, ranking)):
        assert (
            f"3 points {100 * best.accuracy:.2f} % [{100 * best.ci_low:.2f}, {100 * best.ci_high:.2f}]"
            in text
        )
        assert f"alone {100 * best.alone:.2f} %" in text
        assert "so expect less on new ones" in text
    last = report_json(data, ranking=ranking)["ensembles"][-1]
    assert (last["points"], last["trials"], last["val_accuracy"]) == (3, list(best.trials), best.accuracy)


def test_probabilities_of_huge_logits_are_finite_and_sum_to_one():
    shares = probabilities(np.array([[1e4, -1e4, 0.0], [-3e4, -3e4, -3e4]], np.float32))
    assert shares.sum(axis=1) == pytest.approx(1.0)
    assert shares[0].tolist() == [1.0, 0.0, 0.0]
