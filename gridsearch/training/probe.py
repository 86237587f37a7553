"""What a trial will cost: a few steps of it, timed, for `plan --probe` and the planner's cache."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.utils._pytree import tree_leaves

from gridsearch.training import seeds
from gridsearch.training.context import Stopped
from gridsearch.training.dispatch_watch import DispatchWatch
from gridsearch.training.lanes.compile.lane_values import NotPackable
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program_choice import build_program, min_lanes
from gridsearch.training.metrics import Diverged
from gridsearch.training.model_setup import build_network
from gridsearch.training.own_code import OwnCode
from gridsearch.training.precision import Precision
from gridsearch.training.solo import SoloProgram

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from gridsearch.records import ImageSettings
    from gridsearch.training.resident_data import ResidentData

_WARM_UP = 2  # blocks that are not timed: the first step allocates, and picks kernels
_HARMLESS_LR = 1e-12  # costs the same, and no lane diverges while it is timed
_ENOUGH = 3  # timed blocks, however slow
_SLOW = 0.5  # seconds of a block from which on one warms up and one is timed: its noise is small beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The cost of one lane on one device, alone or as its share of a pack.

    Attributes:
        device: "cpu", "cuda:0", ...
        step_seconds: median time of a training step, the lane's share.
        image_seconds: time per evaluated image, the lane's share; None without a validation split.
        memory_bytes: of the whole pack: the most that its tensors take in a step or an evaluated batch; enough for
            lanes that average their weights (`ema`), whether these do or not.
        steps: how many steps were timed.
        steps_per_epoch: steps of one epoch of the trial.
        parameters: trainable ones of a lane.
        lanes: how many trained side by side.
        method: "stacked", "vmap", or "solo" where lanes train one after the other.
    """

    device: str
    step_seconds: float
    image_seconds: float | None
    memory_bytes: int
    steps: int
    steps_per_epoch: int
    parameters: int
    lanes: int = 1
    method: str = "solo"

    def seconds(self, *, epochs: int, val_images: int) -> float:
        """Return the estimated wall time of a whole trial."""
        evaluation = val_images * (self.image_seconds or 0.0)
        return epochs * (self.steps_per_epoch * self.step_seconds + evaluation)


