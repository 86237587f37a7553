"""Datasets, between a locator on the command line and the `ImageData` that training takes.

`open_dataset` finds one, `load` gives its images in one agreed form, `fingerprint` says what they are.  The
datasets below are entry points like anybody's.  Importing this package imports neither torch nor
scikit-learn.
"""

from gridsearch.zoo.datasets.access import (
    Verdict,
    available,
    examine,
    fetch,
    fingerprint,
    fingerprint_of,
    load,
    load_known,
    open_dataset,
    tells_fingerprint,
    verify,
)
from gridsearch.zoo.datasets.builtin import cifar10, digits, fmnist, folder, kmnist, mnist
from gridsearch.zoo.datasets.cache import data_root
from gridsearch.zoo.datasets.dataset_list import DatasetInfo, DatasetState, listing
from gridsearch.zoo.datasets.summary import described, doubts

__all__ = [
    "DatasetInfo",
    "DatasetState",
    "Verdict",
    "available",
    "cifar10",
    "data_root",
    "described",
    "digits",
    "doubts",
    "examine",
    "fetch",
    "fingerprint",
    "fingerprint_of",
    "fmnist",
    "folder",
    "kmnist",
    "listing",
    "load",
    "load_known",
    "mnist",
    "open_dataset",
    "tells_fingerprint",
    "verify",
]
