import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch.spec import default_name
from gridsearch.spec.collector import InvalidValue
from gridsearch.spec.study_names import good_name


@pytest.mark.parametrize("name", ["fmnist", "a", "A.b_c-1", "_x", "0", "x" * 64])
def test_a_good_name_is_kept(name):
    assert good_name(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "a study's name is empty"),
        (".", "the study's name '.' starts with '.'"),
        ("..", "the study's name '..' starts with '.'"),
        ("-x", "the study's name '-x' starts with '-'"),
        ("../etc", "the study's name '../etc' starts with '.'"),
        ("a/b", "the study's name 'a/b' may hold letters, digits, '.', '_' and '-' only"),
        ("a\\b", "the study's name 'a\\\\b' may hold letters, digits, '.', '_' and '-' only"),
        ("a b", "the study's name 'a b' may hold letters, digits, '.', '_' and '-' only"),
        ("a\n", "the study's name 'a' may hold letters, digits, '.', '_' and '-' only"),
        ("caf\u00e9", "the study's name 'caf\u00e9' may hold letters, digits, '.', '_' and '-' only"),
        ("<script>", "the study's name '<script>' may hold letters, digits, '.', '_' and '-' only"),
        ("gridsearch.db", "the study's name 'gridsearch.db' is that of the store's file"),
        ("GridSearch.db-wal", "the study's name 'GridSearch.db-wal' is that of the store's file"),
        ("mlflow.db", "the study's name 'mlflow.db' is that of MLflow's file"),
        ("MLflow-artifacts", "the study's name 'MLflow-artifacts' is that of MLflow's files"),
        ("x" * 65, f"the study's name '{'x' * 65}' has 65 characters, and at most 64 are allowed"),
    ],
)
def test_a_bad_name_is_refused(name, message):
    with pytest.raises(InvalidValue) as caught:
        good_name(name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("fmnist", "fmnist"),
        ("folder:/data/My Flowers (2)", "My-Flowers-2"),
        ("folder:flowers/", "flowers"),
        ("folder:/", "study"),
        ("folder:/x/flowers/photos/..", "flowers"),
        ("folder:~nobody-of-that-name", "nobody-of-that-name"),
        ("folder:/x/.hidden", "hidden"),
        ("my_data.py:Digits", "Digits"),
        ("pkg.mod:load", "load"),
        ("folder:/x/" + "y" * 80, "y" * 64),
        ("folder:/x/gridsearch.db", "study"),
        ("folder:/x/mlflow.db", "study"),
        ("csv:/x/My labels.csv", "My-labels"),
        ("npz:pneumonia.npz", "pneumonia"),
        ("hf:uoft-cs/cifar10", "cifar10"),
        ("hf:/x/saved/", "saved"),
    ],
)
def test_a_study_is_named_after_its_dataset(dataset, name):
    assert default_name(dataset) == name


def test_a_folder_given_as_a_dot_is_named_after_the_folder_it_is(tmp_path, monkeypatch):
    (tmp_path / "flowers").mkdir()
    monkeypatch.chdir(tmp_path / "flowers")
    assert default_name("folder:.") == "flowers"


@given(st.text(max_size=100))
def test_every_default_name_is_a_good_name(text):
    for dataset in (text, f"folder:{text}", f"{text}.py:{text}"):
        assert good_name(default_name(dataset))
