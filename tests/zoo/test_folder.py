"""A folder of images: layouts, shapes, what is skipped and what is refused."""

import os
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gridsearch.errors import DataError, UsageError
from gridsearch.zoo import datasets
from gridsearch.zoo.datasets import folder_arrays, folder_paths
from gridsearch.zoo.datasets.folder import FolderDataset
from tests.zoo.painted import fingerprint, load, paint

# Layout


def test_sub_folders_are_classes_and_no_test_set_is_made_up(pets):
    data = load(pets)
    assert data.class_names == ("cat", "dog")
    assert data.train_images.shape == (6, 3, 6, 8)
    assert data.train_images.dtype == np.uint8
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test_images is None
    assert data.notes == ()
    pixels = np.asarray(Image.open(pets / "cat" / "2.png"))
    assert np.array_equal(data.train_images[2], pixels.transpose(2, 0, 1))


def test_train_and_test_sub_folders_are_the_two_sets(tmp_path):
    for part, count in (("Train", 3), ("test", 2)):
        for name in ("b", "a"):
            for i in range(count):
                paint(tmp_path / "im" / part / name / f"{i}.png", seed=i, grey=True)
    data = load(tmp_path / "im")
    assert data.class_names == ("a", "b")
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test_images.shape == (4, 1, 6, 8)
    assert data.test_labels.tolist() == [0, 0, 1, 1]


def test_validation_images_of_a_folder_are_told_apart_and_one_that_is_trained_on_too_is_told(tmp_path):
    for number, part in enumerate(("train", "val")):
        for seed, name in enumerate(("a", "b")):
            paint(tmp_path / "im" / part / name / "0.png", seed=seed)
            paint(tmp_path / "im" / part / name / "1.png", seed=10 * seed + number + 5)
    data = load(tmp_path / "im")
    assert data.train_labels.tolist() == [0, 0, 1, 1] * 2
    assert data.val_indices.tolist() == [4, 5, 6, 7]
    assert data.test_images is None
    assert "validation: im/val, 4 of these" in datasets.described(data)
    assert data.reading.warnings[0] == (
        "2 of 4 validation images are training images too (val/a/0.png is train/a/0.png): the validation accuracy "
        "will be better than on new images"
    )
    (tmp_path / "im" / "val").rename(tmp_path / "im" / "Dev")
    assert fingerprint(tmp_path / "im") != datasets.fingerprint_of(data)


def test_what_a_study_had_before_validation_images_were_used_is_read_as_it_was_then(tmp_path):
    for part in ("train", "val"):
        for seed, name in enumerate(("a", "b")):
            paint(tmp_path / "im" / part / name / "0.png", seed=seed)
            paint(tmp_path / "im" / part / name / "1.png", seed=seed + 5)
    plugin = datasets.open_dataset(f"folder:{tmp_path / 'im'}")
    now = fingerprint(tmp_path / "im")
    (tmp_path / "im" / "val").rename(tmp_path / "away")
    old = fingerprint(tmp_path / "im")
    (tmp_path / "away").rename(tmp_path / "im" / "val")
    for wanted, val in ((old, None), (now, [4, 5, 6, 7]), ("0" * 64, [4, 5, 6, 7]), (None, [4, 5, 6, 7])):
        data, found = datasets.load_known(plugin, tmp_path / "root", {}, wanted=wanted)
        assert found == (old if wanted == old else now)
        assert (None if data.val_indices is None else data.val_indices.tolist()) == val
        assert len(data.train_labels) == (4 if wanted == old else 8)


def test_a_train_may_be_a_thing_to_recognise(tmp_path):
    for name in ("train", "car", "bus"):
        paint(tmp_path / "im" / name / "old" / "0.png")
    assert load(tmp_path / "im").class_names == ("bus", "car", "train")


def test_images_lie_at_any_depth_below_their_class(pets):
    paint(pets / "cat" / "more" / "deep" / "x.png")
    assert load(pets).train_labels.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_classes_and_files_are_in_the_order_in_which_people_count(tmp_path):
    for name in ("class 10", "class 2", "Class 1", "ß", "z"):
        paint(tmp_path / "im" / name / "0.png", size=(2, 2))
    for number in (10, 9, 1):
        Image.new("L", (2, 2), number).save(tmp_path / "im" / "z" / f"{number}.png")
    data = load(tmp_path / "im", channels=1)
    assert data.class_names == ("Class 1", "class 2", "class 10", "ß", "z")
    assert data.train_images[-3:, 0, 0, 0].tolist() == [1, 9, 10]