def probe(
    settings: ImageSettings,
    *,
    data: Callable[[ImageSettings], ResidentData],
    build: Callable[[ImageSettings, ResidentData], nn.Module],
    device: torch.device | str,
    seconds: float = 1.0,
    lanes: int = 1,
    own: OwnCode = OwnCode(),  # noqa: B008  (frozen)
) -> ProbeResult:
    """Train a few steps of a trial, evaluate a batch, and say what they cost.

    Args:
        settings: the trial's recipe.
        data: gives the data of the settings, on `device`.
        build: gives a new model.
        device: where to train.
        seconds: about how long to go on with the timed steps; there are three at least, one where steps are slow.
        lanes: how many lanes to train side by side; where they cannot, one is timed.
        own: what of the recipe is the user's own code.

    Raises:
        Exception: whatever the model or the data raises.
    """
    device = torch.device(device)
    precision = Precision.of(settings.dtype, device)
    resident = data(settings)
    harmless = dataclasses.replace(settings, lr=_HARMLESS_LR)
    memory = PeakMemory(device, [resident.pixels, resident.labels])
    with seeds.isolated(device), precision.products():
        with memory:
            program = _program(harmless, resident, build, precision, lanes, own)
            if device.type == "cpu":
                _first_step(program)
        try:
            times, steps = _time_steps(program, device, seconds)
            image_seconds = _time_evaluation(program, device, seconds / 4)
        finally:
            memory.measure()
            program.close()
    # lanes may differ in averaging their weights, which takes memory from the start and no time
    averages = 0 if settings.ema else program.lanes * program.parameters * precision.weights.itemsize
    return ProbeResult(
        device=str(device),
        step_seconds=statistics.median(times) / program.lanes,
        image_seconds=None if image_seconds is None else image_seconds / program.lanes,
        memory_bytes=memory.peak + averages,
        steps=steps,
        steps_per_epoch=program.steps_per_epoch,
        parameters=program.parameters,
        lanes=program.lanes,
        method=program.method,
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Program:
    """A lane, or a pack of them, as the stopwatch sees it: what trains epoch n, and what evaluates.

    `taken` says how many steps were taken where a call takes several; None where each look is before one step.
    """

    train: Callable[[int, Callable[[], None]], object]
    evaluate: Callable[[Callable[[], None]], object]
    data: ResidentData
    evaluation_batch: int
    steps_per_epoch: int
    parameters: int
    lanes: int
    method: str
    close: Callable[[], None] = lambda: None
    taken: Callable[[], int | None] = lambda: None


def _program(
    settings: ImageSettings,
    data: ResidentData,
    build: Callable[[ImageSettings, ResidentData], nn.Module],
    precision: Precision,
    lanes: int,
    own: OwnCode,
) -> _Program:
    if lanes >= min_lanes(data.device):
        with contextlib.suppress(NotPackable):
            models = [build_network(settings, 0, data, build, precision) for _ in range(lanes)]
            pack = build_program([Member(settings, 0) for _ in models], models, data, precision, own)
            return _Program(
                train=lambda _, watch: pack.train_epoch(watch),
                evaluate=pack.evaluate,
                data=data,
                evaluation_batch=pack.evaluation_batch,
                steps_per_epoch=pack.plan.steps,
                parameters=pack.storage.parameter_count,
                lanes=lanes,
                method=pack.network.method,
                close=pack.close,
                taken=lambda: pack.taken,
            )
    solo = SoloProgram(settings, 0, data, build, precision, own)
    return _Program(
        train=solo.train_epoch,
        evaluate=lambda watch: solo.evaluate(1, watch),
        data=data,
        evaluation_batch=solo.evaluation_batch,
        steps_per_epoch=solo.plan.steps,
        parameters=solo.parameter_count,
        lanes=1,
        method="solo",
    )


def _first_step(program: _Program) -> None:
    """Train one step and evaluate one batch, to measure the memory that they take."""
    for work in (lambda watch: program.train(1, watch), program.evaluate):
        calls = 0

        def watch() -> None:
            nonlocal calls
            calls += 1
            if calls > 1:
                raise Stopped

        with contextlib.suppress(Stopped, Diverged):
            work(watch)


class PeakMemory:
    """Measures the most memory in use by tensors inside a `with` block, beyond what was in use before it.

    On a GPU the allocator says it.  On a CPU it keeps what was freed, so that a process's size is that of the largest
    pack so far and not of this one: there the tensors themselves are counted.

    Args:
        device: where the tensors live.
        there: tensors that were there before and do not count, on a CPU.

    Attributes:
        peak: bytes, once the block was left.
    """

    def __init__(self, device: torch.device, there: Sequence[torch.Tensor] = ()) -> None:
        self.peak = 0
        self._device = device
        self._before = 0
        self._live = _LiveTensors(there)

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        else:
            self._live.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type != "cuda":
            self._live.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self.peak = self._live.peak
        self.measure()

    def measure(self) -> None:
        """Take in what a GPU has used since, graphs that were recorded later included."""
        if self._device.type == "cuda":
            self.peak = max(0, torch.cuda.max_memory_allocated(self._device) - self._before)


class _LiveTensors(DispatchWatch):
    """Counts the bytes of all storages that operators return, from then until they are freed.

    Args:
        there: tensors that do not count.

    Attributes:
        peak: the most bytes at a time.
    """

    def __init__(self, there: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in there}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return found

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size


class _Stopwatch:
    """Called before each step, or several: notes a step's time after each block, and leaves when it is enough."""

    def __init__(
        self, device: torch.device, seconds: float, taken: Callable[[], int | None] = lambda: None
    ) -> None:
        self.times: list[float] = []
        self.steps = 0
        self._taken, self._before = taken, taken() or 0
        self._device = device
        self._clock = _clock(device)
        self._seconds = seconds
        self._calls = 0
        self._blocks = 0
        self._last = 0.0
        self._started = 0.0

    def __call__(self) -> None:
        calls, self._calls = self._calls, self._calls + 1
        if calls % _block(self._device):
            return
        _wait_for(self._device)
        now = self._clock()
        taken = self._taken()
        steps = _block(self._device) if taken is None else max(1, taken - self._before)
        self._before = taken or 0
        slow = self._blocks > 0 and (now - self._last) / steps > _SLOW
        if self._blocks > (1 if slow else _WARM_UP):
            self.times.append((now - self._last) / steps)
            self.steps += steps
        else:
            self._started = now
        self._blocks += 1
        self._last = now
        if len(self.times) >= (1 if slow else _ENOUGH) and now - self._started > self._seconds:
            raise Stopped


def _time_steps(program: _Program, device: torch.device, seconds: float) -> tuple[list[float], int]:
    """Return the seconds of a step, measured several times, and how many steps that were."""
    watch = _Stopwatch(device, seconds, program.taken)
    epoch = 1
    while True:
        try:
            program.train(epoch, watch)
        except Stopped:
            return watch.times, watch.steps
        except Diverged:
            if watch.times:
                return watch.times, watch.steps
            raise
        epoch += 1


def _time_evaluation(program: _Program, device: torch.device, seconds: float) -> float | None:
    started = 0.0
    batches = 0
    clock = _clock(device)

    def watch() -> None:
        nonlocal started, batches
        if batches <= 1:  # the first batch warms up, where there are more
            _wait_for(device)
            started = clock()
        elif clock() - started > seconds:
            raise Stopped
        batches += 1

    images = len(program.data.val)
    if images == 0:
        return None
    with contextlib.suppress(Stopped):
        program.evaluate(watch)
    _wait_for(device)
    spent = clock() - started
    skipped = 1 if batches > 1 else 0
    seen = min(images, batches * program.evaluation_batch) - skipped * program.evaluation_batch
    return spent / seen


def _clock(device: torch.device) -> Callable[[], float]:
    """Return what measures a step.

    On a CPU it is the thread's own processor time, which does not run while somebody else has the core: by wall
    time, a look that was interrupted once made packs of 4 look worse than single trials.
    """
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return time.thread_time
    return time.perf_counter


def _block(device: torch.device) -> int:
    """Steps between two looks at the clock; a look waits for the device."""
    return 1 if device.type == "cpu" else 10


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
