"""Which devices a run trains on, of those that are there, and what is free on them.

Needs no torch unless a GPU is asked about: the runner asks the process that imports it (`executors.warm_parent`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.errors import DeviceError
from gridsearch.training import memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a machine trains on.

    Attributes:
        devices: their names, the CPU first.
        described: what is known of them and of the libraries that they are used by, as short texts by name.
    """

    devices: tuple[str, ...]
    described: Mapping[str, str]


def choose_devices(name: str, there: Sequence[str], cuda_problem: Callable[[], str]) -> tuple[str, ...]:
    """Return the devices that a `--device` option stands for, one worker's place each.

    Args:
        name: "auto" (every CUDA device, else MPS, else the CPU), "cpu", "cuda" (every CUDA device), "cuda:N"
            or "mps".
        there: the names of all devices.
        cuda_problem: gives in one line why there is no CUDA device.

    Raises:
        DeviceError: it is not there, or no such name.
    """
    cuda = tuple(d for d in there if d.startswith("cuda"))
    if name == "auto":
        return cuda or (("mps",) if "mps" in there else ("cpu",))
    if name == "cuda" and cuda:
        return cuda
    if name in there:
        return (name,)
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdecimal()):
        raise DeviceError(f"unknown device {name!r}", hint="use auto, cpu, cuda, cuda:N or mps")
    hint = "use --device auto, which takes what is available"
    if kind == "cuda" and not cuda:
        hint = f"{cuda_problem()}, or use --device cpu"
    raise DeviceError(f"no device {name!r} here; there is {', '.join(there)}", hint=hint)


def free_megabytes(device: str) -> float | None:
    """Return the memory that is free for training: a GPU's, or this machine's within the limits of this process.

    Args:
        device: "cpu", "cuda:0", ...; None is returned for devices that do not say (MPS).
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        import torch

        return float(torch.cuda.mem_get_info(torch.device(device))[0]) / 1e6
    return memory.free_bytes() / 1e6 if kind == "cpu" else None
