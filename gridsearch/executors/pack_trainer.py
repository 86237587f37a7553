"""The worker's half for networks: trains packs, measures sizes of packs, and exports the winner.

Between a pack and its events; `function_trainer` is its like for plain functions.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gridsearch.errors import RAISED, PluginError, StoreError, traced
from gridsearch.executors.borrowed_process import Printing, borrowed, from_keyboard
from gridsearch.executors.logs import LogStream, one_line
from gridsearch.executors.trial_material import TrialMaterial
from gridsearch.records import (
    EngineSays,
    Event,
    Exported,
    ExportRequest,
    ImageSettings,
    Lane,
    LanesTraining,
    LanesWanted,
    LogText,
    Pack,
    PackEnded,
    PackStarted,
    Probed,
    ProbeRequest,
    TrialFailed,
    TrialFinished,
    Unwritable,
    WorkerSetup,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from gridsearch.plugins import Plugin
    from gridsearch.training.memory import ProcessPeak

_PROBE_SECONDS = 0.2
"""How long each size of a pack is timed in a round."""

_PROBE_ROUNDS = 2

_PROBE_LIMIT = 15.0
"""Seconds after which no other size is tried: a network whose steps take that long fills a core, and gains little."""

_GAIN = 1.05
"""Larger packs are tried as long as the last one was hardly slower than the best, per lane and image."""

_CHEAP = 3.0
"""Processor seconds of a measurement after which two lanes must have gained something for more to be tried, and after
which there is no second round: a network that takes longer fills a core with one lane."""

_WORTH = 0.97
"""Of the time of one lane that each of two may take for that."""

_COMPILING = "compiling operations for this processor, some seconds; they are kept for later runs"

_SCRATCH = 1.5
"""A pack's memory over that of its tensors where a process cannot be measured: kernels take their own besides."""


