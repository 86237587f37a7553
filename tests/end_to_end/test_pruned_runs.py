"""Poor trials end early, their lanes go to others, and what was pruned can still be trained to its end."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
import sys
import time

import optuna
import pytest

import gridsearch as gs
from gridsearch.training.kernels import find_compiler

pytestmark = pytest.mark.end_to_end

EPOCHS = 9
LRS = "lr=.1,.03,.01,.003,.001,.0003,.0001,.00001"
RUN = ("run", "--dataset", "digits", "--model", "mlp", "--epochs", str(EPOCHS), "--device", "cpu")
INLINE = ("--executor", "inline")
QUICK = (*INLINE, "--no-report", "--json")


def rows(home, count: str) -> int:
    """What a count gives; 0 before there is a store."""
    with (
        contextlib.suppress(sqlite3.OperationalError),
        contextlib.closing(sqlite3.connect(f"file:{home}/gridsearch.db?mode=ro", uri=True)) as connection,
    ):
        return connection.execute(count).fetchone()[0]
    return 0


def by_lr(report) -> dict[float, dict]:
    return {trial["params"]["lr"]: trial for trial in report["trials"]}


@pytest.mark.parametrize("lanes", ["1", "3", "8"])
def test_poor_trials_end_early_whatever_the_number_of_lanes(cli, home, lanes):
    done = cli(*RUN, *QUICK, "--grid", LRS, "--prune", "asha", "--lanes", lanes)
    assert done.code == 0, done.err
    counts = done.json["counts"]
    assert counts["complete"] + counts["pruned"] == 8
    assert counts["pruned"] >= 4
    for trial in done.json["trials"]:
        pruned = trial["state"] == "pruned"
        assert trial["pruned_by"] == ("asha" if pruned else None)
        assert trial["epochs"] in ((1, 3) if pruned else (EPOCHS,))
        assert (trial["value"] is None) == pruned
    assert by_lr(done.json)[0.00001]["state"] == "pruned"
    with sqlite3.connect(home / "gridsearch.db") as connection:
        packs = connection.execute("select count(distinct pack) from gridsearch_trials").fetchone()[0]
    connection.close()
    # a lane that was pruned took the next trial; without compiled steps a lone lane is no program that could
    assert packs == (8 if lanes == "1" and find_compiler() is None else 1)


def test_optuna_sees_pruned_trials_as_its_own_would_be(cli, home):
    report = cli(*RUN, *QUICK, "--grid", LRS, "--prune", "hyperband", "--seeds", "2").json
    assert report["counts"]["pruned"] > 0
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{home / 'gridsearch.db'}")
    for trial, ours in zip(study.trials, report["trials"], strict=True):
        assert trial.state.name.lower() == ours["state"]
        assert sorted(trial.intermediate_values) == list(range(1, ours["epochs"] + 1))
        assert trial.value == trial.intermediate_values[ours["epochs"]]
        assert trial.user_attrs["outcome"] == ours["state"]


def test_without_pruning_what_was_pruned_ends_as_if_nobody_had_pruned_it(cli, tmp_path):
    grid = ("--grid", LRS, "--lanes", "1", "--workers", "1", *QUICK)
    pruned = cli(*RUN, *grid, "--prune", "asha").json
    lost = pruned["counts"]["pruned"]
    assert lost > 0
    again = cli(*RUN, *grid, "--prune", "asha").json
    assert (again["new"], again["reused"]) == (0, 8)
    assert again["trials"] == pruned["trials"]
    with_pruning = cli("plan", *RUN[1:], "--grid", LRS, "--prune", "asha", "--json").json
    without = cli("plan", *RUN[1:], "--grid", LRS, "--json").json
    assert (with_pruning["done"], with_pruning["pruned"]) == (8, 0)
    assert (without["done"], without["pruned"], without["failed"]) == (8 - lost, lost, 0)

    completed = cli(*RUN, *grid).json
    assert completed["counts"]["complete"] == 8
    never = cli(*RUN, *grid, "--home", str(tmp_path / "never")).json
    for lr, trial in by_lr(never).items():
        assert by_lr(completed)[lr]["metrics"] == trial["metrics"]
    assert [p["params"] for p in completed["points"]] == [p["params"] for p in never["points"]]


def test_trials_of_an_earlier_run_are_what_new_ones_must_beat(cli):
    cli(*RUN, *QUICK, "--grid", "lr=.03,.02,.01,.015,.025")
    report = cli(*RUN, *QUICK, "--grid", "lr=.0001,.00001", "--prune", "median", "--lanes", "2").json
    assert report["counts"] | {"complete": 5, "pruned": 2} == report["counts"]
    assert {t["epochs"] for t in report["trials"] if t["state"] == "pruned"} == {2}


def test_a_study_that_holds_nothing_out_is_pruned_by_what_ranks_it(cli):
    report = cli(*RUN, *QUICK, "--grid", LRS, "--val", "0", "--prune", "asha").json
    assert report["metric"] == "train_accuracy"
    assert by_lr(report)[0.00001]["state"] == "pruned"


def test_every_picture_of_a_run_tells_of_its_pruned_trials(cli, home):
    done = cli(*RUN, *INLINE, "--grid", LRS, "batch=16,32", "--prune", "asha")
    assert re.search(r"trial \d+ .*pruned by asha after epoch [13] of 9, validation accuracy \d", done.err)
    assert re.search(r"\d+ trials were pruned by asha after 1 to 3 epochs", done.out)
    page = (home / "digits" / "report" / "index.html").read_text()
    assert "by asha after epoch 1 of 9" in page
    status = cli("status", "--json").json["studies"][0]["counts"]
    assert status["pruned"] > 0
    assert status["pruned"] + status["complete"] == 16
    number = next(
        t["number"] for t in cli("report", "--study", "digits", "--json").json["trials"] if t["pruned_by"]
    )
    shown = cli("trial", str(number), "--study", "digits").out
    assert "pruned by asha" in shown
    assert "error" not in shown
    exported = cli("export", "--study", "digits", "--format", "csv").out
    assert exported.count(",pruned,") == status["pruned"]


def test_python_prunes_as_the_command_line_does(cli, tmp_path):
    words = cli(*RUN, *QUICK, "--grid", LRS, "--prune", "asha", "--lanes", "2").json
    result = gs.run(
        [LRS], dataset="digits", model="mlp", epochs=EPOCHS, prune="asha", lanes=2, executor="inline",
        device="cpu", home=tmp_path / "other", report=False, quiet=True,
    )  # fmt: skip
    states = [(t["state"], t["epochs"]) for t in words["trials"]]
    assert [(t.state, t.epochs) for t in result.data.trials] == states


def test_worker_processes_prune_too(program):
    done = program(
        *RUN, "--no-report", "--json", "--grid", LRS, "--prune", "asha", "--lanes", "2", "--workers", "2"
    )
    assert done.code == 0, done.err
    counts = done.json["counts"]
    assert counts["pruned"] >= 3
    assert counts["complete"] + counts["pruned"] == 8
    assert all(t["epochs"] < EPOCHS for t in done.json["trials"] if t["state"] == "pruned")


def test_a_run_that_is_killed_while_it_prunes_loses_nothing(home, cli):
    words = [
        *(sys.executable, "-m", "gridsearch", "run", "--dataset", "digits", "--model", "mlp", "--epochs", "40"),
        *("--grid", "lr=.1,.03,.01,.003,.001,.0003", "batch=16,32", "--prune", "asha", "--no-report"),
        *("--lanes", "2"),
    ]  # fmt: skip
    for epochs in (5, 60):
        runner = subprocess.Popen(
            [*words, "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while rows(home, "select count(*) from gridsearch_epochs") < epochs:
            assert runner.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        runner.kill()
        runner.wait()
    done = cli(*words[3:], "--executor", "inline")
    assert done.code == 0, done.err
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{home / 'gridsearch.db'}")
    assert len(study.trials) == 12
    assert {t.state.name for t in study.trials} == {"COMPLETE", "PRUNED"}
    for trial in study.trials:
        assert sorted(trial.intermediate_values) == list(range(1, trial.user_attrs["epochs"] + 1))
    assert all(t.user_attrs["epochs"] == 40 for t in study.trials if t.state.name == "COMPLETE")
    with sqlite3.connect(home / "gridsearch.db") as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    connection.close()


def test_an_interrupted_run_says_how_to_go_on_with_pruning(cli):
    done = cli(
        *RUN, *INLINE, "--no-report", "--grid", LRS, "--prune", "asha", "--lanes", "1", "--budget", "1s"
    )
    if "left waiting" in done.err:  # a fast machine may have done all of it
        assert "`gridsearch run --study digits --prune asha` continues" in done.err
    again = cli("run", "--study", "digits", *QUICK, "--prune", "asha").json
    assert again["counts"]["waiting"] == 0
