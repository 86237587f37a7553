"""What `data verify` says of a folder: every file that a run would leave out, and what else is in doubt."""

import numpy as np
import pytest
from PIL import Image

from gridsearch.zoo import datasets
from gridsearch.zoo.datasets import checks


@pytest.fixture
def pets(tmp_path):
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(6):
            pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i}.jpg")
    return tmp_path / "pets"


def examine(folder):
    return datasets.examine(datasets.open_dataset(f"folder:{folder}"), folder.parent / "root")


def test_a_folder_that_is_all_right_has_no_problem_and_is_described(pets):
    (pets / "README.md").write_text("x")
    (pets / "cat" / "labels.csv").write_text("x")
    (pets / "cat" / ".DS_Store").write_text("x")
    found = examine(pets)
    assert found.problems == ()
    assert found.notes[0].startswith("12 images, 2 classes: cat 6, dog 6; 3 skipped; ")
    assert "skipped README.md: not in the folder of a class" in found.notes


def test_validation_images_of_its_own_are_told(pets):
    for split in ("train", "val"):
        (pets.parent / "ds" / split).mkdir(parents=True)
    (pets / "cat").rename(pets.parent / "ds" / "train" / "cat")
    (pets / "dog").rename(pets.parent / "ds" / "train" / "dog")
    for name in ("cat", "dog"):
        (pets.parent / "ds" / "val" / name).mkdir()
        picture = np.random.default_rng(len(name)).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(picture).save(pets.parent / "ds" / "val" / name / "0.png")
    found = examine(pets.parent / "ds")
    assert found.problems == ()
    assert "; validation: ds/val, 2 of these; " in found.notes[0]


def test_every_file_that_a_run_would_skip_is_named_however_many_they_are(pets):
    whole = (pets / "cat" / "0.jpg").read_bytes()
    for i in range(30):
        (pets / "cat" / f"half{i}.jpg").write_bytes(whole[: len(whole) // 2])
    (pets / "dog" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (pets / "dog" / "page.png").write_text("<html>")
    (pets / "loose.png").write_bytes(whole)
    (pets / "dog" / "gone.jpg").symlink_to(pets / "nothing")
    found = examine(pets)
    assert len(found.problems) == 34
    assert found.problems[0] == "loose.png: not in the folder of a class"
    for name, reason in (("half29.jpg", "truncated"), ("phone.heic", "heic"), ("page.png", "not an image")):
        assert any(name in line and reason in line.lower() for line in found.problems)
    assert not any("half" in line for line in found.notes)
    assert datasets.verify(datasets.open_dataset(f"folder:{pets}"), pets.parent) == found.problems


def test_kept_images_do_not_hide_what_became_of_a_file(pets):
    plugin = datasets.open_dataset(f"folder:{pets}")
    datasets.load(plugin, pets.parent / "root", {})
    path = pets / "cat" / "3.jpg"
    path.write_bytes(path.read_bytes()[:300])
    assert len(examine(pets).problems) == 1


def test_a_folder_is_always_there_to_be_loaded_whatever_lies_in_it(pets):
    (pets / "cat" / "bad.jpg").write_bytes(b"x")
    assert datasets.available(datasets.open_dataset(f"folder:{pets}"), pets.parent / "root")


# Doubts


def said(folder):
    return " | ".join(
        datasets.cautions(
            datasets.load(datasets.open_dataset(f"folder:{folder}"), folder.parent / "root", {})
        )
    )


def test_images_in_two_classes_are_told_with_their_number_and_an_example(pets):
    for i in (1, 2):
        (pets / "dog" / f"copy{i}.jpg").write_bytes((pets / "cat" / f"{i}.jpg").read_bytes())
    assert "4 images lie in two classes or more (cat/1.jpg is dog/copy1.jpg)" in said(pets)


def test_test_images_to_train_on_are_told_also_where_their_files_differ(pets):
    (pets / "train").mkdir()
    for name in ("cat", "dog"):
        (pets / name).rename(pets / "train" / name)
        (pets / "test" / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((20, 20, 3), 7 * i + len(name), np.uint8)).save(
                pets / "test" / name / f"{i}.png"
            )
    Image.open(pets / "train" / "cat" / "2.jpg").save(pets / "test" / "cat" / "0.png")
    words = said(pets)
    assert "1 of 6 test images is a training image too (test/cat/0.png is train/cat/2.jpg)" in words
    assert "5 of 18 images are of one colour throughout" in words


def test_copies_within_a_class_are_told_for_they_may_be_among_the_validation_images(pets):
    (pets / "dog" / "copy.jpg").write_bytes((pets / "dog" / "1.jpg").read_bytes())
    assert "1 training image is a copy of another (dog/1.jpg is dog/copy.jpg)" in said(pets)


def test_too_few_images_for_every_split_and_a_majority_are_told(pets):
    for i in range(1, 6):
        (pets / "dog" / f"{i}.jpg").unlink()
    words = said(pets)
    assert "too few images for one each in training, validation and test: 'dog' 1" in words
    assert "always answering 'cat' would be right for 85.7 % of the training images" in words


def test_even_classes_of_different_images_leave_no_doubt(pets):
    assert said(pets) == ""


def test_a_dataset_from_python_is_doubted_alike():
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 5), dtype=np.uint8)
    labels = np.arange(20) % 2
    data = datasets.load(datasets.open_dataset("digits"), None, {})
    assert datasets.cautions(data) == ()
    leaky = type(data)(
        train_images=images[:, None],
        train_labels=labels,
        test_images=images[:7, None],
        test_labels=labels[:7],
        class_names=("a", "b"),
    )
    assert datasets.cautions(leaky) == (
        "7 of 7 test images are training images too: the test accuracy will be better than on new images",
    )


def test_an_image_in_training_validation_and_test_is_counted_where_it_validates_and_where_it_tests():
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 5), dtype=np.uint8)
    images[18] = images[0]
    labels = np.arange(20) % 2
    words = checks.cautions([(images, labels), (images[:1], labels[:1])], ("a", "b"), val=[17, 18, 19])
    assert [each.partition(":")[0] for each in words] == [
        "1 of 1 test images is a training image too",
        "1 of 3 validation images is a training image too",
        "no test image is of class 'b'",
    ]