class PackTrainer:
    """Trains packs on one device.

    Args:
        setup: the worker's name, device, threads and locators.
        emit: takes each event as it happens.
        objects: plug-ins given as objects from Python, by display name; they stand for their locators.
    """

    def __init__(
        self, setup: WorkerSetup, emit: Callable[[Event], None], objects: Mapping[str, Plugin] | None = None
    ) -> None:
        import torch

        self.setup = setup
        self.emit = emit
        self._device = torch.device(setup.device)
        self._material = TrialMaterial(setup, self._device, {} if objects is None else objects)
        self._peak: ProcessPeak | None = None

    def train(
        self,
        pack: Pack,
        *,
        stop: Callable[[], bool],
        leave: Callable[[], bool] = lambda: False,
        given: Callable[[], Sequence[Lane]] = lambda: (),
        pruned: Callable[[], Collection[int]] = lambda: (),
    ) -> None:
        """Train a pack; whatever goes wrong becomes an event.

        Args:
            pack: the trials.
            stop: asked now and then, while the pack takes its steps, whether to leave at once.
            leave: asked after each epoch whether to leave then, once there is a checkpoint.
            given: waits for the answer to a `LanesWanted` and returns it.
            pruned: asked after each epoch for the trials that shall end now.
        """
        from gridsearch.training.context import TrainContext
        from gridsearch.training.lane_checkpoints import LaneCheckpoints
        from gridsearch.training.loop import train_pack

        events = _PackEvents(pack, self.setup.name, self.emit, given)
        networks = cast("Pack[ImageSettings]", pack)
        try:
            with self._at_work(events.log, networks.lanes[0].trial.settings):
                context = TrainContext(
                    data=self._material.data,
                    build=self._material.build,
                    own=self._material.own,
                    device=self._device,
                    stop=stop,
                    more=events.more,
                    drop=pruned,
                    training=events.training,
                    metric=self.setup.metric,
                    checkpoints=LaneCheckpoints(
                        interval=self.setup.checkpoint, settled=self.setup.settled, leave=leave
                    ),
                )
                train_pack(networks, context, emit=events.report)
        except StoreError as error:
            self.emit(self._unwritable(error))
        except (*RAISED, KeyboardInterrupt) as error:
            # a pack that cannot even start fails its trials, not the worker
            if from_keyboard(error):
                raise
            events.log.end()
            self._fail(events.left.values(), error)
        finally:
            events.log.end()
        self.emit(PackEnded(worker=self.setup.name, pack=pack.id))

    def probe(self, request: ProbeRequest) -> Probed:
        """Time a few steps of a trial in packs of several sizes; a model that raises gives no times.

        Each size is timed in two rounds and its better time counts: whatever else the machine does can only
        make a pack look slower, and one measurement of each has chosen half the best size on a busy machine.  Where one
        round takes long, it is the only one, and may end with two lanes that are no faster than one.
        """
        began = time.monotonic()
        end, cheap = began + _PROBE_LIMIT, time.thread_time() + _CHEAP
        seconds: dict[int, float] = {}
        memory: dict[int, float] = {}
        log = LogStream(lambda _: None)  # what a model prints belongs to a trial's log, and this is no trial
        try:
            with self._at_work(log, request.settings):
                for turn in range(_PROBE_ROUNDS):
                    if turn == 0 or time.thread_time() < cheap:
                        self._time_packs(request, seconds, memory, end, cheap)
        except RAISED:  # the trials will show it, each in its own log
            log.end()
        return Probed(
            worker=self.setup.name,
            key=request.key,
            seconds_per_image=seconds,
            memory_mb=memory,
            worker_mb=self._own_megabytes(request.settings) if memory else None,
            seconds=time.monotonic() - began,
        )

    def _own_megabytes(self, settings: ImageSettings) -> float | None:
        """Return what this process has without a pack and the images; None where that is not known."""
        if self._peak is None or self._peak.base is None:
            return None
        return (self._peak.base - self._material.data(settings).pixels.nbytes) / 1e6

    def _time_packs(
        self,
        request: ProbeRequest,
        seconds: dict[int, float],
        memory: dict[int, float],
        end: float,
        cheap: float,
    ) -> None:
        """Time packs of growing size, until more gain nothing, the next would not fit, or time is up.

        Args:
            request: names the sizes.
            seconds: gets what they take.
            memory: likewise.
            end: when time is up.
            cheap: the thread's processor time from which on two lanes must have gained something.
        """
        limit = math.inf if request.limit_mb is None else request.limit_mb
        for lanes in request.lanes:
            if seconds and time.monotonic() > end:
                break
            if _gains_nothing(seconds) and time.thread_time() > cheap:
                break
            if memory and max(memory.values()) * lanes / max(memory) > limit:
                break
            found = self._time_pack(request.settings, lanes)
            if found is None or (lanes > 1 and found[1] > limit):
                break
            seconds[lanes] = min(found[0], seconds.get(lanes, math.inf))
            # the process may hold freed memory by now
            memory[lanes] = min(found[1], memory.get(lanes, math.inf))
            tried = [size for size in seconds if size <= lanes]
            best = min(tried, key=seconds.__getitem__)
            if seconds[lanes] > _GAIN * seconds[best] and len([size for size in tried if size > best]) > 1:
                break

    def _time_pack(self, settings: ImageSettings, lanes: int) -> tuple[float, float] | None:
        """Return seconds per image of one lane and megabytes; None where such lanes cannot share a program."""
        from gridsearch.training.memory import ProcessPeak
        from gridsearch.training.probe import probe

        data = self._material.data(settings)
        self._peak = self._peak or ProcessPeak()
        with self._peak:
            result = probe(
                settings,
                data=self._material.data,
                build=self._material.build,
                device=self._device,
                lanes=lanes,
                seconds=_PROBE_SECONDS,
                own=self._material.own(settings),
            )
        if result.lanes < lanes:
            return None
        epoch = result.seconds(epochs=1, val_images=len(data.val))
        on_cpu = self._device.type == "cpu"
        needed = (
            self._peak.beyond if on_cpu and self._peak.beyond is not None else _SCRATCH * result.memory_bytes
        )
        return epoch / len(data.train), needed / 1e6

    def export(self, request: ExportRequest) -> Exported | Unwritable:
        """Evaluate trained lanes on the test images and export the first; what goes wrong is in the answer."""
        from gridsearch.training.export import export

        log = LogStream(lambda _: None)
        try:
            with self._at_work(log, request.lanes[0].trial.settings):
                files, facts = export(
                    request.lanes,
                    data=self._material.cache(request.lanes[0].trial.settings),
                    build=self._material.build,
                    folder=Path(request.folder),
                )
        except StoreError as error:
            return self._unwritable(error)
        except RAISED as error:  # a user's model may raise anything
            return Exported(
                worker=self.setup.name,
                id=request.id,
                error=one_line(error).removeprefix("ModelRefused: "),
                traceback=traced(error),
            )
        return Exported(worker=self.setup.name, id=request.id, files=files, facts=facts)

    def parameters(self, settings: ImageSettings) -> int:
        """Return how many parameters a model has, without making their values.

        Raises:
            Exception: whatever the model raises.
        """
        import torch

        data = self._material.data(settings)
        with torch.device("meta"):
            return sum(p.numel() for p in self._material.build(settings, data).parameters())

    def method(self, settings: ImageSettings) -> tuple[str, str]:
        """Return how lanes of these settings train, "stacked", "vmap" or "solo", and why not better.

        Raises:
            PluginError: the model cannot run.
        """
        from gridsearch.training import method_of

        found: tuple[str, str] = self._tried(method_of, settings)
        return found

    def try_out(self, settings: ImageSettings) -> None:
        """Let a model of these settings see a few images.

        Raises:
            PluginError: it cannot run.
        """
        from gridsearch.training import try_out

        self._tried(try_out, settings)

    def _tried(self, ask: Callable[..., Any], settings: ImageSettings) -> Any:
        from gridsearch.training.failures import mend

        log = LogStream(lambda _: None)
        try:
            with self._at_work(log, settings):
                return ask(
                    settings, data=self._material.data, build=self._material.build, device=self._device
                )
        except RAISED as error:
            line = one_line(error)[:300]
            what = line.removeprefix("ModelRefused: ")
            found = f"cannot train: {what}" if what != line else f"cannot run: it raises {line}"
            raise PluginError(f"model {settings.model!r} {found}{mend(error)}") from error

    @contextlib.contextmanager
    def _at_work(self, log: LogStream, settings: ImageSettings) -> Iterator[None]:
        """Compute as a worker does, with what is printed meanwhile sent to a log.

        The user's own code is imported before: what it sets then is the process's, and no pack is the first.
        """
        from gridsearch.training import devices
        from gridsearch.training.kernels import compilation_told

        with Printing(log).inside():
            arithmetic = self._material.arithmetic(settings)
        with (
            borrowed(*arithmetic),
            devices.at_work(threads=self.setup.threads),
            compilation_told(lambda: self.emit(EngineSays(message=_COMPILING))),
            Printing(log).inside(),
        ):
            yield

    def _unwritable(self, error: StoreError) -> Unwritable:
        return Unwritable(worker=self.setup.name, message=error.message, hint=error.hint)

    def _fail(self, lanes: Iterable[Lane], error: BaseException) -> None:
        text = traced(error)
        for lane in lanes:
            self.emit(
                TrialFailed(
                    trial=lane.trial.id,
                    attempt=lane.trial.attempt,
                    reason="error",
                    message=one_line(error),
                    traceback=text,
                )
            )


