"""A run decides on its epochs by all that the study has shown: earlier runs, its own trials, other runners' trials."""

from __future__ import annotations

import itertools

import pytest

from gridsearch.records import (
    EpochEnded,
    ImageSettings,
    TrialDraft,
    TrialFailed,
    TrialFinished,
    TrialResumed,
    TrialState,
    trial_key,
)
from gridsearch.service.run import pruning
from gridsearch.service.run.pruning import Pruning
from gridsearch.store import RunnerIdentity, StudyDraft, open_store

EPOCHS = 9
US, THEM = RunnerIdentity.current(), RunnerIdentity(host="elsewhere", boot="b", pid=1, started=1.0)


def epoch(trial, number: int, accuracy: float | None) -> EpochEnded:
    return EpochEnded(
        trial=trial.id,
        attempt=trial.attempt,
        epoch=number,
        train_loss=1.0,
        train_accuracy=0.5,
        val_loss=1.0,
        val_accuracy=accuracy,
        lr=0.1,
        seconds=1.0,
        images_per_second=1.0,
    )


def finished(trial, state=TrialState.COMPLETE, epochs: int = EPOCHS, accuracy: float = 0.9) -> TrialFinished:
    return TrialFinished(
        trial=trial.id,
        attempt=trial.attempt,
        state=state,
        epochs=epochs,
        seconds=1.0,
        metrics={"val_accuracy": accuracy},
    )


@pytest.fixture
def store(tmp_path):
    home = tmp_path / "home"
    with open_store(f"sqlite:///{home}/gridsearch.db", home=home, create=True) as opened:
        yield opened


@pytest.fixture
def claim(store):
    """Claim the next of twenty trials, for an owner."""
    drafts = []
    for i in range(20):
        settings = ImageSettings(dataset="digits", data_fingerprint="d", epochs=EPOCHS, lr=0.1 + i)
        drafts.append(TrialDraft(key=trial_key(settings, 0), seed=0, settings=settings, axes=("lr",)))
    added = store.add(
        StudyDraft(name="digits", dataset="digits", metric="val_accuracy", axes=("lr",)), drafts
    )
    ids = itertools.cycle(added.ids)
    return lambda owner=US: store.claim([next(ids)], owner=owner, pack="p", lease=60)[0]


@pytest.fixture
def make(store, claim):
    def made(pruner: str = "asha", metric: str = "val_accuracy") -> Pruning:
        return Pruning(
            pruner,
            store=store,
            study="digits",
            study_id=store.study_id("digits"),
            metric=metric,
            direction="maximize",
        )

    return made


def train(store, trial, accuracy: float) -> None:
    """Let a trial be complete without any decision on it."""
    store.finish(finished(trial), epochs=[epoch(trial, e, accuracy) for e in range(1, EPOCHS + 1)])


def test_what_earlier_runs_have_shown_counts_from_the_first_epoch_on(store, claim, make):
    for _ in range(5):
        train(store, claim(), 0.9)
    poor = claim()
    assert make("asha").decide(poor, epoch(poor, 1, 0.5)).prune
    rule = make("median")
    assert not rule.decide(poor, epoch(poor, 1, 0.5)).prune
    assert rule.decide(poor, epoch(poor, 2, 0.5)).prune


@pytest.mark.parametrize(("upto", "prune"), [(2, False), (0, True)])
def test_what_a_trial_showed_before_its_checkpoint_counts_when_it_goes_on(store, claim, make, upto, prune):
    """By the median rule a trial whose best epoch is good goes on; one that begins again has no such epoch yet."""
    for _ in range(5):
        train(store, claim(), 0.9)
    trial, rule = claim(), make("median")
    rows = [epoch(trial, 1, 0.95), epoch(trial, 2, 0.5), epoch(trial, 3, 0.99)]
    assert not any(rule.decide(trial, row).prune for row in rows)
    store.release([(trial.id, trial.attempt)])
    (again,) = store.claim([trial.id], owner=US, pack="q", lease=60)
    event = TrialResumed(trial=trial.id, attempt=again.attempt, epoch=upto, epochs=tuple(rows[:upto]))
    rule.resumed(again, event)
    assert not rule.decide(again, epoch(again, upto + 1, 0.5)).prune
    assert rule.decide(again, epoch(again, upto + 2, 0.5)).prune is prune


def test_what_another_runner_finds_meanwhile_counts_too(store, claim, make, monkeypatch):
    ours, theirs, poor = claim(), claim(THEM), claim()
    rule = make("asha")
    assert not rule.decide(ours, epoch(ours, 1, 0.5)).prune
    store.record_epochs([epoch(theirs, 1, 0.9)])
    monkeypatch.setattr(pruning, "_LOOK_AGAIN_SECONDS", 0.0)
    assert rule.decide(poor, epoch(poor, 1, 0.6)).prune


def test_our_own_epochs_are_not_forgotten_while_the_store_is_a_moment_behind(store, claim, make, monkeypatch):
    monkeypatch.setattr(pruning, "_LOOK_AGAIN_SECONDS", 0.0)
    rule = make("asha")
    good, poor = claim(), claim()
    store.record_epochs([epoch(good, 1, 0.9)])
    for e in (1, 2, 3):
        assert not rule.decide(good, epoch(good, e, 0.9)).prune
    assert [rule.decide(poor, epoch(poor, e, 0.95 if e < 3 else 0.5)).prune for e in (1, 2, 3)] == [
        False,
        False,
        True,
    ]


def test_a_verdict_names_the_epoch_that_it_is_about(claim, make):
    trial = claim()
    decision = make().decide(trial, epoch(trial, 1, 0.5))
    assert (decision.trial, decision.attempt, decision.epoch) == (trial.id, trial.attempt, 1)


def test_a_trial_without_the_metric_goes_on(store, claim, make):
    rule = make()
    good, blind = claim(), claim()
    rule.decide(good, epoch(good, 1, 0.9))
    assert not any(rule.decide(blind, epoch(blind, e, None)).prune for e in range(1, EPOCHS + 1))


def test_a_pruned_result_is_given_its_pruner_and_a_reason_and_others_are_left_alone(claim, make):
    rule, trial = make("hyperband"), claim()
    rule.decide(trial, epoch(trial, 1, 0.5))
    rule.decide(trial, epoch(trial, 2, 0.6125))
    named = rule.named(trial, finished(trial, TrialState.PRUNED, epochs=2))
    assert named.pruner == "hyperband"
    assert named.message == "pruned by hyperband after epoch 2 of 9, validation accuracy 61.25 %"
    whole = finished(trial)
    assert rule.named(trial, whole) is whole
    failed = TrialFailed(
        trial=trial.id, attempt=trial.attempt, reason="error", message="boom", traceback="boom"
    )
    assert rule.named(trial, failed) is failed
