"""Datasets, between a locator on the command line and the `ImageData` that training takes.

`open_dataset` finds one, `load` gives its images in one agreed form, `fingerprint` says what they are.  The
datasets below are entry points like those of users.  Importing this package imports neither torch nor
scikit-learn.
"""

from gridsearch.zoo.datasets.access import (
    Inspection,
    available,
    examine,
    fetch,
    fingerprint,
    fingerprint_of,
    has_own_fingerprint,
    images_changed,
    load,
    load_known,
    open_dataset,
    reads_as_before,
    verify,
)
from gridsearch.zoo.datasets.builtin import cifar10, digits, fmnist, folder, kmnist, mnist
from gridsearch.zoo.datasets.cache import data_root
from gridsearch.zoo.datasets.dataset_list import DatasetInfo, DatasetState, listing
from gridsearch.zoo.datasets.image_groups import check_groups, divided_groups, group_options, own_doubts
from gridsearch.zoo.datasets.kept_images import as_sent, read_sent
from gridsearch.zoo.datasets.shared_images import find as find_shared
from gridsearch.zoo.datasets.shared_images import key_of, share, share_resized
from gridsearch.zoo.datasets.summary import cautions, described

__all__ = [
    "DatasetInfo",
    "DatasetState",
    "Inspection",
    "as_sent",
    "available",
    "cifar10",
    "data_root",
    "described",
    "digits",
    "cautions",
    "check_groups",
    "divided_groups",
    "group_options",
    "examine",
    "fetch",
    "find_shared",
    "fingerprint",
    "fingerprint_of",
    "fmnist",
    "folder",
    "images_changed",
    "key_of",
    "kmnist",
    "listing",
    "load",
    "load_known",
    "mnist",
    "open_dataset",
    "own_doubts",
    "read_sent",
    "reads_as_before",
    "has_own_fingerprint",
    "share",
    "share_resized",
    "verify",
]
