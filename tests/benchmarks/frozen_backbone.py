"""How many heads a minute train on the features of a frozen backbone, and what the features themselves cost.

``python -m tests.benchmarks.frozen_backbone [--points N] [--images N] [--workers N]``

A ResNet-18 of torchvision, its weights drawn and saved to a file, since its speed does not depend on them.  Images are
drawn too, 32x32 in colour and ten classes, and given to it as 64x64.  One run computes the features and trains one
point; the next trains the grid, learning rates by weight decays, five epochs each at batch 256; the last trains the
whole network at one point, for comparison.  By default in as many workers as there are cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gridsearch as gs
from gridsearch.zoo.pretrained import open_model
from tests.benchmarks.measure import write

MODEL = "torchvision:resnet18"
RECIPE = {"epochs": 5, "batch": 256}


def images(path: Path, count: int) -> str:
    """Write images of ten classes, and return their locator."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 10
    shades = rng.integers(0, 256, (10, 1, 1, 3))
    pixels = np.clip(shades[labels] + rng.normal(0, 60, (count, 32, 32, 3)), 0, 255).astype(np.uint8)
    np.savez(path, x=pixels, y=labels)
    return f"npz:{path}"


def weights(path: Path) -> str:
    """Write drawn weights of the network, and return their file."""
    torch.manual_seed(0)
    network: Any = open_model(MODEL).build(
        in_channels=3, num_classes=10, image_size=(32, 32), options={"weights": None}
    )
    torch.save(network.network.state_dict(), path)
    return str(path)


def seconds(
    home: Path, dataset: str, grid: dict[str, Any], options: dict[str, Any], workers: int | None
) -> float:
    """Return the seconds that a run takes."""
    began = time.monotonic()
    gs.run(
        grid,
        dataset=dataset,
        model=MODEL,
        recipe={**RECIPE, **{f"model.{name}": value for name, value in options.items()}},
        home=home,
        workers=workers,
        report=False,
        quiet=True,
        checkpoint="off",
    )
    return time.monotonic() - began


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=512)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--workers", type=int, help="default: one per core")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GRIDSEARCH_CACHE"] = str(folder / "cache")
        data = images(folder / "a.npz", arguments.images)
        frozen = {"weights": weights(folder / "w.pth"), "freeze": "backbone", "size": 64}
        first = seconds(folder / "one", data, {"lr": [0.01]}, frozen, arguments.workers)
        again = seconds(folder / "two", data, {"lr": [0.01]}, frozen, arguments.workers)
        side = round(arguments.points / 8)
        grid = {"lr": list(np.geomspace(1e-4, 1e-1, side)), "weight_decay": list(np.geomspace(1e-6, 1e-2, 8))}
        heads = seconds(folder / "many", data, grid, frozen, arguments.workers)
        whole = seconds(folder / "whole", data, {"lr": [0.01]}, {**frozen, "freeze": None}, arguments.workers)
    points = 8 * side
    found = {
        "images": arguments.images,
        "points": points,
        "epochs": RECIPE["epochs"],
        "features_seconds": first - again,
        "heads_seconds": heads,
        "heads_a_minute": 60 * points / heads,
        "whole_network_seconds": whole,
    }
    write("frozen_backbone", found)


if __name__ == "__main__":
    main()
