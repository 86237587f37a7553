"""What intervals over folds cover, and how often equal points are told apart: simulated studies whose truth is known.

    python -m tests.benchmarks.folds            # writes results/folds.json

A study draws images of two classes (normal clouds), and cross-validates points that are equally good, of two kinds:

    features    networks of one hidden layer of random features, drawn by the replicate's seed, whose output layer is
                fitted by ridge regression: they change little with the images that they were trained on
    neighbour   the nearest training image decides, each point by pixels of its own: they change much with these images,
                and not at all with the seed

The truth is the mean accuracy of all of a kind on thousands of other images, over all samples that they were trained on.
Counted is how often the interval of a point holds it, and how often a study leaves a point out of those tied with the
best, though all are equally good: both with the variance of folds corrected, and as if folds were independent.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gridsearch.reporting.stats.over_folds import Partitions
from gridsearch.reporting.stats.over_seeds import Comparisons, mean_intervals
from gridsearch.training.folds import fold_numbers

RESULT = Path(__file__).parent / "results" / "folds.json"
IMAGES, PIXELS, HIDDEN, RIDGE, OTHERS, POINTS = 120, 12, 16, 1.0, 2000, 3


@dataclass(frozen=True, slots=True)
class Found:
    """What simulated studies of one kind showed; shares.

    Attributes:
        covered: intervals that hold the truth, and as if folds were independent.
        left_out: studies that leave out a point though all are equally good, likewise.
        width: mean width of an interval over that of the others.
    """

    kind: str
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


def features(images: np.ndarray, labels: np.ndarray, others: np.ndarray, _: int, draws: int) -> np.ndarray:
    """Return which class a network of random features says that others are of, trained on images [N, D]."""
    rng = np.random.default_rng(draws)
    weights, offsets = rng.normal(0, 1, (PIXELS, HIDDEN)) / np.sqrt(PIXELS), rng.normal(0, 0.3, HIDDEN)

    def hidden(pixels: np.ndarray) -> np.ndarray:
        return np.concatenate([np.maximum(pixels @ weights + offsets, 0), np.ones((len(pixels), 1))], -1)

    own = hidden(images)
    solved = np.linalg.solve(own.T @ own + RIDGE * np.eye(own.shape[1]), own.T @ (2.0 * labels - 1))
    return hidden(others) @ solved > 0


def neighbour(images: np.ndarray, labels: np.ndarray, others: np.ndarray, point: int, _: int) -> np.ndarray:
    """Return the class of the nearest of images [N, D], by the pixels of one point."""
    own = slice(point * PIXELS // POINTS, (point + 1) * PIXELS // POINTS)
    a, b = others[:, own], images[:, own]
    nearest = ((b**2).sum(1) - 2 * a @ b.T).argmin(1)
    return labels[nearest] == 1


KINDS = {"features": features, "neighbour": neighbour}


def study(
    rng: np.random.Generator, kind: str, folds: int, seeds: int, others: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the validation accuracies of a study [points, replicates], and the points' true ones of one replicate."""
    images, labels = draw(rng, IMAGES)
    values, truths = np.empty((POINTS, seeds * folds)), np.empty(POINTS)
    for seed in range(seeds):
        numbers = fold_numbers(labels, folds, int(rng.integers(2**62)))
        for fold in range(1, folds + 1):
            train, val = numbers != fold, numbers == fold
            for point in range(POINTS):
                how = (images[train], labels[train]), (point, int(rng.integers(2**62)))
                said = KINDS[kind](*how[0], images[val], *how[1])
                values[point, seed * folds + fold - 1] = (said == labels[val]).mean()
                if seed == 0 and fold == 1:
                    truths[point] = (KINDS[kind](*how[0], others[0], *how[1]) == others[1]).mean()
    return values, truths


def simulate(kind: str, folds: int, seeds: int, *, studies: int, seed: int = 0) -> Found:
    """Return what so many studies show."""
    rng = np.random.default_rng(seed)
    others = draw(np.random.default_rng(seed + 1), OTHERS)
    drawn = [study(rng, kind, folds, seeds, others) for _ in range(studies)]
    truth = float(np.mean([truths for _, truths in drawn]))
    partitions = Partitions.by([folds] * POINTS, np.repeat(np.arange(seeds), folds).tolist())
    held, left, width = np.zeros(2), np.zeros(2), []
    for values, _ in drawn:
        ordered = values[np.argsort(-values.mean(1), kind="stable")]
        both = [mean_intervals(values, partitions=own) for own in (partitions, None)]
        held += [((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean() for ends in both]
        width.append(np.diff(both[0]).mean() / np.diff(both[1]).mean())
        for way, own in enumerate((partitions, None)):
            left[way] += not Comparisons(ordered, best=0, errors=None, partitions=own).tied().all()
    covered, out = held / studies, left / studies
    return Found(
        *(kind, folds, seeds, POINTS, studies, truth),
        *map(float, (covered[0], covered[1], out[0], out[1], np.mean(width))),
    )


def main() -> None:
    """Simulate, print and write what was found."""
    found = []
    for kind in KINDS:
        for folds, seeds in ((3, 1), (5, 1), (10, 1), (5, 3), (10, 3), (5, 10)):
            found.append(simulate(kind, folds, seeds, studies=1000))
            print(found[-1], flush=True)
    rows = [{k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(one).items()} for one in found]
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
