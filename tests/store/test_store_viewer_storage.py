"""A viewer that keeps what it has read sees at every moment what Optuna's own storage sees."""

from __future__ import annotations

import pytest

from gridsearch.records import TrialState
from gridsearch.store import RunnerIdentity
from gridsearch.store.viewer_storage import ViewerStorage
from tests.store.readers import reader


@pytest.fixture
def look(store):
    """Compare the viewer with a fresh reading; give how many trials the viewer read one by one, or "all"."""
    viewer = ViewerStorage(store._database.dialect)
    read: list[int] = []
    one, whole = viewer.get_trial, viewer._get_trials
    viewer.get_trial = lambda trial_id: (read.append(1), one(trial_id))[1]
    viewer._get_trials = lambda *words: (read.append(1000), whole(*words))[1]

    def compare(study_id: int = 1) -> int:
        read.clear()
        found = viewer.get_all_trials(study_id, deepcopy=False)
        assert found == reader(store).get_all_trials(study_id)
        return sum(read)

    return compare


def test_only_what_changes_is_read_again(store, make, look):
    added = store.add(make.study(), make.drafts({"lr": [0.1, 0.2, 0.3, 0.4]}))
    assert look() == 1000
    assert look() == 0, "nothing has changed"
    first, second = store.claim(added.ids[:2], owner=RunnerIdentity.current(), pack="p", lease=60)
    assert look() == 2
    store.record_epochs([make.epoch(first, 1), make.epoch(second, 1, 0.7)])
    assert look() == 2
    store.finish(make.finished(first), epochs=[make.epoch(first, 2, 0.9)])
    assert look() == 2
    assert look() == 1, "a finished trial stays as it is"
    store.show("digits", 0, {"confusion.png": b"png", "per_class.csv": b"a,b"})
    assert look() == 2, "until files are shown with it"
    assert look() == 1
    store.release([(second.id, second.attempt)])
    assert look() == 1
    assert look() == 0


def test_a_grid_that_grows_shows_its_new_param_with_finished_trials_too(store, make, look):
    added = store.add(make.study(), make.drafts({"lr": [0.1]}))
    (trial,) = store.claim(added.ids, owner=RunnerIdentity.current(), pack="p", lease=60)
    store.finish(make.finished(trial))
    look()
    store.add(
        make.study(command="gridsearch run again"), make.drafts({"lr": [0.1], "norm": ["none", "standard"]})
    )
    look()


def test_a_failed_trial_that_is_offered_again_and_one_that_is_deleted_are_seen(store, make, look):
    added = store.add(make.study(), make.drafts({"lr": [0.1, 0.2]}))
    trial, _ = store.claim(added.ids, owner=RunnerIdentity.current(), pack="p", lease=60)
    store.fail(make.failed(trial))
    look()
    assert store.add(make.study(), make.drafts({"lr": [0.1, 0.2]})).offered_again == 1
    look()
    assert [t.state for t in store.ledger("digits")].count(TrialState.WAITING) == 1
    store.delete_study("digits")
    with pytest.raises(KeyError):
        look()


def test_many_changes_are_read_at_once(store, make, look):
    added = store.add(make.study(), make.drafts({"lr": [i / 1000 for i in range(1, 151)]}))
    look()
    store.claim(added.ids, owner=RunnerIdentity.current(), pack="p", lease=60)
    assert look() == 1000
