"""Training stands between the executors and the store: it takes a pack of trials and yields their events.

The names below are loaded on first use, so that importing this package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gridsearch.training.devices import describe, free_megabytes, resolve_device, tune_allocator
    from gridsearch.training.kernels import can_compile, damaged_kernels
    from gridsearch.training.lanes.compile.method import method_of, try_out
    from gridsearch.training.loop import train_pack
    from gridsearch.training.model_setup import has_dropout
    from gridsearch.training.probe import ProbeResult
    from gridsearch.training.resident_data import ResidentCache, ResidentData
    from gridsearch.training.splits import Split, split

_HOMES = {
    "ProbeResult": "probe",
    "ResidentCache": "resident_data",
    "ResidentData": "resident_data",
    "Split": "splits",
    "can_compile": "kernels",
    "damaged_kernels": "kernels",
    "describe": "devices",
    "free_megabytes": "devices",
    "has_dropout": "model_setup",
    "method_of": "lanes.compile.method",
    "try_out": "lanes.compile.method",
    "resolve_device": "devices",
    "split": "splits",
    "train_pack": "loop",
    "tune_allocator": "devices",
}

__all__ = [
    "ProbeResult",
    "ResidentCache",
    "ResidentData",
    "Split",
    "can_compile",
    "damaged_kernels",
    "describe",
    "free_megabytes",
    "has_dropout",
    "method_of",
    "try_out",
    "resolve_device",
    "split",
    "train_pack",
    "tune_allocator",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
