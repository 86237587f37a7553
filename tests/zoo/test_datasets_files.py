"""idx files: read and refused, fetched from a folder, verified."""

import gzip
import hashlib
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.errors import DataError, UsageError
from gridsearch.zoo.datasets import idx, pins
from gridsearch.zoo.datasets.builtin import fmnist, mnist
from gridsearch.zoo.datasets.pins import PinnedFile

IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"


def repinned(tiny, name, content):
    """The dataset pinned to another content of one file, so that only the checks behind the pins are left."""
    changed = type(tiny)(tiny.contents | {name: content})
    return changed, changed.dataset()


def test_images_and_labels_are_read_as_they_were_written(tiny, tmp_path):
    tiny.write(tmp_path / "tiny")
    data = tiny.dataset()(tmp_path)
    raw = np.frombuffer(tiny.contents[IMAGES], np.uint8, offset=16).reshape(30, 1, 4, 5)
    assert data.train_images.dtype == np.uint8
    assert np.array_equal(data.train_images, raw)
    assert data.train_labels.dtype == np.int64
    assert data.train_labels.tolist() == [i % 3 for i in range(30)]
    assert data.test_images.shape == (12, 1, 4, 5)
    assert data.class_names == ("a", "b", "c")


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_reading_undoes_writing_for_any_shape(tmp_path_factory, shape, random):
    path = tmp_path_factory.getbasetemp() / "any-shape"
    values = np.array([random.randrange(256) for _ in range(int(np.prod(shape)))], np.uint8).reshape(shape)
    path.write_bytes(bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values.tobytes())
    assert np.array_equal(idx.read(path, shape=(None,) * len(shape)), values)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda content: content[:-7], r"expected 616 bytes, found 609"),
        (lambda _: b"", r"expected 616 bytes, found 0"),
        (lambda content: content + b"x", r"expected 616 bytes, found 617"),
        (
            lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:],
            r"expected SHA-256 \w{16}\.\.\., found \w{16}",
        ),
    ],
    ids=["truncated", "empty", "too long", "a bit flipped"],
)
def test_a_damaged_file_is_refused_with_what_was_expected_and_found(tiny, tmp_path, damage, found):
    tiny.write(tmp_path / "tiny")
    path = tmp_path / "tiny" / IMAGES
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"tiny is damaged: .*{IMAGES}: {found}") as refusal:
        tiny.dataset()(tmp_path)
    assert refusal.value.exit_code == 4
    assert "\n" not in refusal.value.message
    assert "gridsearch data fetch tiny" in refusal.value.hint
    assert "--from DIR" in refusal.value.hint
    assert tiny.dataset().verify(tmp_path)[0] in refusal.value.message


def test_a_missing_file_is_not_fetched_rather_than_damaged(tiny, tmp_path):
    tiny.write(tmp_path / "tiny")
    (tmp_path / "tiny" / LABELS).unlink()
    assert not tiny.dataset().available(tmp_path)
    with pytest.raises(DataError, match=f"tiny is not fetched: .*{LABELS} is missing"):
        tiny.dataset()(tmp_path)


def test_verify_names_every_damaged_file(tiny, tmp_path):
    tiny.write(tmp_path / "tiny")
    for name in (IMAGES, LABELS):
        (tmp_path / "tiny" / name).write_bytes(b"x")
    problems = tiny.dataset().verify(tmp_path)
    assert [re.search(r"[\w-]+ubyte", problem)[0] for problem in problems] == [IMAGES, LABELS]


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        (IMAGES, lambda c: b"\x00\x00\x09\x03" + c[4:], "expected the header 00000803, found 00000903"),
        (IMAGES, lambda c: c[:4] + struct.pack(">3I", 30, 5, 4) + c[16:], "dimensions Nx4x5, found 30x5x4"),
        (IMAGES, lambda c: c[:4] + struct.pack(">3I", 2**32 - 1, 4, 5) + c[16:], "expected 85899345900"),
        (LABELS, lambda c: c[:4] + struct.pack(">I", 29) + c[8:], "expected the dimensions 30, found 29"),
        (LABELS, lambda c: c[:-1] + b"\x03", "expected labels 0 to 2, found 3"),
        (LABELS, lambda _: b"\x00\x00", "expected the header 00000801, found 0000"),
    ],
    ids=["type", "dimensions", "forged count", "labels too few", "label out of range", "no header"],
)  # fmt: skip
def test_a_file_with_the_right_sum_and_the_wrong_content_is_refused(tiny, tmp_path, name, change, found):
    changed, dataset = repinned(tiny, name, change(tiny.contents[name]))
    changed.write(tmp_path / "tiny")
    with pytest.raises(DataError, match=re.escape(found)):
        dataset(tmp_path)


@pytest.mark.parametrize("gz", [False, True], ids=["raw", "gzipped"])
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
def test_a_folder_of_files_is_taken_raw_or_gzipped_and_nested(tiny, tmp_path, gz, below):
    source = tmp_path / "from"
    tiny.write(source / below, gz=gz)
    dataset = tiny.dataset()
    assert dataset.fetch(tmp_path / "root", source) == str(source)
    assert dataset.verify(tmp_path / "root") == ()
    assert sorted(p.name for p in (tmp_path / "root" / "tiny").iterdir()) == sorted(tiny.contents)


