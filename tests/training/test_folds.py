"""Folds part the images as they should, and a trial of a fold is the same in a pack of all folds as by itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gridsearch.errors import UsageError
from gridsearch.plugins import ImageData
from gridsearch.records import (
    ImageSettings,
    Lane,
    Pack,
    Trial,
    TrialFailed,
    TrialFinished,
    TrialState,
    trial_key,
)
from gridsearch.training.context import TrainContext
from gridsearch.training.epoch_order import epoch_order
from gridsearch.training.folds import Folding, fold_numbers, pick_groups
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.loop import train_pack
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.seeds import lane_seed
from gridsearch.training.splits import split

labels_st = st.lists(st.integers(0, 3), min_size=24, max_size=120).filter(
    lambda some: min(some.count(c) for c in set(some)) >= 5
)


@settings(max_examples=30)
@given(labels_st, st.integers(2, 5), st.integers(0, 9))
def test_folds_part_the_images_and_each_has_its_share_of_every_class_to_within_one(labels, folds, seed):
    labels = np.array(labels)
    numbers = fold_numbers(labels, folds, seed)
    assert set(numbers) == set(range(1, folds + 1))
    for some in (numbers, *(numbers[labels == c] for c in np.unique(labels))):
        sizes = np.bincount(some, minlength=folds + 1)[1:]
        assert sizes.max() - sizes.min() <= 1


@settings(max_examples=30)
@given(st.integers(6, 30), st.integers(2, 5), st.integers(0, 9))
def test_a_group_is_in_one_fold_and_no_fold_is_empty(groups, folds, seed):
    draw = np.random.default_rng(seed)
    owner = np.concatenate([np.repeat(np.arange(groups), 2), draw.integers(0, groups, 5 * groups)])
    labels = np.arange(len(owner)) % 3
    numbers = fold_numbers(labels, folds, seed, owner)
    assert all(len(set(numbers[owner == g])) == 1 for g in range(groups))
    assert set(numbers) == set(range(1, folds + 1))


def test_folds_of_groups_are_as_even_as_their_groups_allow():
    draw = np.random.default_rng(0)
    owner, labels = draw.integers(0, 60, 1800), draw.integers(0, 10, 1800)
    sizes = np.bincount(fold_numbers(labels, 5, 0, owner))[1:]
    assert sizes.max() - sizes.min() < 36, "a fiftieth of the images"


@pytest.mark.parametrize(
    ("labels", "folds", "groups", "words"),
    [
        ([0] * 9 + [1] * 3, 4, None, "folds=4: the smallest class has 3 images"),
        ([0, 1] * 6, 4, [0] * 4 + [1] * 4 + [2] * 4, "folds=4: the images are of 3 groups"),
        ([0] * 6 + [1] * 2, 2, [0, 0, 0, 1, 1, 1, 2, 2], "1 of 2 classes are in a single group each"),
    ],
)
def test_folds_that_cannot_be_are_refused_in_one_line(labels, folds, groups, words):
    with pytest.raises(UsageError) as refused:
        fold_numbers(np.array(labels), folds, 0, None if groups is None else np.array(groups))
    assert words in refused.value.message
    assert "\n" not in refused.value.message


def test_a_plain_split_and_the_test_part_divide_no_group_either():
    draw = np.random.default_rng(1)
    owner, labels = draw.integers(0, 40, 600), draw.integers(0, 3, 600)
    parts = split(labels, val=0.25, split_seed=0, hold_out_test=True, groups=owner)
    sides = [set(owner[part]) for part in (parts.train, parts.val, parts.test_from_train)]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert 0.2 < len(parts.val) / (len(parts.val) + len(parts.train)) < 0.3
    assert 0.13 < len(parts.test_from_train) / 600 < 0.2


def test_no_group_of_validation_images_of_its_own_is_held_out_as_test():
    labels, groups = np.arange(80) % 2, np.repeat(np.arange(24), [6] * 8 + [2] * 16)
    own_val = np.arange(8) * 6  # one image of each of the larger groups, which are given out first
    for how in ({"val": 0.0}, {"val": 1 / 3, "folding": Folding(3, 1, 5)}):
        for seed in range(20):
            found = split(labels, split_seed=seed, hold_out_test=True, own_val=own_val, groups=groups, **how)
            assert len(found.test_from_train)
            assert not set(groups[found.test_from_train]) & set(
                groups[np.concatenate([found.train, found.val])]
            )


def test_a_class_of_one_group_stays_where_the_network_trains():
    labels = np.array([0] * 20 + [1] * 20 + [2] * 4)
    owner = np.array([*np.repeat(np.arange(20), 2), 20, 20, 20, 20])
    assert not np.isin(pick_groups(labels, owner, 0.3, 0, name="val"), np.flatnonzero(labels == 2)).any()
    with pytest.raises(UsageError, match="none of the 2 groups"):
        pick_groups(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), 0.5, 0, name="val=0.5")


IMAGES = 101
LABELS = np.arange(IMAGES) % 4
PIXELS = np.random.default_rng(0).integers(0, 120, (IMAGES, 1, 8, 8)) + 30 * LABELS[:, None, None, None]
BASE = ImageSettings(folds=4, val=0.25, epochs=2, batch=8, lr=0.01)


def dataset(groups=None):
    return ImageData(
        train_images=PIXELS.astype(np.uint8),
        train_labels=LABELS,
        test_images=PIXELS[:8].astype(np.uint8),
        test_labels=LABELS[:8],
        class_names=tuple("abcd"),
        groups=groups,
    )


def mlp(*_):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))


def uneven():
    return np.concatenate([np.zeros(40, np.int64), np.arange(1, 62) // 2 + 1])


def with_norm(*_):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))


def results(trials, cache, folder, build=mlp, *, later=0):
    """Train trials as one pack, the last `later` of them in lanes that others leave; return their metrics."""
    lanes = [
        Lane(
            Trial(
                id=i, number=i, key=trial_key(s, n), seed=n, settings=s, params={}, state=TrialState.RUNNING
            ),
            str(folder / f"{len(trials)}-{i}"),
        )
        for i, (s, n) in trials.items()
    ]
    events, waiting = [], lanes[len(lanes) - later :]
    context = TrainContext(
        data=cache,
        build=build,
        device="cpu",
        more=lambda count: [waiting.pop(0) for _ in range(min(count, len(waiting)))],
    )
    train_pack(Pack("p", tuple(lanes[: len(lanes) - later])), context, emit=events.append)
    found = {e.trial: e for e in events if isinstance(e, TrialFinished | TrialFailed)}
    assert all(isinstance(e, TrialFinished) for e in found.values()), found
    return {i: e.metrics for i, e in found.items()}


@pytest.mark.parametrize(
    ("groups", "changes"),
    [(None, {}), (uneven(), {}), (uneven(), {"class_weight": "balanced", "sampling": "balanced"})],
    ids=["folds of one size", "folds of groups", "balanced folds of groups"],
)
def test_a_lane_of_a_fold_gives_what_its_own_run_gives(groups, changes, tmp_path):
    cache = ResidentCache(dataset(groups), device="cpu")
    base = dataclasses.replace(BASE, **changes)
    pairs = [(s, seed) for seed in (0, 1) for s in base.replicates(seed)]
    trials = dict(enumerate(pairs))
    together = results(trials, cache, tmp_path)
    for i in (0, 3, 5):
        assert results({i: trials[i]}, cache, tmp_path)[i] == together[i]
    assert len({cache(s).epoch_images for s, _ in pairs}) == 1, "all take as many steps"
    assert len({m["train_loss"] for m in together.values()}) == len(pairs)
    held_out = [set(cache(s).val.tolist()) for s, seed in pairs if seed == 0]
    assert sorted(i for some in held_out for i in some) == list(range(IMAGES))


def test_a_free_lane_goes_to_another_fold_which_sees_its_own_images(tmp_path):
    cache = ResidentCache(dataset(), device="cpu")
    short, long, *rest = BASE.replicates(0)
    trials = dict(enumerate((s, 0) for s in (dataclasses.replace(short, epochs=1), long, *rest)))
    together = results(trials, cache, tmp_path, later=2)
    for i in (2, 3):
        assert results({i: trials[i]}, cache, tmp_path)[i] == together[i]


def test_running_statistics_are_those_of_the_images_of_the_lane_s_own_fold(tmp_path):
    cache = ResidentCache(dataset(), device="cpu")
    trials = {i: (s, 0) for i, s in enumerate(BASE.replicates(0))}
    together = results(trials, cache, tmp_path, with_norm)
    for i in (0, 2):
        alone = results({i: trials[i]}, cache, tmp_path, with_norm)[i]
        assert alone["val_loss"] == pytest.approx(together[i]["val_loss"], rel=1e-4)


def test_a_trial_is_pruned_by_what_its_own_fold_shows():
    kinds = {s.peers() for seed in (0, 1) for s in BASE.replicates(seed)}
    assert len(kinds) == 8
    other = dataclasses.replace(BASE, lr=0.1).replicates(0)[2]
    assert other.peers() == BASE.replicates(0)[2].peers(), "points are compared fold by fold"


def test_steps_that_a_device_takes_by_itself_see_the_images_of_each_fold():
    cache = ResidentCache(dataset(), device="cpu")
    trials = [(s, 0) for s in BASE.replicates(0)]
    precision = Precision.of("float32", torch.device("cpu"))

    def trained(some, **how):
        members = [Member(s, lane_seed(s, seed), cache(s)) for s, seed in some]
        models = []
        for member in members:
            torch.manual_seed(member.seed)
            models.append(mlp())
        pack = PackProgram(members, models, cache(some[0][0]), precision, **how)
        totals = [pack.train_epoch() for _ in range(2)][-1]
        return [(t.loss, e.loss, len(e.logits)) for t, e in zip(totals, pack.evaluate(), strict=True)]

    counted = trained(trials, counted=True)
    for k, trial in enumerate(trials):
        assert trained([trial], counted=True)[0] == pytest.approx(counted[k], rel=1e-4)
    assert counted == [pytest.approx(one, rel=1e-4) for one in trained(trials)]


def test_an_epoch_of_a_small_fold_takes_some_images_twice_and_of_a_large_one_leaves_some_out():
    cache = ResidentCache(dataset(uneven()), device="cpu")
    counts = set()
    for s in BASE.replicates(0):
        data = cache(s)
        order = epoch_order(data, "none", seed=0, epoch=1, images=data.epoch_images)
        assert len(order) == 75 and set(order.tolist()) <= set(data.train.tolist())
        counts.add(np.sign(len(set(order.tolist())) - len(data.train)) if len(data.train) > 75 else 2)
    assert len(counts) > 1
    assert Folding(4, 1, 0).epoch_images(IMAGES) == 75


def test_no_stream_of_a_fold_is_that_of_another_one_or_of_the_seed():
    found = {lane_seed(s, seed) for seed in (0, 1) for s in BASE.replicates(seed)}
    assert len(found) == 8 and not found & {0, 1}
    assert lane_seed(ImageSettings(), 7) == 7
