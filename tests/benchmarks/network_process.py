"""A process that trains one network in one way for some seconds at a time: what `networks` measures.

    python -m tests.benchmarks.network_process

It reads a command a line, [name, options] as JSON, and answers with a line; the commands are the methods of `Process`.
The plain loop wants a process as Python starts it, all else one with a worker's environment.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.executors.pack_trainer import PackTrainer
from gridsearch.executors.trial_material import TrialMaterial
from gridsearch.plugins import ImageData
from gridsearch.records import ImageSettings, ProbeRequest, WorkerSetup
from gridsearch.service.run.sizing import SIZES, Probe
from gridsearch.training import devices
from gridsearch.training.lanes.compile.lane_values import NotPackable
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program_choice import build_program
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram
from tests.benchmarks.network_rows import CLASSES, OTHERS, ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Callable

TRIALS = 8
EVALUATED = 200
"""Images at a time when the plain loop evaluates."""


def noise(row: Row, steps: int) -> ImageData:
    """Return random images for so many steps, with a sixth more for the validation split."""
    rng = np.random.default_rng(0)
    count = steps * row.batch * 6 // 5
    return ImageData(
        train_images=rng.integers(0, 256, (count, *row.image), dtype=np.uint8),
        train_labels=np.arange(count) % CLASSES,
        test_images=np.zeros((CLASSES, *row.image), np.uint8),
        test_labels=np.arange(CLASSES),
        class_names=tuple("0123456789"),
    )


def settings_of(row: Row, trial: int, dtype: str) -> ImageSettings:
    """Return a trial's settings; trials differ in lr."""
    return ImageSettings(
        dataset="noise", model="own", batch=row.batch, epochs=10**6, dtype=dtype, lr=1e-4 * (1 + trial)
    )


