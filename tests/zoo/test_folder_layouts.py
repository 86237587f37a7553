"""Splits by other names, folders in folders, links, and what systems leave behind: never learned as classes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gridsearch.errors import DataError
from gridsearch.zoo import datasets
from gridsearch.zoo.datasets.scan import scan


def build(root, words):
    """Make "a/{x,y} b": two images in each of a/x, a/y and b."""
    number = 0
    for word in words.split():
        before, brace, names = word.partition("{")
        for name in names.rstrip("}").split(",") if brace else [""]:
            for i in range(2):
                path = root / f"{before}{name}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"image %d" % (number := number + 1))
    return root


def said(tree):
    return " | ".join(tree.skipped.notes())


@pytest.mark.parametrize(
    ("words", "skipped"),
    [
        ("Training/{cat,dog} Testing/{cat,dog}", ""),
        ("seg_train/{cat,dog} seg_test/{cat,dog} seg_pred", "seg_pred/: not used"),
        ("seg_train/seg_train/{cat,dog} seg_test/seg_test/{cat,dog}", "seg_train/seg_train/"),
        ("training_set/{cat,dog} test_set/{cat,dog}", ""),
        ("TrainImages/{cat,dog} TestImages/{cat,dog}", ""),
        ("train/{cat,dog} test_images/{cat,dog}", ""),
        ("train/{cat,dog} test/{cat,dog} samples", "samples/: not used"),
        ("pets/train/{cat,dog} pets/test/{cat,dog} __MACOSX/pets", "pets/"),
        ("a/b/train/{cat,dog} a/b/test/{cat,dog}", "a/b/"),
    ],
)
def test_splits_by_another_name_are_taken_as_splits_and_what_is_beside_them_is_told(tmp_path, words, skipped):
    tree = scan(build(tmp_path / "im", words))
    assert tree.classes == ("cat", "dog")
    assert [found.test for found in tree.files] == [False] * 4 + [True] * 4
    assert skipped in said(tree)


@pytest.mark.parametrize("name", ["val", "VALID", "Validation", "dev", "Dev_Set", "seg_val", "val2017"])
def test_validation_images_are_a_split_of_their_own_however_it_is_named(tmp_path, name):
    train = name.replace("val", "train") if "_val" in name or "2017" in name else "Training"
    tree = scan(build(tmp_path / "im", f"{train}/{{cat,dog}} {name}/{{cat,dog}}"))
    assert [found.part for found in tree.files] == ["train"] * 4 + ["val"] * 4
    assert tree.where == {"train": f"im/{train}", "val": f"im/{name}"}
    assert said(tree) == ""


def test_a_validation_folder_without_classes_is_not_used_and_that_is_said(tmp_path):
    tree = scan(build(tmp_path / "im", "train/{cat,dog} test/{cat,dog} val"))
    assert {found.part for found in tree.files} == {"train", "test"}
    assert "val/: not used; it stands beside train/" in said(tree)


def test_what_lies_in_one_sub_folder_of_the_classes_is_one_group(tmp_path):
    tree = scan(build(tmp_path / "im", "cat/{ann,bob} dog/{ann,eve/monday} dog"))
    groups = {found.relative: found.group for found in tree.files}
    assert groups["cat/ann/0.png"] == groups["dog/ann/1.png"] == "ann"
    assert groups["dog/eve/monday/0.png"] == "eve"
    assert groups["dog/0.png"] == ""


@given(
    st.sampled_from([("train", "test"), ("training", "testing"), ("trainset", "testset")]),
    st.sampled_from(["{}", "seg_{}", "{}-images", "{}2017", "x.{}", "{} data"]),
    st.sampled_from([str, str.upper, str.capitalize]),
)
@settings(max_examples=20, deadline=None)
def test_a_split_is_a_split_however_its_name_is_written(tmp_path_factory, names, form, case):
    train, test = (case(form.format(name)) for name in names)
    root = build(tmp_path_factory.mktemp("im"), "a/{x,y} b/{x,y}")
    (root / "a").rename(root / train)
    (root / "b").rename(root / test)
    tree = scan(root)
    assert tree.classes == ("x", "y")
    assert tree.test_from == f"{root.name}/{test}"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("train test", "train/ and test/ hold no folders of classes"),
        ("train test cat", "train/ and test/ hold no folders of classes"),
        ("train test1", "train/ and test1/ hold no folders of classes"),
        ("data/{train,test}", "train/ and test/ hold no folders of classes"),
        ("cat dog test", "test/ is named as a split, and beside it stand cat/ and dog/"),
        ("cat dog test/{cat,dog}", "test/ is named as a split"),
        ("cat dog test_images/{cat,dog}", "test_images/ is named as a split"),
        ("cat dog train/{cat,dog}", "train/ holds folders of classes, and beside it stand cat/ and dog/"),
        ("val/{cat,dog} test/{cat,dog}", "test/ is named as a split, and beside it stand val/"),
        ("test/{cat,dog}", "test/ is named as a split, and no train/ is beside it"),
        ("cat/{train,test} dog/{train,test}", "cat/ holds splits, expected them outside of the classes"),
        ("images/{train,val} labels/{train,val}", "images/ holds splits"),
        ("train/{cat,dog} training/{cat,dog} test/{cat,dog}", "both named as training images"),
        ("train/{cat,dog} test/{cat,dog} testing/{cat,dog}", "both named as test images"),
        ("train/{cat,dog} val/{cat,dog} dev/{cat,dog}", "both named as validation images"),
        ("train/{cat,dog} val/{cat,cow}", "train/ and val/ have different classes: val/ lacks 'dog'"),
        ("trainA trainB testA testB", "trainA/ and trainB/ are both named as training images"),
        ("Train/{cat,dog} Test/{cat}", "Train/ and Test/ have different classes: Test/ lacks 'dog'"),
    ],
)
def test_what_may_be_a_split_or_a_class_is_refused_with_the_right_form(tmp_path, words, problem):
    with pytest.raises(DataError) as refusal:
        scan(build(tmp_path / "im", words))
    assert problem in refusal.value.message
    assert refusal.value.hint


@pytest.mark.parametrize("words", ["train car bus", "valid invalid", "train_station test_tube", "dev ops"])
def test_words_of_splits_may_be_classes_where_nothing_else_speaks_of_splits(tmp_path, words):
    assert scan(build(tmp_path / "im", words)).classes == tuple(sorted(words.split()))


@pytest.mark.parametrize(
    "words", ["site1/{cat,dog} site2/{cat,dog}", "camera_a/{cat,dog} camera_b/{cat,dog}"]
)
def test_folders_that_are_numbered_and_hold_folders_of_the_same_names_are_doubted(tmp_path, words):
    tree = scan(build(tmp_path / "im", words))
    assert tree.classes == tuple(each.partition("/")[0] for each in words.split())
    (caution,) = tree.skipped.cautions
    assert caution.endswith(
        " hold folders of the same names (cat/ and dog/): if these are the classes, put them into train/ and test/"
    )


@pytest.mark.parametrize(
    "words",
    ["cat/{left,right} dog/{left,right}", "grade1/{left,right} grade2/{left,right}", "0/{p1,p2} 1/{p1,p2}"],
)
def test_classes_that_hold_folders_of_the_same_names_are_taken_with_a_note_and_no_doubt(tmp_path, words):
    tree = scan(build(tmp_path / "im", words))
    assert tree.classes == tuple(each.partition("/")[0] for each in words.split())
    assert not tree.skipped.cautions
    (note,) = [note for note in tree.skipped.notes() if "which are not taken as classes" in note]
    assert "hold folders of the same names (" in note


@pytest.mark.parametrize(
    "words",
    ["fold1/{cat,dog} fold2/{cat,dog}", "Treino/{cat,dog} Teste/{cat,dog}", "set_a/{a,b} set_b/{a,b}"],
)
def test_parts_of_a_dataset_by_any_name_are_never_learned_as_classes(tmp_path, words):
    with pytest.raises(DataError, match="so they seem to be parts of one dataset, not classes"):
        scan(build(tmp_path / "im", words))


def test_a_split_that_is_not_used_is_named_and_is_not_counted_as_one_file(tmp_path):
    tree = scan(build(tmp_path / "im", "train/{cat,dog} val/{cat,dog} extra/{cat,dog} samples"))
    assert tree.skipped.unused == ["extra/", "samples/"]
    assert tree.skipped.count == 0


def test_a_test_folder_that_is_a_link_is_used_and_named(tmp_path):
    root = build(tmp_path / "ds", "train/{cat,dog}")
    build(tmp_path / "elsewhere", "{cat,dog}")
    (root / "test").symlink_to(tmp_path / "elsewhere")
    tree = scan(root)
    assert sum(found.test for found in tree.files) == 4
    assert next(found.relative for found in tree.files if found.test) == "test/cat/0.png"
    assert tree.test_from == f"ds/test (a link to {tmp_path / 'elsewhere'})"
    assert said(tree) == ""


def test_a_split_that_is_a_link_to_nothing_is_refused(tmp_path):
    root = build(tmp_path / "ds", "train/{cat,dog}")
    (root / "test").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="test is a link to nothing"):
        scan(root)


def test_links_in_place_of_all_classes_are_named_in_the_refusal(tmp_path):
    build(tmp_path / "real", "cat dog")
    (tmp_path / "ds").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "ds" / name).symlink_to(tmp_path / "real" / name)
    with pytest.raises(
        DataError, match="found no sub-folders, and 2 links to folders, which are not followed"
    ):
        scan(tmp_path / "ds")


CLUTTER = ["Thumbs.db", "desktop.ini", "@eaDir/x.png", "#recycle/y.png", "lost+found/z.png", "__MACOSX/0.png"]


@pytest.mark.parametrize("where", ["", "train", "train/cat", "train/cat/deep", "test/dog"])
def test_what_systems_leave_behind_is_skipped_and_counted_at_every_level(tmp_path, where):
    root = build(tmp_path / "im", "train/{cat,dog} test/{cat,dog}")
    clean = scan(root)
    for name in [*CLUTTER, ".DS_Store", "._0.png", ".ipynb_checkpoints/0.png"]:
        path = root / where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    tree = scan(root)
    assert tree.files == clean.files
    assert tree.skipped.count == 9
    assert tree.skipped.notes() == (
        "skipped 3 hidden files or folders",
        "skipped 6 files or folders of the system (#recycle, @eaDir, Thumbs.db, __MACOSX, desktop.ini, ...)",
    )


def test_clutter_alone_beside_a_nested_folder_keeps_nothing_from_being_found(tmp_path):
    root = build(tmp_path / "im", "pets/{cat,dog} @eaDir #recycle/{cat,dog}")
    assert scan(root).classes == ("cat", "dog")


def test_relative_names_and_so_the_fingerprint_do_not_depend_on_whether_a_split_is_a_link(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 4), dtype=np.uint8)
    for i, word in enumerate(f"{part}/{name}" for part in ("train", "test") for name in ("a", "b")):
        for j in range(2):
            path = tmp_path / "ds" / word / f"{j}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[2 * i + j]).save(path)
    plugin = datasets.open_dataset(f"folder:{tmp_path / 'ds'}")
    before = datasets.fingerprint(plugin, tmp_path / "root", {})
    (tmp_path / "ds" / "test").rename(tmp_path / "moved")
    (tmp_path / "ds" / "test").symlink_to(tmp_path / "moved")
    assert datasets.fingerprint(plugin, tmp_path / "root", {}) == before


@pytest.mark.parametrize(
    ("words", "labels", "problem", "hint"),
    [
        (
            "images/{train,val}",
            "labels/train/0.txt labels/val/0.txt",
            "images/train/ holds no folders of classes, and labels/ holds no images; files of labels",
            "csv:FILE",
        ),
        (
            "images/train/{cat,dog} images/val/{cat,dog}",
            "annotations/a.json masks/b.txt",
            "images/ holds splits, and annotations/ and masks/ hold no images",
            "im/images",
        ),
        ("cat/{train,val} dog/{train,val}", "", "cat/ holds splits, expected them outside", "train/CLASS/"),
    ],
)
def test_splits_of_images_beside_folders_of_labels_are_refused_with_what_is_meant(
    tmp_path, words, labels, problem, hint
):
    root = build(tmp_path / "im", words)
    for name in labels.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("0 .5 .5 .1 .1")
    with pytest.raises(DataError) as refusal:
        scan(root)
    assert problem in refusal.value.message
    assert hint in refusal.value.hint


def test_images_in_no_folder_of_a_class_are_counted_and_a_list_is_advised(tmp_path):
    (tmp_path / "im").mkdir()
    for name in ("cat.1.jpg", "dog.1.jpg", "notes.txt"):
        (tmp_path / "im" / name).write_bytes(b"")
    with pytest.raises(DataError, match="no sub-folders, and 2 images in no folder of a class") as refusal:
        scan(tmp_path / "im")
    assert "csv:FILE" in refusal.value.hint
