"""The split's laws: disjoint, complete, stratified, seeded, and impossible ones refused with their place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.errors import UsageError
from gridsearch.training.splits import split, stratified_pick

labellings = st.lists(st.integers(0, 5), min_size=1, max_size=200).map(np.array)
seeds = st.integers(0, 2**63 - 1)


@given(labels=labellings, seed=seeds, share=st.floats(0, 1), spare_one=st.booleans())
def test_a_pick_has_the_asked_number_of_distinct_ascending_items(labels, seed, share, spare_one):
    room = len(labels) - (len(np.unique(labels)) if spare_one else 0)
    count = int(share * room)
    picked = stratified_pick(labels, count, seed, spare_one=spare_one)
    assert picked.dtype == np.int64
    assert len(picked) == count
    assert (np.diff(picked) > 0).all()
    if spare_one:
        assert set(np.delete(labels, picked)) == set(labels)


@given(labels=labellings, seed=seeds, share=st.floats(0, 1))
def test_each_class_gets_its_share_to_within_one_item_or_the_one_that_all_get(labels, seed, share):
    count = int(share * len(labels))
    picked = stratified_pick(labels, count, seed)
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    got = np.array([(labels[picked] == c).sum() for c in classes])
    if count >= len(classes):
        assert (got >= 1).all()
    if (exact >= 1).all():
        assert (np.abs(got - exact) < 1 + 1e-9).all()


@given(labels=labellings, seed=seeds)
def test_the_draw_depends_on_the_seed_alone(labels, seed):
    count = len(labels) // 2
    np.random.seed(1)
    first = stratified_pick(labels, count, seed)
    np.random.seed(2)
    assert (first == stratified_pick(labels, count, seed)).all()


def test_other_seeds_pick_other_items():
    labels = np.arange(600) % 10
    assert (stratified_pick(labels, 60, 1) != stratified_pick(labels, 60, 2)).any()


@given(
    labels=st.lists(st.integers(0, 3), min_size=60, max_size=200).map(np.array),
    val=st.floats(0.05, 0.5),
    seed=seeds,
    hold_out_test=st.booleans(),
)
def test_the_parts_are_disjoint_and_together_everything(labels, val, seed, hold_out_test):
    labels[:8] = [0, 1, 2, 3] * 2
    parts = split(labels, val=val, split_seed=seed, hold_out_test=hold_out_test)
    together = np.concatenate([parts.train, parts.val, parts.test_from_train])
    assert sorted(together.tolist()) == list(range(len(labels)))
    assert (len(parts.test_from_train) > 0) == hold_out_test
    assert set(labels[parts.train]) == {0, 1, 2, 3}


def test_fashion_mnist_s_sixth_is_ten_thousand_a_tenth_of_them_each_class():
    labels = np.repeat(np.arange(10), 6000)
    parts = split(labels, val=1 / 6, split_seed=0)
    assert np.bincount(labels[parts.val]).tolist() == [1000] * 10
    assert np.bincount(labels[parts.train]).tolist() == [5000] * 10
    assert len(parts.test_from_train) == 0


def test_the_split_never_changes():
    """Pinned: a store's results are only comparable with later ones if this draw stays what it is."""
    labels = np.arange(24) % 3
    parts = split(labels, val=0.25, split_seed=0, subset=6, hold_out_test=True)
    assert parts.test_from_train.tolist() == [3, 5, 9, 16]
    assert parts.val.tolist() == [0, 4, 11, 13, 14]
    assert parts.train.tolist() == [15, 17, 19, 20, 21, 22]


def test_test_images_come_first_and_do_not_depend_on_val_or_subset():
    labels = np.arange(120) % 4
    one = split(labels, val=0.1, split_seed=3, hold_out_test=True)
    other = split(labels, val=0.4, split_seed=3, subset=10, hold_out_test=True)
    assert one.test_from_train.tolist() == other.test_from_train.tolist()
    assert len(one.test_from_train) == 20


def test_validation_images_do_not_depend_on_subset():
    labels = np.arange(120) % 4
    whole = split(labels, val=0.25, split_seed=3)
    part = split(labels, val=0.25, split_seed=3, subset=12)
    assert whole.val.tolist() == part.val.tolist()
    assert set(part.train) <= set(whole.train)
    assert np.bincount(labels[part.train]).tolist() == [3, 3, 3, 3]


def test_a_rare_class_is_in_validation_and_in_training():
    labels = np.array([0] * 97 + [1] * 2)
    parts = split(labels, val=0.1, split_seed=0)
    assert (labels[parts.val] == 1).sum() == 1
    assert (labels[parts.train] == 1).sum() == 1


def test_a_class_of_a_single_image_stays_in_training():
    labels = np.array([0] * 20 + [1])
    assert 20 in split(labels, val=0.2, split_seed=0).train


def test_without_validation_all_is_trained_on():
    parts = split(np.arange(10) % 2, val=0, split_seed=0)
    assert parts.train.tolist() == list(range(10))
    assert parts.val.tolist() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val": 1.0}, "val=1: not a fraction"),
        ({"val": -0.1}, "val=-0.1: not a fraction"),
        ({"val": float("nan")}, "val=nan: not a fraction"),
        ({"val": 0.001}, "val=0.001: holds out none of 60 images"),
        ({"val": 0.97}, "val=0.97: takes 58 of 60 images, and 3 classes need one each to train"),
        ({"val": 0.0, "subset": 61}, "subset=61: the training split has 60 images"),
        ({"val": 0.5, "subset": 31}, "subset=31: the training split has 30 images"),
        ({"val": 0.0, "subset": 2}, "subset=2: fewer than one image for each of 3 classes"),
    ],
    ids=str,
)
def test_an_impossible_split_is_a_usage_error_with_its_place_and_a_way_out(arguments, message):
    with pytest.raises(UsageError) as caught:
        split(np.arange(60) % 3, split_seed=0, **arguments)
    assert caught.value.message == message
    assert caught.value.hint


def test_too_few_images_for_a_test_part_are_refused():
    with pytest.raises(UsageError, match="too few to hold out a sixth as test"):
        split(np.arange(3), val=0, split_seed=0, hold_out_test=True)


def test_more_than_there_is_cannot_be_picked():
    with pytest.raises(ValueError, match="cannot pick 4 of 3 items"):
        stratified_pick(np.zeros(3, int), 4, 0)


@given(
    labels=st.lists(st.integers(0, 3), min_size=30, max_size=80).map(np.array),
    seed=st.integers(0, 9),
    hold_out_test=st.booleans(),
)
def test_validation_images_of_its_own_are_the_validation_part_and_never_the_test_part(
    labels, seed, hold_out_test
):
    own = np.arange(0, len(labels), 5)
    drawn = split(labels, val=1 / 6, split_seed=seed, hold_out_test=hold_out_test, own_val=own)
    everything = split(labels, val=0, split_seed=seed, hold_out_test=hold_out_test, own_val=own)
    assert drawn.val.tolist() == own.tolist()
    assert sorted([*drawn.train, *own, *drawn.test_from_train]) == list(range(len(labels)))
    assert everything.train.tolist() == sorted([*drawn.train, *own])
    assert everything.test_from_train.tolist() == drawn.test_from_train.tolist()
