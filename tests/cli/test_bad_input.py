"""Whatever a user gets wrong is told in one line, with the right exit code, and nothing is written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys

import pytest

from gridsearch.store import open_store

HERE = ("--executor", "inline", "--no-report")

WRONG_WORDS = {
    ("run", "--grid", "lrr=.01"): ["lrr", "did you mean 'lr'"],
    ("run", "--grid", "lr=.01", "--model", "lenett"): ["lenett", "did you mean 'lenet'"],
    ("run", "--grid", "model=lenett,mlp"): ["lenett", "did you mean 'lenet'"],
    ("run", "--grid", "lr=abc"): ["lr=abc"],
    ("run", "--grid", "lr="): ["lr="],
    ("run", "--grid", "lr=-1"): ["lr=-1"],
    ("run", "--grid", "lr=nan"): ["lr=nan"],
    ("run", "--grid", "lr=inf"): ["lr=inf"],
    ("run", "--grid", "batch=0"): ["batch=0"],
    ("run", "--grid", "batch=2.5"): ["batch=2.5"],
    ("run", "--grid", "lr=.1", "--epochs", "0"): ["epochs"],
    ("run", "--grid", "lr=.1", "--epochs", "two"): ["epochs"],
    ("run", "--grid", "lr=.1", "--seeds", "0"): ["seeds"],
    ("run", "--grid", "lr=.1", "--val", "1.5"): ["val"],
    ("run", "--grid", "lr=.1", "--subset", "0"): ["subset"],
    ("run",): ["no grid"],
    ("run", "--grid"): ["--grid"],
    ("run", "--grid", "lr=.01", "--exclude", "lr=.01"): ["exclu"],
    ("run", "--grid", "batch=1..1000000000000:1"): ["1,000,000,000,000"],
    (
        "run",
        "--grid",
        *(f"{axis}=1e-6..1:1000log" for axis in ("lr", "weight_decay")),
        "epochs=1..1000000:1",
    ): [
        "1,000,000,000,000",
    ],
    ("run", "--grid", "batch=10..45:10"): ["45"],
    ("run", "--grid", "lr=.1", "--study", "a/b"): ["a/b"],
    ("run", "--grid", "lr=.1", "--study", "x" * 100): ["64"],
    ("run", "--grid", "lr=.1", "--study", ".."): [".."],
    ("run", "--grid", "lr=.1", "--dataset", "fmnits"): ["did you mean 'fmnist'"],
    ("run", "--grid", "lr=.1", "--model", "nowhere.py:Net"): ["nowhere.py"],
    ("run", "--grid", "lr=.1", "--dataset", "digits", "--device", "cuda:7"): ["cuda:7"],
    ("run", "--grid", "lr=.1", "--device", "tpu"): ["tpu"],
    ("run", "--grid", "lr=.1", "--dataset", "digits", "--set", "optimizer=adm"): ["did you mean 'adam'"],
    ("run", "--grid", "lr=.1", "--dataset", "digits", "--set", "model.widht=2"): ["did you mean 'width'"],
    ("run", "--grid", "lr=.1", "--dataset", "digits", "--set", "dropout=.5"): ["no dropout layer"],
    ("run", "--grid", "lr=.1", "--dataset", "digits", "--subset", "100000"): ["subset"],
    ("run", "--grid", "lr=.1", "--workers", "0"): ["workers"],
    ("run", "--grid", "lr=.1", "--executor", "cloud"): ["cloud"],
    ("run", "--grid", "lr=.1", "--prune", "medium"): ["--prune", "median"],
    ("run", "--grid", "lr=.1", "--budget", "soon"): ["soon"],
    ("run", "--grid", "lr=.1", "--checkpoint", "never"): ["'never'", "every-epoch or off"],
    ("run", "missing.toml"): ["missing.toml"],
    ("run", "--grid", "lr=.1", "--store", "sqlite:///x.db", "--store", "mysql://x"): ["mysql"],
    ("run", "--grid", "lr=.1", "--store", "postgresql://me:secret@host/db"): ["password"],
    ("worker", "--store", "x"): ["x: not a store URL"],
    ("best", "--study", "x", "--where", "lr"): ["AXIS=VALUE"],
    ("predict", "folder"): ["IMAGE"],
    ("predict", "folder", "image.png"): ["image.png: no such file"],
    ("rnu",): ["did you mean 'run'"],
    ("report", "--study", "x", "--wehre", "y"): ["--wehre", "did you mean '--where'"],
    ("run", "--gird", "lr=.1"): ["unknown option --gird", "did you mean '--grid'"],
    ("--grid", "lr=.1"): ["--grid goes after a command", "gridsearch run --grid"],
    ("run", "--lr", ".1"): ["unknown option --lr: lr is an axis", "`--grid lr=.1`"],
    ("run", "--grid", "lr", ".1"): ["did you mean `--grid lr=.1`"],
    ("run", "--grid", "lr", "=", ".1", ".01", "batch=", "10"): ["did you mean `--grid lr=.1,.01 batch=10`"],
    ("run", "--grid", "lr=.1,", ".01"): ["did you mean `--grid lr=.1,.01`"],
    ("run", "--grid", "lr:.1"): ["did you mean `--grid lr=.1`"],
    ("run", "--grid", "lr,batch", ".1/10", ".2/20"): ["did you mean `--grid lr,batch=.1/10,.2/20`"],
    ("run", "--grid", "lr=.1", "--set", "momentum", ".9"): ["did you mean `--set momentum=.9`"],
    ("run", "lr=.1"): ["did you mean `--grid lr=.1`"],
    ("run", "lr=.1", "batch=3"): ["unrecognized arguments: batch=3", "--grid"],
    ("report", "lr=.1"): ["did you mean `--where lr=.1`?"],
    ("report", "fmnist"): ["did you mean `--study fmnist`?"],
    ("report", "a", "it's"): ["did you mean `--study a --study 'it'\"'\"'s'`?"],
    ("trial", "3", "fmnist"): ["did you mean `--study fmnist`?"],
    ("serve", "fmnist"): ["unrecognized arguments: fmnist"],
    ("run", "--grid", "lr=.1", "--seed", "3"): ["did you mean `--seeds`?"],
    ("run", "--batch", "32", "--epochs", "3"): ["did you mean `--grid batch=32`?"],
    ("export", "--study", "x", "--format", "xml"): ["xml"],
    ("models", "show", "lenett"): ["did you mean 'lenet'"],
    ("models", "show"): ["which one"],
    ("data", "fetch"): ["which one"],
    ("data", "fetch", "mnits"): ["did you mean 'mnist'"],
    ("data", "show", "xyz"): ["csv:PATH"],
    ("models", "show", "xyz"): ["timm:NAME"],
    ("run", "--grid", "lr=.1", "--metric", "acc"): ["did you mean 'accuracy'?"],
    ("run", "--grid", "lr=.1", "--metric", "f1"): ["did you mean 'macro_f1'?"],
    ("run", "--grid", "lr=.1", "--prune", "medain"): ["--prune: unknown 'medain'; did you mean 'median'?"],
    ("run", "--budget", "--grid", "lr=.1"): ["--budget: a value is missing"],
    ("study", "remove"): ["action: unknown 'remove'; known: clean, delete, list"],
    ("store", "copy", "a", "b"): ["b: not a store URL"],
    ("trial",): ["missing: NUMBER"],
    ("trial", "-3", "--study", "x"): ["-3"],
}


@pytest.mark.parametrize("words", WRONG_WORDS, ids=lambda words: " ".join(words)[:80])
def test_wrong_usage_is_one_line_exit_2_and_leaves_nothing(cli, home, words):
    result = cli(*words)
    assert result.code == 2
    for part in WRONG_WORDS[words]:
        assert part in result.error
    assert "see `gridsearch --help`" not in result.err or words[0] not in ("report", "trial", "serve")
    assert len(result.err.strip().splitlines()) <= 2
    assert result.out == ""
    assert not home.exists()
    assert "secret" not in result.err


@pytest.mark.parametrize(
    ("option", "text", "named"),
    [
        ("--model", "import nothing\ndef make(): ...\nclass Net: ...\nclass _Part: ...", "'my net.py:Net'"),
        ("--model", "def wide(): ...\ndef deep(): ...", "'my net.py:wide' or 'my net.py:deep'"),
        ("--objective", "class Loss: ...\ndef f(params, seed): ...", "'my net.py:f'"),
    ],
)
def test_of_a_file_without_a_name_the_names_in_it_are_offered(
    cli, tmp_path, monkeypatch, option, text, named
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my net.py").write_text(text)
    result = cli("run", option, "my net.py", "--grid", "lr=.1")
    assert result.error == f"{option[2:]} 'my net.py' is a file: which class or function in it?"
    assert f"name it: {named}\n" in result.err


@pytest.mark.parametrize("name", ["-shoe.png", "--shoe.png"])
def test_a_file_whose_name_reads_as_an_option_is_told_how_it_is_named(cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    assert f"the file of that name is ./{name}" in cli("predict", "folder", name).error
    assert "folder" in cli("predict", "folder", f"./{name}").error


def test_all_problems_are_told_at_once(cli):
    error = cli("run", "--grid", "lr=abc", "btch=3", "--epochs", "0").error
    assert "abc" in error
    assert "btch" in error
    assert "epochs" in error


def test_a_study_that_does_not_exist_is_exit_4_with_the_names_that_do(cli, home):
    assert cli("report", "--study", "x").code == 4
    assert not home.exists()
    words = ("run", "--dataset", "digits", "--model", "mlp", "--grid", "lr=.1", "--epochs", "1", *HERE)
    assert cli(*words).code == 0
    for words in (("report",), ("status",), ("export",), ("run",), ("plan",), ("trial", "0")):
        result = cli(*words, "--study", "other")
        assert result.code == 4, words
        assert "'other'" in result.error
        assert "digits" in result.error
    result = cli("trial", "7", "--study", "digits")
    assert result.code == 4
    assert "no trial 7" in result.error


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The file of a store without studies."""
    folder = tmp_path_factory.mktemp("stored")
    open_store(f"sqlite:///{folder}/gridsearch.db", home=folder, create=True).close()
    return folder / "gridsearch.db"


