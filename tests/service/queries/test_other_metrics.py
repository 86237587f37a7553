"""Reports by another metric than the study's own: real trials, real store, command line and Python."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

import gridsearch as gs
from gridsearch.cli import main
from gridsearch.errors import ArtifactError, GridsearchWarning, UsageError
from gridsearch.reporting.ranking.comparison import compare
from gridsearch.reporting.ranking.winner_differences import Side

pytestmark = pytest.mark.end_to_end

METRICS = {
    "accuracy": "val_accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "macro_f1": "macro_f1",
    "loss": "val_loss",
    "ece": "ece",
    "top3": "top3",
    "auc": "auc",
    "recall:3": "recall:3",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a home with a study of three points of one seed on digits, of which one learns nothing."""
    place = tmp_path_factory.mktemp("ranked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDSEARCH_CACHE", str(place / "cache"))
        how = {"home": place / "home", "executor": "inline", "quiet": True, "report": False}
        gs.run({"lr": [0.01, 0.003, 1e-7]}, dataset="digits", model="mlp", epochs=2, **how)
        yield place / "home"


@pytest.fixture(scope="module")
def loaded(home):
    return gs.load("digits", home=home)


def call(capsys, home, *words) -> tuple[int, str, str]:
    code = main([*words, "--home", str(home)])
    found = capsys.readouterr()
    return code, found.out, found.err


