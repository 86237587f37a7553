"""What intervals over folds cover, and how often equal points are told apart: simulated studies whose truth is known.

    python -m tests.benchmarks.folds            # writes results/folds.json

A study draws images of two classes (normal clouds), and cross-validates points that are equally good: networks of one
hidden layer of random features, drawn by the replicate's seed, whose output layer is fitted by ridge regression.  The
truth is the mean accuracy of all such networks on thousands of other images, over all samples that they were trained
on.  Counted is how often the interval of a point holds it, and how often a study leaves a point out of those tied with
the best, though all are equally good: both with the variance of folds corrected (Nadeau and Bengio) and as if folds
were independent.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gridsearch.reporting.stats.over_seeds import Comparisons, mean_intervals
from gridsearch.training.folds import fold_numbers

RESULT = Path(__file__).parent / "results" / "folds.json"
IMAGES, PIXELS, HIDDEN, RIDGE, OTHERS = 120, 12, 16, 1.0, 2000


@dataclass(frozen=True, slots=True)
class Found:
    """What simulated studies of one kind showed; shares.

    Attributes:
        covered: intervals that hold the truth, and as if folds were independent.
        left_out: studies that leave out a point though all are equally good, likewise.
        width: mean width of an interval over that of the others.
    """

    folds: int
    seeds: int
    points: int
    studies: int
    truth: float
    covered: float
    covered_as_if_independent: float
    left_out: float
    left_out_as_if_independent: float
    width: float


def draw(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images [N, D] of two classes, and their labels."""
    labels = np.arange(count) % 2
    return rng.normal(0, 1, (count, PIXELS)) + 0.32 * (2 * labels - 1)[:, None], labels


def features(images_ND: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what a hidden layer of random weights makes of images [..., N, H]."""
    weights = rng.normal(0, 1, (PIXELS, HIDDEN)) / np.sqrt(PIXELS)
    hidden = np.maximum(images_ND @ weights + rng.normal(0, 0.3, HIDDEN), 0)
    return np.concatenate([hidden, np.ones((*hidden.shape[:-1], 1))], -1)


def study(
    rng: np.random.Generator, folds: int, seeds: int, points: int, others: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the validation accuracies of a study [points, replicates], and their networks' true ones."""
    images, labels = draw(rng, IMAGES)
    values, truths = np.empty((2, points, seeds * folds))
    for seed in range(seeds):
        numbers = fold_numbers(labels, folds, int(rng.integers(2**62)))
        for fold in range(1, folds + 1):
            train, val = numbers != fold, numbers == fold
            for point in range(points):
                draws = int(rng.integers(2**62))
                own, held_out, far = (
                    features(x, np.random.default_rng(draws)) for x in (images[train], images[val], others[0])
                )
                target = 2.0 * labels[train] - 1
                solved = np.linalg.solve(own.T @ own + RIDGE * np.eye(own.shape[1]), own.T @ target)
                at = seed * folds + fold - 1
                values[point, at] = ((held_out @ solved > 0) == labels[val]).mean()
                truths[point, at] = ((far @ solved > 0) == others[1]).mean()
    return values, truths


def simulate(folds: int, seeds: int, *, studies: int, points: int = 3, seed: int = 0) -> Found:
    """Return what so many studies show."""
    rng = np.random.default_rng(seed)
    others = draw(np.random.default_rng(seed + 1), OTHERS)
    drawn = [study(rng, folds, seeds, points, others) for _ in range(studies)]
    truth = float(np.mean([truths for _, truths in drawn]))
    held, left, width = np.zeros(2), np.zeros(2), []
    for values, _ in drawn:
        ordered = values[np.argsort(-values.mean(1), kind="stable")]
        both = [mean_intervals(values, folds=k) for k in ([folds] * points, None)]
        held += [((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean() for ends in both]
        width.append(np.diff(both[0]).mean() / np.diff(both[1]).mean())
        for way, k in enumerate(([folds] * points, None)):
            left[way] += not Comparisons(ordered, best=0, errors=None, folds=k).tied().all()
    covered, out = held / studies, left / studies
    return Found(
        *(folds, seeds, points, studies, truth),
        *map(float, (covered[0], covered[1], out[0], out[1], np.mean(width))),
    )


def main() -> None:
    """Simulate, print and write what was found."""
    found = []
    for folds, seeds in ((3, 1), (5, 1), (10, 1), (5, 3), (10, 3)):
        found.append(simulate(folds, seeds, studies=1000))
        print(found[-1], flush=True)
    rows = [{k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(one).items()} for one in found]
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
