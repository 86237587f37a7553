"""``python -m tests.benchmarks.checkpoints``: what checkpoints cost; writes results/checkpoints.json.

A pack trains on random images in this process, with a checkpoint at every epoch's end; the time that goes into them is
measured by itself, since the difference of two runs is smaller than what a machine adds to either.  From it follows
what they cost at the default interval: one of them in every 60 s, or in a hundred times its own duration where that is
longer.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gridsearch import checkpoints
from gridsearch.plugins import ImageData
from gridsearch.records import ImageSettings, Lane, Pack, Trial, TrialState
from gridsearch.service.prepare.options import DEFAULTS
from gridsearch.training import TrainContext, train_pack
from gridsearch.training.lane_checkpoints import LaneCheckpoints
from gridsearch.training.resident_data import ResidentCache
from gridsearch.zoo import models
from tests.benchmarks.measure import Spread, write

NETWORKS = {"lenet": 8, "resnet9": 4}
"""Networks with the lanes of their packs: a small one, and one of 6.6 million weights."""

EPOCHS = 6
IMAGES = 600


class Timed(LaneCheckpoints):
    """Notes how long each checkpoint of a pack takes, and how many bytes it has."""

    def __init__(self) -> None:
        super().__init__(interval=0.0, settled=True)
        self.seconds: list[float] = []
        self.megabytes = 0.0

    def save(self, lanes: Any) -> None:
        """Write a checkpoint of each lane."""
        lanes = list(lanes)
        began = time.perf_counter()
        super().save(lanes)
        self.seconds.append(time.perf_counter() - began)
        newest = [checkpoints.checkpoints_in(Path(lane.scratch))[0].path for lane, _ in lanes]
        self.megabytes = sum(path.stat().st_size for path in newest) / 1e6


def measure(network: str, lanes: int, folder: Path) -> dict[str, Any]:
    """Train a pack of lanes; return what its checkpoints take."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 1, 28, 28), dtype=np.uint8)
    labels = (np.arange(IMAGES) % 10).astype(np.int64)
    data = ImageData(
        train_images=images,
        train_labels=labels,
        test_images=images[:10],
        test_labels=labels[:10],
        class_names=tuple("0123456789"),
    )
    members = []
    for number in range(lanes):
        settings = ImageSettings(model=network, epochs=EPOCHS, select="best", lr=0.001 * (number + 1))
        trial = Trial(
            id=number,
            number=number,
            key=str(number),
            seed=0,
            settings=settings,
            params={},
            state=TrialState.RUNNING,
            attempt=1,
        )
        scratch = folder / network / str(number)
        scratch.mkdir(parents=True)
        members.append(Lane(trial, str(scratch)))
    timed = Timed()
    began = time.perf_counter()
    context = TrainContext(
        data=ResidentCache(data, device="cpu", smallest_input=lambda _: None),
        build=lambda _, d: getattr(models, network)(d.channels, d.num_classes, tuple(d.image_size)),
        device="cpu",
        checkpoints=timed,
    )
    train_pack(Pack("p", tuple(members)), context, emit=lambda _: None)
    wall = time.perf_counter() - began
    each = Spread.of(timed.seconds, "s")
    pause = max(DEFAULTS["checkpoint"], 100 * each.median)
    return {
        "lanes": lanes,
        "one checkpoint of all lanes": each,
        "its size": f"{timed.megabytes:.1f} MB",
        "share of the time at every epoch": f"{sum(timed.seconds) / wall:.2%}",
        "share of the time at the default": f"{each.median / (pause + each.median):.3%}",
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.checkpoints", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, help="where to write checkpoints (default: a temporary folder)"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        write("checkpoints", {name: measure(name, lanes, Path(folder)) for name, lanes in NETWORKS.items()})


if __name__ == "__main__":
    main()