@given(st.lists(st.text(max_size=8), unique=True))
def test_the_order_is_one_order_whatever_the_names(names):
    backwards = names[::-1]
    assert sorted(names, key=folder_paths.natural) == sorted(backwards, key=folder_paths.natural)
    assert len({repr(folder_paths.natural(name)) for name in names}) == len(names)


def test_odd_class_names_survive(tmp_path):
    names = [
        "<script>alert(1)<",
        "chats & chiens",
        "'; DROP TABLE",
        "猫",
        "=1+1",
        "emoji 🐈",
        "a:b,c",
        "%s {x}",
    ]
    for name in names:
        paint(tmp_path / "im" / name / "0.png")
    assert sorted(load(tmp_path / "im").class_names) == sorted(names)


def test_a_name_is_the_same_whether_its_accents_are_composed_or_not(tmp_path):
    prints = set()
    for i, form in enumerate(("NFC", "NFD")):
        for name in ("café", "thé"):
            paint(tmp_path / str(i) / "im" / unicodedata.normalize(form, name) / "0.png")
        assert load(tmp_path / str(i) / "im").class_names == ("café", "thé")
        prints.add(fingerprint(tmp_path / str(i) / "im"))
    assert len(prints) == 1


def test_control_characters_and_broken_bytes_in_names_are_replaced(tmp_path):
    for name in (b"a\nb", b"a\xff"):
        paint(tmp_path / "im" / os.fsdecode(name) / "0.png")
    assert load(tmp_path / "im").class_names == ("a\ufffd", "a\ufffdb")


# Shape and colour


def test_the_size_of_most_images_is_the_size_of_all(pets):
    paint(pets / "cat" / "odd.png", size=(30, 20))
    assert load(pets).train_images.shape == (7, 3, 6, 8)


def test_without_a_size_of_most_the_median_height_and_width_are_taken(tmp_path):
    for i, size in enumerate(((10, 20), (12, 30), (14, 22), (16, 24), (18, 26), (40, 28))):
        paint(tmp_path / "im" / "ab"[i % 2] / f"{i}.png", size=size)
    assert load(tmp_path / "im").train_images.shape[2:] == (15, 25)


def test_half_of_the_images_are_not_most_of_them(tmp_path):
    for i, size in enumerate(((9, 9), (9, 9), (20, 20), (31, 31))):
        paint(tmp_path / "im" / "ab"[i % 2] / f"{i}.png", size=size)
    assert load(tmp_path / "im").train_images.shape[2:] == (14, 14)


def test_a_chosen_size_is_limited_to_64_with_its_aspect_and_a_given_one_is_not(tmp_path):
    for name in "ab":
        paint(tmp_path / "im" / name / "0.jpg", size=(300, 200))
    assert load(tmp_path / "im").train_images.shape[2:] == (64, 43)
    assert load(tmp_path / "im", size=100).train_images.shape[2:] == (100, 100)
    assert load(tmp_path / "im", size="30x20").train_images.shape[2:] == (30, 20)


def test_the_size_is_chosen_by_the_training_images_alone(tmp_path):
    for name in "ab":
        paint(tmp_path / "im" / "train" / name / "0.png", size=(5, 5))
        for i in range(4):
            paint(tmp_path / "im" / "test" / name / f"{i}.png", size=(9, 9))
    data = load(tmp_path / "im")
    assert data.train_images.shape[2:] == data.test_images.shape[2:] == (5, 5)


def test_grey_images_have_one_channel_even_if_their_files_say_colour(tmp_path):
    for name in "ab":
        paint(tmp_path / "im" / name / "0.png", grey=True, mode="RGB")
        paint(tmp_path / "im" / name / "1.png", grey=True)
    assert load(tmp_path / "im").train_images.shape == (4, 1, 6, 8)
    assert load(tmp_path / "im", channels=3).train_images.shape == (4, 3, 6, 8)
    paint(tmp_path / "im" / "a" / "2.png")
    mixed = load(tmp_path / "im").train_images
    assert mixed.shape == (5, 3, 6, 8)
    assert np.array_equal(mixed[0, 0], mixed[0, 2])
    assert load(tmp_path / "im", channels="1").train_images.shape == (5, 1, 6, 8)


