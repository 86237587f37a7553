"""Packs that are settled beforehand: a function of the study's trials, whatever has ended and whatever waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.planning import SettledQueue, WorkQueue, group_trials, packs_of, relative_cost, settle
from gridsearch.records import ImageSettings, Trial, TrialState

SETTINGS = st.builds(
    ImageSettings,
    dataset=st.just("digits"),
    batch=st.sampled_from([10, 20]),
    lr=st.sampled_from([0.1, 0.01]),
    epochs=st.integers(1, 4),
)


def trials_of(many):
    return [
        Trial(
            id=i,
            number=i,
            key=f"k{i}",
            seed=0,
            settings=settings,
            params={},
            state=TrialState.WAITING,
            attempt=0,
        )
        for i, settings in enumerate(many)
    ]


TRIALS = st.lists(SETTINGS, max_size=30).map(trials_of)


def settle_these(trials, lanes, workers):
    packs = settle(trials, lanes=lanes, workers=workers, cost=lambda t: relative_cost(t.settings))
    return [tuple(t.key for t in pack) for pack in packs]


def handed_out(packs, waiting):
    queue = SettledQueue(packs)
    queue.fill(waiting)
    assert len(queue) == len(waiting)
    return [{t.key for t in pack} for pack in packs_of(queue)]


@given(TRIALS, st.integers(1, 5), st.integers(1, 4))
def test_settled_packs_part_the_trials_into_packs_of_one_group_that_are_no_wider_than_asked(
    trials, lanes, workers
):
    packs = settle_these(trials, lanes, workers)
    assert sorted(key for pack in packs for key in pack) == sorted(t.key for t in trials)
    of = {t.key: t for t in trials}
    for pack in packs:
        assert 1 <= len(pack) <= lanes
        assert len(group_trials([of[key] for key in pack], lambda t: t.settings)) == 1


@given(TRIALS, st.integers(1, 5), st.integers(1, 4), st.data())
def test_what_is_left_of_a_broken_run_goes_in_the_packs_of_the_unbroken_one(trials, lanes, workers, data):
    """Packs end as a whole; whichever have, the sequel makes the others, in their order."""
    packs = settle_these(trials, lanes, workers)
    ended = {key for pack in packs if data.draw(st.booleans()) for key in pack}
    waiting = data.draw(st.permutations([t for t in trials if t.key not in ended]))
    again = settle_these(trials, lanes, workers)
    assert handed_out(again, waiting) == [set(pack) for pack in packs if not ended & set(pack)]


@given(TRIALS, st.integers(1, 5), st.integers(1, 4))
def test_before_anything_has_ended_they_are_the_packs_of_a_run_that_makes_them_as_it_goes(
    trials, lanes, workers
):
    side_by_side = max(1, min(workers, -(-len(trials) // lanes)))
    queue = WorkQueue(workers=side_by_side, lanes=lambda *_: lanes, cost=lambda t: relative_cost(t.settings))
    queue.fill(trials)
    assert handed_out(settle_these(trials, lanes, workers), trials) == [
        {t.key for t in pack} for pack in packs_of(queue)
    ]


def test_no_free_lane_is_filled_and_what_waits_no_more_is_left_out():
    trials = trials_of([ImageSettings(dataset="digits", lr=lr) for lr in (0.1, 0.2, 0.3, 0.4)])
    queue = SettledQueue(settle_these(trials, 3, 1))
    queue.fill(trials[1:])
    assert queue.refill(trials[0].settings, 3) == ()
    assert [t.key for t in queue.next()] == ["k1", "k2"]
    assert len(queue) == 1
    queue.fill(trials)  # the first pack's worker died
    assert [t.key for t in queue.next()] == ["k0", "k1", "k2"]
    assert [t.key for t in queue.next()] == ["k3"]
    assert queue.next() is None


@pytest.mark.parametrize(
    ("lanes", "workers", "prune", "settled"),
    [(3, 2, "none", True), (None, 2, "none", False), (3, None, "none", False)],
)
def test_packs_are_settled_where_lanes_and_workers_are_both_given(lanes, workers, prune, settled):
    from gridsearch.service.prepare.options import RunOptions

    assert RunOptions(lanes=lanes, workers=workers, prune=prune).settled is settled
