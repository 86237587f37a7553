"""The studies of public projects, run in full: what each reaches beside what it claims.

``python -m tests.benchmarks.studies ID ... [--home DIR] [--seeds N] [--workers N]``

Rows are those of studies/results/claims.toml.  For each, its study file is run (a sixth of train held out, ranked by it); where
the claim is of test images, `best` trains the winner again on all training images and reads the test images once; where
it is a train accuracy, the point of the claim is trained on all training images.  What was found is written to
studies/results/<id>.json; `python -m tests.benchmarks.studies_table` makes the tables and the figure from these files.
A home keeps what was trained: a row that was interrupted goes on, and says so (`resumed`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from gridsearch.reporting.stats.over_seeds import mean_intervals
from tests.benchmarks.measure import hardware

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "studies"
RESULTS = STUDIES / "results"
LEADING = 2
"""Points that get the other seeds, where the grid had fewer."""

VERSIONS = ("torch", "optuna", "numpy")


def rows() -> dict[str, dict[str, Any]]:
    """Return the rows of claims.toml by their id, in their order."""
    return {row["id"]: row for row in tomllib.loads((RESULTS / "claims.toml").read_text())["row"]}


def interval(values: list[float]) -> tuple[float | None, float | None]:
    """Return Student's 95 % interval of the mean over seeds; none with one seed."""
    if len(values) < 2:
        return None, None
    low, high = mean_intervals(np.array([values]))[0]
    return float(low), float(high)


@dataclass
class Runner:
    """Starts the program as a user does, and keeps count of what it took.

    Attributes:
        commands: what was typed, without options that only say where and how.
        seconds: of wall time.
        resumed: whether something had been trained before.
    """

    home: Path
    how: list[str]
    commands: list[str] = field(default_factory=list)
    seconds: float = 0.0
    resumed: bool = False

    def __call__(self, *words: str) -> dict[str, Any]:
        """Run one command; a failure ends all."""
        self.commands.append(" ".join(["gridsearch", *words]))
        how = self.how if words[0] == "run" else []
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "gridsearch", *words, *how, "--home", str(self.home), "--json", "-q"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=False,
        )
        self.seconds += time.perf_counter() - began
        if done.returncode:
            raise SystemExit(f"gridsearch {' '.join(words)}: exit code {done.returncode}")
        result: dict[str, Any] = json.loads(done.stdout)
        self.resumed |= bool(result.get("reused"))
        return result


def summary(values: list[float]) -> dict[str, Any]:
    """Return mean, interval and number of one figure over seeds."""
    low, high = interval(values)
    return {"mean": statistics.fmean(values), "ci_low": low, "ci_high": high, "n": len(values)}


def of_point(report: dict[str, Any], params: dict[str, Any], name: str) -> list[float]:
    """Return one metric of a point's complete trials."""
    return [
        trial["metrics"][name]
        for trial in report["trials"]
        if trial["params"] == params and trial["state"] == "complete"
    ]


def words_of(params: dict[str, Any]) -> list[str]:
    """Return a point as the command line's words."""
    text = {None: "none", True: "true", False: "false"}
    return [f"{name}={text.get(value, value)}" for name, value in params.items()]


def tested(run: Runner, study: str) -> dict[str, Any]:
    """Refit the winner and read its test images; what was found over its seeds."""
    outcome = run("best", "--study", study)
    if outcome["winner_changed"]:
        raise SystemExit(f"{study}: another point leads now, not the one that was tested; take a new --home")
    test = outcome["test"]
    ends = {name: test[name] for name in ("ci_low", "ci_high", "interval", "params", "clean")}
    return {"mean": test["accuracy"], "n": len(test["seeds"]), **ends}


def trained_on_all(run: Runner, row: dict[str, Any], params: dict[str, Any], seeds: int) -> dict[str, Any]:
    """Train one point on all training images; its running train accuracy over seeds."""
    report = run(
        "run",
        f"studies/{row['id']}.toml",
        *(("--grid", *words_of(params)) if params else ()),
        *("--seeds", str(seeds), "--val", "0"),
        *("--study", f"{row['id']}-all"),
    )
    best = report["points"][0]
    return summary(of_point(report, best["params"], "train_accuracy")) | {"params": best["params"]}


