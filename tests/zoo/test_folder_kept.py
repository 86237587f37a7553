"""What identifies a folder of images, and the decoded images that are kept of it."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from gridsearch.zoo import datasets
from gridsearch.zoo.datasets import folder_arrays
from tests.zoo.painted import fingerprint, load, paint


def test_the_fingerprint_does_not_depend_on_where_the_folder_lies(pets, tmp_path):
    before = fingerprint(pets)
    assert re.fullmatch("[0-9a-f]{64}", before)
    (tmp_path / "other").mkdir()
    moved = pets.rename(tmp_path / "other" / "animals")
    (moved / "cat" / "0.png").touch()
    assert fingerprint(moved) == before


def test_the_fingerprint_follows_every_image_name_and_option_and_nothing_that_is_skipped(pets):
    before = fingerprint(pets)
    (pets / "cat" / "notes.txt").write_text("hello")
    assert fingerprint(pets) == before
    assert fingerprint(pets, size="6x8") == fingerprint(pets, channels=3) == before
    seen = {before, fingerprint(pets, size=9), fingerprint(pets, channels=1)}
    path = pets / "cat" / "0.png"
    paint(path, seed=99)
    seen.add(fingerprint(pets))
    path.rename(path.with_name("7.png"))
    seen.add(fingerprint(pets))
    (pets / "cat").rename(pets / "lynx")
    seen.add(fingerprint(pets))
    (pets / "lynx" / "7.png").unlink()
    seen.add(fingerprint(pets))
    assert len(seen) == 7


def same(one, other):
    arrays = ("train_images", "train_labels", "test_images", "test_labels")
    rest = (one.class_names, one.notes) == (other.class_names, other.notes)
    return rest and all(np.array_equal(getattr(one, a), getattr(other, a)) for a in arrays)


def test_decoded_images_are_kept_and_read_back_the_same_without_decoding(pets, monkeypatch):
    (pets / "cat" / "notes.txt").write_text("hello")
    first, mark = load(pets), fingerprint(pets)

    def refuse(*args, **kwargs):
        raise AssertionError("decoded again")

    monkeypatch.setattr(folder_arrays.image_decoding, "decode", refuse)
    assert same(load(pets), first)
    assert fingerprint(pets) == mark
    assert first.notes == ("skipped cat/notes.txt: not an image",)


def test_a_changed_image_is_decoded_again(pets):
    first = load(pets)
    paint(pets / "cat" / "0.png", seed=99)
    assert not np.array_equal(load(pets).train_images[0], first.train_images[0])


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "a page"])
def test_kept_images_that_were_altered_are_decoded_again(pets, damage):
    first = load(pets)
    (kept,) = (pets.parent / "root" / "folder").glob("*.npz")
    content = kept.read_bytes()
    middle = content.index(first.train_images[1].tobytes())
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    kept.write_bytes({"cut": content[:-30], "empty": b"", "flipped": flipped, "a page": b"<html>"}[damage])
    assert same(load(pets), first)
    assert kept.read_bytes() == content


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_what_another_user_has_put_into_a_shared_cache_is_not_taken_for_the_images(pets, monkeypatch):
    first = load(pets)
    (kept,) = (pets.parent / "root" / "folder").glob("*.npz")
    with np.load(kept) as file:
        np.savez(
            kept, **{name: np.zeros_like(v) if name == "train_images" else v for name, v in file.items()}
        )
    assert not load(pets).train_images.any(), "whole, and under the right name"
    monkeypatch.setattr(os, "getuid", lambda: kept.stat().st_uid + 1)
    assert same(load(pets), first)


def test_a_cache_that_cannot_be_written_is_done_without_and_that_is_said(pets):
    first = load(pets)
    root = pets.parent / "file"
    root.write_text("a file where the data root should be")
    data = datasets.load(datasets.open_dataset(f"folder:{pets}"), root, {})
    assert np.array_equal(data.train_images, first.train_images)
    assert data.notes[0].startswith("decoded images are not kept: ")


def test_only_the_most_recently_used_decoded_folders_are_kept(pets):
    for size in range(2, 14):
        load(pets, size=size)
    kept = sorted((pets.parent / "root" / "folder").iterdir())
    assert len(kept) == 8
    assert all(path.suffix == ".npz" for path in kept)


def test_many_processes_at_once_give_the_same_images(pets):
    program = (
        "import sys; from pathlib import Path; from gridsearch.zoo import datasets as d; "
        "p = d.open_dataset('folder:' + sys.argv[1]); root = Path(sys.argv[2]); "
        "print(d.fingerprint_of(d.load(p, root, {})), d.fingerprint(p, root, {}))"
    )
    command = [sys.executable, "-c", program, str(pets), str(pets.parent / "root")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate(timeout=60)[0] for process in running}) == 1
    assert all(process.returncode == 0 for process in running)
    assert len(list((pets.parent / "root" / "folder").iterdir())) == 1


def test_the_entry_point_takes_the_path_as_an_option(pets, tmp_path):
    data = datasets.folder(tmp_path / "root", path=str(pets), size=4, channels=1)
    assert data.train_images.shape == (6, 1, 4, 4)
