"""Whatever a dataset returns is brought into one form, or refused in one line with its name."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from gridsearch import plugins
from gridsearch.errors import DataError
from gridsearch.plugins import ImageData
from gridsearch.zoo import datasets
from gridsearch.zoo.datasets import arrays

IMAGES = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def given_data(**changes):
    return {"train_images": IMAGES, "train_labels": LABELS} | changes


def normal(**changes):
    return arrays.image_data(given_data(**changes), name="mine")


PALETTE = Image.new("P", (5, 4))


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (np.zeros((6, 4, 5)), (6, 1, 4, 5)),
        (np.zeros((6, 3, 4, 5)), (6, 3, 4, 5)),
        (np.zeros((6, 7, 8, 3)), (6, 3, 7, 8)),
        (np.zeros((6, 7, 8, 1)), (6, 1, 7, 8)),
        (np.zeros((6, 12, 8, 9)), (6, 12, 8, 9)),
        ([[[0, 1], [2, 3]]] * 6, (6, 1, 2, 2)),
        ([np.zeros((2, 3))] * 6, (6, 1, 2, 3)),
    ],
)
def test_images_become_number_channels_height_width(images, shape):
    assert normal(train_images=images).train_images.shape == shape


def test_the_last_axis_moves_to_the_channels_with_its_pixels():
    images = np.random.default_rng(0).integers(0, 256, (6, 7, 8, 3))
    assert np.array_equal(normal(train_images=images).train_images, images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint16", "float32", "float64"])
def test_whole_pixels_of_any_type_become_bytes(dtype):
    images = (IMAGES % 100 + 2).astype(dtype)
    data = normal(train_images=images)
    assert data.train_images.dtype == np.uint8
    assert np.array_equal(data.train_images[:, 0], images)


def test_fractions_stay_fractions_and_booleans_become_black_and_white():
    fractions = normal(train_images=IMAGES / 255.0).train_images
    assert fractions.dtype == np.float32
    assert np.array_equal(fractions[:, 0], (IMAGES / 255.0).astype(np.float32))
    assert np.unique(normal(train_images=IMAGES > 50).train_images).tolist() == [0, 255]


@given(hnp.arrays(np.uint8, st.tuples(*[st.integers(2, 6)] * 3)))
def test_bytes_pass_unchanged(images):
    labels = np.arange(len(images)) % 2
    data = arrays.image_data({"train_images": images, "train_labels": labels}, name="mine")
    assert np.array_equal(data.train_images[:, 0], images)
    assert np.array_equal(data.train_labels, labels)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"train_labels": LABELS.astype(float)}, "train_labels are floating-point numbers; taken as whole ones"),
        ({"train_images": (IMAGES > 50).astype(np.uint8)}, "pixels are whole numbers up to 1 of 255"),
        ({"train_images": IMAGES % 17}, "pixels are whole numbers up to 16 of 255"),
        ({"train_images": IMAGES.astype(np.float64)}, "pixels are floating-point numbers from 0 to 119: taken as of 255"),
        ({"class_names": ["a", "b", "c", "d"]}, "no training image is of class 'd'"),
        ({"train_images": np.repeat(IMAGES[:, None], 4, 1).repeat(2, 3)}, "images have 4 channels"),
        ({"test_ids": LABELS}, "field 'test_ids' of the dataset is not read"),
        ({"patients": LABELS}, "field 'patients' of the dataset is not read"),
    ],
)  # fmt: skip
def test_what_could_be_meant_otherwise_is_told(changes, note):
    assert any(note in told for told in normal(**changes).notes), normal(**changes).notes


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("test_image", "test_images"),
        ("validation_images", "val_images"),
        ("x_test", "test_images"),
        ("y_valid", "val_labels"),
        ("val_index", "val_indices"),
        ("group", "groups"),
        ("class_name", "class_names"),
    ],
)
@pytest.mark.parametrize("form", [dict, SimpleNamespace])
def test_a_field_that_would_be_left_out_for_its_name_is_refused_with_the_right_one(name, field, form):
    with pytest.raises(DataError, match=f"'mine': gave '{name}', which is not read") as caught:
        arrays.image_data(form(**given_data(**{name: IMAGES})), name="mine")
    assert f"'{field}'" in caught.value.hint


def test_a_name_beside_the_field_that_it_resembles_is_only_noted():
    assert normal(test_image=IMAGES, **TEST).notes == (
        "field 'test_image' of the dataset is not read; did you mean 'test_images'?",
    )


def test_what_is_as_expected_is_taken_without_a_note():
    assert normal(class_names=["a", "b", "c"], **TEST).notes == ()


def test_class_names_may_be_a_mapping_either_way_round():
    for names in ({0: "a", 1: "b", 2: "c"}, {"c": 2, "b": 1, "a": 0}):
        assert normal(class_names=names).class_names == ("a", "b", "c")


def test_words_are_taken_as_pandas_holds_them():
    words = np.array(["cat", "dog", "owl", "cat", "dog", "owl"], object)
    data = normal(train_labels=words)
    assert data.class_names == ("cat", "dog", "owl")
    assert data.train_labels.tolist() == LABELS.tolist()


def test_torch_tensors_are_taken():
    torch = pytest.importorskip("torch")
    images, labels = torch.from_numpy(IMAGES), torch.tensor(LABELS, requires_grad=False)
    data = normal(train_images=images, train_labels=labels)
    assert np.array_equal(data.train_images[:, 0], IMAGES)
    assert data.train_labels.dtype == np.int64


def test_an_object_with_the_attributes_is_as_good_as_a_mapping():
    thing = SimpleNamespace(**given_data(notes=["a note"]))
    data = arrays.image_data(thing, name="mine")
    assert isinstance(data, ImageData)
    assert data.notes == ("a note",)


@pytest.mark.parametrize(
    ("labels", "names", "expected", "expected_names"),
    [
        ([0, 1, 2, 0, 1, 2], None, [0, 1, 2, 0, 1, 2], ("0", "1", "2")),
        ([7, 3, 7, 3, 7, 10], None, [1, 0, 1, 0, 1, 2], ("3", "7", "10")),
        ([-1, 1, -1, 1, -1, 1], None, [0, 1, 0, 1, 0, 1], ("-1", "1")),
        ([0.0, 1.0, 2.0, 0.0, 1.0, 2.0], ("x", "y", "z"), [0, 1, 2, 0, 1, 2], ("x", "y", "z")),
        (["b", "a", "b", "a", "b", "a"], None, [1, 0, 1, 0, 1, 0], ("a", "b")),
        (["b", "a", "b", "a", "b", "a"], ("b", "a", "c"), [0, 1, 0, 1, 0, 1], ("b", "a", "c")),
        ([b"b", b"\xc3\xa9"] * 3, None, [0, 1, 0, 1, 0, 1], ("b", "\u00e9")),
        ([0, 1] * 3, [b"airplane", b"bird"], [0, 1, 0, 1, 0, 1], ("airplane", "bird")),
        ([0, 1] * 3, np.array([b"airplane", b"bird"]), [0, 1, 0, 1, 0, 1], ("airplane", "bird")),
        ([[0], [1], [0], [1], [0], [1]], ("x", "y"), [0, 1, 0, 1, 0, 1], ("x", "y")),
        ([False, True] * 3, None, [0, 1, 0, 1, 0, 1], ("0", "1")),
    ],
)
def test_labels_become_zero_to_classes_minus_one(labels, names, expected, expected_names):
    data = normal(train_labels=labels, class_names=names)
    assert data.train_labels.dtype == np.int64
    assert data.train_labels.tolist() == expected
    assert data.class_names == expected_names


@pytest.mark.parametrize(
    "changes", [{"train_labels": np.array([b"\xe9", b"a"] * 3)}, {"class_names": [b"\xe9", b"a", b"b"]}]
)
def test_bytes_that_are_no_text_are_refused(changes):
    with pytest.raises(DataError, match="hold bytes that are not UTF-8"):
        normal(**changes)


@pytest.mark.parametrize("names", [("Cat", "cat"), ("a b", "a  b"), ("1", "01")])
def test_classes_whose_names_look_alike_are_doubted(names):
    data = normal(train_labels=[*names] * 3)
    assert f"labels '{min(names)}' (3) and '{max(names)}' (3)" in datasets.cautions(data)[0]


def test_test_labels_follow_the_classes_of_the_training_labels():
    data = normal(train_labels=[5, 9, 7, 5, 9, 7], test_images=IMAGES[:2], test_labels=[9, 5])
    assert data.test_labels.tolist() == [2, 0]


TEST = {"test_images": IMAGES, "test_labels": LABELS}


@pytest.mark.parametrize(("images", "hint"), [(IMAGES.astype(int) * 9, "divide"), (IMAGES - 1.0, "norm")])
def test_pixels_of_more_than_eight_bits_and_normalized_ones_are_refused_with_different_advice(images, hint):
    with pytest.raises(DataError, match="pixels go from") as refused:
        normal(train_images=images)
    assert hint in refused.value.hint


def test_fractions_that_rounding_carried_over_the_ends_are_clipped_and_larger_ones_are_not_divided():
    beyond = np.linspace(-0.00002, 1.00002, 120).reshape(6, 4, 5)
    assert np.array_equal(
        normal(train_images=beyond).train_images[:, 0], beyond.clip(0, 1).astype(np.float32)
    )
    with pytest.raises(DataError, match=r"fractions up to 1\.2, expected 0 to 1") as refused:
        normal(train_images=beyond.clip(0, 1) * 1.2)
    assert "clip" in refused.value.hint


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"train_images": None}, "gave dict without train_images"),
        ({"train_images": np.zeros((6, 20))}, "train_images have the shape (6, 20), expected [N, H, W]"),
        ({"train_images": np.zeros((0, 4, 5)), "train_labels": []}, "there is nothing in them"),
        ({"train_images": [np.zeros((2, 2)), np.zeros((3, 3))]}, "train_images do not make one array"),
        ({"train_images": 3}, "train_images do not make one array"),
        ({"train_images": np.full((6, 4, 5), "x")}, "expected numbers"),
        ({"train_images": np.full((6, 4, 5), np.nan)}, "images hold NaN or infinite pixels"),
        ({"train_images": np.full((6, 4, 5), np.inf)}, "images hold NaN or infinite pixels"),
        ({"train_images": IMAGES / 100.0 - 0.5}, "pixels go from -0.5 to 0.69, expected 0 to 255"),
        ({"train_images": IMAGES.astype(int) * 9}, "pixels go from 0 to 1071, expected 0 to 255"),
        ({"train_images": IMAGES / 3.0}, "pixels are fractions up to 39.6667, expected 0 to 1"),
        (TEST | {"test_images": IMAGES / 255.0}, "train_images go up to 119 and test_images up to 0.466667"),
        (TEST | {"test_images": None}, "test_images and test_labels must be given together"),
        (TEST | {"test_images": IMAGES[:, :3]}, "test_images are 1x3x5, train_images 1x4x5"),
        (TEST | {"test_labels": [0, 1]}, "test_labels are 2, expected 6"),
        (TEST | {"test_labels": LABELS + 1}, "test_labels hold 3, which is not among the 3 classes"),
        (TEST | {"test_labels": ["a"] * 6}, "test_labels are of another type than train_labels"),
        (TEST | {"test_labels": LABELS + 1, "class_names": ["a", "b", "c"]}, "expected 0 to 2 for 3 class_names, found 1 to 3"),
        ({"train_labels": LABELS[:5]}, "train_labels are 5, expected 6, one for each image"),
        ({"train_labels": np.eye(6)}, "train_labels have the shape (6, 6), expected [N]"),
        ({"train_labels": LABELS + 0.5}, "train_labels hold fractions or NaN"),
        ({"train_labels": [np.nan] * 6}, "train_labels hold fractions or NaN"),
        ({"train_labels": [1] * 6}, "train_labels hold one class (1), expected two or more"),
        ({"class_names": ("a", "b")}, "train_labels: expected 0 to 1 for 2 class_names, found 0 to 2"),
        ({"train_labels": LABELS - 1, "class_names": ["a", "b", "c"]}, "expected 0 to 2 for 3 class_names, found -1 to 1"),
        ({"class_names": "abc"}, "class_names are 'abc', expected a list of names"),
        ({"class_names": {"a", "b", "c"}}, "class_names are a set, which has no order"),
        ({"class_names": {"a": 1, "b": 2, "c": 3}}, "class_names are a mapping without the labels 0 to 2"),
        ({"train_labels": np.eye(3)[LABELS]}, "train_labels have the shape (6, 3), expected [N]"),
        ({"train_labels": [1e300, 0, 0, 0, 0, 0]}, "train_labels go up to 1e+300"),
        ({"train_labels": [0.0, 1, 2, 3, 4, 5]}, "train_labels hold 6 classes for 6 images"),
        ({"train_labels": ["a", 1, "b", "a", 1, "b"]}, "train_labels hold words and other things"),
        ({"train_labels": np.array(["a", None] * 3, object)}, "train_labels do not make one array"),
        ({"train_images": np.zeros((6, 2, 5, 3))}, "[N, C, H, W] or [N, H, W, C]?"),
        ({"train_images": np.zeros((6, 3, 32, 3))}, "[N, C, H, W] or [N, H, W, C]?"),
        ({"train_images": np.zeros((6, 64, 3, 3))}, "[N, C, H, W] or [N, H, W, C]?"),
        ({"train_images": np.ma.masked_greater(IMAGES, 50)}, "train_images are masked in places"),
        ({"train_images": [PALETTE] * 6}, "train_images hold a Pillow image of mode 'P'"),
        (TEST | {"train_images": IMAGES / 119.0, "test_images": IMAGES / 1.0}, "expected one scale"),
        ({"class_names": ("a", "a", "b")}, "class_names hold 'a' twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_line_with_the_name(changes, problem):
    with pytest.raises(DataError, match=re.escape(problem)) as refusal:
        normal(**changes)
    assert refusal.value.message.startswith("dataset 'mine': ")
    assert "\n" not in refusal.value.message


def test_the_fingerprint_is_of_pixels_labels_and_shape_and_of_nothing_else():
    fingerprint = datasets.fingerprint_of(normal())
    assert re.fullmatch("[0-9a-f]{64}", fingerprint)
    assert datasets.fingerprint_of(normal(class_names=("x", "y", "z"), notes=["n"])) == fingerprint
    others = [
        normal(train_images=IMAGES.reshape(6, 5, 4)),
        normal(train_images=IMAGES ^ 1),
        normal(train_labels=LABELS[::-1]),
        normal(test_images=IMAGES, test_labels=LABELS),
    ]
    assert len({fingerprint, *map(datasets.fingerprint_of, others)}) == 5


def test_a_dataset_given_as_an_object_is_loaded_too(tmp_path):
    plugin = plugins.of_object(given_data, name="here")
    assert datasets.load(plugin, tmp_path, {}).class_names == ("0", "1", "2")


# Validation images and groups of a dataset's own


VAL = {"val_images": IMAGES[:3] // 2, "val_labels": LABELS[:3]}


def test_validation_images_of_its_own_stand_behind_the_others_and_are_told_apart():
    data = normal(**VAL, groups=["ann", "bob", "ann", "bob", "eve", "eve", "zoe", "zoe", "zoe"])
    assert data.train_labels.tolist() == [*LABELS, *LABELS[:3]]
    assert data.val_indices.tolist() == [6, 7, 8]
    assert np.array_equal(data.train_images[6:, 0], VAL["val_images"])
    assert data.groups.tolist() == [0, 1, 0, 1, 2, 2, 3, 3, 3]
    assert datasets.described(data).startswith(
        "9 images, 3 classes: 0 3, 1 3, 2 3; validation: 3 of these; 4 groups"
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"val_images": IMAGES}, "val_images and val_labels must be given together"),
        (VAL | {"val_labels": [0, 1, 7]}, "val_labels hold 7, which is not among the 3 classes"),
        (VAL | {"val_images": IMAGES[:3, :2]}, "val_images are 1x2x5, train_images 1x4x5"),
        ({"groups": [0, 1]}, "groups have the shape (2,), expected [6]"),
        ({"val_indices": [0, 6]}, "val_indices are not places among the 6 train_images"),
        ({"val_indices": np.arange(6)}, "all images are validation images"),
    ],
)
def test_validation_images_and_groups_that_do_not_fit_are_refused(changes, problem):
    with pytest.raises(DataError, match=re.escape(problem)):
        normal(**changes)


def test_which_images_are_validation_and_the_groups_belong_to_the_fingerprint_and_old_ones_stay():
    plain = normal()
    assert (
        datasets.fingerprint_of(plain) == "da89df092ebcf650dcc9f51b47801c20fcca349a27113ad3afeb936cbdb00bc5"
    )
    others = [normal(val_indices=[1]), normal(val_indices=[2]), normal(groups=LABELS)]
    assert len({datasets.fingerprint_of(data) for data in [plain, *others]}) == 4


@pytest.mark.parametrize("store", ["kept", "shared"])
def test_they_are_kept_with_the_images(tmp_path, monkeypatch, store):
    from gridsearch.zoo.datasets import kept_images, shared_images

    data = normal(**VAL, groups=[0, 1, 0, 1, 2, 2, 3, 3, 3])
    if store == "kept":
        kept_images.keep(kept_images.Decoded(data, "f"), tmp_path / "a.npz")
        found = kept_images.read(tmp_path / "a.npz").data
    else:
        monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path))
        monkeypatch.setattr(shared_images, "SHARED_FROM", 0)
        found = shared_images.share(data, "f" * 64)
        assert not found.train_images.flags.writeable
    assert found.val_indices.tolist() == [6, 7, 8]
    assert found.groups.tolist() == data.groups.tolist()