def _gains_nothing(seconds: Mapping[int, float]) -> bool:
    """Whether packs beyond one lane were timed, and none of them takes clearly less time for a lane."""
    beyond = [found for lanes, found in seconds.items() if lanes > 1]
    return 1 in seconds and bool(beyond) and min(beyond) > _WORTH * seconds[1]


class _PackEvents:
    """The events of a pack that trains, and which of its trials have not ended.

    Args:
        pack: the trials.
        worker: the worker's name.
        emit: takes each event.
        given: waits for the answer to a `LanesWanted` and returns it.

    Attributes:
        left: by trial, the lanes that have not ended.
        log: takes what their code prints.
    """

    def __init__(
        self, pack: Pack, worker: str, emit: Callable[[Event], None], given: Callable[[], Sequence[Lane]]
    ) -> None:
        self._pack, self._worker, self._emit, self._given = pack.id, worker, emit, given
        emit(PackStarted(worker=worker, pack=pack.id, trials=pack.trial_ids))
        self._ids = list(pack.trial_ids)
        self._training: tuple[int, ...] = ()
        self.left = {lane.trial.id: lane for lane in pack.lanes}
        self.log = LogStream(lambda text: emit(LogText(trials=tuple(self._ids), text=text)))

    def more(self, count: int) -> Sequence[Lane[ImageSettings]]:
        """Return lanes for so many free places, or fewer."""
        self._emit(LanesWanted(worker=self._worker, pack=self._pack, count=count))
        lanes = cast("Sequence[Lane[ImageSettings]]", self._given())
        self._ids.extend(lane.trial.id for lane in lanes)
        self.left.update({lane.trial.id: lane for lane in lanes})
        return lanes

    def training(self, lanes: Sequence[Lane[ImageSettings]]) -> None:
        """Note which lanes train now."""
        trials = tuple(lane.trial.id for lane in lanes)
        if trials != self._training:
            self._training = trials
            self._emit(LanesTraining(pack=self._pack, trials=trials))

    def report(self, event: Event) -> None:
        """Pass an event of a trial on."""
        if isinstance(event, TrialFinished | TrialFailed):
            self.log.end()  # before the end of the trial: no log is open after it
            self.left.pop(event.trial, None)
        self._emit(event)