def test_the_dotted_spelling_of_the_names_is_taken_too(tiny, tmp_path):
    source = tiny.write(tmp_path / "from")
    for path in list(source.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    tiny.dataset().fetch(tmp_path / "root", source)
    assert tiny.dataset().verify(tmp_path / "root") == ()


def test_of_two_datasets_in_one_folder_the_pinned_one_is_taken(tiny, tmp_path):
    other = type(tiny)({name: content[:-1] + b"\x00" for name, content in tiny.contents.items()})
    other.write(tmp_path / "from" / "Another" / "raw")
    tiny.write(tmp_path / "from" / "Tiny" / "raw", gz=True)
    tiny.dataset().fetch(tmp_path / "root", tmp_path / "from")
    assert tiny.dataset().verify(tmp_path / "root") == ()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (lambda c: gzip.compress(c)[:-20], "does not unzip"),
        (lambda _: b"<html>not found</html>", "does not unzip"),
        (lambda c: gzip.compress(c + bytes(50_000_000)), "expected 616 bytes, found more"),
        (lambda c: gzip.compress(c[:-1]), "expected 616 bytes, found 615"),
        (lambda c: gzip.compress(bytes(len(c))), "expected SHA-256"),
    ],
    ids=["cut", "a page", "a bomb", "short", "other bytes"],
)
def test_a_wrong_file_in_the_folder_is_refused_and_leaves_nothing(tiny, tmp_path, content, found):
    source = tiny.write(tmp_path / "from", gz=True)
    (source / f"{IMAGES}.gz").write_bytes(content(tiny.contents[IMAGES]))
    with pytest.raises(DataError, match=f"{IMAGES}.gz.*{found}"):
        tiny.dataset().fetch(tmp_path / "root", source)
    assert not (tmp_path / "root").exists()


def test_a_bomb_is_not_unzipped_beyond_the_pinned_size(tiny, tmp_path):
    source = tiny.write(tmp_path / "from", gz=True)
    (source / f"{IMAGES}.gz").write_bytes(gzip.compress(bytes(50_000_000)))
    (tmp_path / "into").mkdir()
    assert "found more" in pins.collect(source, tiny.pins(), tmp_path / "into")[0]
    assert (tmp_path / "into" / IMAGES).stat().st_size <= 617


def test_a_folder_without_the_files_is_refused_with_the_name_of_the_first(tiny, tmp_path):
    (tmp_path / "from").mkdir()
    with pytest.raises(DataError, match=f"no {IMAGES} or {IMAGES}.gz"):
        tiny.dataset().fetch(tmp_path / "root", tmp_path / "from")


def test_a_folder_that_is_not_there_is_wrong_usage(tiny, tmp_path):
    with pytest.raises(UsageError, match=r"--from .*nowhere: no such folder"):
        tiny.dataset().fetch(tmp_path / "root", tmp_path / "nowhere")


def test_fetching_mends_the_damaged_file_and_leaves_the_others_alone(tiny, tmp_path):
    root = tmp_path / "root"
    source = tiny.write(tmp_path / "from", gz=True)
    tiny.dataset().fetch(root, source)
    (root / "tiny" / IMAGES).write_bytes(b"damaged")
    before = (root / "tiny" / LABELS).stat().st_ino
    tiny.dataset().fetch(root, source)
    assert tiny.dataset().verify(root) == ()
    assert (root / "tiny" / LABELS).stat().st_ino == before


def test_what_is_there_and_whole_is_not_fetched_again(tiny, tmp_path):
    tiny.write(tmp_path / "root" / "tiny")
    assert "verified" in tiny.dataset(sources=()).fetch(tmp_path / "root")


def test_the_fingerprint_needs_no_file_and_follows_the_pins(tiny, tmp_path):
    fingerprint = tiny.dataset().fingerprint(tmp_path / "nowhere")
    assert re.fullmatch("[0-9a-f]{64}", fingerprint)
    assert tiny.dataset(name="other", class_names=("x", "y", "z")).fingerprint(tmp_path) == fingerprint
    assert repinned(tiny, LABELS, b"x")[1].fingerprint(tmp_path) != fingerprint
    assert fmnist.fingerprint(tmp_path) != mnist.fingerprint(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_with_the_place_and_the_bytes_needed(tiny, tmp_path, monkeypatch):
    source = tiny.write(tmp_path / "from")
    real = type(tmp_path).open

    def full(self, mode="r", *args, **kwargs):
        return real(
            type(self)("/dev/full") if "w" in mode and ".partial-" in str(self) else self,
            mode,
            *args,
            **kwargs,
        )

    monkeypatch.setattr(type(tmp_path), "open", full)
    with pytest.raises(DataError, match="cannot be written: No space left on device") as refusal:
        tiny.dataset().fetch(tmp_path / "root", source)
    assert re.search(r"tiny needs \d+ MB", refusal.value.hint)
    assert not (tmp_path / "root").exists()


def test_a_place_that_cannot_be_written_is_told(tiny, tmp_path):
    (tmp_path / "root").write_text("a file where the data root should be")
    with pytest.raises(DataError, match=r"root.* cannot be written") as refusal:
        tiny.dataset().fetch(tmp_path / "root", tiny.write(tmp_path / "from"))
    assert "GRIDSEARCH_CACHE" in refusal.value.hint


def test_problem_of_finds_nothing_wrong_with_the_pinned_file(tmp_path):
    (tmp_path / "x").write_bytes(b"content")
    pinned = PinnedFile("x", 7, hashlib.sha256(b"content").hexdigest())
    assert pins.problem_of(tmp_path / "x", pinned) is None
