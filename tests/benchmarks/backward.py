"""The compiled graph's own backward pass against autograd's, for the epochs of a grid of 16 LeNets.

``python -m tests.benchmarks.backward [--rounds N] [--images N] [--model NAME]``

Four packs of four lanes, batch sizes 10, 20, 50 and 100: the learning rates differ within a pack.  Both forms have the
same compiled kernels; for autograd each is an `autograd.Function`.  The same process trains an epoch by one and then by
the other, round after round, evaluation included.  Times are the process's user time, which neighbours on the machine
change least, and its system time, which allocations cost.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from typing import Any

import numpy as np
import torch

from gridsearch.executors.local import worker_environment
from gridsearch.records import ImageSettings
from gridsearch.training import devices
from gridsearch.training.lanes.compile.network import AutogradPass, StackedNetwork
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.products import FusedLinear, PooledConv
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.zoo import models
from tests.benchmarks.lanes import noise
from tests.benchmarks.measure import Spread, write

BATCHES = (10, 20, 50, 100)
RATES = (0.0003, 0.001, 0.003, 0.01)


class _Kernel(torch.autograd.Function):
    """A compiled layer as autograd calls it."""

    @staticmethod
    def forward(ctx: Any, layer: Any, *arguments: Any) -> torch.Tensor:
        y, ctx.saved = layer.forward(*arguments)
        ctx.layer = layer
        return y

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> Any:
        needs = ctx.needs_input_grad[1:]
        return None, *ctx.layer.backward(grad_output, ctx.saved, needs, [None] * len(needs))


def by_autograd(network: StackedNetwork) -> None:
    """Let a network of lanes take its gradients from autograd."""
    for graph in network._graphs.values():
        for i, one in enumerate(graph.instructions):
            if isinstance(one.function, PooledConv | FusedLinear):
                graph.instructions[i] = one._replace(
                    function=lambda *a, layer=one.function: _Kernel.apply(layer, *a)
                )
    network.forward_pass = lambda x, form: AutogradPass(network(x, form, training=True), network._storage)


def programs(model: str, images: int) -> dict[str, list[PackProgram]]:
    """Return the packs of the grid, once for each form."""
    factory = getattr(models, model)
    precision = Precision.of("float32", torch.device("cpu"))
    cache = ResidentCache(noise(images), device="cpu")

    def build(_, data):
        return factory(data.channels, data.num_classes, tuple(data.image_size))

    def pack(batch: int) -> PackProgram:
        recipes = [
            ImageSettings(dataset="noise", model=model, batch=batch, epochs=10**6, lr=lr, optimizer="adam")
            for lr in RATES
        ]
        data = cache(recipes[0])
        built = [build_network(recipe, 0, data, build, precision) for recipe in recipes]
        return PackProgram([Member(recipe, 0) for recipe in recipes], built, data, precision)

    found = {"own": [pack(b) for b in BATCHES], "autograd": [pack(b) for b in BATCHES]}
    for program in found["autograd"]:
        by_autograd(program.network)
    return found


def epoch(program: PackProgram) -> tuple[float, float]:
    """Train and evaluate once; return the user and the system time."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    program.train_epoch()
    program.evaluate()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime


def main(words: list[str]) -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.backward")
    parser.add_argument("--model", default="lenet")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=11)
    chosen = parser.parse_args(words)
    devices.prepare_process(threads=1)
    found = programs(chosen.model, chosen.images)
    rounds: list[dict[str, np.ndarray]] = []
    for turn in range(chosen.rounds + 2):
        times: dict[str, list[tuple[float, float]]] = {form: [] for form in found}
        for i in range(len(BATCHES)):
            for form in sorted(found, reverse=bool(turn % 2)):
                times[form].append(epoch(found[form][i]))
        rounds.append({form: np.array([*each, np.sum(each, 0)]) for form, each in times.items()})
    figures: dict[str, Any] = {}
    for i, name in enumerate([*(f"batch {b}" for b in BATCHES), "the grid"]):
        rows = figures[name] = {}
        for kind, at in (("user", 0), ("system", 1)):
            own, other = ([r[form][i, at] for r in rounds[2:]] for form in ("own", "autograd"))  # 2 warm up
            rows[f"own, {kind}"] = Spread.of([1e3 * s for s in own], "ms")
            rows[f"autograd, {kind}"] = Spread.of([1e3 * s for s in other], "ms")
            if kind == "user":
                ratios = [b / a for a, b in zip(own, other, strict=True)]
                rows["autograd against own, user"] = Spread.of(ratios, "x")
    write(f"backward_{chosen.model}", figures)


if __name__ == "__main__":
    if "glibc.malloc" not in os.environ.get(
        "GLIBC_TUNABLES", ""
    ):  # a process has these from its start or never
        command = [sys.executable, "-m", "tests.benchmarks.backward", *sys.argv[1:]]
        os.execve(sys.executable, command, worker_environment(threads=1))
    main(sys.argv[1:])
