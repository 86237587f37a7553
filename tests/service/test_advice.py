"""Every command that the program advises runs as it stands, and does what the sentence says."""

from __future__ import annotations

import re
import shlex
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest

from gridsearch.advice import Advice, near, place

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("undrawn")]

FUNCTION = """
from pathlib import Path
def f(params, seed):
    if params["x"] == 9 and not Path("mended").exists():
        raise ValueError("not yet")
    luck = [[.1, .3, .2], [.3, .3, .15]][int(params["x"]) % 2]  # too uneven to say that x has no effect
    return {"value": -params["x"] * .1 + luck[seed % 3]}
"""
NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.out = nn.LazyLinear(num_classes)
    def forward(self, x):
        return self.out(x.flatten(1))
"""
DATA = """
import numpy as np
def blobs(root):
    labels = np.arange(120) % 2
    images = np.random.default_rng(0).integers(0, 90, (120, 6, 6)) + 120 * labels[:, None, None]
    return {"train_images": images.astype("uint8"), "train_labels": labels, "class_names": ("a", "b")}
"""
COMMAND = re.compile(
    r"gridsearch (?:run|worker|report|best|trial|status|study|plan|data|doctor|predict|export)(?: [^`\n]*)?"
)


def advised(text):
    """Return the commands in a text: between backticks, or up to the end of its line or sentence."""
    found = []
    for match in COMMAND.finditer(text):
        words = match[0]
        if text[max(0, match.start() - 1)] != "`":
            words = re.split(r" continues| IMAGE|\.$", words.strip())[0]
        found.append(words)
    return found


@dataclass
class Here:
    """A shell in a folder: runs what is typed, and what is advised."""

    cli: object

    def __call__(self, *words, code=0):
        result = self.cli(*words)
        assert result.code == code, (words, result.out, result.err)
        return result.out + result.err

    def follow(self, text, start):
        """Run the one command that a text advises and that begins so."""
        (words,) = dict.fromkeys(w for w in advised(text) if w.startswith(start))
        return words, self(*shlex.split(words)[1:])


@pytest.fixture
def here(cli, tmp_path, monkeypatch):
    """A folder with a space and a quote in the way to the user's code, and places that are not the default ones."""
    monkeypatch.delenv("GRIDSEARCH_HOME")
    code = tmp_path / "my 'own' code"
    code.mkdir()
    for name, text in (("f.py", FUNCTION), ("net.py", NET), ("data.py", DATA)):
        (code / name).write_text(text)
    return Here(cli)


HOME = ("--home", "my results")
INLINE = ("--executor", "inline", "--no-report")


def counts(here, *where):
    import json

    result = here.cli("status", "--json", *where)
    return json.loads(result.out)["studies"][0]["counts"]


def test_more_seeds_of_a_function_are_had_by_the_command_that_the_report_prints(here):
    run = ("--objective", "my 'own' code/f.py:f", "--grid", "x=1,2", "--seeds", "3", "--study", "s")
    here("run", *run, *HOME, *INLINE)
    said = here("report", "--study", "s", *HOME)
    words, _ = here.follow(said, "gridsearch run --study s --more-seeds")
    assert f"--home {shlex.quote('my results')}" in words
    more, top = (int(re.search(rf"--{name} (\d+)", words)[1]) for name in ("more-seeds", "top"))
    assert counts(here, *HOME)["complete"] == 6 + more * top


def test_what_failed_is_shown_and_trained_by_the_commands_that_the_run_prints(here, tmp_path):
    said = here("run", "--objective", "my 'own' code/f.py:f", "--grid", "x=1,9", *HOME, *INLINE, code=3)
    _, shown = here.follow(said, "gridsearch trial")
    assert "not yet" in shown
    (tmp_path / "mended").touch()
    here("run", "--study", "f", "--objective", "my 'own' code/f.py:f", *HOME, *INLINE)
    assert counts(here, *HOME)["complete"] == 2


@pytest.mark.postgresql
def test_a_worker_trains_a_grid_in_postgresql_by_the_command_that_add_prints(
    here, postgresql, new_database, monkeypatch
):
    url = postgresql.url(new_database)
    add = ("add", "--objective", "my 'own' code/f.py:f", *HOME, "--grid")
    (words,) = advised(here(*add, "x=1,2", "--store", url))
    assert f"--store {shlex.quote(url)}" in words
    here(*shlex.split(words)[1:], "--until-empty", "--executor", "inline")
    assert counts(here, "--store", url)["complete"] == 2
    monkeypatch.setenv("GRIDSEARCH_STORE", url)
    (words,) = advised(here(*add, "x=1,2,3"))
    assert "--store" not in words


def test_what_waits_goes_on_by_the_command_that_status_and_report_print(here):
    here("run", "--objective", "my 'own' code/f.py:f", "--grid", "x=1,2,3", *HOME, *INLINE, "--budget", "1s")
    with sqlite3.connect(
        Path("my results", "gridsearch.db")
    ) as database:  # as after a kill: nothing has a result
        database.execute("UPDATE gridsearch_trials SET state = 'waiting', value = NULL, runner_id = NULL")
        database.execute("DELETE FROM gridsearch_runners")
    database.close()
    refused = here("report", "--study", "f", *HOME, code=4)
    assert advised(refused) == advised(here("status", *HOME))
    here.follow(refused, "gridsearch run")
    assert counts(here, *HOME)["complete"] == 3


