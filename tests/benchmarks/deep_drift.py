"""Whether what parts a deep network's lanes from its lone runs is rounding: the same trials in both precisions.

    python -m tests.benchmarks.deep_drift [--trials 8]

torchvision's ResNet-18 on scikit-learn's digits, two epochs of Adam, far from converged.  Each trial runs as a lane of
a pack of four, alone, and alone in the other memory layout, in float64 and in float32.  In exact arithmetic the three
are one: in float64 they must agree to many digits, and in float32 a pack must stray no further from the lone run than
another memory layout of the same lone run does.  Printed and written to results/deep_drift.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gridsearch.records import ImageSettings
from gridsearch.training import model_setup as training_network
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram
from gridsearch.zoo import datasets, torchvision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.training.metrics import Evaluation

LANES = 4
EPOCHS = 2
RATES = (0.0005, 0.001, 0.002, 0.004)
RESULTS = Path(__file__).parent / "results" / "deep_drift.json"


def build(*_: object) -> nn.Module:
    """Return the network, with a first layer for one channel and small images."""
    net: nn.Module = torchvision.load().models.resnet18(weights=None, num_classes=10)
    net.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    return net


def alone(settings: ImageSettings, seed: int, data: Any, precision: Precision, *, last: bool) -> Evaluation:
    """Train a lone lane, its channels last or first."""
    real = training_network.pays_channels_last
    training_network.pays_channels_last = lambda *_: last
    try:
        program = SoloProgram(settings, seed, data, build, precision)
    finally:
        training_network.pays_channels_last = real
    for epoch in range(1, EPOCHS + 1):
        program.train_epoch(epoch)
    found = program.evaluate(EPOCHS)
    assert found is not None
    return found


def compare(dtype: str, trials: int) -> dict[str, Any]:
    """Train trials in a precision, three times each; return the gaps of the pack and of the other layout to the lone run."""
    precision = Precision.of(dtype, torch.device("cpu"))
    recipes = [
        ImageSettings(dataset="digits", batch=64, epochs=EPOCHS, subset=600, dtype=dtype, lr=lr)
        for lr in RATES
    ]
    images = datasets.load(datasets.open_dataset("digits"), Path(), {})
    data = ResidentCache(images, device="cpu")(recipes[0])
    gaps: dict[str, list[tuple[float, float]]] = {"pack": [], "layout": []}
    accuracies = []
    for first in range(0, trials, LANES):
        lanes = [(recipes[k % LANES], (first + k) // LANES) for k in range(LANES)]
        built = [build_network(settings, seed, data, build, precision) for settings, seed in lanes]
        pack = PackProgram([Member(*lane) for lane in lanes], built, data, precision)
        assert pack.network.method == "stacked"
        for _ in range(EPOCHS):
            pack.train_epoch()
        packed = pack.evaluate()
        for (settings, seed), ours in zip(lanes, packed, strict=True):
            own = alone(settings, seed, data, precision, last=dtype == "float32")
            other = alone(settings, seed, data, precision, last=dtype != "float32")
            accuracies.append(100 * own.accuracy)
            for name, found in (("pack", ours), ("layout", other)):
                assert found is not None
                largest = float((found.logits - own.logits).abs().max())
                gaps[name].append((100 * (found.accuracy - own.accuracy), largest))
    return {"trials": trials, "accuracy": accuracies, **{name: _summary(each) for name, each in gaps.items()}}


def _summary(gaps: Sequence[tuple[float, float]]) -> dict[str, Any]:
    points = [gap for gap, _ in gaps]
    return {
        "points": points,
        "mean_points": statistics.fmean(points),
        "largest_points": max(map(abs, points)),
        "spread_points": statistics.pstdev(points),
        "largest_logit_gap": max(logit for _, logit in gaps),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=8)
    trials = parser.parse_args(argv).trials
    torch.set_num_threads(1)
    found = {"float64": compare("float64", LANES), "float32": compare("float32", trials)}
    text = json.dumps(found, indent=1)
    RESULTS.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
