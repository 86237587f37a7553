"""A worker learns at an epoch's end which lanes end, and waits for that no longer than a moment."""

from __future__ import annotations

import queue
import threading

from gridsearch.executors.pruning_replies import PruningReplies
from gridsearch.records import EpochEnded, PruningDecision


def epoch(trial: int, number: int, attempt: int = 1) -> EpochEnded:
    return EpochEnded(
        trial=trial,
        attempt=attempt,
        epoch=number,
        train_loss=1.0,
        train_accuracy=0.5,
        val_loss=1.0,
        val_accuracy=0.5,
        lr=0.1,
        seconds=1.0,
        images_per_second=1.0,
    )


def decision(trial: int, number: int, prune: bool, attempt: int = 1) -> PruningDecision:
    return PruningDecision(trial=trial, attempt=attempt, epoch=number, prune=prune)


def test_an_epoch_s_end_waits_for_the_verdicts_on_all_lanes():
    arriving: queue.SimpleQueue = queue.SimpleQueue()
    decisions = PruningReplies(arriving)
    decisions.expect(epoch(1, 1))
    decisions.expect(epoch(2, 1))
    arriving.put(decision(1, 1, prune=False))
    late = threading.Timer(0.05, arriving.put, [decision(2, 1, prune=True)])
    late.start()
    assert set(decisions.pruned()) == {2}
    late.join()


def test_nobody_is_waited_for_where_nothing_is_judged():
    decisions = PruningReplies(queue.SimpleQueue())
    assert not decisions.pruned()


def test_a_verdict_that_comes_too_late_counts_an_epoch_later(monkeypatch):
    monkeypatch.setattr("gridsearch.executors.pruning_replies._DECISION_SECONDS", 0.01)
    arriving: queue.SimpleQueue = queue.SimpleQueue()
    decisions = PruningReplies(arriving)
    decisions.expect(epoch(1, 1))
    assert not decisions.pruned()
    arriving.put(decision(1, 1, prune=True))
    decisions.expect(epoch(1, 2))
    arriving.put(decision(1, 2, prune=True))
    assert set(decisions.pruned()) == {1}


def test_what_was_said_of_an_earlier_attempt_does_not_end_a_new_one():
    arriving: queue.SimpleQueue = queue.SimpleQueue()
    decisions = PruningReplies(arriving)
    decisions.expect(epoch(1, 1))
    arriving.put(decision(1, 1, prune=True))
    assert set(decisions.pruned()) == {1}
    decisions.expect(epoch(1, 1, attempt=2))
    arriving.put(decision(1, 1, prune=False, attempt=2))
    assert not decisions.pruned()