def test_own_models_and_data_of_several_grids_are_all_named(here, tmp_path):
    (tmp_path / "other.py").write_text(NET)
    data = ("--dataset", "my 'own' code/data.py:blobs", "--study", "s", "--epochs", "1")
    store = ("--store", "sqlite:///else where.db")
    for model in ("my 'own' code/net.py:Net", "other.py:Net"):
        said = here("run", *data, "--model", model, "--grid", "lr=.1,.01", *store, *INLINE)
    words = store_of(here, tmp_path / "else where.db").more_seeds(1, 4)
    assert words.count("--model") == 2
    assert "--dataset" in words
    here(*shlex.split(words)[1:], *INLINE)
    assert counts(here, *store)["complete"] == 8
    said = here("best", "--study", "s", *store, code=2)
    named = shlex.split(re.search(r"add (.*)", said)[1])
    said = here("best", "--study", "s", *store, *named, "--executor", "inline")
    (predict,) = advised(said)
    assert Path(shlex.split(predict)[2], "model.onnx").exists()


def store_of(here, path):
    from gridsearch.store import open_store

    with open_store(f"sqlite:///{path}", home=Path("runs").absolute(), create=False) as store:
        return store.study_data("s").again


def test_where_nothing_is_yet_the_advice_makes_a_first_study_there(here, monkeypatch):
    for words, code in (
        (("status",), 0),
        (("study", "list"), 0),
        (("report", "--study", "x"), 4),
        (("run",), 2),
    ):
        (command,) = advised(here(*words, *HOME, code=code))
        assert shlex.split(command)[1:3] == ["run", "--grid"]
        assert shlex.split(command)[-2:] == list(HOME)
    # What it searches is built in; digits stand for the images that would be fetched.
    here(
        *shlex.split(command)[1:],
        "--dataset",
        "digits",
        "--model",
        "mlp",
        "--epochs",
        "1",
        "--subset",
        "50",
        *INLINE,
    )
    assert counts(here, *HOME)["complete"] == 6


def test_a_function_of_a_session_is_not_named_by_a_command_that_cannot_run(here, capsys):
    import gridsearch as gs

    def local(params, seed):
        luck = [[0.1, 0.3, 0.2], [0.3, 0.3, 0.15]][params["x"] % 2]
        return {"value": -params["x"] * 0.1 + luck[seed % 3]}

    gs.run(
        grid={"x": [1, 2]}, objective=local, study="s", seeds=3, executor="inline", quiet=True, report=False
    )
    said = here("report", "--study", "s")
    assert not advised(said)
    assert "run the grid again from Python with more seeds" in said
    assert "lived in a Python session" in here("run", "--study", "s", code=2)


def test_a_place_is_named_only_where_it_is_not_the_default_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRIDSEARCH_HOME")
    runs, other = tmp_path / "runs", tmp_path / "a b"
    assert place(runs, f"sqlite:///{runs}/gridsearch.db") == ()
    assert place(other, f"sqlite:///{other}/gridsearch.db") == ("--home", "a b")
    assert place(runs, f"sqlite:///{other}/x.db") == ("--store", f"sqlite:///{other}/x.db")
    monkeypatch.setenv("GRIDSEARCH_HOME", str(other))
    assert place(other, f"sqlite:///{other}/gridsearch.db") == ()
    assert place(runs, f"sqlite:///{runs}/gridsearch.db") == ("--home", "runs")
    assert near(tmp_path.parent) == str(tmp_path.parent)
    assert Advice(study="s", where=("--home", "a b")).report() == "gridsearch report --study s --home 'a b'"


def test_the_dashboards_notes_name_the_place_from_any_folder(here, tmp_path):
    import optuna

    here("run", "--objective", "my 'own' code/f.py:f", "--grid", "x=1,2", *HOME, *INLINE)
    url = f"sqlite:///{tmp_path / 'my results' / 'gridsearch.db'}"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name="f", storage=url)
    notes = [study._storage.get_study_system_attrs(study._study_id), *(t.system_attrs for t in study.trials)]
    words = [
        c
        for note in notes
        for c in advised(" ".join(map(str, note.values())))
        if "--home" in c and "run" not in c
    ]
    assert words
    for each in words:
        assert shlex.split(each)[-1] == str(tmp_path / "my results")
        here(*shlex.split(each)[1:])


def test_after_new_images_the_command_of_the_refusal_trains_on_them(here, tmp_path):
    import numpy as np
    from PIL import Image

    def paint(first):
        for label, name in enumerate(("rose", "tulip")):
            (tmp_path / "my flowers" / name).mkdir(parents=True, exist_ok=True)
            for i in range(first, first + 12):
                pixels = np.random.default_rng(i).integers(0, 60, (6, 6)) + 150 * label
                Image.fromarray(pixels.astype("uint8")).save(tmp_path / "my flowers" / name / f"{i}.png")

    paint(0)
    named = ("--dataset", "folder:my flowers", "--model", "my 'own' code/net.py:Net", "--study", "s")
    here("run", *named, "--grid", "lr=.1", "--epochs", "1", *HOME, *INLINE)
    paint(20)
    again = ("--model", "my 'own' code/net.py:Net", *HOME)
    refused = here("run", "--study", "s", *again, *INLINE, code=4)
    (command,) = advised(refused)
    here(*shlex.split(command)[1:], *INLINE)
    here("run", "--study", "s", "--more-seeds", "1", "--top", "1", *again, *INLINE)
    assert counts(here, *HOME)["complete"] == 3