def plain_loop(row: Row, data: ImageData) -> Callable[[], None]:
    """Return what trains an epoch: images as one float tensor, model and batches channels_last, torch's own Adam."""
    split = ResidentCache(data, device="cpu")(settings_of(row, 0, "float32"))
    images_NCHW = torch.from_numpy(data.train_images).float().div_(255)
    images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
    labels_N = torch.from_numpy(data.train_labels)
    model = row.build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def epoch() -> None:
        loss_sum, hits = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        model.train()
        for chosen_B in split.train[torch.randperm(len(split.train))].split(row.batch):
            labels_B = labels_N[chosen_B]
            logits_BY = model(images_NCHW[chosen_B])
            loss = F.cross_entropy(logits_BY, labels_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                loss_sum += loss * len(labels_B)
                hits += logits_BY.argmax(dim=1).eq(labels_B).sum()
        model.eval()
        with torch.no_grad():
            for chosen_B in split.val.split(EVALUATED):
                hits += model(images_NCHW[chosen_B]).argmax(dim=1).eq(labels_N[chosen_B]).sum()
        loss_sum.item(), hits.item()

    return epoch


class Material(TrialMaterial):
    """A row's network and images."""

    def __init__(self, row: Row, data: ImageData, setup: WorkerSetup) -> None:
        super().__init__(setup, torch.device("cpu"), {})
        self.row, self.resident = row, ResidentCache(data, device="cpu")

    def data(self, settings: ImageSettings) -> Any:
        return self.resident(settings)

    def build(self, settings: ImageSettings, data: Any) -> torch.nn.Module:
        del settings, data
        return self.row.build()

    def arithmetic(self, settings: ImageSettings) -> list[Any]:
        del settings
        return []


class Trainer(PackTrainer):
    """A worker's trainer, with a row's network and images."""

    def __init__(self, row: Row, data: ImageData) -> None:
        setup = WorkerSetup(name="w0", device="cpu", threads=1)
        super().__init__(setup, lambda _: None)
        self.row, self._material = row, Material(row, data, setup)

    def program(self, lanes: int, dtype: str) -> tuple[str, Callable[[], object]]:
        """Return how so many lanes train, and what trains and evaluates an epoch of all of them.

        Raises:
            NotPackable: several lanes train one after the other.
        """
        device = torch.device("cpu")
        trials = [settings_of(self.row, trial, dtype) for trial in range(lanes)]
        data, precision = self._material.data(trials[0]), Precision.of(dtype, device)
        models = [build_network(s, 0, data, self._material.build, precision) for s in trials]
        try:
            pack = build_program([Member(s, 0) for s in trials], models, data, precision)
        except NotPackable:
            if lanes > 1:
                raise
        else:
            return pack.network.method, lambda: (pack.train_epoch(), pack.evaluate())
        solo = SoloProgram(trials[0], 0, data, self._material.build, precision)
        turns = iter(range(1, 10**6))

        def epoch() -> None:
            turn = next(turns)
            solo.train_epoch(turn)
            solo.evaluate(turn)

        return "solo", epoch

    def choose(self, dtype: str, workers: int) -> dict[str, Any]:
        """Return how many lanes a run of all trials gives a worker's packs, from the measurement that a run makes."""
        settings = settings_of(self.row, 0, dtype)
        sizes = tuple(size for size in SIZES if size < 2 * TRIALS)
        began = time.perf_counter()
        found = self.probe(ProbeRequest(key="", settings=settings, lanes=sizes))
        seconds = time.perf_counter() - began
        best = Probe(found.seconds_per_image, found.memory_mb, upto=max(sizes)).best_lanes(TRIALS)
        method, reason = self.method(settings)
        costs = {str(n): cost for n, cost in found.seconds_per_image.items()}
        # the queue gives each worker its share of the trials
        lanes = min(best, -(-TRIALS // workers))
        return {"lanes": lanes, "method": method, "reason": reason, "seconds": seconds, "costs": costs}


class Process:
    """Obeys the commands, one row at a time."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.ways: dict[str, tuple[int, Callable[[], object]]] = {}

    def row(self, title: str, steps: int) -> dict[str, Any]:
        """Take up another row."""
        self.ways.clear()
        self.chosen = next(row for row in ROWS + OTHERS if row.title == title)
        self.data = noise(self.chosen, steps)
        self.images = len(
            ResidentCache(self.data, device="cpu")(settings_of(self.chosen, 0, "float32")).train
        )
        self.trainer: Trainer | None = None
        return {}

    def plain(self) -> dict[str, Any]:
        """Make the plain loop, and train an epoch of it."""
        torch.manual_seed(0)
        self.ways["plain"] = 1, plain_loop(self.chosen, self.data)
        self.ways["plain"][1]()
        return {}

    def prepare(self, lanes: int, dtype: str) -> dict[str, Any]:
        """Make a program of so many lanes, and train an epoch of it; say if there is none."""
        try:
            method, epoch = self._trainer().program(lanes, dtype)
        except NotPackable as reason:
            return {"alone": str(reason)}
        self.ways[f"lanes {lanes} {dtype}"] = lanes, epoch
        epoch()
        return {"method": method}

    def choose(self, dtype: str, workers: int) -> dict[str, Any]:
        """Measure how many lanes a run would choose."""
        return self._trainer().choose(dtype, workers)

    def train(self, way: str, seconds: float) -> dict[str, Any]:
        """Train epochs until the time is over, one at least."""
        lanes, epoch = self.ways[way]
        trained, began, processor = 0, time.perf_counter(), time.process_time()
        while True:
            epoch()
            trained += lanes * self.images
            spent = time.perf_counter() - began
            if spent >= seconds:
                return {"images": trained, "wall": spent, "processor": time.process_time() - processor}

    def _trainer(self) -> Trainer:
        if self.trainer is None:
            devices.prepare_process(threads=1)
            self.trainer = Trainer(self.chosen, self.data)
        return self.trainer


def main() -> None:
    """Obey commands until the input ends."""
    process = Process()
    for line in sys.stdin:
        name, options = json.loads(line)
        print(json.dumps(getattr(process, name)(**options)), flush=True)


if __name__ == "__main__":
    main()
