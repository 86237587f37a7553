"""Who may work on what: claims, fencing, leases, and what becomes of the trials of the dead."""

from __future__ import annotations

import dataclasses

import optuna
import pytest

from gridsearch.errors import StoreError
from gridsearch.records import TrialState
from gridsearch.store import RunnerIdentity, open_store
from tests.store.readers import reader

ME = RunnerIdentity.current()
DEAD = dataclasses.replace(ME, started=ME.started - 1)
ELSEWHERE = dataclasses.replace(ME, host="elsewhere")


@pytest.fixture
def three(store, make):
    return store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1, 0.2, 0.3]}))


def states(store):
    return [t.state.name for t in optuna.load_study(study_name="digits", storage=reader(store)).trials]


def claim(store, ids, owner=ME, lease=60.0):
    return store.claim(ids, owner=owner, pack="pack-1", lease=lease)


def test_a_claim_returns_what_waited_in_the_order_asked_for(store, three):
    taken = claim(store, [three.ids[2], three.ids[0]])
    assert [t.id for t in taken] == [three.ids[2], three.ids[0]]
    assert all((t.state, t.attempt) == (TrialState.RUNNING, 1) for t in taken)
    assert taken[0].settings.lr == 0.3
    assert taken[0].params == {"lr": 0.3}
    assert states(store) == ["RUNNING", "WAITING", "RUNNING"]


def test_a_trial_is_claimed_once(store, three, url, home):
    claim(store, three.ids[:2])
    with open_store(url, home=home, create=False) as other:
        assert [t.id for t in claim(other, three.ids, owner=ELSEWHERE)] == [three.ids[2]]
        assert claim(other, three.ids, owner=ELSEWHERE) == []


def test_more_trials_than_a_statement_takes_are_claimed_at_once(store, make):
    added = store.add(make.study(), make.drafts({"batch": list(range(1, 1202))}))
    assert len(claim(store, added.ids)) == 1201
    assert store.open_counts(added.study_id)[TrialState.RUNNING] == 1201


def test_the_counts_are_of_the_ids_asked_for(store, three):
    claim(store, three.ids[:1])
    assert store.open_counts(three.study_id)[TrialState.WAITING] == 2
    assert store.open_counts(three.study_id, three.ids[:2]) == {
        **dict.fromkeys(TrialState, 0),
        TrialState.RUNNING: 1,
        TrialState.WAITING: 1,
    }
    assert [t.id for t in store.waiting(three.study_id, three.ids[:2])] == [three.ids[1]]


def test_a_running_trial_of_a_living_owner_with_a_lease_is_left_alone(store, three):
    claim(store, three.ids)
    assert store.reclaim(three.study_id) == []


def test_a_dead_owner_on_this_host_is_reclaimed_at_once(store, three):
    claim(store, three.ids[:2], owner=DEAD, lease=3600)
    back = store.reclaim(three.study_id)
    assert [(r.trial, r.number, r.attempt, r.requeued) for r in back] == [
        (three.ids[0], 0, 1, True),
        (three.ids[1], 1, 1, True),
    ]
    assert states(store) == ["WAITING"] * 3
    assert claim(store, three.ids)[0].attempt == 2


def test_an_owner_elsewhere_is_reclaimed_only_when_its_lease_has_ended(store, three):
    claim(store, three.ids[:1], owner=ELSEWHERE, lease=3600)
    claim(store, three.ids[1:2], owner=ELSEWHERE, lease=-1)
    assert [r.trial for r in store.reclaim(three.study_id)] == [three.ids[1]]


def test_a_living_owner_whose_lease_has_ended_is_reclaimed_and_learns_it(store, three, url, home):
    trial = claim(store, three.ids[:1], lease=-1)[0]
    with open_store(url, home=home, create=False) as other:
        assert [r.trial for r in other.reclaim(three.study_id)] == [trial.id]
    assert store.heartbeat(ME, lease=60) == {trial.id}
    assert store.heartbeat(ME, lease=60) == set(), "it is named once"


def test_a_heartbeat_keeps_a_lease_alive(store, three):
    claim(store, three.ids, lease=-1)
    assert store.heartbeat(ME, lease=60) == set()
    assert store.reclaim(three.study_id) == []


def test_a_heartbeat_of_one_owner_does_not_help_another(store, three):
    claim(store, three.ids[:1], owner=ELSEWHERE, lease=-1)
    claim(store, three.ids[1:])
    store.heartbeat(ME, lease=60)
    assert [r.trial for r in store.reclaim(three.study_id)] == [three.ids[0]]


def test_runners_that_die_are_no_tries_of_their_trials(store, three):
    for attempt in range(1, 6):
        claim(store, three.ids[:1], owner=DEAD)
        back = store.reclaim(three.study_id)
        assert [(r.attempt, r.tries, r.requeued) for r in back] == [(attempt, 0, True)]
    assert store.trial_record("digits", 0)[0].attempts == 0


