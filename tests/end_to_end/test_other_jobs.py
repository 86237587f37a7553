"""Jobs beside the main one: seeds, another recipe, trials that fail, a budget, a folder of images, a terminal."""

from __future__ import annotations

import json
import math
from pathlib import Path

import optuna
import pytest

from tests.end_to_end.job_words import DIGITS, GRID, HERE, QUICK

pytestmark = pytest.mark.end_to_end


def test_seeds_are_replicates_of_a_point(cli, home):
    found = cli(
        "run",
        "--grid",
        "lr=.1,.01",
        *DIGITS,
        *QUICK,
        *("--epochs", "1", "--seeds", "2", "--subset", "300", "--json"),
    ).json
    assert len(found["trials"]) == 4
    assert [point["n"] for point in found["points"]] == [2, 2]
    assert all("seed" not in point["params"] for point in found["points"])
    first = found["points"][0]
    values = [t["value"] for t in found["trials"] if t["params"] == first["params"]]
    assert math.isclose(first["mean"], sum(values) / 2)
    more = cli(
        "run",
        *("--grid", "lr=.1,.01", "seed=0,1,2"),
        *DIGITS,
        *QUICK,
        *("--epochs", "1", "--subset", "300", "--json"),
    ).json
    assert (more["new"], more["reused"]) == (2, 4)


@pytest.mark.usefixtures("undrawn")
def test_another_recipe_stands_beside_the_first_and_is_shown_as_what_varies(cli):
    words = ("run", "--grid", "lr=.1,.01", *DIGITS, *QUICK, "--subset", "300")
    assert cli(*words, "--epochs", "1").code == 0
    second = cli(*words, "--epochs", "2")
    assert "epochs varies" in second.err
    found = cli("report", "--study", "digits", "--json").json
    assert sorted({point["params"]["epochs"] for point in found["points"]}) == [1, 2]
    filtered = cli("report", "--study", "digits", "--json", "--where", "epochs=2").json
    assert {t["params"]["epochs"] for t in filtered["trials"]} == {2}
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{_home()}/gridsearch.db")
    assert sorted(t.params["epochs"] for t in study.trials) == [1, 1, 2, 2]


def _home() -> str:
    import os

    return os.environ["GRIDSEARCH_HOME"]


def test_a_diverged_trial_is_a_result_and_never_the_best(cli):
    words = ("run", "--grid", "lr=.01,1e12", *DIGITS, *QUICK, "--epochs", "2", "--subset", "300", "--json")
    words += ("--set", "optimizer=sgd")
    result = cli(*words)
    assert result.code == 0
    states = {t["params"]["lr"]: t for t in result.json["trials"]}
    assert states[1e12]["state"] == "diverged"
    assert "step" in states[1e12]["error"]
    assert result.json["best"]["params"] == {"lr": 0.01}
    again = cli(*words)
    assert (again.json["new"], again.json["reused"]) == (0, 2)


def test_a_model_that_raises_fails_alone_is_told_and_is_offered_again(cli, tmp_path):
    file = tmp_path / "net.py"
    file.write_text(
        "import os\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes, hidden=8):\n"
        "        super().__init__()\n"
        "        if hidden == 13 and not os.path.exists('mended'):\n"
        "            raise ValueError('thirteen is bad luck')\n"
        "        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(hidden), nn.ReLU(), nn.Linear(hidden, num_classes))\n"
        "    def forward(self, x):\n"
        "        return self.net(x)\n"
    )
    words = (
        "run",
        *("--dataset", "digits", "--model", "net.py:Net", "--grid", "model.hidden=8,13", "lr=.01"),
        *("--epochs", "1"),
        *QUICK,
        "--json",
    )
    first = cli(*words)
    assert first.code == 3
    states = {t["params"]["model.hidden"]: t for t in first.json["trials"]}
    assert states[8]["state"] == "complete"
    assert states[13]["state"] == "failed"
    assert "thirteen is bad luck" in states[13]["error"]
    shown = cli("trial", str(states[13]["number"]), "--study", "digits").out
    assert "Traceback" in shown
    assert "raise ValueError('thirteen is bad luck')" in shown
    finish = cli("run", "--study", "digits")
    assert finish.code == 2
    assert "--model" in finish.err
    (tmp_path / "mended").touch()
    second = cli("run", "--study", "digits", "--model", "net.py:Net", *QUICK, "--json")
    assert second.code == 0, second.err
    assert second.json["counts"]["complete"] == 2
    assert second.json["counts"]["failed"] == 0


@pytest.mark.usefixtures("undrawn")
def test_val_0_ranks_by_train_accuracy_and_says_so(cli):
    result = cli("run", "--grid", "lr=.01", *DIGITS, *HERE, "--epochs", "1", "--val", "0")
    assert result.code == 0
    assert "train accuracy" in result.out.lower()
    found = cli("report", "--study", "digits", "--json").json
    assert found["metric"] == "train_accuracy"
    assert found["trials"][0]["val_accuracy"] is None


@pytest.mark.usefixtures("undrawn")
def test_what_a_script_reads_is_one_object_and_nothing_else(cli):
    result = cli("run", *GRID[:2], *DIGITS, *HERE, "--epochs", "1", "--json", "-q")
    assert json.loads(result.out)["new"] == 2
    assert result.err == ""


