"""What differs between the kinds of `--executor`: where trials train, on how many workers, and who starts these.

Below `workers`, which asks the one that a run was given.  A further kind is a class here, and its name among the
choices of `RunOptions.executor`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from gridsearch.errors import DeviceError, UsageError
from gridsearch.service.prepare.options import ALLOCATIONS
from gridsearch.service.run.machine import cores, device_name, resolve_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.executors import Executor
    from gridsearch.records import Event, Settings, WorkerSetup
    from gridsearch.records.study_kinds import StudyKind
    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.prepare.prepared import Plugins


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What an executor is started with.

    Attributes:
        setups: the workers.
        deliver: takes each event.
        interrupted: says whether to stop, where the executor trains in this process.
        catalog: the plug-ins of the trials.
        settings: of the trials; their images travel with a run to other machines.
    """

    setups: Sequence[WorkerSetup]
    deliver: Callable[[Event], None]
    interrupted: Callable[[], bool]
    catalog: Plugins
    settings: Sequence[Settings]


class Backend(ABC):
    """Where and by whom a run's packs are trained.

    Args:
        options: how to run.

    Attributes:
        on_this_machine: whether it trains here, so that what this machine has is known.
    """

    on_this_machine: ClassVar[bool] = False

    def __init__(self, options: RunOptions) -> None:
        self.options = options

    @abstractmethod
    def devices(self, kind: StudyKind) -> tuple[str, ...]:
        """Return the devices that trials train on; see `workers.devices_for` for what is raised."""

    @abstractmethod
    def hardware(self, device: str) -> str:
        """Return what a device is called where measured costs are kept."""

    @abstractmethod
    def most_workers(self, devices: Sequence[str]) -> int:
        """Return how many workers there are, as long as there are packs for all of them."""

    @abstractmethod
    def free_megabytes(self, devices: Sequence[str], workers: int) -> float | None:
        """Return the free memory for each of so many workers in all; None if nobody knows."""

    @abstractmethod
    def start(self, launch: Launch) -> Executor:
        """Start the executor."""

    def _wanted_device(self, kind: StudyKind) -> str:
        """Return the device that was asked for; a function has none.

        Raises:
            UsageError: one was asked for all the same.
        """
        if kind.packs:
            return self.options.device
        if self.options.device not in ("auto", "cpu"):
            raise UsageError(f"--device {self.options.device}: {kind.noun} chooses its device itself")
        return "cpu"


