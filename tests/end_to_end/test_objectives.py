"""A user's own function, gridded: run, killed, shared, minimized, reported; nothing is lost and nothing is doubled."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

import gridsearch as gs

pytestmark = pytest.mark.end_to_end

FIT = '''
import random, time

def valley(params, seed):
    """Downhill on (x - 1)^2 + y^2."""
    x, y = float(params["x"]), float(params["y"])
    for _ in range(params.get("steps", 5)):
        time.sleep(params.get("wait", 0))
        x, y = x - params["lr"] * 2 * (x - 1), y - params["lr"] * 2 * y
        yield {"loss": (x - 1) ** 2 + y ** 2, "x": x}

def noisy(params, seed):
    print("called with", params)
    return {"value": params["x"] + random.gauss(0, 0.01), "spare": 1, "error": 0.25, "seed": 7}

def fails(params, seed):
    if params["x"] == 1:
        raise ValueError("no such luck")
    return {"value": float("nan") if params["x"] == 2 else params["x"]}
'''

STUDIES = Path(__file__).parents[2] / "studies"
VALLEY = ("run", "--objective", "fit.py:valley", "--metric", "loss", "--direction", "minimize")
GRID = ("--grid", "x=-1..3:1", "y=0,1", "lr=.1,.4")


@pytest.fixture(autouse=True)
def _fit(tmp_path):
    (tmp_path / "fit.py").write_text(FIT)


def test_a_function_is_gridded_ranked_and_reported_and_done_the_second_time(cli, home):
    done = cli(*VALLEY, *GRID, "--executor", "inline", "--json")
    assert done.code == 0, done.err
    report = done.json
    assert (report["metric"], report["direction"], report["objective"]) == (
        "loss",
        "minimize",
        "fit.py:valley",
    )
    assert report["points"][0]["params"] == {"x": 1, "y": 0, "lr": 0.1}
    means = [point["mean"] for point in report["points"]]
    assert means == sorted(means)
    assert all(t["val_accuracy"] is None and t["metrics"]["loss"] == t["value"] for t in report["trials"])
    assert {path.name for path in (home / "valley" / "report").iterdir()} >= {
        "index.html",
        "curves.png",
        "heatmap.png",
    }
    again = cli(*VALLEY, *GRID, "--executor", "inline", "--json", "--no-report").json
    assert (again["new"], again["reused"]) == (0, 20)
    shown = cli("trial", "0", "--study", "valley")
    assert "steps     5" in shown.out
    assert cli("trial", "0", "--study", "valley", "--json").json["curves"][4]["step"] == 5


def test_replicates_differ_by_their_seeds_alone(cli):
    words = ("run", "--objective", "fit.py:noisy", "--grid", "x=1,2", "--seeds", "3", "--executor", "inline")
    report = cli(*words, "--no-report", "--json").json
    values = {(t["params"]["x"], t["seed"]): t["value"] for t in report["trials"]}
    assert values[2, 0] - values[1, 0] == pytest.approx(1, abs=1e-12), "the same luck at every point"
    assert len({values[1, seed] for seed in range(3)}) == 3
    assert report["points"][0]["params"] == {"x": 2}
    assert report["points"][0]["n"] == 3
    log = cli("trial", "0", "--study", "noisy").out
    assert "called with {'x': 1}" in log
    lines = [line.split() for line in log.splitlines()]
    assert ["seed", "0"] in lines and ["metrics.seed", "7"] in lines and ["metrics.error", "0.25"] in lines


def test_points_that_raise_fail_the_rest_goes_on_and_the_next_run_offers_them_again(cli, tmp_path):
    here = ("--executor", "inline", "--no-report", "--json")
    words = ("run", "--objective", "fit.py:fails", "--grid", "x=0..3:1", *here)
    done = cli(*words)
    assert done.code == 3
    counts = done.json["counts"]
    assert (counts["complete"], counts["diverged"], counts["failed"]) == (2, 1, 1)
    (failed,) = (t for t in done.json["trials"] if t["state"] == "failed")
    assert failed["error"] == "ValueError: no such luck"
    resumed = cli("run", "--study", "fails", "--objective", "fit.py:fails", *here)
    assert resumed.code == 3
    (tmp_path / "fit.py").write_text(FIT.replace('raise ValueError("no such luck")', "pass"))
    changed = cli("run", "--study", "fails", "--objective", "fit.py:fails", "--executor", "inline")
    assert changed.code == 2
    assert (
        changed.error == "objective 'fit.py:fails' has changed since study 'fails' was made: fit.py is edited"
    )
    mended = cli(*words)
    assert mended.code == 0
    assert mended.json["new"] == 4, "a changed function makes new trials beside the old"


def test_a_point_whose_dict_lacks_the_metric_fails_with_the_file_and_the_key_and_the_rest_goes_on(
    cli, tmp_path
):
    (tmp_path / "half.py").write_text(
        "def half(params, seed):\n    return {'lost' if params['x'] == 1 else 'loss': params['x']}\n"
    )
    (tmp_path / "half.toml").write_text(
        'objective = "half.py:half"\nmetric = "loss"\ndirection = "minimize"\n[grid]\nx = [0, 1, 2]\n'
    )
    done = cli("run", "half.toml", "--executor", "inline", "--json", "--no-report")
    assert done.code == 3
    found = {t["params"]["x"]: (t["state"], t["error"]) for t in done.json["trials"]}
    problem = "half.py:half returned no 'loss', but 'lost'; --metric names what ranks"
    assert found == {0: ("complete", None), 1: ("failed", problem), 2: ("complete", None)}
    assert problem in done.err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("fit.py:nothing", "--grid", "x=1"), "objective 'fit.py:nothing': 'nothing' is not in it"),
        (("none.py:f", "--grid", "x=1"), "objective 'none.py:f': no such file"),
        (("wrong.py:f", "--grid", "x=1"), "objective 'wrong.py:f' cannot be called with params and a seed: "),
        (("wrong.py:swapped", "--grid", "x=1"), "objective 'wrong.py:swapped' takes seed before params"),
        (
            ("wrong.py:apart", "--grid", "lr=1", "batch=2"),
            "objective 'wrong.py:apart' takes lr and batch one by one, and is called with params, a dict, and a seed",
        ),
        (
            ("wrong.py:apart", "--grid", "a=1", "--set", "batch=2"),
            "objective 'wrong.py:apart' takes batch one by one",
        ),
        (
            ("wrong.py:given", "--grid", "x=1"),
            "objective 'wrong.py:given' would get the seed for its argument 'epochs'",
        ),
        (("wrong.py:waits", "--grid", "x=1"), "objective 'wrong.py:waits' is asynchronous"),
        (("broken.py:f", "--grid", "x=1"), "objective 'broken.py:f' does not import: ZeroDivisionError"),
        (("fit.py", "--grid", "x=1"), "objective 'fit.py' is a file: which class or function in it?"),
        (("fit.py:noisy", "--grid", "x=1", "--device", "cuda"), "--device cuda: a plain function"),
    ],
)
def test_a_function_that_cannot_be_called_is_told_before_anything_is_written(
    cli, home, tmp_path, words, error
):
    (tmp_path / "wrong.py").write_text(
        "def f(x): return {}\ndef swapped(seed, params): return {}\n"
        "def apart(lr, batch): return {}\ndef given(params, epochs=10): return {}\n"
        "async def waits(params, seed): return {}\n"
    )
    (tmp_path / "broken.py").write_text("1 / 0")
    done = cli("run", "--objective", *words)
    assert done.code == 2
    assert done.error.startswith(error)
    assert not home.exists()


def test_a_stored_function_runs_only_when_it_is_named_and_best_has_nothing_to_train(cli):
    cli(*VALLEY, "--grid", "x=1", "y=0", "lr=.1", "--executor", "inline", "--no-report")
    done = cli("run", "--study", "valley")
    assert (done.code, "whose code runs only when it is named" in done.error) == (2, True)
    assert "add --objective fit.py:valley" in done.err
    assert cli("run", "--study", "valley", "--objective", "fit.py:noisy").code == 2
    assert cli("run", "--study", "valley", "--model", "lenet", "--objective", "fit.py:valley").code == 2
    best = cli("best", "--study", "valley")
    assert (best.code, "there is no network to train again" in best.error) == (2, True)


def test_a_plan_tells_points_and_later_the_time_of_earlier_calls(cli, home):
    plan = cli("plan", *VALLEY[1:], *GRID, "--json").json
    assert (plan["points"], plan["new"], plan["seconds"]) == (20, 20, None)
    assert [(g["model"], g["batch"], g["lanes"], g["method"]) for g in plan["groups"]] == [
        ("fit.py:valley", None, 1, "solo")
    ]
    assert not home.exists()
    cli(*VALLEY, *GRID, "--executor", "inline", "--no-report")
    more = cli("plan", *VALLEY[1:], "--grid", "x=-1..8:1", "y=0,1", "lr=.1,.4", "--json").json
    assert (more["new"], more["done"]) == (20, 20)
    assert more["seconds"] is not None


def test_pruning_respects_the_direction_that_is_better(cli):
    words = (*VALLEY, "--grid", "x=2..13:1", "y=0", "lr=.1", "--set", "steps=9", "--executor", "inline")
    report = cli(*words, "--prune", "median", "--no-report", "--json").json
    states = {t["params"]["x"]: t["state"] for t in report["trials"]}
    assert all(states[x] == "complete" for x in (2, 3, 4, 5, 6))
    assert "pruned" in {states[x] for x in range(10, 14)}
    pruned = next(t for t in report["trials"] if t["state"] == "pruned")
    assert pruned["error"].startswith("pruned by median after step ")


def test_a_grid_from_python_takes_the_function_itself():
    def bowl(params, seed):
        yield {"value": -((params["x"] - 1) ** 2) + seed}

    how = {"seeds": 2, "study": "mine", "report": False, "quiet": True}
    result = gs.run({"x": [0, 1, 2]}, objective=bowl, recipe={"spare": "word"}, **how)
    assert result.best == {"x": 1}
    assert list(result.epochs.columns) == ["number", "x", "seed", "step", "value", "seconds"]
    assert len(result.epochs) == 6
    assert result.curves() is not None
    assert (result.confusion(), result.predictions()) == (None, None)
    assert list(result.trials["value"]) == [-1.0, 0.0, 0.0, 1.0, -1.0, 0.0]


def test_a_script_without_a_main_guard_grids_its_own_function_in_workers(tmp_path):
    (tmp_path / "script.py").write_text(
        "import gridsearch as gs\n"
        "import os\nme = os.getpid()\n"
        "def f(params, seed):\n    return {'value': params['x'], 'elsewhere': os.getpid() != me}\n"
        "r = gs.run({'x': [1, 2]}, objective=f, report=False)\n"
        "print(r.best, r.trials.elsewhere.tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "{'x': 2} [1.0, 1.0]\n"), done.stderr
    assert "warning" not in done.stderr


def start(tmp_path, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "gridsearch", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )


SLOW = (*VALLEY, "--grid", "x=-1..4:1", "y=0,1", "lr=.1,.4", "--set", "wait=.02", "steps=15", "--no-report")


def check_all_complete_once(home):
    study = optuna.load_study(study_name="valley", storage=f"sqlite:///{home / 'gridsearch.db'}")
    assert {t.state for t in study.trials} == {optuna.trial.TrialState.COMPLETE}
    assert len({tuple(t.params.values()) for t in study.trials}) == len(study.trials) == 24
    assert all(sorted(t.intermediate_values) == list(range(1, 16)) for t in study.trials)
    with sqlite3.connect(home / "gridsearch.db") as connection:
        counts = connection.execute("SELECT count(*) FROM gridsearch_steps GROUP BY trial_id").fetchall()
    connection.close()
    assert counts == [(15,)] * 24


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path, home, cli):
    complete = 0
    for seconds in (2.5, 3.5):
        runner = start(tmp_path, *SLOW, "--workers", "2")
        time.sleep(seconds)
        runner.send_signal(signal.SIGKILL)
        runner.communicate()
        if (home / "gridsearch.db").exists():
            found = cli("status", "--json").json["studies"]
            assert not found or found[0]["counts"]["complete"] >= complete
            complete = found[0]["counts"]["complete"] if found else 0
    last = start(tmp_path, *SLOW, "--workers", "2")
    _, err = last.communicate(timeout=120)
    assert last.returncode == 0, err
    check_all_complete_once(home)


def test_two_runners_share_a_study_of_a_function(tmp_path, home):
    runners = [start(tmp_path, *SLOW, "--workers", "1", "--json") for _ in range(2)]
    outs = [runner.communicate(timeout=120) for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], outs
    assert sum(json.loads(out)["new"] for out, _ in outs) == 24
    check_all_complete_once(home)


def test_a_function_that_ends_its_process_fails_alone(program, tmp_path):
    (tmp_path / "die.py").write_text(
        "import os\ndef f(params, seed):\n    if params['x'] == 1: os._exit(7)\n    return {'value': params['x']}\n"
    )
    done = program(
        "run", "--objective", "die.py:f", "--grid", "x=0..3:1", "--retries", "1", "--json", "--no-report"
    )
    assert done.code == 3, done.err
    states = {t["params"]["x"]: t["state"] for t in done.json["trials"]}
    assert states == {0: "complete", 1: "failed", 2: "complete", 3: "complete"}


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_report_of_a_function_reads_as_one_and_says_nothing_of_images(cli, home, browse):
    cli(*VALLEY, *GRID, "--seeds", "2", "--executor", "inline")
    browse.page.goto((home / "valley" / "report" / "index.html").as_uri())
    text = browse.page.locator("body").inner_text()
    assert "valley of fit.py:valley" in " ".join(text.split())
    assert "loss, the lower the better" in text
    for word in ("accuracy", "image", "confusion", "validation", "%  ", "epoch"):
        assert word not in text.lower().replace("95 % interval", ""), word
    first = browse.page.locator("#points tbody tr").first.inner_text().split()
    assert first[:4] == ["1", "1", "0", "0.1"]
    assert browse.page.locator("section img, section figure img").count() >= 4
    assert browse.problems == []


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("deepl-intro-linear", lambda point: point["mean"] < 0.5),
        ("deepl-intro-nonlinear", lambda point: point["mean"] < 0.05),
        ("deepl-intro-logistic", lambda point: point["mean"] > 0.8),
        ("deepl-intro-minimum", lambda point: point["mean"] < 1e-9),
    ],
)
def test_the_first_steps_find_what_they_look_for(cli, name, best):
    words = ("run", str(STUDIES / f"{name}.toml"), "--seeds", "1")
    done = cli(*words, "--executor", "inline", "--json", "--no-report", "-q")
    assert done.code == 0, done.err
    assert best(done.json["points"][0]), done.json["points"][0]
