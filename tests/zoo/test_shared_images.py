"""One copy of large images for all processes of a machine: what it holds, and when it is not taken."""

import dataclasses
import os
import threading

import numpy as np
import pytest

from gridsearch.plugins import ImageData, Reading
from gridsearch.training.pixel_tensors import resident_pixels
from gridsearch.training.resident_data import ResidentCache
from gridsearch.zoo import datasets
from gridsearch.zoo.datasets import shared_arrays, shared_images

KEY = "0" * 64


@pytest.fixture(autouse=True)
def _share_small_ones(monkeypatch):
    monkeypatch.setattr(shared_images, "SHARED_FROM", 0)


def pictures(count=30, *, kind=np.uint8, names=("a", "b", "c")):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count + 5, 3, 6, 4), dtype=np.uint8)
    pixels = pixels if kind is np.uint8 else (pixels / 255).astype(kind)
    labels = np.arange(count + 5) % 3
    return ImageData(
        train_images=pixels[:count],
        train_labels=labels[:count],
        test_images=pixels[count:],
        test_labels=labels[count:],
        class_names=names,
        reading=Reading(changes=("6 rotated",), levels=(0.0, 1.0)),
    )


def file_of(name="train_images"):
    (found,) = (shared_arrays.cache_root() / "shared").glob(f"*/arrays/{name}.npy")
    return found


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_shared_images_are_those_of_the_dataset(kind):
    data = pictures(kind=kind)
    for shared in (datasets.share(data, KEY), datasets.find_shared(datasets.key_of(data, KEY))):
        for name in ("train_images", "train_labels", "test_images", "test_labels"):
            ours, theirs = getattr(shared, name), getattr(data, name)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        assert (shared.class_names, shared.reading) == (data.class_names, data.reading)
    assert datasets.fingerprint_of(shared) == datasets.fingerprint_of(data)


def test_training_reads_the_file_itself_and_cannot_write_to_it():
    shared = datasets.share(pictures(), KEY)
    pixels = resident_pixels(shared.train_images, size=(6, 4))
    assert np.shares_memory(pixels.numpy(), shared.train_images)
    with pytest.raises(ValueError, match="read-only"):
        shared.train_images[0] = 0


def test_images_that_somebody_may_write_to_are_copied():
    data = pictures()
    assert not np.shares_memory(resident_pixels(data.train_images, size=(6, 4)).numpy(), data.train_images)


def test_a_small_dataset_is_not_shared(monkeypatch):
    monkeypatch.undo()
    data = pictures()
    assert datasets.share(data, KEY) is data
    assert datasets.key_of(data, KEY) is None


@pytest.mark.parametrize("harm", ["byte", "end", "gone", "about"])
def test_damaged_files_are_not_taken_and_made_anew(harm):
    data = pictures()
    key = datasets.key_of(data, KEY)
    datasets.share(data, KEY)
    path = file_of()
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    if harm == "byte":
        path.write_bytes(content)
    elif harm == "end":
        path.write_bytes(content[:-9])
    elif harm == "gone":
        path.unlink()
    else:
        (path.parent / "about.json").write_text("{")
    assert datasets.find_shared(key) is None
    np.testing.assert_array_equal(datasets.share(data, KEY).train_images, data.train_images)
    assert datasets.find_shared(key) is not None


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="gives a file to another user")
def test_another_users_files_are_not_taken():
    datasets.share(pictures(), KEY)
    os.chown(file_of(), 12345, -1)
    assert datasets.find_shared(datasets.key_of(pictures(), KEY)) is None


def test_the_same_images_with_more_classes_are_others():
    four = pictures(names=("a", "b", "c", "absent"))
    assert datasets.key_of(four, KEY) != datasets.key_of(pictures(), KEY)


def test_what_was_noticed_while_reading_is_told_of_this_reading():
    datasets.share(pictures(), KEY)
    again = dataclasses.replace(pictures(), notes=("2 files are no images",), reading=None)
    shared = datasets.share(again, KEY)
    assert (shared.notes, shared.reading) == (again.notes, None)


def test_of_many_at_once_one_makes_the_files():
    made, barrier = [], threading.Barrier(4)

    def make(beat):
        made.append(1)
        return {"x": np.arange(1000)}, {}

    def ask():
        barrier.wait()
        assert shared_arrays.find_or_make("key", make).arrays["x"][-1] == 999

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_the_least_recently_used_of_many_goes():
    for i in range(shared_arrays._KEPT):
        shared_arrays.find_or_make(f"{i}", lambda _, i=i: ({"x": np.full(3, i)}, {}))
        os.utime(shared_arrays.cache_root() / "shared" / f"{i}", (i, i))
    assert shared_arrays.find("0") is not None  # so that 1 is the oldest
    shared_arrays.find_or_make("new", lambda _: ({"x": np.zeros(3)}, {}))
    assert shared_arrays.find("1") is None
    assert shared_arrays.find("0") is not None


def test_a_cache_that_cannot_be_written_leaves_each_process_its_copy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "file"))
    data = pictures()
    kept = datasets.share(data, KEY)
    assert kept.train_images is data.train_images
    assert any("each worker keeps a copy of the images" in note for note in kept.notes)
    resized = datasets.share_resized("key", (3, 3), lambda: np.ones((2, 3, 3, 1)))
    assert resized.sum() == 18


def test_images_in_another_size_are_shared_too():
    data = pictures()
    shared, calls = datasets.share(data, KEY), []

    def share(size, make):
        calls.append(size)
        return datasets.share_resized("key", size, make)

    def cached():
        cache = ResidentCache(shared, device="cpu", share=share)
        return cache.get(val=0.2, split_seed=0, subset=None, smallest_input=(8, 8)).pixels.numpy()

    first, second = cached(), cached()
    assert calls == [(8, 8)] * 2
    assert file_of("images").is_file()
    np.testing.assert_array_equal(first, resident_pixels(data.train_images, size=(8, 8)).numpy())
    np.testing.assert_array_equal(first, second)