class LocalBackend(Backend):
    """Worker processes of this machine: one a core, or one an accelerator."""

    on_this_machine = True

    def devices(self, kind: StudyKind) -> tuple[str, ...]:
        """Return the devices of this machine that `--device` names; what makes no packs computes on its cores."""
        device = self._wanted_device(kind)
        return resolve_devices(device) if kind.packs else (device,)

    def hardware(self, device: str) -> str:
        """Return the device's name and, of a CPU, which kernels it has."""
        return device_name(device)

    def most_workers(self, devices: Sequence[str]) -> int:
        """Return `--workers`, else one for each core or accelerator."""
        return self.options.workers or (cores() if devices[0] == "cpu" else len(devices))

    def free_megabytes(self, devices: Sequence[str], workers: int) -> float | None:
        """Return the share of each of the workers on the first device."""
        from gridsearch.training import free_megabytes

        free = free_megabytes(devices[0])
        return None if free is None else free / -(-workers // len(devices))

    def start(self, launch: Launch) -> Executor:
        """Start worker processes as there are packs for them."""
        from gridsearch.executors.local import LocalExecutor

        return LocalExecutor(launch.setups, launch.deliver, objects=launch.catalog.objects)


class InlineBackend(LocalBackend):
    """This process itself, one pack after the other."""

    def most_workers(self, devices: Sequence[str]) -> int:  # noqa: ARG002 - whatever they are
        """Return 1."""
        return 1

    def start(self, launch: Launch) -> Executor:
        """Return an executor that trains when it is polled."""
        from gridsearch.executors.inline import InlineExecutor

        return InlineExecutor(
            launch.setups[0],
            launch.deliver,
            interrupted=launch.interrupted,
            objects=launch.catalog.objects,
        )


class RayBackend(Backend):
    """Actors of a Ray cluster: one for each of its GPUs, or of its CPUs."""

    def devices(self, kind: StudyKind) -> tuple[str, ...]:
        """Return the kind of device that the cluster gives its actors."""
        from gridsearch.executors.ray import devices_of_cluster

        return devices_of_cluster(self._wanted_device(kind))

    def hardware(self, device: str) -> str:
        """Return the kind of device: which of them an actor gets is not known."""
        return f"ray {device.partition(':')[0]}"

    def most_workers(self, devices: Sequence[str]) -> int:
        """Return `--workers`, else as many as the cluster has places."""
        from gridsearch.executors.ray import places

        return self.options.workers or max(1, places(devices[0]))

    def free_megabytes(self, devices: Sequence[str], workers: int) -> float | None:  # noqa: ARG002 - of a place
        """Return the memory of a place on the node that has least."""
        from gridsearch.executors.ray import megabytes_of_place

        return megabytes_of_place(devices[0])

    def start(self, launch: Launch) -> Executor:
        """Connect to the cluster and ask for actors, with the images in its object store."""
        from gridsearch.executors.ray_workers import RayExecutor

        return RayExecutor(
            launch.setups[0],
            launch.deliver,
            own=launch.catalog.own,
            images=launch.catalog.images_of(launch.settings),
            workers=self.options.workers,
            most=max(1, -(-len(launch.settings) // (self.options.lanes or 1))),
        )


class SlurmBackend(Backend):
    """Workers in allocations of a Slurm cluster: in each, one for each of its GPUs, or of its cores."""

    def devices(self, kind: StudyKind) -> tuple[str, ...]:
        """Return the devices of an allocation: the GPUs that are asked for, else its cores."""
        from gridsearch.executors.slurm import require_slurm

        request, asked = self.options.allocation, self.options.device
        wanted = asked.partition(":")[0]
        if wanted not in ("auto", "cpu", "cuda"):
            raise DeviceError(f"no device {asked!r} in an allocation", hint="use auto, cpu or cuda")
        if wanted == "cuda" and not request.gpus:
            raise DeviceError(f"--device {asked}: no GPU is asked for", hint="--slurm gpus_per_node=1")
        require_slurm(request)
        if wanted == "cpu" or not request.gpus or not kind.packs:
            return ("cpu",)
        return tuple(f"cuda:{i}" for i in range(request.gpus))

    def hardware(self, device: str) -> str:
        """Return what was asked for: partition, constraint and kind of device."""
        request = self.options.allocation
        constraint = str(request.options.get("constraint", ""))
        named = (request.partition, constraint, device.partition(":")[0])
        return " ".join(("slurm", *filter(None, named)))

    def most_workers(self, devices: Sequence[str]) -> int:
        """Return the workers of all allocations."""
        each = self.options.allocation.workers if devices[0] == "cpu" else len(devices)
        return (self.options.workers or ALLOCATIONS) * each

    def free_megabytes(self, devices: Sequence[str], workers: int) -> float | None:  # noqa: ARG002 - of one
        """Return the share of each worker in the memory that an allocation asks for."""
        request = self.options.allocation
        if devices[0] != "cpu" or request.megabytes is None:
            return None
        return request.megabytes / request.workers

    def start(self, launch: Launch) -> Executor:
        """Ask Slurm for allocations."""
        from gridsearch.executors.slurm_transport import SlurmExecutor

        return SlurmExecutor(
            launch.setups,
            launch.deliver,
            request=self.options.allocation,
            home=self.options.places.home,
            objects=launch.catalog.objects,
        )


BACKENDS: Mapping[str, type[Backend]] = MappingProxyType(
    {"local": LocalBackend, "inline": InlineBackend, "ray": RayBackend, "slurm": SlurmBackend}
)
"""By the words of `--executor`."""


def backend_of(options: RunOptions) -> Backend:
    """Return the backend that a run was given."""
    return BACKENDS[options.executor](options)