@pytest.mark.parametrize("name", ["\udcff", "größe", "n" * 300, "..", "a\x1b[31m"])
@pytest.mark.parametrize(
    "words",
    [("trial", "0", "--study"), ("status", "--study"), ("study", "clean"), ("study", "delete", "--yes")],
)
def test_a_name_that_no_study_can_have_is_looked_for_like_any_other(cli, home, words, name, stored):
    """A terminal passes on bytes that are no text, too."""
    home.mkdir()
    shutil.copy(stored, home / "gridsearch.db")
    result = cli(*words, name)
    assert (result.code, result.error.split()[:2]) in ((4, ["no", "study"]), (2, ["study", "name"]))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("study", "delete", "--yes", "unknown"), 4),
        (("study", "--yes", "delete", "--", "unknown"), 4),
        (("models", "show", "--json", "mlp"), 0),
        (("models", "--json", "show", "mlp"), 0),
        (("data", "show", "--json", "digits"), 0),
        (("study", "delete", "--yes", "unknown", "more"), 2),
    ],
)
def test_options_stand_before_a_name_too(cli, home, words, code, stored):
    home.mkdir()
    shutil.copy(stored, home / "gridsearch.db")
    result = cli(*words)
    assert result.code == code, result.err
    assert code != 4 or result.error.startswith("no study named 'unknown'")
    assert code != 2 or result.error == "unrecognized arguments: more"


