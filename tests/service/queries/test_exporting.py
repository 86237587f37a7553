"""A study handed over to other programs by their own clients: once however often, and without the network."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

import gridsearch as gs
from gridsearch import faults
from gridsearch.cli import main

pytestmark = pytest.mark.end_to_end

OBJECTIVE = """
def fit(params, seed):
    if params["a"] == 9:
        raise ValueError("nine")
    for step in range(1, 4):
        yield {"loss": params["a"] / step + seed, "rate": float("nan"), "hits|%": 1.0, "hits_%": 2.0, "/x//y": 3.0}
    return {"loss": params["a"] / 3 + seed + 0.5, "hits_%": 2.0}
"""


@pytest.fixture(scope="module")
def _made(tmp_path_factory):
    """A study of networks and one of a function."""
    place = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDSEARCH_CACHE", str(place / "cache"))
        patch.chdir(place)
        (place / "fit.py").write_text(OBJECTIVE)
        how = {"home": place / "home", "executor": "inline", "quiet": True, "report": False}
        gs.run(
            grid={"lr": [0.1, 0.001]}, dataset="digits", model="mlp", epochs=2, seeds=1, study="nets", **how
        )
        with pytest.warns(gs.GridsearchWarning):
            gs.run(
                grid={"a": [1, 2, 9]},
                objective="fit.py:fit",
                metric="loss",
                direction="minimize",
                study="plain",
                **how,
            )
    return place


@pytest.fixture
def home(_made, monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_HOME", str(_made / "home"))
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(_made / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return _made / "home"


@pytest.fixture
def offline(monkeypatch):
    """Refuse every connection to another machine."""
    connect = socket.socket.connect

    def local(self, address):
        where = address[0] if isinstance(address, tuple) else ""
        assert where in ("", "127.0.0.1", "::1", "localhost"), f"reaches for {where}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_gets_the_study_as_an_experiment_and_each_trial_as_a_run_once(home, capsys, offline):
    pytest.importorskip("mlflow")
    assert main(["export", "--study", "nets", "--to", "mlflow", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["new"], first["kept"], first["where"]) == (2, 0, f"sqlite:///{home}/mlflow.db")
    assert main(["export", "--study", "nets", "--to", "mlflow", "--json"]) == 0
    assert (json.loads(capsys.readouterr().out)["new"]) == 0

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=first["where"])
    runs = client.search_runs([client.get_experiment_by_name("nets").experiment_id])
    assert len(runs) == 3
    parent = next(run for run in runs if run.data.tags["gridsearch.key"] == "study")
    data = gs.load("nets", home=home).data
    for trial in data.trials:
        run = next(run for run in runs if run.data.tags["gridsearch.key"] == trial.key)
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.run_name == f"{trial.number} lr={trial.params['lr']} seed=0"
        assert (run.data.params["lr"], run.data.params["seed"]) == (str(trial.params["lr"]), "0")
        assert run.data.tags["state"] == "complete"
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        assert [(m.step, m.value) for m in history] == [
            (e.epoch, e.val_accuracy) for e in data.epochs[trial.number]
        ]
        names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        assert names == {"confusion.png", "confusion.csv"}
    assert parent.data.metrics["best_val_accuracy"] == max(t.value for t in data.trials)

    # One that was broken off, and so has no digest, is written anew.
    client.delete_tag(
        runs[0].info.run_id if runs[0] is not parent else runs[1].info.run_id, "gridsearch.digest"
    )
    assert main(["export", "--study", "nets", "--to", "mlflow", "--json"]) == 0
    assert (json.loads(capsys.readouterr().out)["new"]) == 1
    assert len(client.search_runs([client.get_experiment_by_name("nets").experiment_id])) == 3

    # Metrics whose names MLflow does not take have others there, each its own.
    assert main(["export", "--study", "plain", "--to", "mlflow"]) == 0
    runs = client.search_runs([client.get_experiment_by_name("plain").experiment_id])
    run = next(run for run in runs if run.data.params.get("a") == "2")
    found = run.data.metrics
    assert (found["hits__"], found["hits___2"], found["_x__y"]) == (1.0, 2.0, 3.0)

    # What a function returned at its end ranks, not what it yielded last; the steps are there as well.
    trial = next(t for t in gs.load("plain", home=home).data.trials if t.params["a"] == 2)
    assert found["loss"] == trial.value == pytest.approx(2 / 3 + 0.5)
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [m.step for m in history] == [1, 2, 3, 3]
    assert len(client.get_metric_history(run.info.run_id, "hits__")) == 3

    # What is no place for a tracking store is said in one line.
    capsys.readouterr()
    (home / "folder.db").mkdir()
    words = ["--to", "mlflow", "--output", f"sqlite:///{home / 'folder.db'}"]
    assert main(["export", "--study", "plain", *words]) == 4
    assert "error: MLflow at sqlite:///" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
def test_mlflow_gets_a_database_in_a_folder_and_plain_files_where_they_are_there(
    home, capsys, offline, monkeypatch
):
    tracking = pytest.importorskip("mlflow.tracking")
    # A folder gets a database; MLflow's store of plain files, which it refuses by now, is written where there is one.
    monkeypatch.chdir(home)
    for place, known in ((home / "a folder", ""), (home / "mlruns", "0/meta.yaml")):
        if known:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
                tracking.MlflowClient(tracking_uri=place.as_uri()).create_experiment("theirs")
        capsys.readouterr()
        assert main(["export", "--study", "nets", "--to", "mlflow", "--output", place.name, "--json"]) == 0
        where = json.loads(capsys.readouterr().out)["where"]
        assert where == (place.as_uri() if known else f"sqlite:///{place / 'mlflow.db'}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
            there = tracking.MlflowClient(tracking_uri=where)
            (found,) = [e for e in there.search_experiments() if e.name == "nets"]
            assert len(there.search_runs([found.experiment_id])) == 3
        assert (place / "mlflow-artifacts/nets").is_dir() is not bool(known)


def records_of(path):
    """Read a file of W&B's: records in blocks of 32 KiB, each with check sum, length and kind, as LevelDB's log has them."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


