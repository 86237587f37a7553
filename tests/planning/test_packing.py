"""Packs partition the trials, hold one group each, and go longest first; costs come from measurements."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.planning import (
    FunctionCost,
    ImageCost,
    Probe,
    ProbeCache,
    Unprobed,
    WorkQueue,
    packs_of,
    relative_cost,
)
from gridsearch.records import FunctionSettings, ImageSettings, Trial
from tests.planning.waiting_trials import trial

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
        assert len({t.settings.shape() for t in pack}) == 1


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
    assert isinstance(told, Unprobed)
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
        assert all(t.settings.shape() == settings.shape() for t in taken)
        assert len(queue) == before - len(taken)
    assert queue.refill(ImageSettings(dataset="digits", batch=3), 5) == ()


def test_fusible_settings_share_a_group_and_shaping_ones_do_not():
    base = ImageSettings(dataset="digits")
    for name, value in {
        "lr": 0.5,
        "weight_decay": 0.1,
        "norm": "none",
        "epochs": 3,
        "schedule": "cosine",
        "ema": 0.9,
        "loss": "focal",
        "focal_gamma": 1.0,
        "class_weight": "balanced",
        "sampling": "balanced",
        "patience": 3,
        "clip_norm": 1.0,
        "clip_value": 0.5,
    }.items():
        assert dataclasses.replace(base, **{name: value}).shape() == base.shape(), name
    for name, value in {
        "batch": 5,
        "optimizer": "sgd",
        "model": "mlp",
        "augment": "flip",
        "subset": 9,
    }.items():
        assert dataclasses.replace(base, **{name: value}).shape() != base.shape(), name
    assert dataclasses.replace(base, model_options={"width": 2}).shape() != base.shape()


def test_small_batches_cost_more_and_subsets_less():
    base = ImageSettings(dataset="digits")
    cost = relative_cost(base)
    assert relative_cost(dataclasses.replace(base, batch=10)) > cost
    assert relative_cost(dataclasses.replace(base, subset=100)) < cost
    assert relative_cost(dataclasses.replace(base, epochs=20)) == pytest.approx(2 * cost)


def model(known) -> ImageCost:
    return ImageCost(known, device="cuda x", shape=(1, 8, 8), classes=10, train_images=1000)


def test_seconds_come_from_measurements_alone():
    settings = ImageSettings(dataset="digits", epochs=3, subset=500)
    assert model({}).seconds(settings) is None
    known = {model({}).key(settings): Probe({1: 0.001, 4: 0.0004})}
    assert model(known).seconds(settings) == pytest.approx(3 * 500 * 0.001)
    assert model(known).seconds(settings, lanes=4) == pytest.approx(3 * 500 * 0.0004)
    assert model(known).seconds(settings, lanes=9) == pytest.approx(3 * 500 * 0.0004), "the largest known"
    assert model(known).seconds(settings, lanes=2) == pytest.approx(3 * 500 * 0.0006), "linear in 1 / lanes"
    assert model(known).seconds(dataclasses.replace(settings, batch=7)) is None
    assert model(known).seconds(dataclasses.replace(settings, lr=7.0)) is not None


@given(
    st.dictionaries(st.sampled_from([1, 2, 4, 8, 16]), st.floats(1e-6, 1e-2), min_size=1), st.integers(1, 40)
)
def test_a_size_between_two_measured_ones_costs_between_them(costs, lanes):
    cost = Probe(costs).cost(lanes)
    near = [c for size, c in costs.items() if size <= lanes][-1:] + [
        c for s, c in costs.items() if s >= lanes
    ]
    assert min(costs.values()) * 0.999 <= cost <= max(costs.values()) * 1.001
    if lanes in costs:
        assert cost == costs[lanes]
    assert near


def test_what_was_trained_counts_before_a_probe_and_scales_it_where_it_was_not():
    probe = Probe({1: 4.0, 2: 2.0, 4: 1.0}, upto=4, observed={2: 3.0})
    assert probe.slowdown == 1.5
    assert [probe.cost(n) for n in (1, 2, 4)] == [6.0, 3.0, 1.5]
    assert Probe({1: 4.0}).cost(1, slowdown=1.25) == 5.0
    assert Probe(observed={2: 3.0}).cost(5) == 3.0
    assert Probe().cost(1) is None


def test_kinds_that_were_never_trained_are_as_much_slower_as_those_that_were():
    trained, other = ImageSettings(dataset="digits"), ImageSettings(dataset="digits", batch=7, epochs=1)
    known = {
        model({}).key(trained): Probe({1: 0.001}, observed={1: 0.0013}),
        model({}).key(other): Probe({1: 0.002}),
    }
    assert model(known).slowdown == pytest.approx(1.3)
    assert model(known).seconds(other) == pytest.approx(1000 * 0.002 * 1.3)
    elsewhere = {key.replace("cuda x", "cuda y"): probe for key, probe in known.items()}
    assert model(elsewhere).slowdown == model({}).slowdown != pytest.approx(1.3)


def test_a_guess_orders_what_was_never_measured_and_is_the_seconds_where_it_was():
    settings = ImageSettings(dataset="digits")
    assert model({}).guess(settings) > model({}).guess(settings, lanes=4) > 0
    assert model({}).guess(dataclasses.replace(settings, batch=10)) > model({}).guess(settings)
    measured = model({})
    measured.learn(measured.key(settings), Probe({1: 0.5}))
    assert measured.guess(settings) == measured.seconds(settings) == pytest.approx(10 * 1000 * 0.5)
    assert measured.share(settings, 3) == 1.0


def test_what_is_left_of_a_trial_counts_the_epoch_under_way():
    settings = ImageSettings(dataset="digits", epochs=4)
    cost = model({})
    cost.learn(cost.key(settings), Probe({2: 0.001}))  # an epoch of a pack of two takes about two seconds
    epoch = cost.guess(settings, lanes=2) / 4
    assert epoch == pytest.approx(1.0, rel=0.5)
    for epochs, elapsed, left in [
        (0, 0.0, 4),
        (3, 0.0, 1),
        (3, epoch, 0.5),
        (3, 2 * epoch, 0),
        (2, 9 * epoch, 1),
    ]:
        found = cost.left(settings, lanes=2, epochs=epochs, elapsed=elapsed)
        assert found == pytest.approx(left * epoch), (epochs, elapsed)


def test_of_a_trial_without_a_length_all_is_left():
    settings = FunctionSettings(objective="f.py:f")
    assert settings.length is None
    assert FunctionCost({}).left(settings, lanes=1, epochs=7, elapsed=100.0) == FunctionCost({}).guess(
        settings
    )


@pytest.mark.parametrize(
    ("probe", "most", "knows"),
    [
        (Probe({1: 2.0, 2: 1.0, 4: 0.5}, upto=4), 4, True),
        (Probe({1: 2.0, 2: 1.0, 4: 0.5}, upto=4), 8, False),
        (Probe({1: 2.0, 2: 3.0, 4: 4.0}, upto=16), 32, True),
        (Probe({1: 2.0}, upto=1), 2, False),
        (Probe(observed={4: 1.0}), 1, False),
    ],
)
def test_a_probe_knows_the_best_size_up_to_where_it_looked_or_stopped_by_itself(probe, most, knows):
    assert probe.knows(most) is knows


def test_memory_grows_in_proportion_beyond_what_was_measured():
    probe = Probe({1: 1.0}, {1: 10.0, 4: 20.0})
    assert [probe.megabytes(n) for n in (1, 2, 4, 8)] == [10.0, 20.0, 20.0, 40.0]
    assert Probe({1: 1.0}).megabytes(1) is None


@pytest.mark.parametrize(
    ("costs", "most", "best"),
    [
        ({1: 10.0, 2: 6.0, 4: 4.0, 8: 3.0}, 16, 8),
        ({1: 10.0, 2: 6.0, 4: 4.0, 8: 3.0}, 4, 4),
        ({1: 10.0, 2: 6.0, 4: 5.9, 8: 7.0}, 16, 2),
        ({1: 10.0, 2: 12.0}, 16, 1),
        ({1: 10.0, 2: 9.6}, 16, 1),
        ({1: 10.0}, 16, 1),
        ({4: 1.0}, 2, 1),
    ],
)
def test_the_smallest_pack_that_costs_hardly_more_than_the_best_is_taken(costs, most, best):
    assert Probe(costs).best_lanes(most) == best


def test_the_cache_keeps_medians_by_size_and_what_was_known(tmp_path):
    path = tmp_path / "deep" / "probes.json"
    cache = ProbeCache(path)
    cache.put("a", Probe({1: 9.0, 2: 5.0}, {1: 70.0}, upto=2))
    for seconds in (1.0, 2.0, 100.0):
        cache.observe("a", 4, seconds)
    cache.observe("b", 1, 3.0)
    cache.save()
    assert ProbeCache(path).load() == {
        "a": Probe({1: 9.0, 2: 5.0}, {1: 70.0}, upto=2, observed={4: 2.0}, epochs=3),
        "b": Probe(observed={1: 3.0}, epochs=1),
    }
    cache.put("a", Probe({1: 8.0, 2: 7.0, 4: 6.0}, {1: 71.0, 4: 90.0}, upto=4))
    assert cache.load()["a"] == Probe(
        {1: 8.0, 2: 7.0, 4: 6.0}, {1: 71.0, 4: 90.0}, upto=4, observed={4: 2.0}, epochs=3
    ), "a new probe takes the old one's place, and what was trained stays"


def test_one_damaged_entry_does_not_cost_the_others(tmp_path):
    path = tmp_path / "probes.json"
    ProbeCache(path).put("a", Probe({1: 9.0}, upto=1))
    content = json.loads(path.read_text())
    path.write_text(
        json.dumps(
            {
                **content,
                "b": {"seconds_per_image": {"x": 1}},
                "c": {**content["a"], "new": 1},
                "d": {**content["a"], "upto": "many"},
                "e": {**content["a"], "seconds_per_image": {"1": math.nan}},
                "f": {**content["a"], "observed": {"0": 1.0}},
                "g": {**content["a"], "memory_mb": {"1": -5.0}},
            }
        )
    )
    assert ProbeCache(path).load() == {"a": Probe({1: 9.0}, upto=1)}


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
    cache.put("b", Probe({1: 5.0}, upto=1))
    assert cache.load() == {"b": Probe({1: 5.0}, upto=1)}
