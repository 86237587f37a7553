"""This machine, as trials train on it: its cores and devices, their names, and the versions of what computes here.

Below `backends`, of which those that train on this machine ask it.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from gridsearch.records.study_kinds import IMAGES

if TYPE_CHECKING:
    from gridsearch.records.study_kinds import StudyKind
    from gridsearch.training.device_choice import DeviceFacts

_PACKAGES = ("torch", "torchvision", "optuna", "sqlalchemy", "numpy", "pandas")


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


def device_name(device: str) -> str:
    """Return what a device is, for the cache of measured costs."""
    facts = _device_facts().described
    kernels = f", kernels {facts['kernels']}" if device == "cpu" else ""
    return f"{device.partition(':')[0]} {facts.get(device, '')}{kernels}".strip()


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
