"""How well the plan foretells the wall time of a run: predicted, actual and their ratio, before and after a first run.

Two grids on Fashion-MNIST, each with a fresh cache of probes: ``plan --probe``, a run, the plan again (it knows the
first run's epochs and overheads now), and a second run in another home.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from unittest.mock import patch

import platformdirs

from tests.benchmarks import program
from tests.benchmarks.measure import write

GRIDS = {
    "the README's 6 trials": ("lr=.01,.001", "batch=10,20,50"),
    "16 trials": ("lr=.01,.001", "batch=10,20,50,100", "norm=none,standard"),
}


def compare(words: tuple[str, ...], epochs: int, cache: Path) -> dict[str, object]:
    """Predict and run twice; seconds of wall time."""
    grid = ("--grid", *words, "--epochs", str(epochs))
    figures: dict[str, object] = {}
    for when, how in (("nothing known but probes", ("--probe",)), ("after one run", ())):
        with tempfile.TemporaryDirectory() as home, patch.dict(os.environ, {"GRIDSEARCH_CACHE": str(cache)}):
            planned = program.run("plan", *grid, *how, home=home)
            done = program.run("run", *grid, home=home)
        predicted = planned.result["seconds"]
        figures[when] = {
            "predicted": f"{predicted:.1f} s",
            "actual": f"{done.wall:.1f} s",
            "predicted / actual": round(predicted / done.wall, 3),
            "the plan itself took": f"{planned.wall:.1f} s",
            "lanes": {str(g["batch"]): g["lanes"] for g in planned.result["groups"]},
        }
    return figures


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args(words)
    data = Path(
        os.environ.get("GRIDSEARCH_CACHE") or platformdirs.user_cache_dir("gridsearch", appauthor=False)
    )
    figures: dict[str, object] = {"epochs": arguments.epochs, "n": 1}
    for name, grid in GRIDS.items():
        with tempfile.TemporaryDirectory() as cache:
            shutil.copytree(data / "data", Path(cache) / "data")
            figures[name] = compare(grid, arguments.epochs, Path(cache))
    write("plan", figures)


if __name__ == "__main__":
    main()
