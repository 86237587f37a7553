"""Packs partition the trials, hold one group each, and go longest first; costs come from measurements."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.planning import (
    CostModel,
    Probe,
    ProbeCache,
    Unsized,
    WorkQueue,
    makespan,
    packs_of,
    relative_cost,
)
from gridsearch.records import Settings, Trial, TrialState
from gridsearch.spec.axes import shape_of


def trial(number: int, **settings) -> Trial:
    return Trial(
        id=number,
        number=number,
        key=str(number),
        seed=0,
        settings=Settings(dataset="digits", **settings),
        params={},
        state=TrialState.WAITING,
    )


trials_st = st.lists(
    st.fixed_dictionaries(
        {
            "batch": st.sampled_from([10, 20, 50]),
            "lr": st.sampled_from([0.1, 0.01]),
            "epochs": st.integers(1, 5),
            "model": st.sampled_from(["lenet", "mlp"]),
        }
    ),
    max_size=30,
).map(lambda many: [trial(i, **each) for i, each in enumerate(many)])


def queue_of(trials, *, lanes, workers=1) -> WorkQueue[Trial]:
    queue = WorkQueue[Trial](
        workers=workers, lanes=lambda t, n: lanes, cost=lambda t: relative_cost(t.settings)
    )
    queue.fill(trials)
    return queue


@given(trials_st, st.integers(1, 9), st.integers(1, 4))
def test_packs_partition_the_trials_within_their_groups_and_width(trials, lanes, workers):
    packs = packs_of(queue_of(trials, lanes=lanes, workers=workers))
    assert sorted(t.id for pack in packs for t in pack) == [t.id for t in trials]
    for pack in packs:
        assert 1 <= len(pack) <= lanes
        assert len({shape_of(t.settings) for t in pack}) == 1


@given(trials_st)
def test_packs_of_one_lane_go_longest_first(trials):
    costs = [relative_cost(pack[0].settings) for pack in packs_of(queue_of(trials, lanes=1))]
    assert costs == sorted(costs, reverse=True)


@given(trials_st, st.integers(1, 9))
def test_the_pack_that_takes_longest_goes_first(trials, lanes):
    packs = packs_of(queue_of(trials, lanes=lanes))
    costs = [sum(relative_cost(t.settings) for t in pack) for pack in packs]
    assert not costs or costs[0] == max(costs)


def test_a_group_is_split_so_that_no_worker_idles():
    trials = [trial(i, lr=0.1 / (i + 1)) for i in range(4)]
    assert [len(pack) for pack in packs_of(queue_of(trials, lanes=8, workers=2))] == [2, 1, 1]


def test_a_group_of_unknown_size_is_told_once_and_passed_over_until_it_is_known():
    trials = [trial(0, batch=10), trial(1, batch=10), trial(2, batch=50)]
    sizes: dict[int, int | None] = {10: None, 50: 1}
    queue = WorkQueue[Trial](
        workers=1, lanes=lambda t, n: sizes[t.settings.batch], cost=lambda t: relative_cost(t.settings)
    )
    queue.fill(trials)
    told = queue.next()
    assert isinstance(told, Unsized)
    assert (told.trial.settings.batch, told.count) == (10, 2)
    assert [t.id for t in queue.next()] == [2]
    assert queue.next() is None
    assert len(queue) == 2
    sizes[10] = 2
    queue.sized(told.trial.settings)
    assert sorted(t.id for t in queue.next()) == [0, 1]
    assert queue.next() is None
    assert not queue


@given(trials_st, st.integers(1, 5))
def test_a_refill_takes_from_its_own_group_alone(trials, count):
    queue = queue_of(trials, lanes=1)
    for settings in [t.settings for t in trials]:
        before = len(queue)
        taken = queue.refill(settings, count)
        assert len(taken) <= count
        assert all(shape_of(t.settings) == shape_of(settings) for t in taken)
        assert len(queue) == before - len(taken)
    assert queue.refill(Settings(dataset="digits", batch=3), 5) == ()


def test_fusible_settings_share_a_group_and_shaping_ones_do_not():
    base = Settings(dataset="digits")
    for name, value in {
        "lr": 0.5,
        "weight_decay": 0.1,
        "norm": "none",
        "epochs": 3,
        "schedule": "cosine",
    }.items():
        assert shape_of(dataclasses.replace(base, **{name: value})) == shape_of(base), name
    for name, value in {
        "batch": 5,
        "optimizer": "sgd",
        "model": "mlp",
        "augment": "flip",
        "subset": 9,
    }.items():
        assert shape_of(dataclasses.replace(base, **{name: value})) != shape_of(base), name
    assert shape_of(dataclasses.replace(base, model_options={"width": 2})) != shape_of(base)


@given(st.lists(st.floats(0.1, 10), max_size=20), st.integers(1, 5))
def test_makespan_lies_between_the_even_share_and_the_sum(costs, workers):
    span = makespan(costs, workers)
    assert span <= sum(costs) + 1e-9
    assert span >= max([sum(costs) / workers, *costs], default=0.0) - 1e-9


def test_small_batches_cost_more_and_subsets_less():
    base = Settings(dataset="digits")
    cost = relative_cost(base)
    assert relative_cost(dataclasses.replace(base, batch=10)) > cost
    assert relative_cost(dataclasses.replace(base, subset=100)) < cost
    assert relative_cost(dataclasses.replace(base, epochs=20)) == pytest.approx(2 * cost)


def model(known) -> CostModel:
    return CostModel(known, device="cpu x", shape=(1, 8, 8), classes=10, train_images=1000)


def test_seconds_come_from_measurements_alone():
    settings = Settings(dataset="digits", epochs=3, subset=500)
    assert model({}).seconds(settings) is None
    known = {model({}).key(settings): Probe({1: 0.001, 4: 0.0005})}
    assert model(known).seconds(settings) == pytest.approx(3 * 500 * 0.001)
    assert model(known).seconds(settings, lanes=4) == pytest.approx(3 * 500 * 0.0005)
    assert model(known).seconds(settings, lanes=9) == pytest.approx(3 * 500 * 0.0005), "the nearest size"
    assert model(known).seconds(dataclasses.replace(settings, batch=7)) is None
    assert model(known).seconds(dataclasses.replace(settings, lr=7.0)) is not None


@pytest.mark.parametrize(
    ("costs", "most", "best"),
    [
        ({1: 10.0, 2: 6.0, 4: 4.0, 8: 3.0}, 16, 8),
        ({1: 10.0, 2: 6.0, 4: 4.0, 8: 3.0}, 4, 4),
        ({1: 10.0, 2: 6.0, 4: 5.9, 8: 7.0}, 16, 2),
        ({1: 10.0, 2: 12.0}, 16, 1),
        ({1: 10.0}, 16, 1),
        ({4: 1.0}, 2, 1),
    ],
)
def test_the_smallest_pack_that_costs_hardly_more_than_the_best_is_taken(costs, most, best):
    assert Probe(costs).best_lanes(most) == best


def test_the_cache_keeps_medians_by_size_and_what_was_known(tmp_path):
    path = tmp_path / "deep" / "probes.json"
    cache = ProbeCache(path)
    cache.put("a", Probe({1: 9.0, 2: 5.0}, 70.0, probed=True))
    for seconds in (1.0, 2.0, 100.0):
        cache.observe("a", 4, seconds)
    cache.observe("b", 1, 3.0)
    cache.save()
    assert ProbeCache(path).load() == {
        "a": Probe({1: 9.0, 2: 5.0, 4: 2.0}, 70.0, probed=True, epochs=3),
        "b": Probe({1: 3.0}, None, probed=False, epochs=1),
    }


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"a": 3}',
        '{"a": {"speed": 1}}',
        '{"a": {"seconds_per_image": {}}}',
        '{"a": {"seconds_per_image": 1.0}}',
    ],
)
def test_a_damaged_cache_counts_as_empty_and_heals(tmp_path, content):
    path = tmp_path / "probes.json"
    path.write_text(content)
    cache = ProbeCache(path)
    assert cache.load() == {}
    cache.put("b", Probe({1: 5.0}))
    assert cache.load() == {"b": Probe({1: 5.0})}
