"""What goes wrong in searches by hand, shown with our own runs: choosing by train accuracy, on the test set, on one seed.

``python -m tests.benchmarks.lessons [--home DIR] [--seeds N]``

It reads studies that `python -m tests.benchmarks.studies` has trained, and trains the leading points of `mpalaourg-2`
with more seeds.  Nothing here reads a test set.  Its part is played by one half of the 10,000 images held out: choose by
one half, and the other half says what the choice is worth on images that had no part in it.  Halves are drawn 200 times
from a fixed seed; choices are made seed by seed, as somebody would who has trained every point once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import gridsearch as gs
from tests.benchmarks.measure import hardware
from tests.benchmarks.studies import RESULTS, ROOT

SEARCHED = ("mpalaourg-1", "mpalaourg-2", "maccarini")
MANY = "mpalaourg-2"
TOP = 2
HALVES = 200
FIGURE = RESULTS / "seeds.png"


def hits_of(result: gs.StudyResult) -> dict[int, dict[str, Any]]:
    """Return for each seed that has every point its trials: their points, train accuracies [T] and hits on held-out images [T, N]."""
    found: dict[int, dict[str, Any]] = {}
    for trial in result.data.trials:
        if trial.state != "complete":
            continue
        said = result.predictions(trial.number)
        assert said is not None
        of_seed = found.setdefault(trial.seed, {"points": [], "train": [], "hits": []})
        of_seed["points"].append(dict(trial.params))
        of_seed["train"].append(trial.metrics["train_accuracy"])
        of_seed["hits"].append(said.logits.argmax(1) == said.labels)
    whole = max(len(s["points"]) for s in found.values())
    return {
        seed: {"points": s["points"], "train": np.array(s["train"]), "hits": np.stack(s["hits"])}
        for seed, s in found.items()
        if len(s["points"]) == whole
    }


def choices(trials: dict[str, Any], rng: np.random.Generator) -> dict[str, float]:
    """Return what choosing by train accuracy and by held-out images gives, on images that had no part in the choice.

    Returns:
        `by_train`: accuracy of the trial with the best train accuracy; `by_held_out`: of the one that is best on a
        half, on the other half; `claimed`: the latter's accuracy on the half that chose it.
    """
    hits_TN = trials["hits"]
    by_train = int(trials["train"].argmax())
    count = hits_TN.shape[1]
    fair, claimed, train = [], [], []
    for _ in range(HALVES):
        order = rng.permutation(count)
        chooses, judges = hits_TN[:, order[: count // 2]].mean(1), hits_TN[:, order[count // 2 :]].mean(1)
        best = int(chooses.argmax())
        fair.append(judges[best])
        claimed.append(chooses[best])
        train.append(judges[by_train])
    return {
        "by_train": float(np.mean(train)),
        "by_held_out": float(np.mean(fair)),
        "claimed": float(np.mean(claimed)),
    }


def of_study(result: gs.StudyResult) -> dict[str, Any]:
    """Return the lessons of one study, as means over its seeds."""
    rng = np.random.default_rng(0)
    each, chosen = [], []
    for trials in hits_of(result).values():
        each.append(choices(trials, rng))
        chosen.append(
            {
                "by_train": trials["points"][int(trials["train"].argmax())],
                "by_held_out": trials["points"][int(trials["hits"].mean(1).argmax())],
            }
        )
    means = {name: statistics.fmean(one[name] for one in each) for name in each[0]}
    return {
        "seeds": len(each),
        "trials_of_a_seed": len(result.ranking.points),
        **means,
        "cost_of_choosing_by_train": means["by_held_out"] - means["by_train"],
        "too_high_by": means["claimed"] - means["by_held_out"],
        "chosen": chosen,
    }


def more_seeds(home: Path, seeds: int) -> None:
    """Give the leading points of a study so many seeds in all."""
    result = gs.load(MANY, home=home)
    missing = seeds - min(point.n for point in result.ranking.points[:TOP])
    if missing > 0:
        words = (
            "run",
            "--study",
            MANY,
            "--more-seeds",
            str(missing),
            "--top",
            str(TOP),
            "--home",
            str(home),
            "-q",
        )
        subprocess.run(
            [sys.executable, "-m", "gridsearch", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )


def luck(result: gs.StudyResult, seeds: int) -> dict[str, Any]:
    """Return how far seeds part the same point, beside how far the points lie apart."""
    values: dict[str, list[float]] = {}
    for trial in sorted(result.data.trials, key=lambda t: t.seed):
        if trial.state == "complete":
            values.setdefault(json.dumps(dict(trial.params)), []).append(trial.metrics["val_accuracy"])
    many = {params: v for params, v in values.items() if len(v) >= seeds}
    leading = sorted(values, key=lambda params: -values[params][0])
    means = sorted((statistics.fmean(v) for v in values.values()), reverse=True)
    return {
        "points": {
            params: {
                "n": len(v),
                "least": min(v),
                "most": max(v),
                "sd": statistics.stdev(v),
                "mean": statistics.fmean(v),
                "values": v,
            }
            for params, v in many.items()
        },
        "gaps_between_the_best_points": [a - b for a, b in pairwise(means[:6])],
        "winner_of_the_first_seed": json.loads(leading[0]),
        "range_of_a_point": max(max(v) - min(v) for v in many.values()),
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the accuracy of each seed of the points that have many."""
    import matplotlib as mpl

    mpl.use("Agg")
    import seaborn as sns
    from matplotlib import pyplot as plt

    points = found["luck"]["points"]
    sns.set_theme(style="whitegrid", font_scale=0.9)
    figure, axes = plt.subplots(figsize=(9, 0.6 * len(points) + 1.1), layout="constrained")
    ordered = sorted(points, key=lambda params: -points[params]["mean"])
    for y, params in enumerate(ordered):
        values = [100 * x for x in points[params]["values"]]
        axes.plot(values, [y] * len(values), "o", alpha=0.55, color=sns.color_palette("colorblind")[0])
        axes.plot(100 * points[params]["mean"], y, "|", markersize=22, color="black")
    labels = [", ".join(f"{k} {v}" for k, v in json.loads(params).items()) for params in ordered]
    axes.set_yticks(range(len(ordered)), labels)
    axes.set_ylim(len(ordered) - 0.5, -0.5)
    axes.set_xlabel("validation accuracy, % (dots: seeds; line: their mean)")
    figure.savefig(path, dpi=160)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.lessons")
    parser.add_argument("--home", type=Path, default=Path("runs"), help="default: runs")
    parser.add_argument("--seeds", type=int, default=10, help="of the leading points (default: 10)")
    words = parser.parse_args(arguments)
    home = words.home.absolute()
    found: dict[str, Any] = {name: of_study(gs.load(name, home=home)) for name in SEARCHED}
    more_seeds(home, words.seeds)
    found["luck"] = luck(gs.load(MANY, home=home), words.seeds)
    machine = hardware()
    found["hardware"] = f"{machine['cores']} cores of {machine['cpu']}"
    (RESULTS / "lessons.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, FIGURE)


if __name__ == "__main__":
    main()
