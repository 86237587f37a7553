"""Time of a training step per trial against the number of lanes: LeNet, one thread, float32.

    python -m tests.benchmarks.lanes [--model lenet] [--batch 10 20 100] [--lanes 1 2 4 8 16] [--rounds 7] [--json FILE]

All programs of a batch size are built first and then timed in turn, round after round, so that a machine's moods
meet all of them; a round is a whole epoch without its evaluation.  Lanes 1 is the plain engine.  Pixels are noise:
the arithmetic does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from gridsearch.plugins import ImageData
from gridsearch.records import Settings
from gridsearch.training import devices
from gridsearch.training.data import ResidentCache
from gridsearch.training.lanes.program import Member, PackProgram
from gridsearch.training.network import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.solo import SoloProgram
from gridsearch.zoo import models


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


def programs(model, batch, lanes, images):
    """Return what trains one epoch of each number of lanes, with its name."""
    factory = getattr(models, model)

    def build(_, data):
        return factory(data.channels, data.num_classes, tuple(data.image_size))

    settings = Settings(dataset="noise", model=model, batch=batch, epochs=10**6)
    data = ResidentCache(noise(images), device="cpu")(settings)
    precision = Precision.of("float32", torch.device("cpu"))
    found = {}
    for count in lanes:
        if count == 1:
            solo = SoloProgram(settings, 0, data, build, precision)
            epochs = iter(range(1, 10**6))
            found["1"] = (1, lambda solo=solo, epochs=epochs: solo.train_epoch(next(epochs)))
            continue
        for name, own in ((f"{count}", False), (f"{count} own seeds", True)):
            seeds = [k if own else 0 for k in range(count)]
            built = [build_network(settings, seed, data, build, precision) for seed in seeds]
            pack = PackProgram([Member(settings, seed) for seed in seeds], built, data, precision)
            found[name] = (count, pack.train_epoch)
    return found


def measure(model, batch, lanes, rounds):
    """Time all numbers of lanes in turn; return rows of ms per trial and step."""
    steps = max(20, 1500 // batch)
    images = steps * batch
    running = programs(model, batch, lanes, images)
    times = {name: [] for name in running}
    for turn in range(rounds + 1):
        for name, (count, train) in running.items():
            started = time.perf_counter()
            train()
            if turn:  # the first warms up
                times[name].append((time.perf_counter() - started) / steps / count * 1e3)
    base = times.get("1")
    rows = []
    for name, values in times.items():
        speedups = [b / v for b, v in zip(base, values, strict=True)] if base else []
        rows.append(
            {
                "model": model,
                "batch": batch,
                "lanes": name,
                "ms": statistics.median(values),
                "ms_low": min(values),
                "ms_high": max(values),
                "speedup": statistics.median(speedups) if speedups else None,
                "speedup_low": min(speedups, default=None),
                "speedup_high": max(speedups, default=None),
                "rounds": rounds,
            }
        )
    return rows


def main(words: list[str]) -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lenet")
    parser.add_argument("--batch", type=int, nargs="+", default=[10, 20, 100])
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(words)
    devices.prepare_process(threads=1)
    hardware = devices.describe()
    print(", ".join(f"{k}: {v}" for k, v in hardware.items()))
    print(f"{'batch':>5} {'lanes':>13} {'ms/trial/step':>14} {'spread':>15} {'speed-up':>9} {'spread':>11}")
    rows = []
    for batch in chosen.batch:
        for row in measure(chosen.model, batch, chosen.lanes, chosen.rounds):
            rows.append(row)
            line = f"{row['batch']:>5} {row['lanes']:>13} {row['ms']:>14.3f} {row['ms_low']:>7.3f}-{row['ms_high']:<7.3f}"
            if row["speedup"] is not None:
                line += f" {row['speedup']:>8.2f}x {row['speedup_low']:>5.2f}-{row['speedup_high']:<5.2f}"
            print(line, flush=True)
    if chosen.json:
        chosen.json.write_text(
            json.dumps({"hardware": hardware, "threads": 1, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
