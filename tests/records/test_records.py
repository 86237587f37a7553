"""Records survive the pipe, and a trial's key is made of everything that decides its result and of nothing else."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.records import (
    LATER,
    EngineSays,
    EpochEnded,
    FileRef,
    FunctionSettings,
    ImageSettings,
    Lane,
    LanesGiven,
    LanesWanted,
    LogText,
    Pack,
    PackEnded,
    PackStarted,
    Probed,
    ProbeRequest,
    Settings,
    StepEnded,
    Trial,
    TrialFailed,
    TrialFinished,
    TrialState,
    WorkerDied,
    WorkerLeft,
    WorkerReady,
    WorkerSetup,
    trial_key,
    trial_keys,
)
from gridsearch.records.wire import decode, encode

values = st.one_of(
    st.booleans(), st.integers(-(10**9), 10**9), st.floats(allow_nan=False), st.text(max_size=8), st.none()
)
settings_st = st.builds(
    ImageSettings,
    dataset=st.text(max_size=8),
    data_options=st.dictionaries(st.text(max_size=4), values, max_size=2),
    data_fingerprint=st.text(max_size=8),
    val=st.floats(0, 0.9),
    subset=st.none() | st.integers(1, 100),
    model=st.text(max_size=8),
    model_options=st.dictionaries(st.text(max_size=4), values, max_size=3),
    epochs=st.integers(1, 100),
    lr=st.floats(1e-9, 1e9),
    dropout=st.none() | st.floats(0, 0.9),
    ema=st.floats(0, 0.999),
    clip_norm=st.none() | st.floats(1e-9, 1e9),
    patience=st.none() | st.integers(1, 100),
)
trial_st = st.builds(
    Trial,
    id=st.integers(1),
    number=st.integers(0),
    key=st.text(max_size=8),
    seed=st.integers(0),
    settings=settings_st,
    params=st.dictionaries(st.text(max_size=4), values, max_size=3),
    state=st.sampled_from(TrialState),
    attempt=st.integers(0),
)
numbers = st.floats(allow_nan=False)
ids = st.integers(1)
events_st = st.one_of(
    st.builds(
        Pack,
        id=st.text(),
        lanes=st.lists(st.builds(Lane, trial=trial_st, scratch=st.text()), min_size=1, max_size=3).map(tuple),
    ),
    st.builds(
        WorkerSetup,
        name=st.text(),
        dataset=st.text(),
        models=st.dictionaries(st.text(), st.text(), max_size=2),
        data_root=st.text(),
        device=st.text(),
        threads=st.integers(),
    ),
    st.builds(
        LanesGiven,
        pack=st.text(),
        lanes=st.lists(st.builds(Lane, trial=trial_st, scratch=st.text()), max_size=2).map(tuple),
    ),
    st.builds(LanesWanted, worker=st.text(), pack=st.text(), count=ids),
    st.builds(
        ProbeRequest,
        key=st.text(),
        settings=settings_st,
        lanes=st.lists(ids, max_size=3).map(tuple),
        limit_mb=st.none() | numbers,
    ),
    st.builds(
        Probed,
        worker=st.text(),
        key=st.text(),
        seconds_per_image=st.dictionaries(ids, numbers, max_size=3),
        memory_mb=st.dictionaries(ids, numbers, max_size=3),
        seconds=numbers,
    ),
    st.builds(WorkerReady, worker=st.text(), device=st.text()),
    st.builds(PackStarted, worker=st.text(), pack=st.text(), trials=st.lists(ids).map(tuple)),
    st.builds(
        EpochEnded,
        trial=ids,
        attempt=ids,
        epoch=ids,
        train_loss=numbers,
        train_accuracy=numbers,
        val_loss=st.none() | numbers,
        val_accuracy=st.none() | numbers,
        lr=numbers,
        seconds=numbers,
        images_per_second=numbers,
    ),
    st.builds(
        TrialFinished,
        trial=ids,
        attempt=ids,
        state=st.sampled_from(TrialState),
        epochs=ids,
        seconds=numbers,
        metrics=st.dictionaries(st.text(), numbers, max_size=3),
        files=st.lists(st.builds(FileRef, name=st.text(), sha256=st.text(), size=ids), max_size=2).map(tuple),
        message=st.none() | st.text(),
    ),
    st.builds(TrialFailed, trial=ids, attempt=ids, reason=st.text(), message=st.text(), traceback=st.text()),
    st.builds(LogText, trials=st.lists(ids).map(tuple), text=st.text()),
    st.builds(PackEnded, worker=st.text(), pack=st.text()),
    st.builds(WorkerDied, worker=st.text(), pack=st.none() | st.text(), message=st.text()),
    st.builds(WorkerLeft, worker=st.text(), pack=st.none() | st.text(), message=st.text()),
    st.builds(EngineSays, message=st.text(), warning=st.booleans()),
)


@given(events_st)
def test_every_record_survives_the_pipe_as_one_line(record):
    line = encode(record)
    assert b"\n" not in line
    assert decode(line) == record


def test_a_loss_that_is_no_number_survives_the_pipe():
    event = EpochEnded(
        trial=1,
        attempt=1,
        epoch=1,
        train_loss=math.nan,
        train_accuracy=0.1,
        val_loss=math.inf,
        val_accuracy=0.1,
        lr=0.1,
        seconds=1.0,
        images_per_second=1.0,
    )
    back = decode(encode(event))
    assert math.isnan(back.train_loss)
    assert back.val_loss == math.inf


@pytest.mark.parametrize("line", [b"{}", b'{"kind": "Settings"}', b"[", b'{"kind": 3}'])
def test_what_is_no_record_is_refused(line):
    with pytest.raises(ValueError):
        decode(line)


@given(settings_st)
def test_settings_survive_json(settings):
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


CHANGES = {
    "code_version": "2",
    "data_fingerprint": "x",
    "val": 0.3,
    "split_seed": 1,
    "subset": 5,
    "folds": 5,
    "group": "patient",
    "fold": 2,
    "partition": 3,
    "model": "mlp",
    "model_options": {"width": 2},
    "model_source": "y",
    "optimizer_options": {"eps": 1e-6},
    "optimizer_source": "o",
    "augment_source": "a",
    "epochs": 11,
    "batch": 65,
    "lr": 0.002,
    "norm": "none",
    "optimizer": "sgd",
    "momentum": 0.5,
    "nesterov": True,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "clip_value": 0.5,
    "schedule": "cosine",
    "warmup": 1.0,
    "augment": "flip",
    "operations": 1,
    "magnitude": 5,
    "mixup": 0.2,
    "cutmix": 1.0,
    "loss": "focal",
    "focal_gamma": 1.0,
    "class_weight": "balanced",
    "sampling": "balanced",
    "patience": 3,
    "label_smoothing": 0.1,
    "dropout": 0.5,
    "drop_last": True,
    "ema": 0.9,
    "select": "best",
    "select_metric": "val_loss",
    "dtype": "float64",
}


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(ImageSettings)])
def test_every_setting_is_in_the_key_except_where_the_data_lies(name):
    base = ImageSettings(dataset="digits")
    if name in ("dataset", "data_options"):
        changed = dataclasses.replace(
            base, **{"dataset": {"dataset": "other"}, "data_options": {"data_options": {"size": 9}}}[name]
        )
        assert trial_key(changed, 0) == trial_key(base, 0), "the fingerprint stands for it"
    else:
        assert trial_key(dataclasses.replace(base, **{name: CHANGES[name]}), 0) != trial_key(base, 0)


def test_the_seed_is_in_the_key_and_the_order_of_options_is_not():
    base = ImageSettings(dataset="digits", model_options={"a": 1, "b": 2})
    assert trial_key(base, 0) != trial_key(base, 1)
    assert trial_key(base, 0) == trial_key(dataclasses.replace(base, model_options={"b": 2, "a": 1}), 0)


def test_of_a_function_name_source_version_params_and_seed_are_in_the_key_and_nothing_else():
    base = FunctionSettings(objective="f.py:f", objective_source="a", params={"x": 1, "y": 2})
    for change in ({"objective": "g.py:f"}, {"objective_source": "b"}, {"params": {"x": 1, "y": 3}}):
        assert trial_key(dataclasses.replace(base, **change), 0) != trial_key(base, 0)
    assert trial_key(base, 1) != trial_key(base, 0)
    assert trial_key(dataclasses.replace(base, code_version="1"), 0) != trial_key(base, 0)
    assert not {f.name for f in dataclasses.fields(base)} & {
        f.name for f in dataclasses.fields(ImageSettings)
    } - {"code_version"}, "of all that is said of networks, this is said of functions too"
    assert trial_key(dataclasses.replace(base, params={"y": 2, "x": 1}), 0) == trial_key(base, 0)


def test_settings_of_a_function_survive_json_and_hold_nothing_of_images():
    base = FunctionSettings(
        objective="f.py:f", objective_source=None, params={"x": 1, "lr": -2.5, "word": "a", "n": None}
    )
    assert Settings.from_json(json.loads(json.dumps(base.to_json()))) == base
    assert base.flat() == {
        "objective": "f.py:f",
        "objective_source": None,
        "x": 1,
        "lr": -2.5,
        "word": "a",
        "n": None,
    }
    assert (base.get("lr"), base.get("batch"), base.length) == (-2.5, None, None)


@pytest.mark.parametrize(
    "settings", [ImageSettings(dataset="digits"), FunctionSettings(objective="f", params={"seed2": 0})]
)
def test_keys_of_several_seeds_are_those_of_each(settings):
    assert trial_keys(settings, (0, 7, 10)) == [trial_key(settings, seed) for seed in (0, 7, 10)]


KEYS = {
    "e9ec31f661f358ca1735426023f0d3a5a0fc5f5eed02a6eb7dc746ac189bbf9f": (
        ImageSettings(dataset="digits", data_fingerprint="f"),
        0,
    ),
    "5cabf14d489f4681a00096b1fbab5a658fc93b7dee5b1dd51ebc35b2845362bb": (
        ImageSettings(
            dataset="fmnist",
            data_fingerprint="0a" * 32,
            val=0.2,
            split_seed=3,
            subset=1000,
            model="tinyvgg",
            model_options={"width": 0.5, "depth": 2},
            epochs=20,
            batch=50,
            lr=0.01,
            norm="none",
            optimizer="sgd",
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            schedule="cosine",
            warmup=1.5,
            augment="flip+shift",
            label_smoothing=0.1,
            dropout=0.25,
            drop_last=True,
            select="best",
            dtype="bfloat16",
        ),
        7,
    ),
    "24fe2978863a08ebac2baa3ce4a0bab204966fafaecb38d2cbaf1ae0b72c0f0c": (
        ImageSettings(
            dataset="folder:flowers",
            data_options={"size": 64},
            data_fingerprint="b" * 64,
            model="my_net.py:Net",
            model_source="c" * 64,
            dropout=0.0,
        ),
        2,
    ),
    "b2747940a63a055cf1c8395759abe0812cc967a2d8d0e94e0381c9c6fc4de750": (
        FunctionSettings(objective="fit.py:loss", objective_source="d" * 64, params={"ema": 0.0, "lr": 0.1}),
        1,
    ),
}
"""Keys that stores hold, made before there was `ema`."""


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key[:8])
def test_the_key_of_a_trial_never_changes_between_versions(key):
    """A changed key would train everything in every store again: change it only with the store's schema."""
    assert trial_key(*KEYS[key]) == key


