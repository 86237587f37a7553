"""How the steps of an epoch are run: one by one, or captured as CUDA graphs and replayed.

Stands under a program whose steps need nothing from the host (`feed`).  Launching the hundred small kernels of a
LeNet's step costs more than running them; a recording is launched whole, several steps at a time.

A recording is used only once its first replay has done what the same steps do when run one by one.  Whatever goes
wrong with it, the steps go on one by one, with a line in the log.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from contextlib import AbstractContextManager

    Step = Callable[[int], None]

_log = logging.getLogger(__name__)

_WARM_UP = 3  # steps before a recording: libraries choose kernels and allocate their workspaces in the first
_STEPS = 10  # of one replay: a recording of more steps costs more to capture and gains little
_MAX_PENDING = 2  # replays that are queued on the device while the host asks whether to stop
_MIN_REPLAYS = 5  # a recording pays if so many replays of it are to come


class Recording(Protocol):
    """Captured work of a device."""

    def replay(self) -> None:
        """Launch it; returns before it is done."""
        ...

    def release(self) -> None:
        """Free its memory."""
        ...


class Recorder(Protocol):
    """Captures work."""

    def on_stream(self) -> AbstractContextManager[object]:
        """Return the context in which an epoch's steps are run, captured and replayed."""
        ...

    def capture(self, work: Callable[[], None]) -> Recording:
        """Capture what the work launches; the work may be done meanwhile or not.

        Raises:
            Exception: it cannot be captured.
        """
        ...

    def throttle(self) -> None:
        """Wait until few replays are queued."""
        ...


class EagerSteps:
    """Runs steps one by one.

    Args:
        step: takes the next step, of so many images.
        batch: images of a whole step.
    """

    def __init__(self, step: Step, *, batch: int) -> None:
        self._step, self._batch = step, batch

    def run(
        self, whole: int, rest: int, check_stop: Callable[[], None], *, left: int, kind: Hashable
    ) -> None:
        """Take an epoch's steps.

        Args:
            whole: steps of a whole batch.
            rest: images of the last step, after them; 0 for none.
            check_stop: called before each step; raises to leave.
            left: whole steps that may come in later epochs.
            kind: steps of another kind do something else.
        """
        del left, kind
        for count in (*(self._batch,) * whole, *((rest,) if rest else ())):
            check_stop()
            self._step(count)

    def release(self) -> None:
        """Do nothing: there are no recordings."""


class RecordedSteps:
    """Runs the first steps one by one, captures them, and replays the rest.

    Args:
        step: takes the next step, of so many images; the device alone decides what it does.
        batch: images of a whole step.
        recorder: captures steps.
        state: gives the tensors that a step changes.
        limit: how far a replay may be from the steps themselves, as a share of each tensor's largest value.

    Attributes:
        replayed: steps that came from a recording.
    """

    def __init__(
        self,
        step: Step,
        *,
        batch: int,
        recorder: Recorder,
        state: Callable[[], Sequence[torch.Tensor]],
        limit: float,
    ) -> None:
        self.replayed = 0
        self._step, self._batch = step, batch
        self._recorder, self._state, self._limit = recorder, state, limit
        self._recordings: dict[tuple[Hashable, int], Recording] = {}
        self._refused = False

    def run(
        self, whole: int, rest: int, check_stop: Callable[[], None], *, left: int, kind: Hashable
    ) -> None:
        """Take an epoch's steps; see `EagerSteps.run`."""
        with self._recorder.on_stream():
            done = self._warm_up(whole, check_stop, left=left, kind=kind)
            for count in (_STEPS, 1):
                recording = self._recordings.get((kind, count))
                while recording is not None and whole - done >= count:
                    for _ in range(count):
                        check_stop()
                    recording.replay()
                    self._recorder.throttle()
                    done += count
                    self.replayed += count
            for images in (*(self._batch,) * (whole - done), *((rest,) if rest else ())):
                check_stop()
                self._step(images)

    def _warm_up(self, whole: int, check_stop: Callable[[], None], *, left: int, kind: Hashable) -> int:
        """Capture what will pay, where there is no recording yet; return how many steps that took."""
        done = 0
        for count in (_STEPS, 1):
            key = (kind, count)
            wanted = (
                count + (0 if done else _WARM_UP) <= whole - done and count * _MIN_REPLAYS <= whole + left
            )
            if self._refused or key in self._recordings or not wanted:
                continue
            for _ in range(_WARM_UP if done == 0 else 0):
                check_stop()
                self._step(self._batch)
                done += 1
            self._record(key, count)
            done += count
        return done

    def _record(self, key: tuple[Hashable, int], count: int) -> None:
        """Take so many steps, capture them, and keep the recording if it does what they did."""

        def work() -> None:
            for _ in range(count):
                self._step(self._batch)

        before = [t.clone() for t in self._state()]
        work()
        after = [t.clone() for t in self._state()]
        try:
            self._set(before)  # a recorder may do the work while it captures it
            recording = self._recordings[key] = self._recorder.capture(work)
            self._set(before)
            recording.replay()
            for ours, theirs in zip(self._state(), after, strict=True):
                if not _agree(ours, theirs, self._limit):
                    raise ArithmeticError("a recorded step does not do what the step does")
        except Exception as error:  # noqa: BLE001  (a graph only saves time: it is no reason to fail)
            self._refused = True
            self.release()
            self._set(after)
            text = " ".join(str(error).split())[:200]
            _log.warning("no CUDA graph for this pack, its steps run one by one: %s", text)

    @torch.no_grad()
    def _set(self, values: Sequence[torch.Tensor]) -> None:
        for mine, value in zip(self._state(), values, strict=True):
            mine.copy_(value)

    def release(self) -> None:
        """Free all recordings: steps use other buffers from now on."""
        for recording in self._recordings.values():
            recording.release()
        self._recordings.clear()


