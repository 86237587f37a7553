"""What studies/README.md says of the projects comes from the files in studies/results, and those from runs."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.benchmarks import studies, studies_table

ROWS = studies.rows()
RESULTS = studies_table.results()
KEYS = {
    "id",
    "claim",
    "claim_kind",
    "mean",
    "ci_low",
    "ci_high",
    "n",
    "seconds",
    "hardware",
    "versions",
    "command",
}


def test_the_tables_of_the_page_are_those_that_the_result_files_make():
    page = studies_table.README.read_text()
    assert studies_table.filled(page, studies_table.blocks(RESULTS)) == page


def test_every_row_names_studies_that_are_there():
    for name, row in ROWS.items():
        for study in row.get("parts", [name]):
            assert (studies.STUDIES / f"{study}.toml").exists(), study
        assert row.get("beats", name) in ROWS


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_file_says_what_was_found_and_how(name):
    result = RESULTS[name]
    assert set(result) >= KEYS
    assert result["id"] == name
    assert result["claim"] == ROWS[name].get("claim")
    assert f"studies/{ROWS[name].get('parts', [name])[0]}.toml" in result["command"]
    if result["mean"] is not None:
        assert result["ci_low"] <= result["mean"] <= result["ci_high"]


def test_no_result_file_is_without_a_row():
    known = {*ROWS, "lessons"}
    assert {path.stem for path in studies.RESULTS.glob("*.json")} <= known


def test_the_interval_is_students():
    low, high = studies.interval([0.9, 0.91, 0.92])
    assert statistics.fmean([low, high]) == pytest.approx(0.91)
    assert high - low == pytest.approx(2 * 4.302653 * 0.01 / 3**0.5, rel=1e-6)
    assert studies.interval([0.9]) == (None, None)


def test_a_row_that_was_not_run_is_shown_as_not_run():
    table = studies_table.reproduced_table({})
    assert table.count("not run") == sum("beats" not in row for row in ROWS.values())


@pytest.fixture
def in_this_process(monkeypatch, cli):
    """Let the benchmark's commands run here: each process loads torch anew, and `best` the exporter of graphs too."""

    def run(command, **how):
        assert command[:3] == [sys.executable, "-m", "gridsearch"]
        assert how == {"cwd": studies.ROOT, "stdout": subprocess.PIPE, "check": False}
        here = ["--executor", "inline"] if command[3] == "best" else []
        monkeypatch.chdir(how["cwd"])
        done = cli(*command[3:], *here)
        return subprocess.CompletedProcess(command, done.code, done.out.encode())

    monkeypatch.setattr(studies, "subprocess", SimpleNamespace(run=run, PIPE=subprocess.PIPE))


@pytest.mark.end_to_end
@pytest.mark.usefixtures("in_this_process", "no_graph")
def test_a_row_of_networks_is_run_and_its_numbers_are_the_stores(tmp_path, monkeypatch, cli):
    monkeypatch.setattr(studies, "ROOT", tmp_path)
    monkeypatch.setattr(studies, "RESULTS", tmp_path)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "small.toml").write_text(
        'study = "small"\ndataset = "digits"\nmodel = "mlp"\n[grid]\nlr = [0.01, 0.001, 0.0001]\n[recipe]\nepochs = 2\n'
    )
    row = {
        "id": "small",
        "claim": 0.9,
        "claim_kind": "test accuracy",
        "grid_seeds": 1,
        "metric": "test_accuracy",
        "also": {"claim": 0.95, "claim_kind": "train accuracy", "metric": "train_accuracy"},
    }
    result = json.loads(
        studies.measure(
            row, home=tmp_path / "home", seeds=2, how=["--executor", "inline", "--no-report"]
        ).read_text()
    )
    assert set(result) >= KEYS
    assert result["ours"]["params"] == {"lr": 0.01}
    assert (result["n"], result["ours"]["trials"], result["resumed"]) == (2, 5, False)
    assert result["ci_low"] < result["mean"] < result["ci_high"]
    assert result["clean"]
    assert result["command"].split(" && ") == [
        "gridsearch run studies/small.toml --seeds 1",
        "gridsearch run --study small --more-seeds 1 --top 2",
        "gridsearch best --study small",
        "gridsearch run studies/small.toml --grid lr=0.01 --seeds 2 --val 0 --study small-all",
    ]
    assert result["also"]["n"] == 2
    here = ("--home", str(tmp_path / "home"), "--json", "-q")
    best = cli("best", "--study", "small", *here).json
    assert best["test"]["accuracy"] == pytest.approx(result["mean"])
    report = cli("report", "--study", "small-all", *here).json
    assert report["points"][0]["mean"] == pytest.approx(result["also"]["mean"])
