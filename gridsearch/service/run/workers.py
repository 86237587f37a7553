"""Where trials train: the devices, the setup of each worker, the memory of a pack, and who starts the workers.

Stands between what a user asked for and the executors, which `backends` knows; a run, a plan and a refit ask here
alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.records import WorkerSetup
from gridsearch.records.dtypes import require_dtypes, slow_dtypes
from gridsearch.records.study_kinds import IMAGES
from gridsearch.service.run.backends import Launch, backend_of
from gridsearch.service.run.sizing import PackRoom

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.executors import Executor
    from gridsearch.records import Event, Settings
    from gridsearch.records.study_kinds import StudyKind
    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.prepare.prepared import Plugins, Prepared

_WORKER_MB = 500.0
"""A worker with torch, a dataset such as Fashion-MNIST, and its kernels loaded, beside its pack."""

_USABLE = 0.8
"""The share of the free memory that packs may count on."""


def devices_for(options: RunOptions, kind: StudyKind) -> tuple[str, ...]:
    """Return where trials train; what makes no packs runs in as many processes as there are cores.

    Raises:
        DeviceError: there is no such device here.
        UsageError: a device for a function, which computes where it likes; or Slurm refuses what is asked for.
        UnusableError: the cluster that was asked for, or what it needs, is not here or cannot be used.
        EngineUnreachable: it does not answer.
    """
    return backend_of(options).devices(kind)


def arithmetic_cautions(prepared: Prepared, options: RunOptions, devices: Sequence[str]) -> tuple[str, ...]:
    """Return what to know of the arithmetic that trials ask for, where they train.

    Raises:
        UsageError: the devices cannot do it.
    """
    if not prepared.kind.packs:
        return ()
    dtypes = sorted({str(draft.settings.get("dtype")) for draft in prepared.drafts})
    require_dtypes(dtypes, devices[0])
    slow = slow_dtypes(dtypes, devices[0]) if backend_of(options).on_this_machine else ""
    return (slow,) if slow else ()


def may_lack_devices(options: RunOptions) -> bool:
    """Whether `devices_for` may refuse what is asked for; of itself a run finds something on this machine."""
    return options.device != "auto" or not backend_of(options).on_this_machine


def hardware(prepared: Prepared, devices: Sequence[str], options: RunOptions) -> str:
    """Return where the measured costs of such a run belong; of a cluster only what was asked for is known."""
    if not prepared.kind.packs:
        return prepared.kind.name
    return backend_of(options).hardware(devices[0])


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
    wanted = backend_of(options).most_workers(devices)
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

        return backend_of(options).start(
            Launch(
                setups=setups,
                deliver=deliver,
                interrupted=interrupted,
                catalog=catalog,
                settings=settings,
            )
        )

    return start


def lanes_at_most(options: RunOptions, kind: StudyKind) -> int | None:
    """Return the most lanes of a pack, None where that has to be found out."""
    return options.lanes or (None if kind.packs else 1)


def room_for_packs(
    options: RunOptions, devices: Sequence[str], workers: int, kind: StudyKind = IMAGES
) -> PackRoom | None:
    """Return the memory that one pack may take beside the other workers' packs; None if nobody knows.

    It leaves memory for what each worker needs before it has a pack, and a reserve.

    Args:
        options: how to run.
        devices: see `worker_setups`.
        workers: how many there are.
        kind: of the study.
    """
    if not kind.packs:
        return None
    free = backend_of(options).free_megabytes(devices, workers)
    return None if free is None else PackRoom(max(0.0, _USABLE * free - _WORKER_MB), of_mb=free)
