"""What ends a run or a trial before its time: a budget, a request, a signal, a limit, silence."""

from __future__ import annotations

import pytest

from gridsearch.records import StillTraining
from gridsearch.service.run import ending, silence, trial_limits
from tests.service.run.scripted_run import to_the_end


def test_when_the_budget_is_spent_no_trial_begins_and_the_rest_waits(study):
    def work(workers, pack):
        run.context.progress.began -= 100
        workers.refill(pack)
        to_the_end(workers, pack)

    run = study(5)
    assert run(work, budget=50.0) == {"complete": 2, "waiting": 3}
    assert run.workers.given == [0]
    assert run() == {"complete": 5}


def test_an_interruption_gives_back_what_has_no_result_without_counting_a_try(study):
    def work(workers, pack):
        workers.advance(workers.packs[pack][0])
        workers.finish(pack)
        run.interruption.signum = 2
        workers.refill(pack)

    run = study(4)
    assert run(work, retries=0) == {"complete": 1, "waiting": 3}
    assert run.workers.given == [0]
    assert run.leftovers == []
    run.interruption.signum = None
    assert run(retries=0) == {"complete": 4}


@pytest.mark.parametrize("how", ["budget", "request"])
def test_a_run_that_is_to_end_lets_packs_come_to_their_epochs_end_and_begins_no_more(study, how):
    def work(workers, pack):
        if not workers.left:
            if how == "request":
                run.store.request_stop("digits", at_once=False)
                run.context.store._checked = float("-inf")
            return
        workers.advance(workers.packs[pack][0])
        workers.end(pack)

    run = study(4)
    assert run(work, **({"budget": 1e-9} if how == "budget" else {})) == {"waiting": 4}
    assert len(run.workers.made) == (how == "request"), "a pack was under way, and no other came"
    said = {
        "budget": "is used up: running trials are stopped",
        "request": "asked to stop: running trials stop at the end",
    }
    assert sum(said[how] in line for line in run.lines.said) == 1
    assert all(run.store.trial_record("digits", trial.number)[0].attempts in (0, 1) for trial in run.trials)
    assert run() == {"complete": 4}, "no later run heeds it"


def test_a_budget_waits_a_moment_for_what_trains_and_no_longer(study, monkeypatch):
    def work(workers, _pack):
        run.context.progress.began -= 2.0
        if workers.left:
            assert workers.polls < 50
            monkeypatch.setattr(ending, "BUDGET_SECONDS", 0.0)

    run = study(2)
    assert run(work, budget=1.0) == {"waiting": 2}
    assert run.workers.left


@pytest.mark.parametrize("at_once", [True, False])
def test_a_signal_after_a_request_ends_what_still_trains(study, at_once):
    def work(workers, _pack):
        run.store.request_stop("digits", at_once=at_once)
        run.context.store._checked = float("-inf")
        if workers.left:
            assert not at_once, "at once is without another epoch"
            run.interruption.signum = 2
            run.ending._since["signal"] = float("-inf")

    run = study(2)
    assert run(work) == {"waiting": 2}
    assert run.ending.at_once


def test_a_trial_over_its_limit_ends_at_the_next_epoch_and_has_failed(study):
    def work(workers, pack):
        first, *others = workers.packs[pack]
        workers.train(pack, first)  # the others wait for it: their time has not begun
        if first.trial.id == slow and not workers.decided:
            return None
        if first.trial.id in workers.decided:
            return workers.prune(pack, first)
        workers.advance(first)
        workers.finish(pack)
        return None if others else workers.end(pack)

    run = study(3)
    slow = run.added.ids[0]
    assert run(work, lanes=3, trial_limit=1e-3) == {"failed": 1, "complete": 2}
    assert run.workers.decided == [slow]
    failed = run.trials[0]
    assert failed.error == "took longer than --trial-limit 0.001s"
    assert failed.attempts == 1
    assert not run.workers.ended


def test_where_no_epoch_ends_the_worker_is_ended_and_its_other_trials_lose_no_try(study, monkeypatch):
    monkeypatch.setattr(trial_limits, "GRACE_SECONDS", 0.0)
    lost = []

    def work(workers, pack):
        first, *others = workers.packs[pack]
        if first.trial.id == slow:
            lost[:] = [lane.trial.id for lane in others]
            return workers.train(pack, first)
        assert all(lane.trial.attempt == 1 + (lane.trial.id in lost) for lane in workers.packs[pack])
        return to_the_end(workers, pack)

    run = study(3)
    slow = run.added.ids[0]
    assert run(work, lanes=3, trial_limit=1e-3, retries=0) == {"failed": 1, "complete": 2}
    assert len(lost) == 2
    assert len(run.workers.ended) == 1
    assert not any("died" in line or "failed" in line for line in run.lines.said)


def test_without_a_limit_a_pruned_trial_stays_pruned_and_a_kept_end_of_a_limited_one_has_failed(study):
    def work(workers, pack):
        for lane in list(workers.packs[pack]):
            workers.prune(pack, lane)
        workers.end(pack)

    assert study(1)(work, prune="median") == {"pruned": 1}
    assert study(1)(work, workers=1, lanes=1) == {"failed": 1}, "nothing prunes in this run"


def test_a_worker_that_says_nothing_for_long_is_told_of_once_and_again_after_it_spoke(study, monkeypatch):
    monkeypatch.setattr(silence, "SILENT_SECONDS", 0.0)
    spoken = []

    def work(workers, pack):
        if workers.polls == 1:
            workers.train(pack, *workers.packs[pack])
        if workers.polls == 5:
            spoken.append(len(silent()))
            workers.deliver(StillTraining(pack=pack))
        if workers.polls == 9:
            to_the_end(workers, pack)

    def silent():
        return [line for line in run.lines.said if "has been silent for" in line]

    run = study(2)
    assert run(work) == {"complete": 2}
    assert spoken == [1]
    assert len(silent()) == 2
    assert silent()[0].startswith("worker w0 has been silent for 0s, trials 0, 1: ")