def _agree(ours: torch.Tensor, theirs: torch.Tensor, limit: float) -> bool:
    if not ours.is_floating_point():
        return torch.equal(ours, theirs)
    largest = theirs.nan_to_num(0, 0, 0).abs().max() if theirs.numel() else 0.0
    return torch.allclose(ours, theirs, rtol=limit, atol=limit * float(largest), equal_nan=True)


class CudaRecorder:
    """Captures work as CUDA graphs, on a stream of its own.

    A graph holds addresses: what it reads and changes must stay where it is.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # of its own, as torch's default stream for captures belongs to the first device that captured
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._waiting: deque[torch.cuda.Event] = deque()

    @contextlib.contextmanager
    def on_stream(self) -> Any:
        """Work on the recorder's stream, after what was launched before, and before what is launched next."""
        around = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(around)
        try:
            with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
                yield
        finally:
            around.wait_stream(self._stream)

    def capture(self, work: Callable[[], None]) -> Recording:
        """Capture what the work launches, without doing it.

        Raises:
            Exception: something in it cannot be captured.
        """
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                work()
        except BaseException:
            self._end_failed_capture(pool)
            raise
        return _Graph(graph)

    def _end_failed_capture(self, pool: Any) -> None:
        """End a capture that failed in torch's allocator and generator, which torch leaves as they are.

        The allocator would go on as if a capture were under way, and the generator would refuse to draw.
        """
        index = torch.cuda.current_device()
        ours: Any = torch._C
        with contextlib.suppress(Exception):
            ours._cuda_endAllocateToPool(index, pool)
        with contextlib.suppress(Exception):
            ours._cuda_releasePool(index, pool)
        with contextlib.suppress(Exception):
            generator: Any = torch.cuda.default_generators[index]
            generator.graphsafe_set_state(generator.clone_state())
        with contextlib.suppress(Exception):
            torch.cuda.synchronize(self._device)

    def throttle(self) -> None:
        """Wait until few replays are queued, so that a stop does not have to wait for an epoch."""
        # a spinning wait would take a core from other workers
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        self._waiting.append(event)
        if len(self._waiting) > _MAX_PENDING:
            self._waiting.popleft().synchronize()


class _Graph:
    """A captured CUDA graph."""

    def __init__(self, graph: torch.cuda.CUDAGraph) -> None:
        self._graph = graph

    def replay(self) -> None:
        """Launch it."""
        self._graph.replay()

    def release(self) -> None:
        """Free its memory, once it is done."""
        torch.cuda.synchronize()
        self._graph.reset()


def step_runner(
    step: Step,
    *,
    batch: int,
    device: torch.device,
    state: Callable[[], Sequence[torch.Tensor]],
    limit: float,
    recorder: Recorder | None = None,
    records: bool = True,
) -> EagerSteps | RecordedSteps:
    """Return what runs steps on a device: recordings on CUDA or where a recorder is given, if there may be any.

    Args:
        step: takes the next one, of so many images.
        batch: images of a whole step.
        device: where it runs.
        state: all tensors that a step changes.
        limit: see `RecordedSteps`.
        recorder: captures steps; None for CUDA graphs on CUDA.
        records: steps may be captured.
    """
    if not records:
        return EagerSteps(step, batch=batch)
    if recorder is None and device.type == "cuda":
        recorder = CudaRecorder(device)
    if recorder is None:
        return EagerSteps(step, batch=batch)
    return RecordedSteps(step, batch=batch, recorder=recorder, state=state, limit=limit)
