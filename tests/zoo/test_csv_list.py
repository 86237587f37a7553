"""A CSV file that lists images: its columns, splits and groups are found, or it is refused before anything is read."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import gridsearch as gs
from gridsearch.errors import DataError, GridsearchError
from gridsearch.zoo import datasets

ROWS = [(f"im/{i}.png", "cat" if i % 2 else "dog") for i in range(8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight images of three colours each, one of them grey, and room for lists beside them."""
    root = tmp_path_factory.mktemp("csv")
    (root / "im").mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (4, 5) if i == 3 else (4, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "im" / f"{i}.png")
    (root / "im" / "a,b;c.png").write_bytes((root / "im" / "0.png").read_bytes())
    return root


def listed(folder, text, name="labels.csv", encoding="utf-8"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return folder / name


def text_of(header, rows, mark=","):
    return "\n".join([header, *(mark.join(map(str, row)) for row in rows)]) + "\n"


def load(path, **options):
    return datasets.load(datasets.open_dataset(f"csv:{path}"), path.parent / "root", options)


def fingerprint(path, **options):
    return datasets.load_known(datasets.open_dataset(f"csv:{path}"), path.parent / "root", options)[1]


@pytest.mark.parametrize(
    ("header", "mark", "encoding"),
    [
        ("path,label", ",", "utf-8"),
        ("File Name;Class", ";", "utf-8-sig"),
        ("image\tTarget", "\t", "utf-16"),
        ("img-path|y", "|", "utf-8"),
    ],
)
def test_usual_names_separators_and_marks_of_encodings_are_understood(folder, header, mark, encoding):
    data = load(listed(folder, text_of(header, ROWS, mark), encoding=encoding))
    assert data.class_names == ("cat", "dog")
    assert data.train_labels.tolist() == [1, 0] * 4
    assert data.train_images.shape == (8, 3, 4, 5)
    assert data.train_images.dtype == np.uint8
    first = np.asarray(Image.open(folder / "im" / "0.png"))
    assert np.array_equal(data.train_images[0], first.transpose(2, 0, 1))
    assert "1 of 8 images is grey, the others in colour" in data.notes


def test_the_line_that_excel_writes_above_the_columns_says_what_separates_them(folder):
    text = "sep=;\r\n" + text_of("path;label", [(f'"{name}"', label) for name, label in ROWS], ";")
    assert load(listed(folder, text)).class_names == ("cat", "dog")
    with pytest.raises(DataError, match=r"1 of 9 files are not there: gone.png \(line 11\)"):
        load(listed(folder, text.rstrip() + "\ngone.png;cat\n"))


@pytest.mark.parametrize("shorten", [lambda n: n.removesuffix(".png"), lambda n: n.removeprefix("im/")])
def test_names_without_their_ending_or_folder_are_refused_with_a_file_that_is_there(folder, shorten):
    """As lists of competitions have them: an identifier, whose image is in a folder beside the list."""
    rows = [(shorten(name), label) for name, label in ROWS]
    with pytest.raises(DataError, match="8 of 8 files are not there") as caught:
        load(listed(folder, text_of("path,label", rows)))
    assert caught.value.hint.endswith(f"{folder}; im/0.png is there")
    with pytest.raises(DataError, match="8 of 8 files are not there") as caught:
        load(listed(folder, text_of("path,label", [(f"/{name}", label) for name, label in rows])))
    assert caught.value.hint.endswith(f"folder, {folder}")


def test_labels_that_are_numbers_are_in_the_order_of_numbers_and_quoted_commas_belong_to_a_path(folder):
    rows = [(name, 10 if label == "cat" else 9) for name, label in ROWS]
    text = text_of("path,label", rows) + '\n,,\n"im/a,b;c.png",9\n'
    data = load(listed(folder, text))
    assert data.class_names == ("9", "10")
    assert len(data.train_labels) == 9
    assert "2 empty lines left out" in data.notes


def test_splits_and_groups_are_used_and_said(folder):
    parts = ["Training", "train", "TRAIN", "train", "dev", "valid", "test", "Test"]
    rows = [(*row, part, f"p{i // 2}") for i, (row, part) in enumerate(zip(ROWS, parts, strict=True))]
    path = listed(folder, text_of("path,label,split,patient_id", rows))
    data = load(path)
    assert data.train_labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert data.val_indices.tolist() == [4, 5]
    assert data.test_labels.tolist() == [1, 0]
    assert data.groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert datasets.described(data) == (
        "6 images, 2 classes: cat 3, dog 3; validation: labels.csv, column 'split', 2 of these; "
        "3 groups (column 'patient_id'); test: labels.csv, column 'split', 2"
    )
    without = load(path, split=None, group=None)
    assert len(without.train_labels) == 8
    assert without.val_indices is None
    assert without.groups is None


@pytest.mark.parametrize(
    ("column", "cells"),
    [("is_valid", ("0", "1")), ("fold", ("1", "2")), ("isTest", ("no", "yes")), ("what", ("train", "test"))],
)
def test_a_column_that_seems_to_part_the_images_and_is_not_used_is_said(folder, column, cells):
    rows = [(*row, cells[i % 2]) for i, row in enumerate(ROWS)]
    path = listed(folder, text_of(f"path,label,{column}", rows))
    note = f"column '{column}' is not used, and seems to say which images are for tests or validation"
    assert note in str(load(path).notes)
    assert "is not used" not in str(load(path, split=None).notes)
    more = [(*row, cell) for row, cell in zip(ROWS, "abcdefgh", strict=True)]
    assert "is not used" not in str(load(listed(folder, text_of("path,label,age", more))).notes)


def test_the_fingerprint_is_of_what_is_in_the_images_and_the_rows_and_not_of_where_they_lie(folder):
    base = fingerprint(listed(folder, text_of("path,label", ROWS)))
    assert fingerprint(listed(folder, text_of("file;class", ROWS, ";"), "other.csv")) == base
    moved = [(str(folder / name), label) for name, label in ROWS]
    assert fingerprint(listed(folder, text_of("path,label", moved))) == base
    changed = [*ROWS[:-1], (ROWS[-1][0], "dog")]
    assert fingerprint(listed(folder, text_of("path,label", changed))) != base
    grouped = text_of("path,label,group", [(*row, 1) for row in ROWS])
    assert fingerprint(listed(folder, grouped)) != base
    first = (folder / "im" / "0.png").read_bytes()
    try:
        (folder / "im" / "0.png").write_bytes((folder / "im" / "2.png").read_bytes())
        assert fingerprint(listed(folder, text_of("path,label", ROWS))) != base
    finally:
        (folder / "im" / "0.png").write_bytes(first)


def test_rows_that_repeat_an_image_count_once_and_classes_that_differ_in_case_are_doubted(folder):
    rows = [*ROWS, ROWS[0], ("im/a,b;c.png".join('""'), "Cat"), ("im/1.png", "cat")]
    data = load(listed(folder, text_of("path,label", rows)))
    assert len(data.train_labels) == 9
    assert "2 rows repeat an image and count once" in data.notes
    assert "labels 'Cat' (1) and 'cat' (4) differ in upper and lower case alone" in data.reading.warnings[0]


@pytest.mark.parametrize("alike", [("1", "1.0"), ("b\u00e9", "be\u0301"), ("a b", "a  b")])
def test_labels_that_look_alike_are_several_classes_and_doubted(folder, alike):
    rows = [(name, alike[i % 2]) for i, (name, _) in enumerate(ROWS)]
    data = load(listed(folder, text_of("path,label", rows)))
    assert set(data.class_names) == set(alike)
    assert "look alike, and are several classes" in data.reading.warnings[0]


def test_a_path_is_the_same_image_however_it_is_written(folder):
    again = [("./im/0.png", "dog"), ("im/../im/1.png", "cat"), (str(folder / "im" / "2.png"), "dog")]
    data = load(listed(folder, text_of("path,label", [*ROWS, *again])))
    assert len(data.train_labels) == 8
    assert "3 rows repeat an image and count once" in data.notes
    with pytest.raises(
        GridsearchError, match=re.escape("1 image with several labels: im/0.png is 'dog' (line 2)")
    ):
        load(listed(folder, text_of("path,label", [*ROWS, ("im/./0.png", "cat")])))


def test_a_group_on_two_sides_of_the_list_s_own_splits_is_said(folder):
    parts = ["train", "train", "train", "train", "val", "val", "test", "test"]
    rows = [(*row, part, f"p{i % 4}") for i, (row, part) in enumerate(zip(ROWS, parts, strict=True))]
    data = load(listed(folder, text_of("path,label,split,patient", rows)))
    words = [words for words in datasets.cautions(data) if "column 'patient'" in words]
    assert [each.partition(" (")[0] for each in words] == [
        "2 of 2 groups of the validation images",
        "2 of 2 groups of the test images",
    ]


CASES = {
    "3 rows without a label in column 'label' (line 2, 3, 4)": (
        text_of("path,label", [("im/0.png", "NaN"), ("im/1.png", "<NA>"), ("im/2.png", "#N/A"), *ROWS[3:]])
    ),
    "3 of 9 files are not there: im/x.png (line 3), y.png (line 4), z.png (line 5)": (
        text_of("path,label", [ROWS[0], ("im/x.png", "cat"), ("y.png", "cat"), ("z.png", "cat"), *ROWS[2:7]])
    ),
    "4 of 8 files are not there: a.png (line 2), b.png (line 3), c.png (line 4), ...": (
        text_of("path,label", [(f"{c}.png", "cat") for c in "abcd"] + ROWS[:4])
    ),
    "no column named as the label among path, kind": text_of("path,kind", ROWS),
    "columns 'label' and 'class' may both be the label": text_of("path,label,class", [(*r, 1) for r in ROWS]),
    "two columns are named 'path'": text_of("path,path", ROWS),
    "line 1 names no columns: 'im/0.png' is a file": text_of("im/0.png,dog", ROWS),
    "line 1 names 1 column": text_of("path", [row[:1] for row in ROWS]),
    "line 3 has 3 fields, and line 1 names 2 columns": text_of("path,label", [ROWS[0], ("im/a", "b.png", "cat")]),
    "2 rows without a label in column 'label' (line 2, 4)": (
        text_of("path,label", [("im/0.png", ""), ROWS[1], ("im/2.png",), ROWS[3]])
    ),
    "its labels are 8 classes for 8 images, such as '0.jpg'": (
        text_of("path,label", [(name, f"{i}.jpg") for i, (name, _) in enumerate(ROWS)])
    ),
    "expected at least two classes, found one class, 'cat'": text_of("path,label", ROWS[1::2]),
    "no training image is of class 'owl', which other splits hold": (
        text_of("path,label,split", [*((*row, "train") for row in ROWS[:6]), ("im/6.png", "owl", "test")])
    ),
    "line 2: split is 'A', expected train, val or test (and 7 more rows)": text_of("path,label,split", [(*r, "A") for r in ROWS]),
    "line 3: split is 'not in train', expected train, val or test": (
        text_of("path,label,split", [(*r, "not in train" if i == 1 else "train") for i, r in enumerate(ROWS)])
    ),
    "1 image in several splits: im/0.png is in train (line 2) and test (line 10)": (
        text_of("path,label,set", [*((*row, "train") for row in ROWS), (*ROWS[0], "test")])
    ),
    "1 image with several labels: im/0.png is 'dog' (line 2) and 'cat' (line 10)": (
        text_of("path,label", [*ROWS, ("im/0.png", "cat")])
    ),
    "5 images with several labels: im/0.png is 'dog' (line 2) and 'cat' (line 10); im/1.png is 'cat' (line 3) and 'dog' "
    "(line 11); im/2.png is 'dog' (line 4) and 'cat' (line 12); ...": (
        text_of("path,label", [*ROWS, *((name, "dog" if label == "cat" else "cat") for name, label in ROWS[:5])])
    ),
    "label 'cat|dog' names several classes (1 images)": text_of("path,label", [*ROWS[:7], ("im/7.png", "cat|dog")]),
    "line 3 is not UTF-8 (byte 0xe9)": text_of("path,label", [ROWS[0], ("im/1.png", "b\xe9b\xe9")]).encode("latin-1"),
    "it lists no image": "path,label\n\n",
}  # fmt: skip


@pytest.mark.parametrize("problem", CASES)
def test_a_list_that_cannot_be_used_is_refused_in_one_line(folder, problem):
    path = listed(folder, CASES[problem])
    with pytest.raises(GridsearchError) as refusal:
        load(path)
    assert problem in refusal.value.message
    assert refusal.value.hint
    assert "\n" not in refusal.value.message
    assert not (folder / "root" / "folder" / ".lock").exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"label": "lable"}, "data.label=lable: csv"),
        ({"label": "lable"}, "has no such column; did you mean 'label'"),
        ({"lable": "label"}, "data.lable: dataset 'csv:labels.csv' has no such option"),
        ({"label": "path"}, "column 'path' is named twice"),
    ],
)
def test_columns_that_are_not_there_are_answered_with_the_nearest(folder, options, problem):
    path = listed(folder, text_of("path,label", ROWS))
    with pytest.raises(GridsearchError, match=re.escape(problem)):
        load(path, **options)