@pytest.mark.filterwarnings("ignore")
def test_wandb_gets_offline_runs_that_can_be_read_back_once(home, capsys, offline, tmp_path):
    pytest.importorskip("wandb")
    words = ["export", "--study", "plain", "--to", "wandb-offline", "--output", str(tmp_path), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["new"] == 3
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 3
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 3
    trials = {t.key[:32]: t for t in gs.load("plain", home=home).data.trials}
    for folder in folders:
        trial = trials[folder.name.rpartition("-")[2]]
        kinds = {}
        for record in records_of(next(folder.glob("*.wandb"))):
            kinds.setdefault(record.WhichOneof("record_type"), []).append(record)
        run = kinds["run"][0].run
        assert (run.project, run.run_id) == ("plain", trial.key[:32])
        config = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in run.config.update}
        assert (config["a"], config["seed"], config["gridsearch.state"]) == (
            trial.params["a"],
            0,
            trial.state.value,
        )
        losses = [
            float(item.value_json)
            for record in kinds.get("history", ())
            for item in record.history.item
            if "loss" in (item.key, *item.nested_key)
        ]
        assert losses == ([] if trial.params["a"] == 9 else [trial.params["a"] / step for step in (1, 2, 3)])


@pytest.mark.filterwarnings("ignore")
def test_wandb_without_room_for_its_own_log_is_told_in_one_line(home, capsys, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def init(**_):
        own = logging.StreamHandler((tmp_path / "log").open("r"))  # which cannot be written
        own.emit(logging.makeLogRecord({"msg": "begins"}))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "run"))

    (tmp_path / "log").touch()
    monkeypatch.setattr(wandb, "init", init)
    assert main(["export", "--study", "plain", "--to", "wandb-offline", "--output", str(tmp_path)]) == 4
    assert capsys.readouterr().err.startswith(f"gridsearch: error: no space left for {tmp_path}")
    assert logging.raiseExceptions


