"""What a run does while it waits: for a worker that has nothing left to do, or for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gridsearch.records.study_kinds import FUNCTION, IMAGES
from gridsearch.service.prepare.options import Places, RunOptions
from gridsearch.service.run import running

WORDS = ("run", "--dataset", "digits", "--model", "mlp", "--lanes", "1", "--workers", "2", "--json")


@pytest.fixture
def preloads(monkeypatch):
    calls = []
    monkeypatch.setattr("gridsearch.service.run.study_training.preload_report", lambda: calls.append(None))
    return calls


@pytest.mark.end_to_end
def test_the_first_idle_worker_gives_room_to_load_what_the_report_needs_once(cli, preloads):
    done = cli(*WORDS, "--grid", "epochs=1,2,60")
    assert done.code == 0
    assert len(preloads) == 1


@pytest.mark.end_to_end
def test_without_a_report_nothing_is_loaded(cli, preloads):
    assert cli(*WORDS, "--grid", "epochs=1,20", "--no-report").code == 0
    assert not preloads


@pytest.mark.parametrize(
    ("kind", "report", "backend", "loaded"),
    [
        (IMAGES, True, "agg", True),
        (IMAGES, True, None, True),
        (IMAGES, True, "module://no_such.inline", False),
        (IMAGES, False, "agg", False),
        (FUNCTION, True, "agg", False),
    ],
)
def test_what_the_report_needs_is_loaded_while_torch_says_what_there_is_to_train_on(
    tmp_path, monkeypatch, kind, report, backend, loaded
):
    done = []
    monkeypatch.setattr(running, "preload_report", lambda: done.append("loads"))
    monkeypatch.setattr(running, "devices_for", lambda *_: done.append("asks") or ("cpu",))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    if backend is not None:
        monkeypatch.setenv("MPLBACKEND", backend)
    options = RunOptions(places=Places(home=tmp_path, store="", cache=tmp_path), report=report)
    assert running._devices(options, kind) == ("cpu",)
    assert done == ["loads"] * loaded + ["asks"]


def test_preloading_brings_what_draws_and_forgives_what_is_missing():
    script = """
import sys
from gridsearch import reporting

sys.modules["jinja2"] = None  # not installed
reporting.preload()
assert "matplotlib.axes" not in sys.modules
del sys.modules["jinja2"]
reporting.preload()
print(*sorted({"jinja2", "matplotlib.axes", "matplotlib.backends.backend_svg", "scipy.special"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) == 4, done.stdout
