"""Datasets whose published sum is that of a packed file: Kuzushiji-MNIST's gzipped files, CIFAR-10's archive."""

import gzip
import hashlib
import io
import tarfile

import numpy as np
import pytest

from gridsearch.errors import DataError
from gridsearch.plugins import DATASETS, find
from gridsearch.zoo.datasets.builtin import cifar10, kmnist
from gridsearch.zoo.datasets.cifar import CifarDataset
from gridsearch.zoo.datasets.download_sources import Mirrors
from gridsearch.zoo.datasets.mnist_family import IdxDataset
from gridsearch.zoo.datasets.pins import PinnedFile

SHAPE = (3, 4, 5)
RECORD = 1 + 3 * 4 * 5


def pin(name, content):
    return PinnedFile(name, len(content), hashlib.sha256(content).hexdigest())


def packed_idx(tiny):
    """The tiny dataset, pinned by its gzipped files."""
    served = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in tiny.contents.items()}
    return served, tiny.dataset(files=tuple(pin(name, content) for name, content in served.items()))


def records(count, *, seed, labels=None):
    """Rows of an archive's file: label, red, green, blue."""
    table = np.random.default_rng(seed).integers(0, 256, (count, RECORD), dtype=np.uint8)
    table[:, 0] = np.arange(count) % 3 if labels is None else labels
    return table


def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def small_cifar(content, **changes):
    about = {
        "name": "tiny",
        "files": (pin("tiny.tar.gz", content),),
        "class_names": ("a", "b", "c"),
        "image_shape": SHAPE,
        "train": ("one.bin", "two.bin"),
        "test": ("test.bin",),
    }
    return CifarDataset(**about | changes)


@pytest.fixture
def tables():
    return {"one.bin": records(6, seed=1), "two.bin": records(5, seed=2), "test.bin": records(4, seed=3)}


@pytest.fixture
def whole(tables):
    return archive({"readme.html": b"hello"} | {name: table.tobytes() for name, table in tables.items()})


def placed(root, content):
    (root / "tiny").mkdir()
    (root / "tiny" / "tiny.tar.gz").write_bytes(content)
    return root


def test_files_with_a_published_sum_of_their_packed_form_stay_packed(tiny, tmp_path, server):
    served, dataset = packed_idx(tiny)
    server.routes |= {f"/{name}": content for name, content in served.items()}
    fetched = IdxDataset(
        name="tiny",
        files=dataset.files,
        class_names=dataset.class_names,
        image_shape=dataset.image_shape,
        sources=(Mirrors(addresses=lambda: (server.address,)),),
    )
    assert fetched.fetch(tmp_path) == server.address
    assert sorted(p.name for p in (tmp_path / "tiny").iterdir()) == sorted(served)
    assert np.array_equal(fetched(tmp_path).train_images, tiny_images(tiny))


def tiny_images(tiny):
    content = tiny.contents["train-images-idx3-ubyte"]
    return np.frombuffer(content, np.uint8, offset=16).reshape(30, 1, 4, 5)


def test_packed_files_are_taken_from_a_folder_and_a_raw_one_is_not_taken_for_them(tiny, tmp_path):
    served, dataset = packed_idx(tiny)
    tiny.write(tmp_path / "raw")
    with pytest.raises(DataError, match=r"no train-images-idx3-ubyte\.gz"):
        dataset.fetch(tmp_path / "root", tmp_path / "raw")
    for name, content in served.items():
        (tmp_path / "raw" / name).write_bytes(content)
    dataset.fetch(tmp_path / "root", tmp_path / "raw")
    assert dataset.verify(tmp_path / "root") == ()


def test_a_packed_file_with_a_flipped_bit_is_refused(tiny, tmp_path):
    served, dataset = packed_idx(tiny)
    (tmp_path / "tiny").mkdir()
    for name, content in served.items():
        (tmp_path / "tiny" / name).write_bytes(content)
    path = tmp_path / "tiny" / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="expected SHA-256"):
        dataset(tmp_path)


def test_a_pinned_file_that_does_not_unzip_is_refused_in_one_line(tiny, tmp_path):
    served, _ = packed_idx(tiny)
    served["train-images-idx3-ubyte.gz"] = served["train-images-idx3-ubyte.gz"][:-20]
    dataset = tiny.dataset(files=tuple(pin(name, content) for name, content in served.items()))
    (tmp_path / "tiny").mkdir()
    for name, content in served.items():
        (tmp_path / "tiny" / name).write_bytes(content)
    with pytest.raises(DataError, match="does not unzip"):
        dataset(tmp_path)


def test_records_of_an_archive_become_images_and_labels(tables, whole, tmp_path):
    data = small_cifar(whole)(placed(tmp_path, whole))
    both = np.concatenate([tables["one.bin"], tables["two.bin"]])
    assert data.train_images.shape == (11, *SHAPE)
    assert data.train_images.dtype == np.uint8
    assert np.array_equal(data.train_images.reshape(11, -1), both[:, 1:])
    assert data.train_images[7, 2, 1, 3] == both[7, 1 + 2 * 20 + 1 * 5 + 3]  # blue, second row, fourth pixel
    assert data.train_labels.tolist() == both[:, 0].tolist()
    assert data.test_labels.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"two.bin": None}, r"no two\.bin in it"),
        ({"two.bin": b"short"}, "expected records of 61 bytes"),
        ({"test.bin": records(2, seed=4, labels=3).tobytes()}, "expected labels 0 to 2, found 3"),
    ],
    ids=["a file is missing", "half a record", "a label too large"],
)
def test_an_archive_with_the_right_sum_and_the_wrong_content_is_refused(tables, tmp_path, change, problem):
    files = {name: table.tobytes() for name, table in tables.items()} | change
    content = archive({name: content for name, content in files.items() if content is not None})
    with pytest.raises(DataError, match=problem) as refusal:
        small_cifar(content)(placed(tmp_path, content))
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize("content", [b"no archive", gzip.compress(b"no tar")], ids=["text", "gzip"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"does not unpack|no one\.bin in it"):
        small_cifar(content)(placed(tmp_path, content))


def test_an_archive_is_fetched_from_its_address(whole, tmp_path, server):
    server.routes["/tiny.tar.gz"] = whole
    dataset = small_cifar(whole, sources=(Mirrors(addresses=lambda: (server.address,)),))
    assert dataset.fetch(tmp_path) == server.address
    assert dataset.verify(tmp_path) == ()


@pytest.mark.parametrize(("name", "dataset"), [("kmnist", kmnist), ("cifar10", cifar10)])
def test_they_are_entry_points_with_published_sums(name, dataset, tmp_path):
    assert find(name, DATASETS).target is dataset
    assert len(dataset.class_names) == 10
    assert not dataset.available(tmp_path)
    with pytest.raises(DataError, match=f"dataset {name} is not fetched") as refusal:
        dataset(tmp_path)
    assert refusal.value.hint == (
        f"gridsearch data fetch {name}, or by hand: gridsearch data fetch {name} --from DIR"
    )