def test_a_setting_that_came_later_is_left_out_of_the_key_at_its_default_alone():
    defaults = {field.name: field.default for field in dataclasses.fields(ImageSettings)}
    assert {name: defaults[name] for name in LATER} == LATER
    base = ImageSettings(dataset="digits")
    assert trial_key(dataclasses.replace(base, ema=0.9), 0) != trial_key(
        dataclasses.replace(base, ema=0.99), 0
    )
    of_function = FunctionSettings(objective="f", params={"ema": 0.0})
    assert trial_key(of_function, 0) != trial_key(dataclasses.replace(of_function, params={}), 0)


def test_settings_that_were_written_before_one_came_read_as_its_default():
    text = ImageSettings(dataset="digits", lr=0.5).to_json()
    for name in LATER:
        text.pop(name, None)  # a version is not written where there is none
    assert Settings.from_json(text) == ImageSettings(dataset="digits", lr=0.5)


def test_a_count_among_metrics_stays_a_whole_number_on_its_way_from_a_worker():
    metrics = {"parameters": 9610, "val_accuracy": 1.0}
    how = {"trial": 1, "attempt": 1, "seconds": 1.0, "metrics": metrics}
    for event in (
        TrialFinished(state=TrialState.COMPLETE, epochs=1, **how),
        StepEnded(step=1, **how),
    ):
        found = decode(encode(event)).metrics
        assert json.dumps(found) == json.dumps(metrics)
