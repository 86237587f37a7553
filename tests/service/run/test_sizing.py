"""Packs get the number of lanes that was measured, within the memory that a pack may take."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gridsearch.executors import pack_trainer
from gridsearch.executors.pack_trainer import PackTrainer
from gridsearch.planning import ImageCost, Probe, ProbeCache
from gridsearch.records import ImageSettings, Probed, ProbeRequest, WorkerSetup
from gridsearch.service.run.sizing import PackRoom, Sizing
from gridsearch.zoo import datasets


def sizing(tmp_path, known=None, *, limit=None, lanes=None):
    cost = ImageCost(known or {}, device="cpu", shape=(1, 8, 8), classes=10, train_images=50_000)
    room = None if limit is None else PackRoom(limit, 2 * limit + 625)
    return Sizing(
        lanes=lanes, device="cpu", cost=cost, probes=ProbeCache(tmp_path / "p.json"), room=room
    ), cost


SETTINGS = ImageSettings(dataset="digits", model="lenet", batch=50, epochs=10)


def test_a_long_group_is_measured_and_a_short_one_takes_a_usual_size(tmp_path):
    found, _ = sizing(tmp_path)
    assert found.lanes(SETTINGS, 16) is None
    assert found.lanes(ImageSettings(dataset="digits", epochs=1, subset=100), 4) == 4
    assert found.lanes(SETTINGS, 1) == 1
    assert sizing(tmp_path, lanes=7)[0].lanes(SETTINGS, 16) == 7


def test_what_was_measured_for_few_trials_is_measured_again_for_many(tmp_path):
    found, cost = sizing(tmp_path)
    request = found.request(SETTINGS, 3)
    assert request.lanes == (1, 2, 4)
    costs = {1: 3.0, 2: 2.0, 4: 1.0}
    found.record(
        Probed(worker="w", key=request.key, seconds_per_image=costs, memory_mb=dict.fromkeys(costs, 1.0))
    )
    assert found.lanes(SETTINGS, 4) == 4
    assert cost.probe(SETTINGS).upto == 4
    again, _ = sizing(tmp_path, ProbeCache(tmp_path / "p.json").load())
    assert again.lanes(SETTINGS, 4) == 4
    assert again.lanes(SETTINGS, 40) is None


def test_sizes_that_do_not_fit_into_the_memory_are_not_taken(tmp_path):
    _, cost = sizing(tmp_path)
    known = {cost.key(SETTINGS): Probe({1: 4.0, 2: 2.0, 4: 1.0}, {1: 100.0, 2: 200.0, 4: 400.0}, upto=32)}
    assert sizing(tmp_path, known)[0].lanes(SETTINGS, 16) == 4
    assert sizing(tmp_path, known, limit=399.0)[0].lanes(SETTINGS, 16) == 2
    assert sizing(tmp_path, known, limit=10.0)[0].lanes(SETTINGS, 16) == 1, "one lane always trains"


@pytest.mark.parametrize(
    ("limit", "lanes", "said"),
    [
        (399.0, 2, "get 2 lanes at most, not 4: of 1,423 MB for each worker, 399 MB are left for its pack, "),
        (10.0, 1, "get 1 lane at most, not 4: of 645 MB for each worker, 10 MB are left for its pack, "),
        (400.0, 4, None),  # eight would fit into more, and gain nothing
        (None, 4, None),
    ],
)
def test_packs_that_memory_makes_smaller_are_told_once(tmp_path, limit, lanes, said):
    _, cost = sizing(tmp_path)
    known = Probe({1: 4.0, 2: 2.0, 4: 1.0, 8: 1.0}, {1: 100.0, 2: 200.0, 4: 400.0, 8: 800.0}, upto=32)
    found, _ = sizing(tmp_path, {cost.key(SETTINGS): known}, limit=limit)
    assert [found.lanes(SETTINGS, 16), found.lanes(SETTINGS, 16)] == [lanes, lanes]
    start = "memory is short: packs of lenet at batch 50 "
    assert found.news() == ([] if said is None else [f"{start}{said}and 4 lanes take 400 MB"])
    assert found.news() == []


def test_where_the_workers_alone_take_all_memory_nothing_is_tried_beside_one_lane(tmp_path):
    short = ImageSettings(dataset="digits", epochs=1, subset=100)
    found, _ = sizing(tmp_path, limit=0.0)
    assert found.lanes(short, 8) == 1
    assert "get 1 lane at most, not 4: of 625 MB for each worker, 0 MB are left" in found.news()[0]
    assert sizing(tmp_path, limit=0.0)[0].lanes(short, 1) == 1, "and nothing is said of a single trial"


def test_sizes_that_were_not_measured_for_lack_of_memory_are_told(tmp_path):
    found, _ = sizing(tmp_path, limit=250.0)
    request = found.request(SETTINGS, 16)
    costs, taken = {1: 4.0, 2: 2.0}, {1: 100.0, 2: 200.0}
    found.record(Probed(worker="w", key=request.key, seconds_per_image=costs, memory_mb=taken))
    assert found.lanes(SETTINGS, 16) == 2
    assert [line.partition("get ")[2] for line in found.news()] == [
        "2 lanes at most, not 4: of 1,125 MB for each worker, 250 MB are left for its pack, and 4 lanes take 400 MB"
    ]


def test_a_model_that_could_not_be_measured_trains_lane_after_lane(tmp_path):
    found, _ = sizing(tmp_path)
    request = found.request(SETTINGS, 16)
    found.record(Probed(worker="w", key=request.key, seconds_per_image={}))
    assert found.lanes(SETTINGS, 16) == 1


@pytest.fixture
def trainer(tmp_path):
    setup = WorkerSetup(
        name="w", dataset="digits", models={"cnn3": "cnn3"}, data_root=str(tmp_path), device="cpu", threads=1
    )
    return PackTrainer(setup, lambda _: None)


def measured_settings():
    known = datasets.fingerprint(datasets.open_dataset("digits"), Path("unused"), {})
    return ImageSettings(dataset="digits", data_fingerprint=known, model="cnn3", batch=16, subset=200)


def test_a_probe_stops_before_the_size_that_would_not_fit(trainer, monkeypatch):
    for limit in ("_PROBE_LIMIT", "_CHEAP"):  # on a busy machine compiling alone takes longer
        monkeypatch.setattr(pack_trainer, limit, math.inf)
    settings = measured_settings()
    free = trainer.probe(ProbeRequest(key="k", settings=settings, lanes=(1, 2)))
    assert set(free.seconds_per_image) == set(free.memory_mb) == {1, 2}
    assert free.seconds > 0
    tight = ProbeRequest(key="k", settings=settings, lanes=(1, 2, 4), limit_mb=1.1 * free.memory_mb[1])
    assert set(trainer.probe(tight).seconds_per_image) == {1}


@pytest.mark.parametrize(
    ("costs", "cheap", "tried"),
    [
        ({1: 1.0, 2: 0.99, 4: 0.5}, -1.0, [1, 2]),
        ({1: 1.0, 2: 0.8, 4: 0.7}, -1.0, [1, 2, 4]),
        ({1: 1.0, 2: 0.99, 4: 0.5}, 1e9, [1, 2, 4, 1, 2, 4]),
    ],
    ids=["long and no gain", "long and a gain", "short"],
)
def test_a_long_probe_goes_on_only_where_two_lanes_gain(trainer, monkeypatch, costs, cheap, tried):
    timed = []

    def time_pack(_, lanes):
        timed.append(lanes)
        return costs[lanes], 1.0

    monkeypatch.setattr(pack_trainer, "_CHEAP", cheap)
    monkeypatch.setattr(trainer, "_time_pack", time_pack)
    found = trainer.probe(ProbeRequest(key="k", settings=measured_settings(), lanes=(1, 2, 4)))
    assert timed == tried
    assert found.seconds_per_image == {lanes: costs[lanes] for lanes in tried}
