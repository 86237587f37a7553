"""Groups of images are asked for by name: one that a dataset does not have is refused, one that it names is told of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gridsearch.errors import UsageError
from gridsearch.plugins import ImageData, Plugin, Reading
from gridsearch.zoo.datasets.image_groups import (
    check_groups,
    divided_by_splits,
    divided_groups,
    group_options,
    own_doubts,
)
from gridsearch.zoo.datasets.scan import SUB_FOLDERS, TEST, TRAIN, VAL, Found


def dataset(groups=(0, 0, 1, 1), source=""):
    return ImageData(
        train_images=np.zeros((4, 1, 2, 2), np.uint8),
        train_labels=np.array([0, 1, 0, 1]),
        test_images=None,
        test_labels=None,
        class_names=("a", "b"),
        reading=Reading(group_from=source),
        groups=None if groups is None else np.array(groups),
    )


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (dataset(None), "patient", "dataset 'x' has no groups of images"),
        (dataset(source=SUB_FOLDERS), "patient", "dataset 'x' is grouped by subfolder only"),
        (dataset(), "patient", "dataset 'x' is grouped by groups only"),
    ],
)
def test_groups_that_a_dataset_does_not_have_are_refused(data, name, words):
    with pytest.raises(UsageError) as refused:
        check_groups(data, name, dataset="x")
    assert words in refused.value.message


def test_groups_that_a_dataset_has_are_taken_by_their_names():
    check_groups(dataset(source="column 'patient'"), "patient", dataset="x")
    check_groups(dataset(source=SUB_FOLDERS), "sub-folders", dataset="x")
    check_groups(dataset(), "groups", dataset="x")


def test_a_split_that_divides_groups_which_the_dataset_names_is_warned_of():
    words = divided_groups(dataset(source="column 'patient'"))
    assert words.startswith("the images are of 2 groups (column 'patient')")
    assert words.endswith("--group patient keeps them together")
    assert divided_groups(dataset(source=SUB_FOLDERS)) == "", "folders may stand for anything"
    assert divided_groups(dataset(None)) == ""
    assert divided_groups(dataset((0, 0, 0, 0), "column 'patient'")) == "", (
        "one group cannot be kept together"
    )


def test_a_dataset_with_an_option_for_it_is_asked_for_that_column():
    def listed(root, group="auto"):
        raise AssertionError("nobody loads it")

    def always(root):
        raise AssertionError("nobody loads it")

    plugins = [Plugin(name="x", locator="", target=target, source=None) for target in (listed, always)]
    assert [group_options(plugin, "patient") for plugin in plugins] == [{"group": "patient"}, {}]


def files(**parts):
    return [
        Found(Path(), f"{part}{i}", 0, part, group)
        for part, groups in parts.items()
        for i, group in enumerate(groups.split())
    ]


def test_groups_that_a_dataset_s_own_splits_divide_are_counted_and_the_first_named():
    assert {TRAIN, VAL, TEST} == {"train", "val", "test"}
    divided = files(train="p1 p2 p3 p4 p5", val="p9 p1", test="p2 p3 p4 p9 p7")
    of_val, of_test = divided_by_splits(divided, "column 'patient'")
    assert of_val.startswith(
        "1 of 2 groups of the validation images (column 'patient': 'p1') are groups of other"
    )
    assert of_test.startswith("4 of 5 groups of the test images (column 'patient': 'p2', 'p3', 'p4', ...)")
    assert of_test.endswith("the test accuracy will be better than on new groups")
    assert divided_by_splits(files(train="p1 p2", val="p3", test="p4"), "column 'patient'") == ()
    assert divided_by_splits(divided, "") == ()


def test_sub_folders_that_splits_divide_are_said_only_where_they_are_asked_for_as_groups():
    for source, grouped in (("column 'patient'", False), (SUB_FOLDERS, True)):
        data = dataset(source=source)
        data = replace(data, reading=replace(data.reading, divided=("words",)))
        assert own_doubts(data, grouped=grouped) == ("words",)
        assert own_doubts(data, grouped=not grouped) == ()