def test_a_trial_whose_workers_keep_dying_has_failed_after_its_retries(store, three, make):
    for tries in (1, 2):
        taken = claim(store, three.ids[:1])[0]
        back = store.requeue([(taken.id, taken.attempt)], retries=2)
        assert [(r.tries, r.requeued) for r in back] == [(tries, True)]
    taken = claim(store, three.ids[:1])[0]
    back = store.requeue([(taken.id, taken.attempt)], retries=2)
    assert [(r.tries, r.requeued) for r in back] == [(3, False)]
    record, _ = store.trial_record("digits", 0)
    assert (record.state, record.error, record.attempts) == (TrialState.FAILED, "worker died, 3 times", 3)
    optuna_trial = optuna.load_study(study_name="digits", storage=reader(store)).trials[0]
    assert optuna_trial.state.name == "FAIL"
    assert optuna_trial.user_attrs["outcome"] == "failed"
    assert optuna_trial.user_attrs["error"] == "worker died, 3 times"


def test_a_released_claim_does_not_count_as_a_try(store, three):
    for attempt in (1, 2, 3, 4):
        trial = claim(store, three.ids[:1])[0]
        assert trial.attempt == attempt
        assert store.release([(trial.id, trial.attempt)]) == 1
    assert states(store)[0] == "WAITING"
    assert store.trial_record("digits", 0)[0].attempts == 0


def test_a_requeued_trial_keeps_its_optuna_row_and_forgets_its_epochs(store, three, make):
    trial = claim(store, three.ids[:1])[0]
    store.record_epochs([make.epoch(trial, 1), make.epoch(trial, 2)])
    before = optuna.load_study(study_name="digits", storage=reader(store)).trials[0]
    assert before.intermediate_values == {1: 0.5, 2: 0.5}
    assert before.datetime_start is not None
    store.requeue([(trial.id, trial.attempt)], retries=2)
    after = optuna.load_study(study_name="digits", storage=reader(store)).trials[0]
    assert (after._trial_id, after.number) == (before._trial_id, before.number)
    assert after.intermediate_values == {}
    assert after.datetime_start is None
    assert store.study_data("digits").epochs[0] == ()


@pytest.mark.parametrize("how", ["reclaimed", "released", "requeued", "claimed again", "finished", "failed"])
def test_late_writes_of_an_attempt_that_lost_its_claim_are_refused(store, three, make, how):
    late = claim(store, three.ids[:1], owner=ELSEWHERE, lease=-1)[0]
    pair = [(late.id, late.attempt)]
    if how in ("reclaimed", "claimed again"):
        store.reclaim(three.study_id)
    if how == "claimed again":
        claim(store, three.ids[:1])
    if how == "released":
        store.release(pair)
    if how == "requeued":
        store.requeue(pair, retries=2)
    if how == "finished":
        assert store.finish(make.finished(late, accuracy=0.9))
    if how == "failed":
        assert store.fail(make.failed(late))
    before = store.trial_record("digits", 0), states(store)
    assert store.record_epochs([make.epoch(late, 1)]) == 0
    assert store.finish(make.finished(late, accuracy=0.1)) is False
    assert store.fail(make.failed(late)) is False
    assert store.requeue(pair, retries=2) == []
    assert store.release(pair) == 0
    assert (store.trial_record("digits", 0), states(store)) == before


def test_a_trial_deleted_while_it_runs_refuses_its_writes_and_is_not_waited_for(store, three, make):
    taken = claim(store, three.ids[:2])
    connection = store._database
    with connection.write() as raw:
        for table in ("trial_params", "trial_user_attributes", "trials"):
            raw.exec_driver_sql(
                f"DELETE FROM {table} WHERE trial_id IN (SELECT trial_id FROM trials WHERE number IN (0, 2))"
            )
    assert store.record_epochs([make.epoch(t, 1) for t in taken]) == 1
    assert store.finish_many([make.finished(t) for t in taken]) == [False, True]
    assert store.fail(make.failed(taken[0])) is False
    assert store.requeue([(taken[0].id, 1)], retries=0) == []
    assert claim(store, three.ids) == []
    assert store.reclaim(three.study_id) == []
    counts = store.open_counts(three.study_id)
    assert (counts[TrialState.WAITING], counts[TrialState.RUNNING], counts[TrialState.COMPLETE]) == (0, 0, 1)


def test_a_study_deleted_while_it_runs_is_told_and_late_writes_are_refused(store, three, make):
    trial = claim(store, three.ids[:1])[0]
    optuna.delete_study(study_name="digits", storage=reader(store))
    for ask in (store.open_counts, store.waiting):
        with pytest.raises(StoreError, match="study deleted"):
            ask(three.study_id)
    assert store.record_epochs([make.epoch(trial, 1)]) == 0
    assert store.finish(make.finished(trial)) is False
    assert claim(store, three.ids) == []
    assert store.problems() == ()


def test_which_trials_shared_a_pack_is_stored_with_the_claim(store, three):
    claim(store, three.ids[:2])
    with store._database.read() as connection:
        rows = connection.exec_driver_sql("SELECT number, pack FROM gridsearch_trials ORDER BY number").all()
    assert rows == [(0, "pack-1"), (1, "pack-1"), (2, None)]


def test_leases_use_the_stores_clock_and_not_ours(store, three, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 0.0)
    claim(store, three.ids[:1], owner=ELSEWHERE, lease=60)
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert store.reclaim(three.study_id) == []
