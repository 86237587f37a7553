"""Arrays in a .npz file, by the names that people give them; what could run code or mean two things is refused."""

import re

import numpy as np
import pytest

from gridsearch.errors import DataError
from gridsearch.zoo import datasets

X = np.arange(12 * 4 * 5, dtype=np.uint8).reshape(12, 4, 5)
Y = np.arange(12) % 3


def load(path, **arrays):
    np.savez_compressed(path / "a.npz", **arrays)
    return datasets.load(datasets.open_dataset(f"npz:{path / 'a.npz'}"), path / "root", {})


@pytest.mark.parametrize(
    "names",
    [
        "train_images train_labels val_images val_labels test_images test_labels",
        "x_train y_train x_val y_val x_test y_test",
        "X_train Y_train X_valid Y_valid X_test Y_test",
        "trainData trainTarget devData devTarget testData testTarget",
        "training/inputs training/targets validation/inputs validation/targets test/inputs test/targets",
    ],
)
def test_splits_are_found_by_the_names_that_people_and_medmnist_give(tmp_path, names):
    labels = Y[:, None].astype(np.uint8)
    data = load(
        tmp_path, **dict(zip(names.split(), [X, labels, X[:3], labels[:3], X[:6], labels[:6]], strict=True))
    )
    assert data.train_images.shape == (15, 1, 4, 5)
    assert data.train_images.dtype == np.uint8
    assert data.val_indices.tolist() == [12, 13, 14]
    assert data.test_labels.tolist() == Y[:6].tolist()
    assert data.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("images", "labels"), [("x", "y"), ("images", "labels"), ("data", "target"), ("X", "Y")]
)
def test_one_set_of_arrays_is_what_is_trained_on(tmp_path, images, labels):
    found = load(
        tmp_path, **{images: X, labels: Y, "groups": Y // 2, "class_names": ["a", "b", "c"], "ids": Y}
    )
    assert found.test_images is None
    assert found.class_names == ("a", "b", "c")
    assert found.groups.tolist() == [0, 0, 1] * 4
    assert found.notes == ("array 'ids' is not used",)


def test_fractions_are_fractions_and_one_hot_labels_are_the_place_of_their_one(tmp_path):
    data = load(tmp_path, x=X / np.float64(255), y=np.eye(3)[Y])
    assert data.train_images.dtype == np.float32
    assert data.train_labels.tolist() == Y.tolist()
    assert data.notes == ("train_labels are one-hot: each is the place of its one among 3",)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"x": X}, "has no labels for train: it holds x 12x4x5"),
        ({"foo": X, "y": Y}, "has no images for train: it holds foo 12x4x5, y 12"),
        ({"x": X, "y": Y, "x_test": X}, "has no labels for test"),
        ({"x": X, "y": Y, "images": X}, "arrays 'x' and 'images' may both be the train_images"),
        ({"x": X, "x_train": X, "y": Y}, "arrays 'x' and 'x_train' may both be the train_images"),
        (
            {"x": X, "y": np.array([*map(str, Y)], object)},
            "array 'y' holds Python objects, which are not loaded",
        ),
        (
            {"x": X, "y": np.ones((12, 3), np.uint8)},
            "12 of 12 rows hold another number of ones than one: several labels",
        ),
        ({"x": X, "y": np.full((12, 2), 0.5)}, "train_labels have the shape (12, 2) and hold other numbers"),
        (
            {"x": X, "y": np.eye(3)[Y], "x_test": X[:4], "y_test": np.eye(2)[Y[:4] % 2]},
            "train_labels have 3 columns and test_labels have 2 columns, so a column may be another class in each",
        ),
        (
            {"x": X, "y": Y, "x_val": X[:4], "y_val": np.eye(3)[Y[:4]]},
            "train_labels are no one-hot rows and val_labels have 3 columns",
        ),
        ({"x": X, "y": Y[:5]}, "train_labels are 5, expected 12"),
        (
            {"x": X, "y": np.array(["nan", "a", "", "b"] * 3)},
            "train_labels hold no word for 6 of 12 images (at 0, 2, 4, ...)",
        ),
        (
            {"x": X, "y": Y, "x_test": X, "y_test": Y + 5},
            "test_labels hold 5, which is not among the 3 classes",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(tmp_path, arrays, problem):
    with pytest.raises(DataError, match=re.escape(problem)) as refusal:
        load(tmp_path, **arrays)
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize(
    ("labels", "named"), [([-1, 0, 1], "'-1' (4)"), (["None", "a", "b"], "'None' (4)"), ([-1, -2, 3], "")]
)
def test_a_label_that_often_stands_for_none_is_doubted(tmp_path, labels, named):
    doubts = [
        each for each in datasets.cautions(load(tmp_path, x=X, y=np.array(labels)[Y])) if "no label" in each
    ]
    assert [each.partition(" often")[0] for each in doubts] == ([f"label {named}"] if named else [])


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "is not a whole .npz file"), (b"PK\x03\x04 and so on", "is not a whole"), (None, "is not there")],
)
def test_a_file_that_is_no_npz_is_refused(tmp_path, content, problem):
    if content is not None:
        (tmp_path / "b.npz").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        datasets.load(datasets.open_dataset(f"npz:{tmp_path / 'b.npz'}"), tmp_path, {})


def test_a_pickle_by_another_name_is_never_loaded(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    (tmp_path / "b.npz").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="is not a whole"):
        datasets.load(datasets.open_dataset(f"npz:{tmp_path / 'b.npz'}"), tmp_path, {})
    assert not (tmp_path / "ran").exists()


def test_the_fingerprint_follows_the_arrays_and_not_the_file(tmp_path):
    def fingerprint(**arrays):
        load(tmp_path, **arrays)
        return datasets.load_known(datasets.open_dataset(f"npz:{tmp_path / 'a.npz'}"), tmp_path, {})[1]

    base = fingerprint(x=X, y=Y)
    assert fingerprint(images=X, labels=Y) == base
    assert fingerprint(x=X, y=Y, x_val=X[:3], y_val=Y[:3]) != base
    assert fingerprint(x=X + 1, y=Y) != base
