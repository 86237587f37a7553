"""What a training step asks of a GPU, counted on a CPU: operations launched, and times that the host waits for a value.

    python -m tests.benchmarks.launches [--lanes 1 4 16 64]

The steps are those of a CUDA device (nothing in them comes from the host, or goes to it); here the CPU takes them.
Counted is every operation that computes; views cost a GPU nothing.  A kernel each is the least that an operation
launches, and some launch several: figures are lower bounds for a step, and the same for all numbers of lanes shows that
a pack launches no more than one of its lanes.  Captured as a graph, ten steps are one launch.  What an epoch costs besides
(its order, its metrics) is counted apart.  Counts have no spread.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gridsearch.records import ImageSettings
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.zoo import models
from tests.benchmarks.lanes import noise
from tests.benchmarks.measure import write
from tests.training.tape import FORBIDDEN, TapeRecorder

NETWORKS = ("mlp", "lenet", "lenet_bn", "cnn_dropout")
BATCH = 4
STEPS = (20, 40)  # of an epoch: what two lengths differ in is the steps' own


class Counting(TorchDispatchMode):
    """Counts the operations inside a `with`, and those of them for which a host waits or that it feeds."""

    def __init__(self) -> None:
        super().__init__()
        self.launched = self.waited = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.waited += func._schema.name.removeprefix("aten::") in FORBIDDEN
        self.launched += not func.is_view
        return func(*args, **(kwargs or {}))


def program(network: str, lanes: int, steps: int, recorder: TapeRecorder | None) -> PackProgram:
    """Return lanes of a network, to be trained as on a CUDA device."""
    settings = ImageSettings(dataset="noise", model=network, batch=BATCH, epochs=9, optimizer="adam")
    data = ResidentCache(noise(steps * BATCH), device="cpu")(settings)
    precision = Precision.of("float32", torch.device("cpu"))

    def build(_, data):
        return getattr(models, network)(data.channels, data.num_classes, tuple(data.image_size))

    built = [build_network(settings, 0, data, build, precision) for _ in range(lanes)]
    return PackProgram([Member(settings, 0)] * lanes, built, data, precision, counted=True, recorder=recorder)


def epoch(network: str, lanes: int, steps: int) -> tuple[int, int, int]:
    """Return what an epoch launches step by step, how often the host waits, and the launches of recordings."""
    eager = program(network, lanes, steps, None)
    eager.train_epoch()
    with Counting() as counted:
        eager.train_epoch()
    recorder = TapeRecorder()
    recorded = program(network, lanes, steps, recorder)
    for _ in range(2):
        recorded.train_epoch()  # the tape refuses whatever a capture on CUDA would
    before = sum(r.plays for r in recorder.recordings)
    recorded.train_epoch()
    return counted.launched, counted.waited, sum(r.plays for r in recorder.recordings) - before


def counts(network: str, lanes: int) -> dict[str, Any]:
    """Return the counts of a step, and of what an epoch has besides."""
    short, long = (epoch(network, lanes, steps) for steps in STEPS)
    more = STEPS[1] - STEPS[0]
    launched, waited, played = ((b - a) / more for a, b in zip(short, long, strict=True))
    return {
        "operations a step": launched,
        "waits of the host a step": waited,
        "launches a step, recorded": played,
        "operations an epoch besides": short[0] - launched * STEPS[0],
        "waits of the host an epoch besides": short[1] - waited * STEPS[0],
    }


def main(words: list[str]) -> None:
    """Count, and write results/launches.json."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.launches")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    chosen = parser.parse_args(words)
    write(
        "launches",
        {
            f"{network}, batch {BATCH}": {f"{lanes} lanes": counts(network, lanes) for lanes in chosen.lanes}
            for network in chosen.networks
        },
    )


if __name__ == "__main__":
    main(sys.argv[1:])