def images_row(row: dict[str, Any], run: Runner, seeds: int) -> dict[str, Any]:
    """Run a row of networks."""
    name = row["id"]
    first = row.get("grid_seeds", seeds)
    report = run("run", f"studies/{name}.toml", "--seeds", str(first))
    if first < seeds and len(report["points"]) > LEADING:
        report = run("run", "--study", name, "--more-seeds", str(seeds - first), "--top", str(LEADING))
    best = report["points"][0]["params"]
    ours = {
        "params": best,
        "points": len(report["points"]),
        "trials": len(report["trials"]),
        "val_accuracy": summary(of_point(report, best, "val_accuracy")),
        "train_accuracy": summary(of_point(report, best, "train_accuracy")),
    }

    def against(metric: str) -> dict[str, Any]:
        match metric:
            case "test_accuracy":
                return tested(run, name)
            case "train_accuracy":
                return trained_on_all(run, row, row.get("point", best), seeds)
            case "val_accuracy":
                return with_interval(ours["val_accuracy"], report, best)
        raise ValueError(metric)

    result = {"metric": row["metric"], **against(row["metric"]), "ours": ours}
    if also := row.get("also"):
        result["also"] = {**also, **against(also["metric"])}
    return result


def with_interval(found: dict[str, Any], report: dict[str, Any], best: dict[str, Any]) -> dict[str, Any]:
    """Return a validation accuracy with an interval: over seeds, or with one seed over the images, as the report has it."""
    point = report["points"][0]
    assert point["params"] == best
    kind = "seeds" if found["n"] > 1 else "images"
    return {**found, "ci_low": point["ci_low"], "ci_high": point["ci_high"], "interval": kind, "params": best}


def functions_row(row: dict[str, Any], run: Runner) -> dict[str, Any]:
    """Run a row of plain functions: the best point of each."""
    parts = {}
    for name in row["parts"]:
        report = run("run", f"studies/{name}.toml")
        best = report["points"][0]["params"]
        metrics = next(t["metrics"] for t in report["trials"] if t["params"] == best)
        parts[name] = {
            "metric": report["metric"],
            "direction": report["direction"],
            "params": best,
            **{metric: summary(of_point(report, best, metric)) for metric in metrics},
        }
    return {"mean": None, "ci_low": None, "ci_high": None, "n": None, "parts": parts}


def measure(row: dict[str, Any], *, home: Path, seeds: int, how: list[str]) -> Path:
    """Run one row and write what was found."""
    run = Runner(home, how)
    result = functions_row(row, run) if "parts" in row else images_row(row, run, seeds)
    machine = hardware()
    content = {
        "id": row["id"],
        "claim": row.get("claim"),
        "claim_kind": row.get("claim_kind"),
        **result,
        "seconds": round(run.seconds, 1),
        "resumed": run.resumed,
        "hardware": f"{machine['cores']} cores of {machine['cpu']}",
        "versions": {name: machine["versions"][name] for name in VERSIONS},
        "command": " && ".join(run.commands),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{row['id']}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def main(arguments: list[str] | None = None) -> None:
    known = rows()
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.studies")
    parser.add_argument("ids", nargs="+", choices=[*known], metavar="ID", help=", ".join(known))
    parser.add_argument("--home", type=Path, default=Path("runs"), help="default: runs")
    parser.add_argument("--seeds", type=int, default=3, help="of every point (default: 3)")
    parser.add_argument("--workers", type=int, help="default: one per core")
    words = parser.parse_args(arguments)
    how = ["--workers", str(words.workers)] if words.workers else []
    for name in words.ids:
        path = measure(known[name], home=words.home.absolute(), seeds=words.seeds, how=how)
        print(f"{path.relative_to(ROOT)}: {json.loads(path.read_text())['seconds']} s", file=sys.stderr)


if __name__ == "__main__":
    main()
