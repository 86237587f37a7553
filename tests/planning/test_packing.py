"""Packs partition the trials, hold one group each, and go longest first."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.planning import (
    CostModel,
    Probe,
    ProbeCache,
    group_key,
    makespan,
    pack_trials,
    relative_cost,
)
from gridsearch.records import Settings, Trial, TrialState


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


@given(trials_st, st.integers(1, 9), st.integers(1, 4))
def test_packs_partition_the_trials_within_their_groups_and_width(trials, lanes, workers):
    packs = pack_trials(trials, lanes=lanes, workers=workers, cost=lambda t: relative_cost(t.settings))
    assert sorted(t.id for pack in packs for t in pack) == [t.id for t in trials]
    for pack in packs:
        assert 1 <= len(pack) <= lanes
        assert len({group_key(t.settings) for t in pack}) == 1


@given(trials_st, st.integers(1, 9))
def test_packs_go_longest_first(trials, lanes):
    packs = pack_trials(trials, lanes=lanes, workers=1, cost=lambda t: relative_cost(t.settings))
    costs = [sum(relative_cost(t.settings) for t in pack) for pack in packs]
    assert costs == sorted(costs, reverse=True)


def test_a_group_is_split_so_that_no_worker_idles():
    trials = [trial(i, lr=0.1 / (i + 1)) for i in range(4)]
    packs = pack_trials(trials, lanes=8, workers=2, cost=lambda t: 1.0)
    assert [len(pack) for pack in packs] == [2, 2]


def test_fusible_settings_share_a_group_and_shaping_ones_do_not():
    base = Settings(dataset="digits")
    for name, value in {
        "lr": 0.5,
        "weight_decay": 0.1,
        "norm": "none",
        "epochs": 3,
        "schedule": "cosine",
    }.items():
        assert group_key(dataclasses.replace(base, **{name: value})) == group_key(base), name
    for name, value in {
        "batch": 5,
        "optimizer": "sgd",
        "model": "mlp",
        "augment": "flip",
        "subset": 9,
    }.items():
        assert group_key(dataclasses.replace(base, **{name: value})) != group_key(base), name
    assert group_key(dataclasses.replace(base, model_options={"width": 2})) != group_key(base)


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
    known = {model({}).key(settings): Probe(0.001)}
    assert model(known).seconds(settings) == pytest.approx(3 * 500 * 0.001)
    assert model(known).seconds(dataclasses.replace(settings, batch=7)) is None
    assert model(known).seconds(dataclasses.replace(settings, lr=7.0)) is not None


def test_the_cache_keeps_the_median_of_what_was_seen(tmp_path):
    cache = ProbeCache(tmp_path / "deep" / "probes.json")
    for seconds in (1.0, 2.0, 100.0):
        cache.observe("a", seconds)
    cache.put("b", Probe(5.0, 70.0))
    cache.save()
    assert ProbeCache(tmp_path / "deep" / "probes.json").load() == {
        "a": Probe(2.0, None, 3),
        "b": Probe(5.0, 70.0),
    }


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 3}', '{"a": {"speed": 1}}'])
def test_a_damaged_cache_counts_as_empty_and_heals(tmp_path, content):
    path = tmp_path / "probes.json"
    path.write_text(content)
    cache = ProbeCache(path)
    assert cache.load() == {}
    cache.put("b", Probe(5.0))
    assert cache.load() == {"b": Probe(5.0)}
