"""Which trials end early is what Optuna's pruners say, whether a run lived through it all or reads it again."""

from __future__ import annotations

import random
import warnings

import optuna
import pytest

from gridsearch.records import ImageSettings, TrialState
from gridsearch.store import PruningStudy, RunnerIdentity, TrialCurve
from gridsearch.store.pruners import make_pruner

EPOCHS = 10
PRUNERS = ("median", "asha", "hyperband")


def curves(seed: int, trials: int = 40, epochs: int = EPOCHS) -> list[list[float]]:
    """Noisy learning curves that cross each other."""
    rng = random.Random(seed)
    made = []
    for _ in range(trials):
        top, speed = rng.uniform(0.5, 1.0), rng.uniform(0.1, 1.0)
        made.append([top * (1 - (1 - speed) ** e) + rng.gauss(0, 0.03) for e in range(1, epochs + 1)])
    return made


def asked_of_optuna(pruner: str, series: list[list[float]], direction: str, skip=()) -> dict[int, int]:
    """Return the epoch at which Optuna's own loop prunes each trial that it prunes."""
    ends = {}

    def objective(trial):
        if trial.number in skip:
            raise ValueError("not of this kind")
        values = series[trial.number]
        for epoch, value in enumerate(values, start=1):
            trial.report(value, epoch)
            if epoch < len(values) and trial.should_prune():
                ends[trial.number] = epoch
                raise optuna.TrialPruned
        return values[-1]

    study = optuna.create_study(
        study_name="digits", direction=direction, pruner=make_pruner(pruner, epochs=len(series[0]))
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        study.optimize(objective, n_trials=len(series), catch=(ValueError,))
    return ends


@pytest.fixture(autouse=True)
def quiet_optuna():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    yield
    optuna.logging.set_verbosity(before)


def curve(number: int, values: dict[int, float], state=TrialState.RUNNING, **settings) -> TrialCurve:
    settings = ImageSettings(**{"dataset": "digits", "epochs": EPOCHS, **settings})
    return TrialCurve(
        trial=100 + number,
        number=number,
        attempt=1,
        settings=settings,
        state=state,
        epochs=len(values),
        values=values,
    )


def walk(study: PruningStudy, number: int, values: list[float], **settings) -> int | None:
    """Train one trial as far as the study lets it; return the epoch at which it was pruned."""
    settings.setdefault("epochs", len(values))
    for epoch, value in enumerate(values, start=1):
        if study.should_prune(curve(number, {epoch: value}, **settings)):
            study.end(100 + number, TrialState.PRUNED)
            return epoch
    study.end(100 + number, TrialState.COMPLETE)
    return None


def walk_all(study: PruningStudy, series, numbers) -> dict[int, int]:
    ends = {n: walk(study, n, series[n]) for n in numbers}
    return {n: epoch for n, epoch in ends.items() if epoch is not None}


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("seed", range(3))
def test_trials_one_after_the_other_end_where_optuna_ends_them(pruner, seed, direction):
    series = curves(seed)
    wanted = asked_of_optuna(pruner, series, direction)
    assert 3 < len(wanted) < len(series)
    assert walk_all(PruningStudy(pruner, name="digits", direction=direction), series, range(40)) == wanted


@pytest.mark.parametrize("epochs", [1, 2, 5, 27])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_any_number_of_epochs_will_do(pruner, epochs):
    series = curves(4, epochs=epochs)
    wanted = asked_of_optuna(pruner, series, "maximize")
    assert walk_all(PruningStudy(pruner, name="digits", direction="maximize"), series, range(40)) == wanted


def test_a_trial_keeps_the_ladder_of_its_number_however_many_numbers_are_not_of_its_kind():
    series = curves(5)
    odd = range(1, 40, 2)
    wanted = asked_of_optuna("hyperband", series, "maximize", skip=odd)
    study = PruningStudy("hyperband", name="digits", direction="maximize")
    assert walk_all(study, series, range(0, 40, 2)) == wanted
    assert wanted != {2 * n: e for n, e in asked_of_optuna("hyperband", series[::2], "maximize").items()}


@pytest.mark.parametrize("pruner", PRUNERS)
def test_what_is_learned_afterwards_decides_as_what_was_lived_through(pruner):
    series = curves(6)
    lived = PruningStudy(pruner, name="digits", direction="maximize")
    ends = walk_all(lived, series, range(20))
    past = [
        curve(
            n,
            dict(enumerate(series[n][: ends.get(n)], start=1)),
            TrialState.PRUNED if n in ends else TrialState.COMPLETE,
        )
        for n in range(20)
    ]
    random.Random(0).shuffle(past)
    learned = PruningStudy(pruner, name="digits", direction="maximize")
    for each in past:
        learned.restore(each)
    after = walk_all(lived, series, range(20, 40))
    assert after
    assert walk_all(learned, series, range(20, 40)) == after


@pytest.mark.parametrize(
    "other", [{"epochs": 11}, {"subset": 100}, {"split_seed": 1}, {"val": 0.2}, {"data_fingerprint": "x"}]
)
@pytest.mark.parametrize("pruner", PRUNERS)
def test_only_trials_that_can_be_compared_are(pruner, other):
    good, poor = [0.9] * EPOCHS, [0.1] * EPOCHS
    study = PruningStudy(pruner, name="digits", direction="maximize")
    for number in range(10):
        walk(study, number, good)
    assert walk(study, 30, poor, lr=0.5) is not None
    assert walk(study, 31, poor, **other) is None


def test_the_median_rule_waits_for_five_complete_trials_and_the_second_epoch():
    study = PruningStudy("median", name="digits", direction="maximize")
    for number in range(4):
        walk(study, number, [0.9] * EPOCHS)
    assert walk(study, 4, [0.1] * EPOCHS) is None  # the fifth that is complete
    assert walk(study, 5, [0.1] * EPOCHS) == 2


def test_a_third_passes_each_rung_of_asha():
    study = PruningStudy("asha", name="digits", direction="maximize")
    running = list(range(90))
    random.Random(7).shuffle(running)
    left = []
    for epoch in range(1, EPOCHS + 1):
        running = [n for n in running if not study.should_prune(curve(n, {epoch: n / 90}))]
        left.append(len(running))
    assert left[0] == 90
    assert left[1] == left[4]  # rungs after epochs 2 and 6 of 10
    assert 30 <= left[1] <= 45
    assert 10 <= left[5] <= 20
    assert left[5] == left[9]


def test_an_attempt_that_begins_anew_is_judged_by_what_it_shows_itself():
    study = PruningStudy("median", name="digits", direction="maximize")
    for number in range(5):
        walk(study, number, [0.5] * EPOCHS)
    assert walk(study, 7, [0.1] * EPOCHS) == 2
    assert walk(study, 7, [0.6] * EPOCHS) is None
    assert walk(study, 8, [0.1] * EPOCHS) == 2  # the others are still there


def test_a_trial_that_goes_on_too_long_is_still_to_end():
    study = PruningStudy("asha", name="digits", direction="maximize")
    walk(study, 0, [0.9] * EPOCHS)
    decisions = [study.should_prune(curve(1, {epoch: 0.1})) for epoch in range(1, EPOCHS + 1)]
    assert decisions == [False, *[True] * 8, False]  # the last epoch completes it


def test_a_value_that_is_not_a_number_ends_a_trial_where_optuna_would():
    series = [[0.5] * EPOCHS for _ in range(8)] + [[float("nan")] * EPOCHS]
    for pruner in PRUNERS:
        wanted = asked_of_optuna(pruner, series, "maximize")
        study = PruningStudy(pruner, name="digits", direction="maximize")
        assert walk_all(study, series, range(9)) == wanted
        assert 8 in wanted


def test_a_study_in_memory_is_not_announced(capfd):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    walk(PruningStudy("asha", name="digits", direction="maximize"), 0, [0.5] * EPOCHS)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert capfd.readouterr().err == ""


def test_the_store_gives_the_curves_of_all_that_has_begun_and_nothing_twice(store, make):
    drafts = make.drafts({"lr": [0.1, 0.2, 0.3, 0.4]})
    ids = store.add(make.study(axes=("lr",)), drafts).ids
    study_id = store.study_id("digits")
    first, second, third = store.claim(ids[:3], owner=RunnerIdentity.current(), pack="p", lease=60)
    assert store.curves(study_id) == []
    store.record_epochs([make.epoch(first, 1, 0.5), make.epoch(second, 1, float("nan"))])
    store.record_epochs([make.epoch(first, 2, 0.6)])
    store.finish(make.finished(first, epochs=2, state=TrialState.PRUNED, pruner="asha"))
    found = store.curves(study_id)
    assert [(c.trial, c.number, c.attempt, c.state, c.epochs) for c in found] == [
        (first.id, 0, 1, "pruned", 2),
        (second.id, 1, 1, "running", 1),
    ]
    assert found[0].values == {1: 0.5, 2: 0.6}
    assert found[0].settings == first.settings
    known = {c.trial: (c.attempt, c.epochs, c.state) for c in found}
    assert store.curves(study_id, known) == []
    store.record_epochs([make.epoch(third, 1, 0.4)])
    store.release([(second.id, second.attempt)])  # waits again, with nothing to show
    assert [c.trial for c in store.curves(study_id, known)] == [third.id]


def test_a_pruned_trial_says_what_pruned_it(store, make):
    ids = store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1, 0.2]})).ids
    pruned, whole = store.claim(ids, owner=RunnerIdentity.current(), pack="p", lease=60)
    store.finish(make.finished(pruned, state=TrialState.PRUNED, pruner="median", message="pruned by median"))
    store.finish(make.finished(whole))
    records = store.study_data("digits").trials
    assert [(r.state, r.pruner, r.error) for r in records] == [
        ("pruned", "median", "pruned by median"),
        ("complete", None, None),
    ]
