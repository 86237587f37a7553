"""Figures with whatever the user's environment tells matplotlib: in a process of its own, which is what reads it."""

import os
import subprocess
import sys
import threading

import pytest

from gridsearch.reporting import heatmap_figures

DRAW = """
import sys
sys.path.insert(0, {tests!r})
from conftest import StudyBuilder
from gridsearch.reporting import heatmap_figures, confusion_figure
from gridsearch.reporting.figures.rendering import png_bytes, svg_bytes
import numpy as np
data = StudyBuilder({{"lr": [0.1, 0.2], "batch": [1, 2]}}).data()
figure = heatmap_figures(data)["heatmap"]
confusion = confusion_figure(np.eye(3, dtype=int), class_names=["a", "b", "$c$"])
import hashlib
for one in (figure, confusion):
    print(hashlib.sha256(png_bytes(one)).hexdigest(), hashlib.sha256(svg_bytes(one)).hexdigest())
import os, matplotlib
print(os.environ.get("MPLBACKEND"), matplotlib.rcParams["font.size"])
"""

HOSTILE = """
font.size: 31
text.usetex: True
backend: no_such_backend
axes.facecolor: red
interactive: True
svg.fonttype: path
no.such.key: 3
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    from pathlib import Path

    def draw(**variables):
        folder = tmp_path_factory.mktemp("drawn")
        for name, content in variables.pop("files", {}).items():
            (folder / name).write_bytes(content)
        env = {k: v for k, v in os.environ.items() if not k.startswith("MPL")} | variables
        env["MPLCONFIGDIR"] = env.get("MPLCONFIGDIR", str(tmp_path_factory.getbasetemp() / "mpl"))
        script = DRAW.format(tests=str(Path(__file__).parents[1]))
        return subprocess.run(
            [sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False
        )

    return draw


@pytest.fixture(scope="module")
def plain(drawn):
    return drawn().stdout.splitlines()


def test_a_missing_backend_and_a_users_own_matplotlibrc_change_no_figure_and_stay_the_users(drawn, plain):
    found = drawn(files={"matplotlibrc": HOSTILE.encode()}, MPLBACKEND="module://no_such.inline")
    assert (found.returncode, found.stderr) == (0, "")
    lines = found.stdout.splitlines()
    assert lines[:2] == plain[:2]
    assert lines[2] == "module://no_such.inline 31.0"


def test_a_matplotlibrc_that_cannot_be_read_costs_the_pictures_and_says_so(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes("# Größe\nfont.size: 9\n".encode("latin-1"))
    script = (
        "from gridsearch.reporting.figures.gallery import pictures_of\n"
        "found = pictures_of(None, None, predictions=lambda _: None)\n"
        "print(found.by_stem, found.notes)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith("{} ['No figures: a file matplotlibrc")


def test_two_threads_that_draw_leave_the_users_style_as_it_was(study):
    import matplotlib as mpl

    data = study({"lr": [0.1, 0.2], "batch": [1, 2]}).data()
    with mpl.rc_context({"font.size": 31}):
        threads = [threading.Thread(target=lambda: heatmap_figures(data)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert mpl.rcParams["font.size"] == 31
