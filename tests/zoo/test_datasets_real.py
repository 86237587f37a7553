"""The real Fashion-MNIST and the real MNIST, where they are on the machine."""

from pathlib import Path

import numpy as np
import pytest

from gridsearch.errors import DataError
from gridsearch.zoo import datasets


@pytest.fixture(scope="module")
def mnist_root(mnist_cache):
    """The data root with MNIST, if it is on the machine."""
    return Path(mnist_cache) / "data"


@pytest.fixture(scope="module")
def fashion_root():
    """The data root with Fashion-MNIST, if it was fetched."""
    root = datasets.data_root()
    if not datasets.available(datasets.open_dataset("fmnist"), root):
        pytest.skip("no Fashion-MNIST here; gridsearch data fetch fmnist brings it")
    return root


@pytest.mark.mnist
def test_mnist_is_what_the_world_knows(mnist_root):
    plugin = datasets.open_dataset("mnist")
    assert datasets.verify(plugin, mnist_root) == ()
    data = datasets.load(plugin, mnist_root, {})
    assert data.train_images.shape == (60000, 1, 28, 28)
    assert data.test_images.shape == (10000, 1, 28, 28)
    assert np.bincount(data.train_labels).tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]
    assert np.bincount(data.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert round(float(data.train_images.mean()) / 255, 4) == 0.1307
    assert round(float(data.train_images.std()) / 255, 4) == 0.3081
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]


@pytest.mark.fashion
def test_fashion_mnist_is_what_the_world_knows(fashion_root):
    plugin = datasets.open_dataset("fmnist")
    assert datasets.verify(plugin, fashion_root) == ()
    data = datasets.load(plugin, fashion_root, {})
    assert data.train_images.shape == (60000, 1, 28, 28)
    assert np.bincount(data.train_labels).tolist() == [6000] * 10
    assert np.bincount(data.test_labels).tolist() == [1000] * 10
    assert round(float(data.train_images.mean()) / 255, 4) == 0.2860
    assert round(float(data.train_images.std()) / 255, 4) == 0.3530
    assert data.class_names[data.train_labels[0]] == "Ankle boot"


@pytest.mark.mnist
@pytest.mark.fashion
def test_the_one_is_never_taken_for_the_other(mnist_root, fashion_root, tmp_path):
    with pytest.raises(DataError, match=r"train-images.*SHA-256 ba891046e6505d7a.*, found c59f468a2f672dc8"):
        datasets.fetch(datasets.open_dataset("mnist"), tmp_path / "root", fashion_root / "fmnist")
    both = tmp_path / "both"
    both.mkdir()
    (both / "A").symlink_to(fashion_root / "fmnist")
    (both / "B").symlink_to(mnist_root / "mnist")
    datasets.fetch(datasets.open_dataset("mnist"), tmp_path / "root", both)
    assert datasets.verify(datasets.open_dataset("mnist"), tmp_path / "root") == ()
