"""Where trials train: the devices, the setup of each worker, the memory of a pack, and the names of the hardware.

Stands between what a user asked for and the executors; a run, a plan and a refit ask here alike.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from gridsearch.errors import DeviceError, UsageError
from gridsearch.records import WorkerSetup
from gridsearch.records.dtypes import require_dtypes, slow_dtypes
from gridsearch.records.study_kinds import IMAGES
from gridsearch.service.prepare.options import ALLOCATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.executors import Executor
    from gridsearch.records import Event, Settings
    from gridsearch.records.study_kinds import StudyKind
    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.prepare.prepared import Plugins, Prepared
    from gridsearch.training.device_choice import DeviceFacts

_WORKER_MB = 500.0
"""A worker with torch, a dataset such as Fashion-MNIST, and its kernels loaded, beside its pack."""

_USABLE = 0.8
"""The share of the free memory that packs may count on."""

_PACKAGES = ("torch", "torchvision", "optuna", "sqlalchemy", "numpy", "pandas")


def devices_for(options: RunOptions, kind: StudyKind) -> tuple[str, ...]:
    """Return where trials train; what makes no packs runs in as many processes as there are cores.

    Raises:
        DeviceError: there is no such device here.
        UsageError: a device for a function, which computes where it likes; or Slurm refuses what is asked for.
        UnusableError: the cluster that was asked for, or what it needs, is not here or cannot be used.
        EngineUnreachable: it does not answer.
    """
    if options.executor == "slurm":
        return _devices_of_allocations(options, kind)
    if not kind.packs and options.device not in ("auto", "cpu"):
        raise UsageError(f"--device {options.device}: {kind.noun} chooses its device itself")
    device = options.device if kind.packs else "cpu"
    if options.executor == "ray":
        from gridsearch.executors.ray import devices_of_cluster

        return devices_of_cluster(device)
    return resolve_devices(device) if kind.packs else ("cpu",)


def arithmetic_cautions(prepared: Prepared, options: RunOptions, devices: Sequence[str]) -> tuple[str, ...]:
    """Return what to know of the arithmetic that trials ask for, where they train.

    Raises:
        UsageError: the devices cannot do it.
    """
    if not prepared.kind.packs:
        return ()
    dtypes = sorted({str(draft.settings.get("dtype")) for draft in prepared.drafts})
    require_dtypes(dtypes, devices[0])
    slow = slow_dtypes(dtypes, devices[0]) if options.executor not in ("ray", "slurm") else ""
    return (slow,) if slow else ()


def may_lack_devices(options: RunOptions) -> bool:
    """Whether `devices_for` may refuse what is asked for; of itself a run finds something on this machine."""
    return options.device != "auto" or options.executor in ("ray", "slurm")


def _devices_of_allocations(options: RunOptions, kind: StudyKind) -> tuple[str, ...]:
    """Return where trials train in each allocation: on the GPUs that are asked for, else on its cores."""
    from gridsearch.executors.slurm import require_slurm

    request = options.allocation
    wanted = options.device.partition(":")[0]
    if wanted not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"no device {options.device!r} in an allocation", hint="use auto, cpu or cuda")
    if wanted == "cuda" and not request.gpus:
        raise DeviceError(f"--device {options.device}: no GPU is asked for", hint="--slurm gpus_per_node=1")
    require_slurm(request)
    if wanted == "cpu" or not request.gpus or not kind.packs:
        return ("cpu",)
    return tuple(f"cuda:{i}" for i in range(request.gpus))


def resolve_devices(device: str) -> tuple[str, ...]:
    """Return the devices that a word such as "auto" stands for.

    Raises:
        DeviceError: there is no such device here.
    """
    from gridsearch.training.device_choice import choose_devices

    def cuda_problem() -> str:
        from gridsearch.training import cuda_problem

        return cuda_problem()

    return choose_devices(device, _device_facts().devices, cuda_problem)


def _device_facts() -> DeviceFacts:
    """Return what this machine trains on, as the process says that workers are forked from, if there is one.

    It has torch, which takes a second to import here.
    """
    from gridsearch.executors.local import worker_environment
    from gridsearch.executors.warm_parent import WarmParent

    facts = WarmParent.device_facts(IMAGES.name, worker_environment(threads=1))
    if facts is None:
        from gridsearch.training import device_facts

        facts = device_facts()
    return facts


def hardware(prepared: Prepared, devices: Sequence[str], options: RunOptions) -> str:
    """Return where the measured costs of such a run belong; of a cluster only what was asked for is known."""
    if not prepared.kind.packs:
        return prepared.kind.name
    if options.executor == "ray":
        return f"ray {devices[0].partition(':')[0]}"
    if options.executor == "slurm":
        request = options.allocation
        named = (request.partition, str(request.options.get("constraint", "")), devices[0].partition(":")[0])
        return " ".join(("slurm", *filter(None, named)))
    return device_name(devices[0])


def device_name(device: str) -> str:
    """Return what a device is, for the cache of measured costs."""
    facts = _device_facts().described
    kernels = f", kernels {facts['kernels']}" if device == "cpu" else ""
    return f"{device.partition(':')[0]} {facts.get(device, '')}{kernels}".strip()


def worker_setups(
    catalog: Plugins, options: RunOptions, devices: Sequence[str], *, trials: int, metric: str = ""
) -> tuple[WorkerSetup, ...]:
    """Return the setup of each worker: one a core, or one an accelerator, but none for which there is no pack.

    A CPU worker computes with one thread: two such processes beat one with two threads on small networks, and
    a trial's rounding then does not depend on how many workers there are.

    Args:
        catalog: what trials need, by locators.
        options: how to run.
        devices: of this machine, or one of the kind that a cluster gives.
        trials: how many wait.
        metric: what an epoch is selected by.
    """
    on_cpu = devices[0] == "cpu"
    wanted = options.workers or (cores() if on_cpu else len(devices))
    if options.executor == "inline":  # in this process, one pack after the other
        wanted = 1
    if options.executor == "slurm":
        wanted = (options.workers or ALLOCATIONS) * (options.allocation.workers if on_cpu else len(devices))
    if options.executor == "ray":
        from gridsearch.executors.ray import places

        wanted = options.workers or max(1, places(devices[0]))
    packs = -(-trials // (options.lanes or 1))
    return tuple(
        WorkerSetup(
            name=f"w{i}",
            **{"metric": metric, **catalog.setup},
            device=devices[i % len(devices)],
            threads=1,
            pruning=options.prune != "none",
            checkpoint=options.checkpoint,
            settled=options.settled,
        )
        for i in range(max(1, min(wanted, packs)))
    )


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def starter(
    catalog: Plugins,
    options: RunOptions,
    setups: Sequence[WorkerSetup],
    *,
    settings: Sequence[Settings] = (),
    watch: Callable[[Event], None] = lambda _: None,
) -> Callable[[Callable[[Event], None], Callable[[], bool]], Executor]:
    """Return what starts the executor: it takes who gets the events, and who says whether to stop.

    Args:
        catalog: the plug-ins of the trials.
        options: which executor.
        setups: the workers.
        settings: of the trials; their images travel with a run to other machines.
        watch: sees each event before it is delivered.
    """

    def start(take: Callable[[Event], None], interrupted: Callable[[], bool]) -> Executor:
        def deliver(event: Event) -> None:
            watch(event)
            take(event)

        if options.executor == "inline":
            from gridsearch.executors.inline import InlineExecutor

            return InlineExecutor(setups[0], deliver, interrupted=interrupted, objects=catalog.objects)
        if options.executor == "slurm":
            from gridsearch.executors.slurm_transport import SlurmExecutor

            return SlurmExecutor(
                setups,
                deliver,
                request=options.allocation,
                home=options.places.home,
                objects=catalog.objects,
            )
        if options.executor == "ray":
            from gridsearch.executors.ray_workers import RayExecutor

            return RayExecutor(
                setups[0],
                deliver,
                own=catalog.own,
                images=catalog.images_of(settings),
                workers=options.workers,
                most=max(1, -(-len(settings) // (options.lanes or 1))),
            )
        from gridsearch.executors.local import LocalExecutor

        return LocalExecutor(setups, deliver, objects=catalog.objects)

    return start


def lanes_at_most(options: RunOptions, kind: StudyKind) -> int | None:
    """Return the most lanes of a pack, None where that has to be found out."""
    return options.lanes or (None if kind.packs else 1)


def pack_limit(
    options: RunOptions, devices: Sequence[str], workers: int, kind: StudyKind = IMAGES
) -> float | None:
    """Return the megabytes that one pack may take beside the other workers' packs; None if nobody knows.

    It leaves memory for what each worker needs before it has a pack, and a reserve.

    Args:
        options: how to run.
        devices: see `worker_setups`.
        workers: how many there are.
        kind: of the study.
    """
    if not kind.packs:
        return None
    from gridsearch.training import free_megabytes

    if options.executor == "slurm":
        free = options.allocation.megabytes if devices[0] == "cpu" else None
        workers = options.allocation.workers
    elif options.executor == "ray":
        from gridsearch.executors.ray import megabytes_of_place

        free = megabytes_of_place(devices[0])
        workers = len(devices)
    else:
        free = free_megabytes(devices[0])
    if free is None:
        return None
    sharing = -(-workers // len(devices))
    return max(0.0, _USABLE * free / sharing - _WORKER_MB)


def environment(kind: StudyKind = IMAGES) -> dict[str, str]:
    """Return versions and hardware, for the record; of what makes no packs, nothing that needs torch."""
    from gridsearch._version import __version__

    found = {"gridsearch": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if not kind.packs:
        return found
    facts = _device_facts().described
    return found | {name: facts[name] for name in facts if name.startswith(("cpu", "cuda", "mps", "memory"))}
