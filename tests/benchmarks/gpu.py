"""Packs on one GPU: a grid of 16 trials, one of 1,024, and a step's time against the number of lanes.

    make gpu     (the tests that need a GPU, then this within six minutes)
    python -m tests.benchmarks.gpu [--epochs 20] [--seeds 64] [--lanes 1 4 16 64 256] [--rounds 3] [--device cuda:0]
                                   [--within SECONDS]

The grid is a LeNet with 4 batches x 2 learning rates x 2 normalizations, on 50,000 images of 28x28 with 10,000 held
out.  Pixels are noise: the arithmetic does not depend on them.  Each figure is taken with CUDA graphs and without.
A grid's time is that of training alone, in one process, its files written; the first round warms up.  Needs no store
and so runs where optuna is missing; refuses where there is no CUDA device.  The figures that matter most come first; with
--within, those that are not begun by then are left out and named, and what was measured is written after each.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from gridsearch.records import ImageSettings, Lane, Pack, Trial, TrialFinished, TrialState
from gridsearch.training import ResidentCache, TrainContext, devices, train_pack
from gridsearch.training.lanes.runtime import cuda_graphs, program
from gridsearch.training.probe import probe
from gridsearch.zoo.models import lenet
from tests.benchmarks.lanes import noise
from tests.benchmarks.measure import Spread, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BATCHES = (10, 20, 50, 100)
RATES = (0.01, 0.001)
NORMS = ("none", "standard")

_PROBE_SECONDS = 0.5


def main(words: Sequence[str]) -> None:
    """Measure, and write results/gpu.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=64, help="seeds of each point in the large grid")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--within", type=float, default=float("inf"), metavar="SECONDS")
    chosen = parser.parse_args(words)
    if not chosen.device.startswith("cuda") or chosen.device not in devices.available():
        raise SystemExit(
            f"no device {chosen.device!r} to measure: {devices.cuda_problem() or 'it is not there'}"
        )
    devices.prepare_process(threads=1)
    began = time.monotonic()
    found: dict[str, Any] = {"device": devices.describe()[chosen.device]}
    left_out = []
    for name, part in figures(
        torch.device(chosen.device),
        images=50_000,
        epochs=chosen.epochs,
        seeds=chosen.seeds,
        lanes=chosen.lanes,
        rounds=chosen.rounds,
    ):
        if time.monotonic() - began > chosen.within:
            left_out.append(name)
            continue
        found[name] = part()
        write("gpu", found)
    if left_out:
        write("gpu", found | {"left out, no time": ", ".join(left_out)})


def figures(
    device: torch.device, *, images: int, epochs: int, seeds: int, lanes: Sequence[int], rounds: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Give each figure's name and what measures it, those that matter most first.

    Args:
        device: where to train.
        images: to train on; a fifth more is held out.
        epochs: of each trial.
        seeds: of each of the 16 points of the large grid.
        lanes: numbers of lanes whose steps are timed.
        rounds: of each figure.
    """
    data = ResidentCache(noise(images), device=device)

    def of_grid(name: str, how: Any, seeds: int, rounds: int, *, warm: bool) -> tuple[str, Callable[[], Any]]:
        def work() -> Spread:
            with how():
                return grid(data, device, epochs=epochs, seeds=seeds, rounds=rounds, warm=warm)

        return f"{16 * seeds} trials of {epochs} epochs, {name}", work

    def of_steps(name: str, how: Any, batch: int) -> tuple[str, Callable[[], Any]]:
        def work() -> dict[str, Spread]:
            with how():
                return {f"{count} lanes": step(data, device, batch, count, rounds) for count in lanes}

        return f"a step of one trial at batch {batch}, {name}", work

    yield of_grid("with graphs", as_is, 1, rounds, warm=True)
    yield of_grid("with graphs", as_is, seeds, 1, warm=False)
    for batch in BATCHES:
        yield of_steps("with graphs", as_is, batch)
    yield of_grid("without graphs", one_by_one, 1, 1, warm=True)
    for batch in BATCHES:
        yield of_steps("without graphs", one_by_one, batch)
    yield of_grid("without graphs", one_by_one, seeds, 1, warm=False)


def build(_: ImageSettings, data: Any) -> torch.nn.Module:
    """Return an untrained LeNet."""
    return lenet(data.channels, data.num_classes, tuple(data.image_size))


def grid(
    data: ResidentCache, device: torch.device, *, epochs: int, seeds: int, rounds: int, warm: bool = True
) -> Spread:
    """Return the seconds that the grid takes, each batch size one pack."""
    times = []
    for turn in range(rounds + warm):
        with tempfile.TemporaryDirectory(prefix="gpu") as folder:
            packs = packs_of(Path(folder), epochs=epochs, seeds=seeds)
            began = time.perf_counter()
            ends = [end for pack in packs for end in train(pack, data, device)]
            if turn >= warm:
                times.append(time.perf_counter() - began)
        assert len(ends) == sum(len(pack.lanes) for pack in packs), "a trial has no result"
    return Spread.of(times, "s")


def packs_of(folder: Path, *, epochs: int, seeds: int) -> list[Pack]:
    """Return the grid's trials, a pack for each batch size."""
    packs = []
    numbers = itertools.count()
    for batch in BATCHES:
        lanes = []
        for lr, norm, seed in itertools.product(RATES, NORMS, range(seeds)):
            number = next(numbers)
            settings = ImageSettings(
                dataset="noise", model="lenet", epochs=epochs, batch=batch, lr=lr, norm=norm, optimizer="adam"
            )
            trial = Trial(
                id=number,
                number=number,
                key=str(number),
                seed=seed,
                settings=settings,
                params={},
                state=TrialState.RUNNING,
                attempt=1,
            )
            lanes.append(Lane(trial, str(folder / str(number))))
        packs.append(Pack(f"batch{batch}", tuple(lanes)))
    return packs


def train(pack: Pack, data: ResidentCache, device: torch.device) -> list[TrialFinished]:
    """Train a pack and return its trials' ends."""
    ends: list[TrialFinished] = []

    def take(event: Any) -> None:
        if isinstance(event, TrialFinished):
            ends.append(event)

    train_pack(pack, TrainContext(data=data, build=build, device=device), emit=take)
    return ends


def step(data: ResidentCache, device: torch.device, batch: int, lanes: int, rounds: int) -> Spread:
    """Return milliseconds of a trial's step as its share of a pack."""
    settings = ImageSettings(dataset="noise", model="lenet", epochs=1000, batch=batch, optimizer="adam")
    times = []
    for _ in range(rounds):
        found = probe(settings, data=data, build=build, device=device, lanes=lanes, seconds=_PROBE_SECONDS)
        assert found.lanes == lanes, found.method
        times.append(found.step_seconds * 1e3)
    return Spread.of(times, "ms")


@contextmanager
def as_is() -> Iterator[None]:
    """Let steps run as they do."""
    yield


@contextmanager
def one_by_one() -> Iterator[None]:
    """Let steps run one by one."""

    def eager(step: Any, *, batch: int, **_: Any) -> cuda_graphs.EagerSteps:
        return cuda_graphs.EagerSteps(step, batch=batch)

    with mock.patch.object(program, "step_runner", eager):
        yield


if __name__ == "__main__":
    main(sys.argv[1:])