@pytest.mark.parametrize("size", ["big", "0", 0, "3x", "3x0", -4, True, "28x28x3", 1.5])
def test_a_size_that_is_none_is_wrong_usage(pets, size):
    with pytest.raises(UsageError, match=r"data\.size=.*: expected auto"):
        load(pets, size=size)


@pytest.mark.parametrize("channels", ["rgb", 2, True, 0])
def test_channels_that_are_none_are_wrong_usage(pets, channels):
    with pytest.raises(UsageError, match=r"data\.channels=.*: expected auto, 1 or 3"):
        load(pets, channels=channels)


# What is skipped


def test_what_is_not_an_image_is_skipped_with_its_reason(pets, tmp_path):
    whole = paint(tmp_path / "whole.png", size=(60, 60)).read_bytes()
    (pets / "cat" / "notes.txt").write_text("hello")
    (pets / "cat" / "empty.png").touch()
    (pets / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (pets / "cat" / "page.jpg").write_text("<html>")
    (pets / "cat" / "drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (pets / "README").write_text("hello")
    (pets / "cat" / ".DS_Store").write_bytes(b"x")
    (pets / ".cache").mkdir()
    os.mkfifo(pets / "dog" / "pipe.png")
    data = load(pets)
    assert len(data.train_images) == 6
    assert set(data.notes) == {
        "skipped README: not in the folder of a class",
        "skipped cat/cut.png: " + next(n for n in data.notes if "cut.png" in n).partition(": ")[2],
        "skipped cat/drawing.eps: not an image that is read here (PostScript); convert it to PNG or JPEG",
        "skipped cat/empty.png: an empty file",
        "skipped cat/notes.txt: not an image",
        "skipped cat/page.jpg: not an image",
        "skipped dog/pipe.png: not a file",
        "skipped 2 hidden files or folders",
    }


def test_links_that_leave_the_folder_are_skipped_and_those_within_are_followed(pets, tmp_path):
    secret = paint(tmp_path / "secret" / "x.png")
    (pets / "cat" / "out.png").symlink_to(secret)
    (pets / "cat" / "gone.png").symlink_to(pets / "nothing.png")
    (pets / "cat" / "loop.png").symlink_to(pets / "cat" / "loop.png")
    (pets / "cat" / "within.png").symlink_to(pets / "dog" / "0.png")
    (pets / "cat" / "around").symlink_to(pets)
    (pets / "elsewhere").symlink_to(secret.parent)
    data = load(pets)
    assert data.class_names == ("cat", "dog")
    assert len(data.train_images) == 7
    assert sorted(data.notes) == [
        "skipped cat/around/: a link to a folder",
        "skipped cat/gone.png: a link to nothing",
        "skipped cat/loop.png: a link to nothing",
        "skipped cat/out.png: a link that leaves the folder",
        "skipped elsewhere/: a link to a folder",
    ]


def test_the_notes_are_capped_and_say_how_many_more_there_are(pets):
    for i in range(50):
        (pets / "cat" / f"n{i}.txt").write_text("x")
    notes = load(pets).notes
    assert len(notes) == 21
    assert notes[0] == "skipped cat/n0.txt: not an image"
    assert notes[-1] == "skipped 30 more files"


def test_an_unreadable_file_is_skipped(pets, monkeypatch):
    real = type(pets).open

    def locked(self, *args, **kwargs):
        if self.name == "1.png" and self.parent.name == "cat":
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(type(pets), "open", locked)
    assert load(pets).notes == ("skipped cat/1.png: cannot be read: Permission denied",)


# What is refused


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda _: None, "is not there"),
        (lambda p: p.write_text("x"), "is not a folder"),
        (lambda p: p.mkdir(), "expected at least two classes, found no sub-folders"),
        (lambda p: paint(p / "0.png"), "expected at least two classes, found no sub-folders"),
        (lambda p: paint(p / "cat" / "0.png"), "expected at least two classes, found one class, 'cat'"),
        (lambda p: [paint(p / "cat" / "0.png"), (p / "dog").mkdir()], "no usable image in 'dog'"),
        (
            lambda p: [(p / n).mkdir(parents=True) for n in "ab"] + [(p / "b" / "x.txt").write_text("x")],
            "no usable image in 'a', 'b' (skipped b/x.txt: not an image)",
        ),
        (
            lambda p: [paint(p / part / "0.png") for part in ("train/a", "train/b", "test/b", "test/c")],
            "train/ and test/ have different classes: test/ lacks 'a'; train/ lacks 'c'",
        ),
        (
            lambda p: [paint(p / part) for part in ("train/a/0.png", "train/b/0.png", "test/0.png")],
            "test/ holds no folders of classes as train/ does",
        ),
        (
            lambda p: [paint(p / part) for part in ("train/a/0.png", "train/b/0.png", "test/a/0.png")]
            + [(p / "test" / "b").mkdir()],
            "no usable image in 'test/b'",
        ),
        (
            lambda p: [paint(p / n / "0.png") for n in ("café", unicodedata.normalize("NFD", "café"), "x")],
            "two classes are shown as 'café'",
        ),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_dataset_is_refused_in_one_line(tmp_path, make, problem):
    make(tmp_path / "im")
    with pytest.raises(DataError, match=re.escape(problem)) as refusal:
        load(tmp_path / "im")
    assert refusal.value.exit_code == 4
    assert "\n" not in refusal.value.message
    assert str(tmp_path / "im") in refusal.value.message
    assert refusal.value.hint


def test_images_that_need_too_much_memory_are_refused_with_what_they_need(pets, tmp_path):
    small = FolderDataset(pets, memory_limit=1000)
    assert small(tmp_path / "root", size=7).train_images.nbytes == 882
    with pytest.raises(
        DataError, match=r"6 images of 3x100x100 need 0\.0 GB of memory, expected at most"
    ) as refusal:
        small(tmp_path / "root", size=100)
    assert "data.size" in refusal.value.hint


def test_too_much_memory_is_seen_before_all_is_decoded(pets, tmp_path, monkeypatch):
    decoded = []
    real = folder_arrays.image_decoding.decode
    monkeypatch.setattr(folder_arrays, "_AT_ONCE", 1)
    monkeypatch.setattr(
        folder_arrays.image_decoding, "decode", lambda *a, **k: decoded.append(1) or real(*a, **k)
    )
    with pytest.raises(DataError, match="need"):
        FolderDataset(pets, memory_limit=1000)(tmp_path / "root", size=15)
    assert len(decoded) == 2


def test_a_file_that_goes_while_its_folder_is_read_is_one_line(tmp_path, monkeypatch):
    from gridsearch.zoo.datasets import scan

    folder = tmp_path / "pets"
    for name in ("cat", "dog"):
        paint(folder / name / "0.png")
    every = scan.entries

    def entries(where, skipped):
        found = list(every(where, skipped))
        if where.name == "dog":
            (folder / "dog" / "0.png").unlink(missing_ok=True)
        return iter(found)

    monkeypatch.setattr(scan, "entries", entries)
    with pytest.raises(DataError, match=r"dog/0\.png: No such file or directory"):
        scan.scan(folder)


def test_a_packed_folder_is_to_be_unpacked(tmp_path):
    (tmp_path / "pets.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is not a folder") as refusal:
        datasets.load(datasets.open_dataset(f"folder:{tmp_path / 'pets.zip'}"), tmp_path, {})
    assert "unpack it" in refusal.value.hint


def test_a_folder_of_texts_among_the_classes_is_advised_out_of_the_folder(tmp_path):
    for name in ("cat", "dog"):
        paint(tmp_path / "im" / name / "0.png")
    (tmp_path / "im" / "annotations").mkdir()
    (tmp_path / "im" / "annotations" / "a.json").write_text("{}")
    with pytest.raises(DataError, match="no usable image in 'annotations'") as refusal:
        load(tmp_path / "im")
    assert refusal.value.hint == "move out of the folder what is no class, or put images into it"
