"""What a runner that was killed right after its commit has left of a trial goes with the next run."""

from gridsearch.store import RunnerIdentity


def test_attempts_at_trials_that_have_ended_are_removed_and_those_at_others_stay(store, make):
    added = store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1, 0.2, 0.3]}))
    done, other, _ = store.claim(added.ids, owner=RunnerIdentity.current(), pack="p", lease=60)
    store.finish(make.finished(done))
    left, trains = (store.home.make_scratch("digits", t.number, t.attempt) for t in (done, other))
    store.drop_leftovers("digits")
    assert not left.exists()
    assert trains.exists()
