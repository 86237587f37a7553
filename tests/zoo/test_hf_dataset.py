"""Datasets of Hugging Face's library: real folders of Parquet and of `save_to_disk`, no network."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from gridsearch.errors import GridsearchError
from gridsearch.zoo import datasets

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def hf():
    """The library, or a skip; it is loaded when the first of these tests runs, since that takes seconds."""
    return pytest.importorskip("datasets")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory, hf):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
        hf.disable_progress_bars()
        yield


def png(i):
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (4, 5, 3), dtype=np.uint8))


def content(i):
    file = io.BytesIO()
    png(i).save(file, "PNG")
    return file.getvalue()


def features_of(hf):
    return hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["dog", "cat", "owl"])})


SPLITS = {"train": range(8), "validation": range(8, 12), "test": range(12, 16), "extra": range(16, 18)}


@pytest.fixture(scope="module")
def splits(hf):
    return hf.DatasetDict(
        {
            name: hf.Dataset.from_dict(
                {"image": [png(i) for i in ids], "label": [i % 2 for i in ids]},
                features=features_of(hf),
            )
            for name, ids in SPLITS.items()
        }
    )


@pytest.fixture(scope="module")
def stored(splits, tmp_path_factory):
    """The same dataset as `save_to_disk` and as Parquet files, and its training split alone as both."""
    root = tmp_path_factory.mktemp("sets")
    splits.save_to_disk(root / "saved")
    splits["train"].save_to_disk(root / "one")
    (root / "parquet" / "data").mkdir(parents=True)
    for name in ("train", "validation", "test"):
        splits[name].to_parquet(root / "parquet" / "data" / f"{name}-00000-of-00001.parquet")
    splits["train"].to_parquet(root / "one.parquet")
    return root


def load(path, **options):
    return datasets.load_known(datasets.open_dataset(f"hf:{path}"), path.parent / "root", options)


def test_splits_classes_and_pixels_are_those_of_the_dataset_whichever_way_it_is_stored(stored):
    saved, fingerprint = load(stored / "saved")
    assert saved.class_names == ("dog", "cat")
    assert saved.train_labels.tolist() == [0, 1] * 6
    assert saved.val_indices.tolist() == [8, 9, 10, 11]
    assert saved.test_labels.tolist() == [0, 1] * 2
    assert np.array_equal(saved.train_images[9], np.asarray(png(9)).transpose(2, 0, 1))
    assert "split 'extra' not used" in datasets.described(saved)
    parquet, other = load(stored / "parquet")
    assert np.array_equal(parquet.train_images, saved.train_images)
    assert other == fingerprint


def test_one_split_or_one_file_is_what_is_trained_on(stored):
    one, fingerprint = load(stored / "one")
    assert len(one.train_labels) == 8
    assert one.val_indices is None
    assert one.test_images is None
    assert load(stored / "one.parquet")[1] == fingerprint


def plain(path, **columns):
    import pandas as pd

    pd.DataFrame(columns).to_parquet(path)
    return path


def test_files_of_other_writers_hold_bytes_and_words_and_groups(tmp_path):
    pictures = [{"bytes": content(i), "path": None} for i in range(6)]
    path = plain(tmp_path / "a.parquet", picture=pictures, target=list("bababa"), patient=[1, 1, 2, 2, 3, 3])
    data, _ = load(path)
    assert data.class_names == ("a", "b")
    assert data.groups.tolist() == [0, 0, 1, 1, 2, 2]
    raw, _ = load(plain(tmp_path / "b.parquet", picture=[content(i) for i in range(6)], y=[3, 4] * 3))
    assert raw.class_names == ("3", "4")


def test_a_file_that_is_replaced_by_another_of_its_time_and_size_is_read_anew(tmp_path):
    import os

    cells = {"image": [content(i) for i in range(6)]}
    path = plain(tmp_path / "a.parquet", **cells, label=list("ababab"))
    before, facts = load(path), path.stat()
    plain(path, **cells, label=list("bababa"))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert path.stat().st_size == facts.st_size
    after = load(path)
    assert (after[0].train_labels != before[0].train_labels).all()
    assert after[1] != before[1]


def numbered(hf, names, count=4):
    """Images whose classes alternate, with the numbers that this order of names gives them; or with words alone."""
    words = [["dog", "cat"][i % 2] for i in range(count)]
    labels, kind = (
        ([names.index(word) for word in words], hf.ClassLabel(names=names))
        if names
        else (words, hf.Value("string"))
    )
    features = hf.Features({"image": hf.Image(), "label": kind})
    return hf.Dataset.from_dict({"image": [png(i) for i in range(count)], "label": labels}, features=features)


@pytest.mark.parametrize("names", [["cat", "dog"], ["dog", "cat"], None])
def test_each_splits_numbers_are_read_by_its_own_class_names(tmp_path, hf, names):
    splits = {"train": numbered(hf, ["dog", "cat"]), "test": numbered(hf, names)}
    hf.DatasetDict(splits).save_to_disk(tmp_path / "d")
    data, _ = load(tmp_path / "d")
    assert data.class_names == ("dog", "cat")
    assert data.train_labels.tolist() == data.test_labels.tolist() == [0, 1, 0, 1]


def test_a_class_that_only_the_test_split_names_and_a_split_without_labels_are_refused(tmp_path, hf):
    train = numbered(hf, ["dog", "cat"])
    other = numbered(hf, ["owl", "cat", "dog"]).map(lambda row: {"label": 0})
    for name, test, problem in (
        ("a", other, "no training image is of class 'owl'"),
        ("b", train.remove_columns("label"), "split 'test' has no column 'label'"),
    ):
        hf.DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / name)
        with pytest.raises(GridsearchError, match=problem):
            load(tmp_path / name)


def test_parquet_files_that_number_the_classes_differently_are_refused(tmp_path, hf):
    (tmp_path / "p").mkdir()
    for name, names in (("train", ["dog", "cat"]), ("test", ["cat", "dog"])):
        numbered(hf, names).to_parquet(tmp_path / "p" / f"{name}.parquet")
    with pytest.raises(
        GridsearchError, match=r"test\.parquet and train\.parquet have different classes"
    ) as refusal:
        load(tmp_path / "p")
    assert "'label': cat, dog; dog, cat" in refusal.value.message


def test_files_that_do_not_fit_each_other_are_refused_with_the_reason(tmp_path):
    (tmp_path / "p").mkdir()
    for name, labels in (("a", [0, 1]), ("b", ["dog", "cat"])):
        plain(tmp_path / "p" / f"{name}.parquet", image=[content(0), content(1)], label=labels)
    with pytest.raises(GridsearchError, match="cannot be read: Failed to parse"):
        load(tmp_path / "p")


def test_rows_without_a_label_are_left_out_and_that_is_said(tmp_path, hf):
    features = features_of(hf)
    rows = {"image": [png(i) for i in range(7)], "label": [0, 1, 0, 1, 0, 1, -1]}
    hf.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "d")
    data, _ = load(tmp_path / "d")
    assert len(data.train_labels) == 6
    assert "1 of 7 rows of train have no label and are left out" in data.notes
    words = plain(
        tmp_path / "a.parquet", image=[content(i) for i in range(6)], label=["a", "b", None, "", "a", "b"]
    )
    data, _ = load(words)
    assert data.class_names == ("a", "b")
    assert "2 of 6 rows of train have no label and are left out" in data.notes


@pytest.mark.parametrize(
    ("columns", "options", "problem"),
    [
        ({"a": [1, 2], "y": [0, 1]}, {}, "no column holds images: a int64, y int64"),
        ({"a": [b"x"] * 2, "b": [b"x"] * 2, "y": [0, 1]}, {}, "columns 'a' and 'b' hold images"),
        ({"a": [b"x"] * 2, "y": [0.5, 1.5]}, {}, "column 'y' holds float64, no classes"),
        ({"a": [b"x"] * 2, "y": [[0, 1], [1]]}, {}, "targets of several labels are not trained here"),
        ({"a": [b"x"] * 2, "kind": [0, 1]}, {}, "no column named as the label among a, kind"),
        ({"a": [b"x"] * 2, "kind": [0, 1]}, {"label": "kin"}, "has no such column; did you mean 'kind'"),
        ({"a": [b"x"] * 2, "y": [0, 1]}, {"image": "y"}, "column 'y' holds no images but int64"),
        (
            {"a": [b"x"] * 4, "y": [0, 1] * 2},
            {},
            "no usable image in 'train/0', 'train/1' (skipped train[0]: not an image",
        ),
    ],
)
def test_columns_that_do_not_serve_are_refused_in_one_line(tmp_path, columns, options, problem):
    with pytest.raises(GridsearchError, match=re.escape(problem)) as refusal:
        load(plain(tmp_path / "a.parquet", **columns), **options)
    assert "\n" not in refusal.value.message


def test_a_name_of_the_hub_without_a_network_is_refused_at_once_with_a_way_out(tmp_path, monkeypatch):
    def unknown(*args, **more):
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    plugin = datasets.open_dataset("hf:uoft-cs/cifar10")
    assert plugin.name == "hf:uoft-cs/cifar10"
    with pytest.raises(GridsearchError) as refusal:
        datasets.load(plugin, tmp_path, {})
    assert "hf 'uoft-cs/cifar10' is not here, and cannot be fetched from the hub" in refusal.value.message
    assert "hf:PATH" in refusal.value.hint


def test_a_folder_that_holds_no_dataset_and_a_path_that_is_not_there_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, problem in (("empty", "cannot be read"), ("none/of/these", "is not there")):
        with pytest.raises(GridsearchError, match=problem):
            load(tmp_path / name)


def test_without_the_library_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(GridsearchError) as refusal:
        datasets.load(datasets.open_dataset("hf:mnist"), None, {})
    assert "gridsearch[hf]" in refusal.value.hint