def test_a_report_without_a_finished_trial_is_exit_4(cli, home):
    words = ("run", "--dataset", "digits", "--model", "mlp", "--grid", "lr=1e30", "--set", "optimizer=sgd")
    assert cli(*words, "--executor", "inline").code == 0
    result = cli("report", "--study", "digits")
    assert result.code == 4
    assert "no finished trial" in result.error
    assert "1 diverged" in result.error
    assert "would diverge again; run a grid with other values" in result.err
    assert not (home / "digits" / "report").exists()


@pytest.mark.parametrize("content", [b"", b"not a database at all", b"SQLite format 3\0" + b"x" * 50])
def test_a_store_that_is_no_database_is_exit_4_and_untouched(cli, tmp_path, content):
    file = tmp_path / "notes.txt"
    file.write_bytes(content)
    words = ("run", "--dataset", "digits", "--model", "mlp", "--epochs", "1", "--grid", "lr=.1", *HERE)
    result = cli(*words, "--store", f"sqlite:///{file}")
    if content:
        assert result.code == 4
        assert str(file) in result.error
    assert content == b"" or file.read_bytes() == content


def test_somebody_elses_database_is_exit_4_and_untouched(cli, tmp_path):
    file = tmp_path / "bank.db"
    with sqlite3.connect(file) as connection:
        connection.execute("create table accounts (owner text)")
    connection.close()
    before = file.read_bytes()
    result = cli("run", "--dataset", "digits", "--grid", "lr=.1", "--store", f"sqlite:///{file}")
    assert result.code == 4
    assert "bank.db" in result.error
    assert file.read_bytes() == before


def test_a_home_below_a_file_is_exit_4(cli, tmp_path):
    (tmp_path / "file").write_text("")
    result = cli("run", "--dataset", "digits", "--grid", "lr=.1", "--home", str(tmp_path / "file" / "home"))
    assert result.code == 4
    assert str(tmp_path / "file") in result.error


def test_a_damaged_dataset_file_is_exit_4_before_anything_is_written(cli, home, tmp_path):
    raw = tmp_path / "cache" / "data" / "fmnist"
    listed = cli("data", "list", "--json").json
    assert {entry["name"]: entry["state"] for entry in listed["datasets"]}["fmnist"] == "not fetched"
    raw.mkdir(parents=True)
    for name in ("train-images", "t10k-images"):
        (raw / f"{name}-idx3-ubyte").write_bytes(b"\0" * 100)
    for name in ("train-labels", "t10k-labels"):
        (raw / f"{name}-idx1-ubyte").write_bytes(b"\0" * 100)
    result = cli("data", "verify", "fmnist")
    assert result.code == 4
    assert "100" in result.out
    assert "47040016" in result.out
    result = cli("run", "--grid", "lr=.1")
    assert result.code == 4
    assert "train-images-idx3-ubyte" in result.error
    assert "gridsearch data fetch fmnist" in result.err
    assert not home.exists()


