"""The dashboard and TensorBoard are started by our commands, serve the study, and end when asked to."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def study(cli):
    assert (
        cli(
            "run",
            "--grid",
            "lr=.1,.01",
            "--dataset",
            "digits",
            "--model",
            "mlp",
            "--epochs",
            "2",
            "--executor",
            "inline",
            "--no-report",
            "-q",
        ).code
        == 0
    )


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def test_the_optuna_dashboard_serves_the_study(study, serve):
    process, url = serve("dashboard")
    assert url.startswith("http://127.0.0.1:")
    root = url.removesuffix("/dashboard")
    assert b"<!DOCTYPE html>" in get(url + "/").replace(b"doctype", b"DOCTYPE")
    studies = json.loads(get(root + "/api/studies"))["study_summaries"]
    assert [s["study_name"] for s in studies] == ["digits"]
    details = json.loads(get(f"{root}/api/studies/{studies[0]['study_id']}?after=0"))
    assert [t["state"] for t in details["trials"]] == ["Complete", "Complete"]
    assert all(t["params"][0]["name"] == "lr" for t in details["trials"])
    assert all(len(t["intermediate_values"]) == 2 for t in details["trials"])
    assert all(
        {a["filename"] for a in t["artifacts"]} >= {"confusion.png", "per_class.csv"}
        for t in details["trials"]
    )
    artifact = details["trials"][0]["artifacts"][0]
    png = get(
        f"{root}/artifacts/{studies[0]['study_id']}/{details['trials'][0]['trial_id']}/{artifact['artifact_id']}"
    )
    assert len(png) > 100
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130


def test_tensorboard_serves_a_run_for_each_trial(study, serve):
    process, url = serve("tensorboard", "--study", "digits")
    deadline = time.monotonic() + 60
    names = {"digits/0 lr=0.1", "digits/1 lr=0.01"}
    while set(runs := json.loads(get(url.rstrip("/") + "/data/runs"))) != names:
        assert time.monotonic() < deadline, runs
        time.sleep(0.5)
    tags = json.loads(get(url.rstrip("/") + "/data/plugin/scalars/tags"))
    first, second = (set(tags[name]) for name in names)
    assert first == second >= {"loss/train", "loss/val", "accuracy/train", "accuracy/val", "lr"}
    for foreign in (
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://evil.example"},
    ):
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(
                urllib.request.Request(url + "data/environment", headers=foreign), timeout=30
            )
        assert b"tensorboard" not in refused.value.read(), "no path of this machine"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143


@pytest.mark.parametrize("command", ["dashboard", "tensorboard"])
def test_a_port_that_is_taken_is_exit_2_in_one_line(study, program, command):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        # a process: TensorBoard's loader lives as long as the one it is in
        result = program(command, "--port", port)
    assert result.code == 2
    assert port in result.error


@pytest.mark.parametrize("command", ["dashboard", "tensorboard"])
def test_without_a_store_there_is_nothing_to_serve(cli, home, command):
    result = cli(command)
    assert result.code == 4
    assert "no store" in result.error
    assert not home.exists()


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_everybody_looks_at_meets_no_lock_and_loses_nothing(study, serve, cli):
    _, dashboard = serve("dashboard")
    _, board = serve("tensorboard")
    asked = [
        dashboard.removesuffix("/dashboard") + "/api/studies/1?after=0",
        board + "data/plugin/scalars/tags",
    ]
    grid = ["lr=.1,.03,.01,.003,.001", "batch=16,32"]
    words = ["run", "--dataset", "digits", "--model", "mlp", "--epochs", "20", "--no-report", "--json"]
    run = subprocess.Popen(
        [sys.executable, "-m", "gridsearch", *words, "--workers", "1", "--lanes", "4", "--grid", *grid],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    looks = 0
    while run.poll() is None:
        for url in asked:
            assert get(url)
        assert cli("status", "--json").code == 0
        if looks % 5 == 0:
            assert cli("report", "--study", "digits", "--json").json["counts"]["complete"] >= 2
        looks += 1
        time.sleep(0.2)
    out, err = run.communicate()
    assert run.returncode == 0, err
    assert "lock" not in err
    counts = json.loads(out)["counts"]
    assert (counts["complete"], sum(counts.values())) == (12, 12), "2 of the study that was there, and 10"
    trials = [trial for trial in json.loads(out)["trials"] if trial["params"]["epochs"] == 20]
    assert [trial["attempts"] for trial in trials] == [1] * 10
    assert looks > 3