def test_tables_go_to_standard_output_or_a_file_and_format_works_as_before(home, capsys, tmp_path):
    assert main(["export", "--study", "nets", "--format", "csv"]) == 0
    plain = capsys.readouterr().out
    assert main(["export", "--study", "nets", "--to", "csv"]) == 0
    assert capsys.readouterr().out == plain
    assert main(["export", "--study", "nets"]) == 0
    assert capsys.readouterr().out == plain
    assert main(["export", "--study", "nets", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["study"] == "nets"
    assert main(["export", "--study", "nets", "--to", "markdown", "--output", str(tmp_path / "t.md")]) == 0
    assert (tmp_path / "t.md").read_text().startswith("| rank | lr | n | validation accuracy |")
    assert gs.load("nets", home=home).export("latex").startswith("% needs")


def test_a_table_that_cannot_be_written_leaves_the_file_that_was_there(home, tmp_path):
    words = ["export", "--study", "nets", "--output", str(tmp_path / "trials.csv")]
    assert main(words) == 0
    (tmp_path / "trials.csv").chmod(0o640)
    before = (tmp_path / "trials.csv").read_bytes()
    for point in ("sync", "rename"):
        faults.plan(f"{point}:ENOSPC:1")
        try:
            assert main([*words, "--to", "markdown"]) == 4
        finally:
            faults.plan("")
        assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]
        assert (tmp_path / "trials.csv").read_bytes() == before
    assert main([*words, "--to", "markdown"]) == 0
    assert (tmp_path / "trials.csv").read_text().startswith("|")
    assert (tmp_path / "trials.csv").stat().st_mode & 0o777 == 0o640


def test_what_an_export_that_was_killed_has_left_goes_with_the_next_one(home, tmp_path):
    dead, living, other = (tmp_path / f".partial-{each}" for each in ("0a.md", "1b.md", "2c.csv"))
    for left in (dead, living, other):
        left.write_text("half")
    for old in (dead, other):
        os.utime(old, (0, 0))
    assert (
        main(["export", "--study", "plain", "--to", "markdown", "--output", str(tmp_path / "table.md")]) == 0
    )
    assert sorted(tmp_path.iterdir()) == [living, other, tmp_path / "table.md"]


def test_a_table_goes_through_a_link_and_into_a_pipe(home, tmp_path):
    words = ["export", "--study", "nets", "--to", "markdown", "--output"]
    (tmp_path / "link.md").symlink_to(tmp_path / "table.md")
    assert main([*words, str(tmp_path / "link.md")]) == 0
    assert (tmp_path / "link.md").is_symlink()
    table = (tmp_path / "table.md").read_text()
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as thread:
        read = thread.submit((tmp_path / "pipe").read_text)
        assert main([*words, str(tmp_path / "pipe")]) == 0
        assert read.result() == table


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("call", ["set_terminated", "set_tag"])
def test_a_run_of_mlflow_whose_writing_breaks_off_at_its_end_is_ended_by_the_next_export(
    home, offline, tmp_path, monkeypatch, call
):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    words = ["export", "--study", "plain", "--to", "mlflow", "--output", f"sqlite:///{tmp_path / 'm.db'}"]
    made = getattr(MlflowClient, call)

    def killed(*args, **kwargs):
        made(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, killed)
        assert main(words) == 130
    assert main(words) == 0
    client = MlflowClient(tracking_uri=words[-1])
    runs = client.search_runs([client.get_experiment_by_name("plain").experiment_id])
    assert len({run.data.tags["gridsearch.key"] for run in runs}) == len(runs) == 4
    assert {run.info.status for run in runs} == {"FINISHED", "FAILED"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--to", "mlfow"], "--to mlfow: unknown target; did you mean 'mlflow'?"),
        (["--to", "csv", "--format", "json"], "--format json and --to csv: give only one of them"),
        (
            ["--to", "markdown", "--output", "/nowhere/t.md"],
            "No such file or directory; name a file that you may write with --output",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(home, capsys, words, line):
    assert main(["export", "--study", "nets", *words]) in (2, 4)
    error = capsys.readouterr().err.strip()
    assert line in error.replace("\n  ", "; ")
    assert len(error.splitlines()) <= 2


@pytest.mark.parametrize(
    ("to", "module", "extra"), [("mlflow", "mlflow", "mlflow"), ("wandb-offline", "wandb", "wandb")]
)
def test_a_client_that_is_not_installed_is_named_with_what_installs_it(
    home, capsys, monkeypatch, to, module, extra
):
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    assert main(["export", "--study", "nets", "--to", to]) == 2
    assert f"pip install 'gridsearch[{extra}]'" in capsys.readouterr().err
