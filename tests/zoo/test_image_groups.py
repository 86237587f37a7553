"""Groups of images are asked for by name: one that a dataset does not have is refused, one that it names is told of."""

from __future__ import annotations

import numpy as np
import pytest

from gridsearch.errors import UsageError
from gridsearch.plugins import ImageData, Plugin, Reading
from gridsearch.zoo.datasets.image_groups import check_groups, divided_groups, group_options
from gridsearch.zoo.datasets.scan import SUB_FOLDERS


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


def test_a_dataset_with_an_option_for_it_is_asked_for_that_column():
    def listed(root, group="auto"):
        raise AssertionError("nobody loads it")

    def always(root):
        raise AssertionError("nobody loads it")

    plugins = [Plugin(name="x", locator="", target=target, source=None) for target in (listed, always)]
    assert [group_options(plugin, "patient") for plugin in plugins] == [{"group": "patient"}, {}]