def test_a_read_only_home_is_exit_4_before_training(tmp_path):
    place = tmp_path / "read only"
    place.mkdir(mode=0o555)
    words = [sys.executable, "-m", "gridsearch", "run", "--dataset", "digits", "--grid", "lr=.1", *HERE]
    if os.geteuid() == 0:  # root may write anywhere, unless it gives that right up
        if shutil.which("setpriv") is None:
            pytest.skip("root without setpriv cannot lose its right to write")
        words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", *words]
    done = subprocess.run(
        [*words, "--home", str(place / "home")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stderr
    assert str(place) in done.stderr
    assert "training" not in done.stderr
    assert list(place.iterdir()) == []


def test_a_folder_with_one_class_is_exit_4(cli, home, tmp_path):
    (tmp_path / "images" / "cats").mkdir(parents=True)
    result = cli("run", "--dataset", f"folder:{tmp_path / 'images'}", "--grid", "lr=.1")
    assert result.code == 4
    assert "class" in result.error
    assert not home.exists()


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("import nowhere_to_be_found", "nowhere_to_be_found"),
        ("def Net(:", "SyntaxError"),
        ("class Nett: pass", "did you mean 'Nett'"),
        ("Net = 3", "not a class or function"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_a_model_file_that_does_not_import_is_exit_2(cli, home, tmp_path, source, part):
    (tmp_path / "net.py").write_text(source)
    result = cli("run", "--dataset", "digits", "--grid", "lr=.1", "--model", "net.py:Net")
    assert result.code == 2
    assert part in result.error
    assert not home.exists()


def test_a_study_file_tells_all_its_problems_with_their_place(cli, tmp_path):
    (tmp_path / "s.toml").write_text('datset = "digits"\n[grid]\nlr = ["abc"]\n[recipe]\nepoch = 3\n')
    result = cli("run", "s.toml")
    assert result.code == 2
    for part in ("s.toml", "datset", "abc", "epoch"):
        assert part in result.error


@pytest.mark.parametrize("key", ["model", "dataset", "objective"])
def test_a_file_that_a_study_file_names_and_that_is_not_there_is_exit_2(cli, home, tmp_path, key):
    (tmp_path / "studies").mkdir()
    fixed = 'dataset = "digits"\n' if key == "model" else ""
    (tmp_path / "studies" / "s.toml").write_text(f'{fixed}{key} = "gone.py:Net"\n[grid]\nlr = [0.1]\n')
    result = cli("run", "studies/s.toml")
    assert result.code == 2
    assert result.error.startswith(f"studies/s.toml: {key}: 'gone.py:Net': no such file")
    assert len(result.err.strip().splitlines()) <= 2
    assert not home.exists()


def test_a_file_that_a_study_file_names_is_not_looked_for_when_the_command_line_names_another(cli, tmp_path):
    (tmp_path / "s.toml").write_text('dataset = "digits"\nmodel = "gone.py:Net"\n[grid]\nlr = [0.1]\n')
    assert cli("plan", "s.toml", "--model", "mlp").code == 0
    assert cli("plan", "s.toml", "--grid", "model=mlp,lenet").code == 0


def test_an_expected_error_shows_its_traceback_only_with_v(cli):
    assert "Traceback" not in cli("run", "--grid", "lr=abc").err
    assert "Traceback" in cli("run", "--grid", "lr=abc", "-v").err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
@pytest.mark.parametrize(
    "words", [("models", "list"), ("data", "list", "--json"), ("--version",)], ids=" ".join
)
def test_an_output_that_has_no_room_is_told(words):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "gridsearch", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 4
    assert done.stderr.splitlines() == [
        "gridsearch: error: no space left for the output",
        "  free some space and run the same command again",
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
def test_where_the_messages_have_no_room_either_the_exit_code_remains():
    words = [sys.executable, "-m", "gridsearch", "models", "list"]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        assert subprocess.run(words, stdout=full, stderr=full, check=False, timeout=120).returncode == 4


@pytest.mark.parametrize("command", ["run", "plan"])
def test_arithmetic_that_the_device_lacks_is_refused_before_anything_is_written(command, cli, tmp_path):
    words = ("--dataset", "digits", "--model", "mlp", "--grid", "lr=.1", "dtype=float32,tf32")
    result = cli(command, *words, "--device", "cpu", "--home", str(tmp_path / "runs"))
    assert (result.code, result.error) == (2, "dtype=tf32: not on cpu")
    assert not (tmp_path / "runs" / "gridsearch.db").exists()
