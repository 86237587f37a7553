"""Time of a training step per trial against the number of lanes, and the share of the machine's matrix rate it reaches.

``python -m tests.benchmarks.lanes [--work lenet:10,20,50,100 ...] [--lanes 1 4 8 16] [--rounds N] [--own-seeds]``

One thread of a process such as a worker is, float32, Adam.  All programs of a batch size are built first and then timed
in turn, round after round, so that a machine's moods meet all of them; a round is an epoch of a few hundred steps
without its evaluation, and its time is that of the CPU.  Lanes 1 is the plain engine.  Pixels are noise: the arithmetic
does not depend on them.  With ``--own-seeds`` also packs whose lanes see different images at a step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

import numpy as np
import torch

from gridsearch.executors.local import worker_environment
from gridsearch.plugins import ImageData
from gridsearch.records import ImageSettings
from gridsearch.training import devices
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram
from gridsearch.zoo import models
from tests.benchmarks.arithmetic import matrix_rates, model_flops
from tests.benchmarks.measure import Spread, write

WORK = ("lenet:10,20,50,100", "lenet_bn:100", "tinyvgg:32")


def noise(images: int) -> ImageData:
    """Return random images 1x28x28 of ten classes, with a sixth more for the validation split."""
    rng = np.random.default_rng(0)
    count = images * 6 // 5
    return ImageData(
        train_images=rng.integers(0, 256, (count, 1, 28, 28), dtype=np.uint8),
        train_labels=np.arange(count) % 10,
        test_images=np.zeros((10, 1, 28, 28), np.uint8),
        test_labels=np.arange(10),
        class_names=tuple("0123456789"),
    )


def programs(model, batch, lanes, images, *, own_seeds=False):
    """Return what trains one epoch of each number of lanes, with its name."""
    factory = getattr(models, model)

    def build(_, data):
        return factory(data.channels, data.num_classes, tuple(data.image_size))

    settings = ImageSettings(dataset="noise", model=model, batch=batch, epochs=10**6)
    data = ResidentCache(noise(images), device="cpu")(settings)
    precision = Precision.of("float32", torch.device("cpu"))
    found = {}
    for count in lanes:
        if count == 1:
            solo = SoloProgram(settings, 0, data, build, precision)
            epochs = iter(range(1, 10**6))
            found["1"] = (1, lambda solo=solo, epochs=epochs: solo.train_epoch(next(epochs)))
            continue
        for own in (False, True) if own_seeds else (False,):
            seeds = [k if own else 0 for k in range(count)]
            built = [build_network(settings, seed, data, build, precision) for seed in seeds]
            pack = PackProgram([Member(settings, seed) for seed in seeds], built, data, precision)
            found[f"{count}, own seeds" if own else f"{count}"] = (count, pack.train_epoch)
    return found


def measure(model, batch, lanes, rounds, *, own_seeds=False):
    """Time all numbers of lanes in turn; return the milliseconds per trial and step of each round, by lanes."""
    steps = max(12, 1000 // batch)
    running = programs(model, batch, lanes, steps * batch, own_seeds=own_seeds)
    times: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(rounds + 1):
        for name, (count, train) in running.items():
            started = time.process_time()
            train()
            if turn:  # the first warms up
                times[name].append((time.process_time() - started) / steps / count * 1e3)
    return times


def main(words: list[str]) -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.lanes")
    parser.add_argument("--work", nargs="+", default=WORK, metavar="MODEL:BATCH,...")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--own-seeds", action="store_true")
    parser.add_argument("--name", default="lanes", help="of the result (default: lanes)")
    chosen = parser.parse_args(words)
    devices.prepare_process(threads=1)
    rates = matrix_rates(20, clock="process_time")
    found: dict[str, dict[str, list[float]]] = {}
    flops: dict[str, float] = {}
    for work in chosen.work:
        model, _, batches = work.partition(":")
        for batch in map(int, batches.split(",")):
            title = f"{model}, batch {batch}"
            flops[title] = batch * model_flops(getattr(models, model)(1, 10, (28, 28)), batch)
            found[title] = measure(model, batch, chosen.lanes, chosen.rounds, own_seeds=chosen.own_seeds)
    rates += matrix_rates(20, clock="process_time")  # again, as a machine's pace may change meanwhile
    rate = statistics.median(rates)
    figures: dict[str, Any] = {"matrix rate, float32, one thread": Spread.of(rates, "GFLOP/s")}
    for title, times in found.items():
        rows = figures[title] = {}
        for name, values in times.items():
            rows[f"lanes {name}: per trial and step"] = Spread.of(values, "ms")
            share = [100 * flops[title] / (ms * 1e6) / rate for ms in values]
            rows[f"lanes {name}: of the matrix rate"] = Spread.of(share, "%")
            if "1" in times and name != "1":
                against = [alone / ms for alone, ms in zip(times["1"], values, strict=True)]
                rows[f"lanes {name}: against lanes 1"] = Spread.of(against, "x")
    write(chosen.name, figures)


if __name__ == "__main__":
    if "glibc.malloc" not in os.environ.get(
        "GLIBC_TUNABLES", ""
    ):  # a process has these from its start or never
        command = [sys.executable, "-m", "tests.benchmarks.lanes", *sys.argv[1:]]
        os.execve(sys.executable, command, worker_environment(threads=1))
    main(sys.argv[1:])