def test_the_budget_stops_claiming_and_leaves_the_rest_waiting(cli):
    words = (
        "run",
        *("--dataset", "digits", "--model", "lenet", "--grid", "lr=.1,.01,.001", "seed=0..19:1"),
        *("--epochs", "3"),
        *QUICK,
    )
    result = cli(*words, "--budget", "1s", "--json")
    assert result.code == 0
    counts = result.json["counts"]
    assert counts["waiting"] > 0
    assert counts["running"] == 0
    assert counts["complete"] + counts["waiting"] == 60


def test_a_study_is_deleted_with_its_files_and_only_when_confirmed(cli, home):
    assert cli("run", "--grid", "lr=.01", *DIGITS, *QUICK, "--epochs", "1", "-q").code == 0
    refused = cli("study", "delete", "digits")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert (home / "digits").exists()
    assert cli("study", "delete", "digits", "--yes").code == 0
    assert not (home / "digits").exists()
    assert cli("report", "--study", "digits").code == 4
    assert cli("status", "--json").json == {"schema": 1, "studies": []}


@pytest.mark.usefixtures("undrawn")
def test_clean_removes_left_overs_and_keeps_results(cli, home):
    assert cli("run", "--grid", "lr=.01", *DIGITS, *QUICK, "--epochs", "1", "-q").code == 0
    scratch = home / "digits" / "trials" / "0" / ".attempt-7"
    scratch.mkdir()
    (scratch / "weights.safetensors").write_bytes(b"x" * 1000)
    freed = cli("study", "clean", "digits", "--json").json["freed_bytes"]
    assert freed == 1000
    assert not scratch.exists()
    assert cli("report", "--study", "digits").code == 0


def test_a_folder_of_images_is_a_dataset_like_any_other(cli, tmp_path):
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, shade in (("dark ones", 60), ("<b>light</b>", 190)):
        (tmp_path / "shades" / name.replace("/", "_")).mkdir(parents=True)
        for i in range(40):
            size = (20 + i % 3, 24)
            pixels = rng.normal(shade, 20, (size[1], size[0], 3)).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "shades" / name.replace("/", "_") / f"{i}.png")
    (tmp_path / "shades" / "dark ones" / "notes.txt").write_text("no image")
    result = cli(
        "run",
        *("--dataset", "folder:shades", "--model", "tinyvgg", "--grid", "lr=.01", "batch=8,16"),
        *("--epochs", "3"),
        *HERE,
    )
    assert result.code == 0, result.err
    assert "notes.txt" in result.err
    found = cli("report", "--study", "shades", "--json").json
    assert found["dataset"] == "folder:shades"
    assert found["points"][0]["mean"] > 0.9
    again = cli("run", "--study", "shades", "--json", *QUICK).json
    assert (again["new"], again["reused"]) == (0, 2)
    Image.new("RGB", (20, 24)).save(tmp_path / "shades" / "dark ones" / "one more.png")
    changed = cli("run", "--study", "shades")
    assert changed.code == 4
    assert "have changed since study 'shades' was made" in changed.error


WAITING_NET = """
import pathlib, time
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, turn):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
        self.turn, self.steps = turn, 0
    def forward(self, x):
        self.steps += self.training
        while self.turn > 1 and self.steps > 100 and not pathlib.Path("seen").exists():
            time.sleep(0.02)
        return self.net(x) if x.sum() > -1e9 else x  # which no pack can train as one program
"""


def test_a_terminal_shows_a_live_picture(tmp_path):
    """A real terminal: the bar, the time left, the best so far and what each of two workers does."""
    import os
    import pty
    import subprocess
    import sys

    (tmp_path / "net.py").write_text(WAITING_NET)
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    env.pop("NO_COLOR")
    words = ("run", "--dataset", "digits", "--model", "net.py:Net", "--grid", "model.turn=0..3:1")
    words += ("--epochs", "13", "--workers", "2", "--lanes", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "gridsearch", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
        cwd=tmp_path,
    )
    os.close(theirs)
    text = ""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the terminal's end is how Linux says that the program has ended
            break
        if not chunk:
            break
        text += chunk.decode(errors="replace")
        if all(part in text for part in ("best so far", " left", "/13", "w0", "w1", "running", "\x1b[")):
            (tmp_path / "seen").touch()  # the last two trials wait for it
    os.close(ours)
    assert process.wait() == 0
    assert (tmp_path / "seen").exists(), text
    assert "is best" in text.rpartition("best so far")[2], "the picture has gone and the ranking stays"


@pytest.mark.fashion
def test_the_readmes_grid_runs_on_real_fashion_mnist(cli, fashion_cache, monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_CACHE", fashion_cache)
    found = cli(
        "run", "--grid", "lr=.01,.001", "batch=10,20,50", "--epochs", "1", "--subset", "3000", "--json", *HERE
    ).json
    assert found["study"] == "fmnist"
    assert len(found["points"]) == 6
    assert found["points"][0]["mean"] > 0.6
    table = Path(_home()) / "fmnist" / "report" / "per_class.csv"
    assert "Ankle boot" in table.read_text()