def test_named_columns_go_before_usual_names(folder):
    path = listed(
        folder, text_of("x,path,label,kind", [("no", *row, "ab"[i % 3 == 0]) for i, row in enumerate(ROWS)])
    )
    assert load(path, label="Kind").class_names == ("a", "b")


def test_a_list_that_is_not_there_or_named_wrongly_says_so(folder):
    for locator, problem in (("csv:no.csv", "is not there"), (f"csv:{folder}", "is a folder")):
        with pytest.raises(GridsearchError, match=problem):
            datasets.load(datasets.open_dataset(locator), folder, {})
    path = listed(folder, text_of("path,label", ROWS))
    with pytest.raises(GridsearchError) as refusal:
        datasets.open_dataset(str(path))
    assert f"csv:{path}" in refusal.value.hint


@pytest.mark.usefixtures("no_graph")
def test_a_list_is_searched_tested_and_shown_from_the_command_line(cli, folder, home):
    parts = ["train", "train", "train", "train", "val", "val", "test", "test"]
    path = listed(folder, text_of("path,label,split", [(*r, p) for r, p in zip(ROWS, parts, strict=True)]))
    words = ("--dataset", f"csv:{path}", "--model", "mlp", "--grid", "lr=.1,.01", "--epochs", "1")
    planned = cli("plan", *words)
    assert "validation: labels.csv, column 'split', 2 of these" in planned.out + planned.err
    refused = cli("plan", *words, "--val", "0.3")
    assert refused.code == 2
    assert "has 2 validation images of its own" in refused.error
    assert not home.exists()
    python = {"dataset": f"csv:{path}", "model": "mlp", "epochs": 1, "home": home, "executor": "inline"}
    assert len(gs.run({"lr": [0.1, 0.01]}, **python, report=False, quiet=True).trials) == 2
    best = cli("best", "--study", "labels", "--executor", "inline", "--json")
    assert best.code == 0, best.error
    assert json.loads(best.out)["test"]["images"] == 2
    shown = json.loads(cli("data", "show", f"csv:{path}", "--json").out)
    assert (shown["train"], shown["validation"], shown["test"], shown["groups"]) == (4, 2, 2, None)
    assert shown["classes"] == {"cat": 3, "dog": 3}
    moved = path.rename(folder / "moved.csv")
    lost = cli("run", "--study", "labels", "--executor", "inline")
    assert (lost.code, "which is not there now" in lost.err, "--dataset csv:PATH" in lost.err) == (
        4,
        True,
        True,
    )
    again = cli(
        "run", "--study", "labels", "--dataset", f"csv:{moved}", "--executor", "inline", "--no-report"
    )
    assert again.code == 0, again.err


def test_classes_that_own_test_or_validation_images_lack_are_said_of_csv_files_and_arrays(folder):
    parts = ["train"] * 4 + ["val", "train", "test", "train"]
    rows = [(*row, part) for row, part in zip(ROWS, parts, strict=True)]
    said = load(listed(folder, text_of("path,label,split", rows))).reading.warnings
    for which in ("test", "validation"):
        assert f"no {which} image is of class 'cat': the {which} accuracy says nothing about it" in said
    rows[4], rows[6] = (*ROWS[4], "train"), (*ROWS[6], "train")
    said = load(listed(folder, text_of("path,label,split", rows))).reading.warnings
    assert not any("says nothing about" in words for words in said)