@pytest.mark.parametrize("word", METRICS)
def test_python_ranks_by_the_value_of_the_stored_predictions_in_its_direction(loaded, word):
    by = loaded.by(word)
    assert by.ranking.metric == METRICS[word]
    direction = "minimize" if word in ("loss", "ece") else "maximize"
    content = by.to_json()
    assert (content["metric"], content["direction"]) == (METRICS[word], direction)
    values = {t["number"]: t["value"] for t in content["trials"]}
    order = sorted(values.values(), reverse=direction == "maximize")
    assert [p["mean"] for p in content["points"]] == order
    assert all(p["ci_low"] <= p["mean"] <= p["ci_high"] for p in content["points"])
    if word == "macro_f1":
        stored = loaded.predictions(0)
        expected = sk.f1_score(stored.labels, stored.guesses, average="macro")
        assert values[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_the_report_by_a_metric_lies_beside_the_whole_and_says_so(home, capsys):
    assert call(capsys, home, "report", "--study", "digits")[0] == 0
    whole = (home / "digits/report/ranking.json").read_bytes()
    code, out, err = call(capsys, home, "report", "--study", "digits", "--by", "ece", "--json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert (content["metric"], content["study_metric"]) == ("ece", "val_accuracy")
    assert (home / "digits/report/ranking.json").read_bytes() == whole
    page = (home / "digits/report-by=ece/index.html").read_text()
    assert "Ranked by expected calibration error; the study itself is ranked by validation accuracy." in page
    assert "the lower the better" in page
    listed = (home / "digits/report/index.html").read_text()
    assert "Ranked by expected calibration error" in listed
    assert json.loads((home / "digits/report-by=ece/ranking.json").read_text()) == content


@pytest.mark.usefixtures("undrawn")
def test_a_part_by_a_class_s_recall_has_a_folder_of_its_own_whatever_the_class_is_called(home, capsys):
    words = ("report", "--study", "digits", "--by", "recall:3", "--where", "lr=.01")
    code, out, _ = call(capsys, home, *words)
    assert code == 0
    assert (
        "Only trials with lr=0.01: 1 of 3. Ranked by recall of 3; the study itself is ranked by"
        in " ".join(out.split())
    )
    (page,) = home.glob("digits/report-by=recall-3*/index.html")
    assert str(page) in out
    assert (
        "Only trials with lr=0.01 (1 trial), ranked by recall of 3"
        in (home / "digits/report/index.html").read_text()
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--by", "makro_f1"], 2, "metric 'makro_f1' is not known; did you mean 'macro_f1'?"),
        (["--by", "recall:thre"], 2, "study 'digits' has no class 'thre'"),
        (["--by", ""], 2, "metric '' is not known"),
        (["--by", "auc", "--trial", "1"], 2, "no --where or --by"),
    ],
)
def test_a_wrong_metric_or_class_is_one_line_and_nothing_is_written(home, capsys, words, code, message):
    before = set(home.rglob("*"))
    found, out, err = call(capsys, home, "report", "--study", "digits", *words)
    assert (found, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) <= 2
    assert set(home.rglob("*")) == before


def test_without_their_predictions_trials_are_named_and_none_can_be_ranked_by_what_only_these_give(
    home, tmp_path, capsys
):
    import shutil

    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    (copy / "digits/trials/1/predictions.safetensors").unlink()
    with pytest.warns(GridsearchWarning, match="not ranked by auc: trial 1"):
        by = gs.load("digits", home=copy).by("auc")
    assert [p.mean is None for p in by.ranking.points] == [False, False, True]
    for number in (0, 2):
        (copy / f"digits/trials/{number}/predictions.safetensors").unlink()
    before = set(copy.rglob("*"))
    code, out, err = call(capsys, copy, "report", "--study", "digits", "--by", "auc")
    assert (code, out) == (4, "")
    assert "no trial of study 'digits' can be ranked by auc: trial 0" in err
    assert set(copy.rglob("*")) == before
    code, out, err = call(capsys, copy, "report", "--study", "digits")
    assert code == 0
    assert (err.count("cannot be read"), err.count("(and 2 others like it)")) == (1, 1)
    assert gs.load("digits", home=copy).by("macro_f1").ranking.best is not None  # a trial records it
    with pytest.raises(ArtifactError):
        gs.load("digits", home=copy).by("ece")


def test_export_has_the_metric_as_its_value(home, capsys):
    code, out, _ = call(capsys, home, "export", "--study", "digits", "--by", "auc")
    assert code == 0
    header, first = (line.split(",") for line in out.splitlines()[:2])
    row = dict(zip(header, first, strict=True))
    assert row["value"] == row["auc"] != row["val_accuracy"]


def test_studies_are_compared_by_another_metric_with_an_interval(home, loaded):
    how = {"home": home, "executor": "inline", "quiet": True, "report": False}
    other = gs.run({"lr": [0.002]}, study="other", dataset="digits", model="mlp", epochs=2, **how)
    found = gs.compare("digits", "other", by="ece", home=home)
    assert "by=ece" in found.page.parent.name
    for metric in ("ece", "macro_f1", "top3"):
        sides = [
            Side(data=by.data, ranking=by.ranking, predictions=result.predictions)
            for result in (loaded, other)
            for by in [result.by(metric)]
        ]
        first, second = compare(sides).sides
        (gap,) = compare(sides).differences
        assert gap.behind >= 0
        assert gap.ci_low < gap.ci_high and "paired over the" in gap.method
        assert abs(first.winner.mean - second.winner.mean) == pytest.approx(gap.behind, abs=1e-9)


@pytest.fixture(scope="module")
def function(tmp_path_factory):
    """A study of a function that returns several metrics: ranked by one, of another there is not always a value."""
    home = tmp_path_factory.mktemp("function")

    def f(params, seed):
        x = params["x"]
        hits = float("inf") if x == 3 else x
        return {"acc": x / 10 + seed / 100, "val_loss": (x - 2) ** 2 + seed / 10, "hits": hits, "secs": -x}

    gs.run(
        {"x": [1, 2, 3]},
        objective=f,
        metric="acc",
        seeds=2,
        study="f",
        home=home,
        executor="inline",
        quiet=True,
    )
    return home


def test_a_study_of_a_function_is_ranked_by_any_metric_that_it_returned(function):
    result = gs.load("f", home=function)
    by = result.by("val_loss")
    assert (by.best, by.ranking.direction) == ({"x": 2}, "minimize")
    assert [p.mean for p in by.ranking.points] == pytest.approx([0.05, 1.05, 1.05])
    low, high = stats.t.interval(0.95, 1, loc=0.05, scale=np.std([0, 0.1], ddof=1) / math.sqrt(2))
    assert (by.ranking.best.ci_low, by.ranking.best.ci_high) == pytest.approx((low, high))
    assert list(by.trials.value) == pytest.approx([1, 1.1, 0, 0.1, 1, 1.1])
    assert result.by("secs").best == {"x": 1} and result.by("secs:minimize").best == {"x": 3}
    assert result.by("acc").best == by.by("acc").best == {"x": 3}
    assert by.by("acc").data.own_metric == ""
    with pytest.raises(
        UsageError, match="study 'f' has no metric 'macro_f1'; known: acc, hits, secs, val_loss"
    ):
        result.by("macro_f1")
    with pytest.raises(UsageError, match="itself is ranked by 'acc', with direction maximize"):
        result.by("acc:minimize")


def test_points_without_a_functions_metric_are_said_to_have_none(function, capsys):
    with pytest.warns(
        GridsearchWarning, match=r"not ranked by hits: 2 trials without a finite value \(4, 5\)"
    ):
        assert gs.load("f", home=function).by("hits").best == {"x": 2}
    code, out, err = call(capsys, function, "report", "--study", "f", "--by", "hits")
    assert code == 0 and "not ranked by hits" in err
    assert out.startswith("Ranked by hits; the study itself is ranked by acc.\n")
    assert "\tx=3\t0\tno value\t" in out
    call(capsys, function, "report", "--study", "f", "--by", "secs:minimize")
    page = (function / "f/report-by=secs,minimize/index.html").read_text()
    assert "Ranked by secs, the lower the better; the study itself is ranked by acc." in page


def test_the_front_has_measured_latencies_in_text_figure_page_and_json(home, capsys, monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(home.parent / "cache"))
    code, out, err = call(
        capsys, home, "report", "--study", "digits", "--pareto", "accuracy,parameters,latency"
    )
    assert (code, err) == (0, "")
    assert "latency (less is better)" in " ".join(out.split())
    folder = home / "digits/report"
    found = json.loads((folder / "ranking.json").read_text())["pareto"]
    assert [q["name"] for q in found["quantities"]] == ["val_accuracy", "parameters", "latency"]
    assert found["latency"]["batch"] == 1 and found["latency"]["threads"] == 1
    assert found["latency"]["processor"] and found["latency"]["version"]
    for point in found["points"]:
        low, high = point["intervals"]["latency"]
        assert 0 < low <= point["values"]["latency"] <= high
        assert point["intervals"]["val_accuracy"] is not None
    values = {p["values"]["latency"] for p in found["points"]}
    assert len(values) == 1, "one network: measured once"
    assert [p["front"] for p in found["points"]].count(True) == 1
    assert (folder / "pareto.png").is_file() and (folder / "pareto.svg").is_file()
    page = (folder / "index.html").read_text()
    assert "Best trade-offs" in page and "for a batch of 1 image" in page
    kept = json.loads((home.parent / "cache/latencies.json").read_text())
    assert len(kept) == 1 and found["latency"]["processor"] in next(iter(kept))
    frame = gs.load("digits", home=home).pareto()
    assert set(frame.latency) == values, "the second time it comes from the cache"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pareto", "accuracy,latensy"], "unknown quantity 'latensy'; did you mean 'latency'?"),
        (["--pareto", "accuracy"], "takes two quantities or more"),
        (["--pareto", "accuracy,recall:x"], "study 'digits' has no class 'x'"),
        (["--model", "my.py:Net"], "--model has no effect without --pareto"),
        (["--pareto", "accuracy,latency", "--trial", "1"], "and no --trial"),
    ],
)
def test_a_front_of_what_is_not_known_is_one_line_and_nothing_is_written(home, capsys, words, message):
    def times():
        # a folder's own time tells of the lock, too, which is gone afterwards
        return {path: path.stat().st_mtime_ns if path.is_file() else None for path in home.rglob("*")}

    before = times()
    code, out, err = call(capsys, home, "report", "--study", "digits", *words)
    assert (code, out) == (2, "")
    assert message in err and len(err.splitlines()) <= 2
    assert times() == before


def test_a_latency_of_your_own_network_needs_its_code_named_again(tmp_path, home, monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(home.parent / "cache"))
    net = tmp_path / "my_net.py"
    net.write_text(
        "from torch import nn\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes, hidden=8):\n"
        "        super().__init__()\n"
        "        self.hidden = nn.LazyLinear(hidden)\n"
        "        self.out = nn.Linear(hidden, num_classes)\n\n"
        "    def forward(self, x):\n"
        "        return self.out(self.hidden(x.flatten(1)).relu())\n"
    )
    how = {"home": tmp_path / "h", "executor": "inline", "quiet": True, "report": False, "subset": 100}
    gs.run({"model.hidden": [4, 400]}, dataset="digits", model=f"{net}:Net", epochs=1, **how)
    result = gs.load("digits", home=tmp_path / "h")
    with pytest.raises(UsageError, match="uses your own model") as refused:
        result.pareto("accuracy", "latency")
    assert 'model="' in refused.value.hint
    frame = result.pareto("accuracy", "latency", model=f"{net}:Net")
    assert set(frame["model.hidden"]) == {4, 400}
    assert (frame.latency_low <= frame.latency).all() and (frame.latency > 0).all()
