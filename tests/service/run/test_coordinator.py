"""The loop of a run, with a real store and an executor whose workers do as each test says.

Whatever workers do: a trial is claimed once at a time, has one result, and is given back when the run ends.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridsearch.errors import StoreError
from gridsearch.records import TrialFinished, TrialState, Unwritable
from gridsearch.service.run import claim_pace, trial_source
from gridsearch.store import RunnerIdentity, RunStore, open_store, run_store
from tests.service.run.scripted_run import METRICS, Run, Workers, to_the_end

OTHER = RunnerIdentity(host="elsewhere", boot="", pid=1, started=0.0)


def test_every_trial_is_handed_over_once_and_written_with_its_epochs(study):
    run = study(5)
    assert run(workers=2) == {"complete": 5}
    assert sorted(run.workers.trained) == sorted(run.added.ids)
    assert [
        [row.epoch for row in run.store.trial_record("digits", trial.number)[1]] for trial in run.trials
    ] == [[1]] * 5
    assert run.context.progress.counts[TrialState.COMPLETE] == run.context.progress.ended == 5
    assert run.workers.stopped == 1
    assert run.leftovers == []


def test_a_lane_that_is_free_gets_the_next_trial_until_none_waits(study):
    def work(workers, pack):
        workers.finish(pack)
        workers.refill(pack)
        if not workers.packs[pack]:
            workers.end(pack)

    run = study(5)
    assert run(work) == {"complete": 5}
    assert run.workers.given == [1, 1, 1, 0, 0], "a pack of two lanes, and three that came later"
    assert len(run.workers.made) == 1, "one pack took them all"


def test_lanes_that_are_soon_free_again_are_claimed_for_together_and_go_to_whoever_asks(study, monkeypatch):
    monkeypatch.setattr(claim_pace, "_SECONDS", 1e9)  # all of it is soon
    claims, claim_packs = [], RunStore.claim_packs

    def counted(store, packs, **how):
        claims.append(packs)
        return claim_packs(store, packs, **how)

    def work(workers, pack):
        workers.finish(pack)
        workers.refill(pack)
        if not workers.packs[pack]:
            workers.end(pack)

    monkeypatch.setattr(RunStore, "claim_packs", counted)
    run = study(40)
    assert run(work, workers=2) == {"complete": 40}
    assert sorted(run.workers.trained) == sorted(run.added.ids)
    assert len(run.workers.made) == 2, "two packs took them all"
    assert sum(map(len, claims)) > 20 > len(claims)
    assert run.leftovers == []


def test_trials_that_were_claimed_for_free_lanes_and_not_begun_lose_no_try_with_a_worker(study, monkeypatch):
    monkeypatch.setattr(claim_pace, "_SECONDS", 1e9)

    def work(workers, pack):
        workers.finish(pack)
        if len(workers.trained) == 10:
            workers.die(pack)
            return
        workers.refill(pack)
        if not workers.packs[pack]:
            workers.end(pack)

    run = study(40)
    assert run(work, retries=0) == {"complete": 39, "failed": 1}
    assert sorted(run.workers.trained) == sorted(run.added.ids)


def test_trials_of_a_dead_worker_start_again_and_those_tried_too_often_have_failed(study):
    deaths = []

    def work(workers, pack):
        if workers.packs[pack][0].trial.id == run.added.ids[0]:
            workers.advance(workers.packs[pack][0])
            deaths.append([lane.trial.attempt for lane in workers.packs[pack]])
            return workers.die(pack)
        return to_the_end(workers, pack)

    run = study(3)
    assert run(work, lanes=1, retries=2) == {"failed": 1, "complete": 2}
    assert deaths == [[1], [2], [3]]
    assert "trial 0: starts again (attempt 3 of 3)" in run.lines.said
    assert "trial 0: failed, its worker died 3 times" in run.lines.said
    assert run.leftovers == []


def test_a_place_that_goes_is_a_try_only_for_trials_that_came_no_further_there(study):
    run = study(2)
    went_on = run.added.ids[0]

    def work(workers, pack):
        for lane in list(workers.packs[pack]):
            if lane.trial.id == went_on:
                workers.advance(lane)
        if workers.polls <= 3:
            workers.die(pack, "node has gone", place_gone=True)
        else:
            to_the_end(workers, pack)

    assert run(work, retries=1) == {"complete": 1, "failed": 1}
    assert next(t.number for t in run.trials if t.state is TrialState.COMPLETE) == 0


@pytest.mark.parametrize("lanes", [None, 2])
def test_what_a_worker_left_that_was_told_to_go_waits_again_and_lost_no_try(study, lanes):
    run = study(2)

    def work(workers, pack):
        if workers.polls <= 3:
            workers.leave_place(pack, "its time is nearly over")
        else:
            to_the_end(workers, pack)

    settled = {"lanes": 2, "workers": 1} if lanes else {}
    assert run(work, retries=0, **settled) == {"complete": 2}
    assert any(
        "worker w0 left: its time is nearly over; trials 0, 1 wait again" in said for said in run.lines.said
    )


def test_a_result_of_a_lost_lease_does_not_count(study):
    """The machine slept: another runner has taken the trial, and its result is the one that counts."""

    def work(workers, pack):
        trial = workers.packs[pack][0].trial
        if trial.attempt == 1 and trial.id == run.added.ids[0]:
            run.store.reclaim(run.added.study_id)
            (theirs,) = run.store.claim([trial.id], owner=OTHER, pack="theirs", lease=60)
            workers.finish(pack)
            row = {
                "state": TrialState.COMPLETE,
                "epochs": 1,
                "seconds": 9.0,
                "metrics": METRICS | {"val_accuracy": 0.9},
            }
            assert run.store.finish(TrialFinished(trial=theirs.id, attempt=theirs.attempt, **row))
            return workers.end(pack)
        return to_the_end(workers, pack)

    run = study(2)
    assert run(work, lanes=1, lease=0.0) == {"complete": 2}
    assert [trial.metrics["val_accuracy"] for trial in run.trials] == [0.9, 0.5]
    assert run.workers.trained == list(run.added.ids)
    assert any("trial 0: lost its lease" in line for line in run.lines.said)


def test_what_another_runner_trains_is_waited_for_and_what_it_leaves_is_trained(study):
    run = study(3)
    first, second, _ = run.added.ids
    theirs = run.store.claim([first, second], owner=OTHER, pack="theirs", lease=3600)

    def elsewhere():
        if run.workers is None or not run.workers.polls:
            return
        row = {"state": TrialState.COMPLETE, "epochs": 1, "seconds": 9.0, "metrics": METRICS}
        run.store.finish(TrialFinished(trial=first, attempt=theirs[0].attempt, **row))
        run.store.release([(second, theirs[1].attempt)])

    run.lines.updated = lambda _progress: elsewhere()
    assert run() == {"complete": 3}
    assert sorted(run.workers.trained) == sorted(run.added.ids[1:])


def test_a_disk_that_takes_no_files_ends_the_run_and_blames_no_trial(study):
    def work(workers, pack):
        workers.finish(pack)
        workers.deliver(Unwritable(worker="w0", message="no space left", hint=None))

    run = study(3)
    with pytest.raises(StoreError, match="no space left"):
        run(work)
    assert run.states == {"complete": 1, "waiting": 2}
    assert run.leftovers == []


def test_while_home_is_away_what_workers_cannot_write_waits_and_is_no_try(study, tmp_path, monkeypatch):
    monkeypatch.setattr(run_store, "_AGAIN_SECONDS", 0.0)
    elsewhere, polls = tmp_path / "elsewhere", []

    def work(workers, pack):
        home = run.store.home.root
        if not polls:
            workers.advance(workers.packs[pack][0])
            home.rename(elsewhere)  # unmounted
            workers.deliver(Unwritable(worker="w0", message="no such folder", hint=None))
            workers.end(pack)
        else:
            to_the_end(workers, pack)
        polls.append(pack)

    run = study(3)
    brought_back = Workers.poll

    def poll(self, timeout):
        brought_back(self, timeout)
        if self.polls == 4:
            assert not run.store.home.root.exists()
            elsewhere.rename(run.store.home.root)

    monkeypatch.setattr(Workers, "poll", poll)
    assert run(work) == {"complete": 3}
    assert [trial.attempts for trial in run.trials] == [1, 1, 1]
    assert run.leftovers == []


def test_a_study_that_is_deleted_meanwhile_ends_the_run(study):
    def work(workers, pack):
        run.store.delete_study("digits")
        to_the_end(workers, pack)

    run = study(3)
    with pytest.raises(StoreError, match="deleted"):
        run(work)


def test_of_a_settled_pack_all_results_are_written_or_none(study):
    """Packs that the user has settled train in the same company however often they begin."""
    killed = []

    def work(workers, pack):
        workers.finish(pack)
        if not killed:
            killed.append(run.states)
            return workers.die(pack)
        return to_the_end(workers, pack)

    run = study(4)
    run.options = {"workers": 1, "lanes": 2}
    assert run(work) == {"complete": 4}
    assert killed == [{"running": 2, "waiting": 2}]
    assert run.workers.made == [2, 2, 2]
    assert sorted(trial.attempts for trial in run.trials) == [1, 1, 2, 2]


def test_a_trial_that_fails_leaves_its_neighbours_alone(study):
    def work(workers, pack):
        if workers.packs[pack][0].trial.id == run.added.ids[0]:
            workers.fail(pack)
        to_the_end(workers, pack)

    run = study(4)
    assert run(work) == {"failed": 1, "complete": 3}
    assert run.trials[0].error == f"ValueError: of {run.added.ids[0]}"
    assert "Traceback" in run.store.home.log("digits", 0).read_text()


DOES = ("advance", "finish", "fail", "refill", "end", "die")


@given(st.data())
@settings(max_examples=12, suppress_health_check=[*HealthCheck])
def test_whatever_workers_do_every_trial_ends_once_and_is_never_in_two_places(
    tmp_path_factory, empty_store, data
):
    home = tmp_path_factory.mktemp("home")
    (home / "gridsearch.db").write_bytes(empty_store)

    def work(workers, pack):
        for _ in range(data.draw(st.integers(1, 3))):
            lanes = workers.packs.get(pack)
            does = data.draw(st.sampled_from(DOES if lanes else ("refill", "end", "die")))
            if lanes is None:
                return
            if does == "advance":
                workers.advance(lanes[0])
            else:
                getattr(workers, does)(pack)
            here = [lane.trial.id for each in workers.packs.values() for lane in each]
            assert len(here) == len(set(here))

    with (
        pytest.MonkeyPatch.context() as patch,
        open_store(f"sqlite:///{home}/gridsearch.db", home=home, create=False) as store,
    ):
        patch.setattr(trial_source, "LOOK_AGAIN_SECONDS", 0.0)
        patch.setattr(claim_pace, "_SECONDS", 1e9)  # claims for free lanes as far ahead as it may be
        run = Run(store, trials := data.draw(st.sampled_from((4, 16))))
        hour = 3600.0  # however long the machine pauses, no lease ends
        found = run(work, workers=2, retries=2, keep_going=True, lease=hour)
        assert found.get("complete", 0) + found.get("failed", 0) == trials
        times = Counter(run.workers.trained)
        assert set(times) == set(run.added.ids)
        assert all(1 <= n <= 3 for n in times.values())
        assert run.context.progress.counts[TrialState.RUNNING] == 0
        assert run.leftovers == []
