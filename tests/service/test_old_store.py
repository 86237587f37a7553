"""A store of an earlier version: trials of code that reaches nothing else of its user's own are found, and not trained.

`old_store/gridsearch.db.gz` was made by the version before helpers and captures belonged to addresses:
`gridsearch run --dataset digits --grid model=net.py:Net,mlp lr=.1 --epochs 1 --home h --study nets`, `gridsearch run
--objective fit.py:f --grid x=1,2 --home h --study fits --metric loss --direction minimize`, `python script.py`.
"""

from __future__ import annotations

import gzip
import linecache
import runpy
import shutil
from pathlib import Path

import pytest

import gridsearch as gs

OLD = Path(__file__).parent / "old_store"
HOW = {"home": "h", "quiet": True, "report": False, "executor": "inline"}


@pytest.fixture
def old(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))
    for name in ("net.py", "fit.py", "script.py"):
        shutil.copy(OLD / name, tmp_path / name)
    Path("h").mkdir()
    Path("h/gridsearch.db").write_bytes(gzip.decompress((OLD / "gridsearch.db.gz").read_bytes()))
    return tmp_path


def test_nothing_of_an_old_store_is_computed_again(old):
    nets = gs.run(
        grid={"model": ["net.py:Net", "mlp"], "lr": [0.1]}, dataset="digits", epochs=1, study="nets", **HOW
    )
    assert (nets.new, nets.reused) == (0, 2)
    how = {"metric": "loss", "direction": "minimize", "study": "fits", **HOW}
    fits = gs.run(objective="fit.py:f", grid={"x": [1, 2]}, **how)
    assert (fits.new, fits.reused) == (0, 2)
    script = runpy.run_path("script.py", run_name="__main__")["found"]
    assert (script.new, script.reused) == (0, 2)


def test_an_old_study_is_ranked_by_what_its_trials_recorded_and_says_what_is_lost(old):
    nets = gs.load("nets", home="h")
    assert nets.ranking.metric == "val_accuracy"
    for metric in ("macro_f1", "balanced_accuracy", "loss"):
        by = nets.by(metric)
        values = [point.mean for point in by.ranking.points]
        assert None not in values and values == sorted(values, reverse=metric != "loss")
    with pytest.raises(gs.GridsearchError, match="no trial of study 'nets' can be ranked by auc"):
        nets.by("auc")


def test_an_old_study_goes_on_with_the_code_that_made_it(old):
    more = gs.run(study="fits", objective="fit.py:f", more_seeds=1, top=1, **HOW)
    assert more.new == 1
    Path("fit.py").write_text(Path("fit.py").read_text().replace("math.cos", "math.sin"))
    with pytest.raises(gs.GridsearchError, match="has changed since study 'fits' was made"):
        gs.run(study="fits", objective="fit.py:f", more_seeds=1, top=1, **HOW)


def test_a_remark_added_to_a_script_makes_trials_once_and_later_remarks_none(old):
    script = Path("script.py").read_text()
    found = []
    for i in range(3):
        Path("script.py").write_text(script.replace("    return", "    # remark\n" * i + "    return"))
        found.append(runpy.run_path("script.py", run_name="__main__")["found"].new)
        linecache.clearcache()
    assert found == [0, 2, 0]
