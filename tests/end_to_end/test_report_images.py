"""Images in a real study's report, and its figures from Python."""

import os
import subprocess
import sys

import pytest

import gridsearch as gs

pytestmark = pytest.mark.end_to_end

TOY = """
import numpy as np

def toy():
    labels = np.arange(120) % 3
    images = np.zeros((120, 1, 12, 12), np.uint8)
    images[np.arange(120), 0, labels * 4] = 200
    images += np.random.default_rng(0).integers(0, 40, images.shape).astype(np.uint8)
    return {"train_images": images, "train_labels": labels, "class_names": ("a", "b", "c")}
"""


def program(*words, home):
    env = {**os.environ, "GRIDSEARCH_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "gridsearch", *words],
        env=env,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_report_does_not_run_a_users_own_dataset_for_its_images_and_says_so(tmp_path, cli):
    (tmp_path / "toy.py").write_text(TOY)
    grid = ("--grid", "lr=.01,.001", "--epochs", "1", "--executor", "inline", "--device", "cpu")
    words = ("run", "--study", "toy", "--dataset", "toy.py:toy", "--model", "mlp", *grid)
    assert cli(*words, "--home", str(tmp_path)).code == 0
    report = tmp_path / "toy" / "report"
    assert (report / "samples.png").exists()  # the run has the images at hand
    (tmp_path / "toy.py").write_text("raise SystemExit('run without being named')")
    program("report", "--study", "toy", home=tmp_path)
    assert not (report / "samples.png").exists()
    assert "is your own code, which a report does not run." in (report / "index.html").read_text()


def test_python_gets_every_figure_of_a_study(tmp_path):
    from matplotlib.figure import Figure

    grid = {"lr": [0.01, 0.001], "batch": [32, 64]}
    where = {"home": tmp_path, "device": "cpu", "executor": "inline", "quiet": True}
    ran = gs.run(grid, dataset="digits", model="mlp", epochs=2, **where)
    report = ran.report_page.parent
    assert (report / "samples.png").exists() and (report / "mistakes.png").exists()
    loaded = gs.load("digits", home=tmp_path)
    for result in (ran, loaded):
        figures = [result.heatmap(), result.curves(), result.marginals(), result.parallel(), result.cost()]
        assert all(isinstance(figure, Figure) for figure in figures)
        assert result.confusion().get_suptitle().startswith(f"Trial {result.ranking.best_trial.number}")
        side_by_side = result.confusion(0, 3)
        assert [a.get_title(loc="left") for a in side_by_side.axes[:2]] == ["Trial 0", "Trial 3"]
    assert len(loaded.predictions().labels) == len(loaded.predictions(2).indices)
    with pytest.raises(gs.GridsearchError, match="no trial 99"):
        loaded.confusion(99)
