"""Every number of small random studies with holes, computed once more by numpy and scipy from the trials alone."""

from __future__ import annotations

import csv
import io
import itertools
import re

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from gridsearch.records import TrialState
from gridsearch.reporting import print_ranking, rank, report_json
from gridsearch.reporting.exports.paper_tables import latex_table, markdown_table
from gridsearch.reporting.output.plain_tables import ranking_csv

SHARES = {
    TrialState.DIVERGED: 0.08,
    TrialState.FAILED: 0.08,
    TrialState.WAITING: 0.04,
    TrialState.RUNNING: 0.04,
}


def random_study(study, rng):
    """Return a study of two or three axes and one to four seeds, where trials are missing, lost or pruned."""
    axes = {
        "lr": [0.1, 0.01, 0.001][: rng.integers(1, 4)],
        "batch": [10, 20, 50][: rng.integers(1, 4)],
        "norm": ["none", "standard"][: rng.integers(1, 3)],
    }
    builder = study(axes, seeds=int(rng.integers(1, 5)), noise=float(rng.choice([0.002, 0.05])))
    for record in list(builder.records):
        state = rng.choice([*SHARES, "pruned", "complete"], p=[*SHARES.values(), 0.08, 0.68])
        if state == "pruned":
            builder.prune(record.number, int(rng.integers(1, 5)), "median")
        elif state != "complete":
            builder.lose(record.number, TrialState(state), "boom")
    gone = [r.number for r in builder.records if rng.random() < 0.12][: len(builder.records) - 1]
    return builder.without(*gone).data()


class Point:
    """A point's trials and what follows from them."""

    def __init__(self, trials):
        self.trials, self.params = trials, dict(trials[0].params)
        complete = [t for t in trials if t.state is TrialState.COMPLETE]
        self.values = np.array([t.metrics["val_accuracy"] for t in complete])
        self.losses = np.array([t.metrics["val_loss"] for t in complete])
        self.diverged, self.pruned = (
            sum(t.state is state for t in trials) for state in (TrialState.DIVERGED, TrialState.PRUNED)
        )
        self.mean = self.values.mean() if complete else None
        self.tier = (2 if complete else 4) if self.diverged else (self.pruned > 0 if complete else 5)


def points_of(data):
    groups = {}
    for trial in data.trials:
        groups.setdefault(tuple(trial.params.items()), []).append(trial)
    points = [Point(trials) for trials in groups.values()]
    return sorted(points, key=lambda p: (p.tier, -(p.mean or 0), p.trials[0].number))


def shares_of(points, axes):
    """Return what each axis and pair explains beyond all terms that do not contain it, and what is left: by lstsq."""
    points = [p for p in points if p.mean is not None and not p.diverged]
    axes = [a for a in axes if len({p.params[a] for p in points}) > 1]
    rows = [p for p in points for _ in p.values]
    y = np.concatenate([p.values for p in points]) if points else np.zeros(0)
    terms = [(a,) for a in axes] + list(itertools.combinations(axes, 2))
    if not axes:
        return {}, None

    def left(chosen):
        columns = [np.ones(len(y))]
        for term in chosen:
            keys = [tuple(p.params[a] for a in term) for p in rows]
            columns += [np.array([key == own for key in keys], float) for own in set(keys)]
        x = np.stack(columns, axis=1)
        return ((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2).sum() / ((y - y.mean()) ** 2).sum()

    def share(term):
        others = [t for t in terms if not set(term) <= set(t)]
        return left(others) - left([*others, term])

    return {",".join(sorted(term)): max(0.0, share(term)) for term in terms}, left(terms)


@pytest.mark.parametrize("number", range(24))
def test_ranking_json_csv_and_tables_show_what_the_trials_say(study, number):
    data = random_study(study, np.random.default_rng(number))
    points, ranking = points_of(data), rank(data)
    report = report_json(data, ranking=ranking)
    rows = list(csv.DictReader(io.StringIO(ranking_csv(data, ranking=ranking).decode())))
    assert len(report["points"]) == len(rows) == len(points)
    for told, row, point in zip(report["points"], rows, points, strict=True):
        n = len(point.values)
        assert (told["params"], told["n"], told["diverged"], told["pruned"]) == (
            point.params, n, point.diverged, point.pruned,
        )  # fmt: skip
        ahead = [p for p in points if (p.tier, -(p.mean or 0)) < (point.tier, -(point.mean or 0))]
        assert told["rank"] == (None if point.tier == 5 else 1 + len(ahead))
        wanted = {"mean": point.mean, "spread": point.values.std(ddof=1) if n > 1 else None}
        if n > 1:
            low, high = stats.t.interval(0.95, n - 1, loc=point.mean, scale=stats.sem(point.values))
            wanted |= {"ci_low": max(low, 0), "ci_high": min(high, 1)}
        for name, value in wanted.items():
            assert told[name] == (None if value is None else pytest.approx(value, rel=1e-9)), name
            assert (float(row[name]) if row[name] else None) == told[name]
        assert told["metrics"].get("val_loss") == (pytest.approx(point.losses.mean()) if n else None)
    shares, left = shares_of(points, data.axes)
    assert {e["axis"]: e["share"] for e in report["effects"]} == pytest.approx(shares, abs=1e-7)
    assert report["residual_share"] == (None if left is None else pytest.approx(left, abs=1e-7))
    assert report["counts"] == {s.value: sum(t.state is s for t in data.trials) for s in TrialState}

    console = Console(width=200, file=io.StringIO(), no_color=True)
    print_ranking(data, console=console, ranking=ranking, limit=1000)
    for text in (console.file.getvalue(), latex_table(data, ranking), markdown_table(data, ranking)):
        lines = [
            line
            for line in text.splitlines()
            if re.match(r"[^\w#]*(\d+=?|[-\u2013\u2014]+)[^\w#]+(lr=|none|standard|[\d.]+ )", line)
        ]
        assert len(lines) == len(points), text
        for line, point in zip(lines, points, strict=True):
            shown = re.search(r"(\d+\.\d+)(?: (?:±|\$\\pm\$) \d+\.\d+)? \\?%", line)
            assert (shown is None) == (point.mean is None), line
            if shown is not None:
                places = len(shown[1].partition(".")[2])
                assert abs(float(shown[1]) - 100 * point.mean) <= 0.5001 * 10**-places, line
