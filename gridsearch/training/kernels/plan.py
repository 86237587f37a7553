"""A lane's steps as one compiled call: the C structures, and the functions that run them; see plan.c.

Stands between the runtime, which knows lanes and epochs, and the machine code.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.training.kernels.calling import POINTER, REALS, SIZE, function
from gridsearch.training.kernels.compiler import load
from gridsearch.training.kernels.loss import LOSS_STRUCTS
from gridsearch.training.kernels.op import Layout, OpArgs

if TYPE_CHECKING:
    import torch

_SOURCE = Path(__file__).with_name("plan.c")

LAYOUTS = (Layout.FEATURES, Layout.CHANNELS_LAST, Layout.BATCH_INNER)
"""Their numbers in C are their positions in this."""


class Call(ctypes.Structure):
    """`struct call`."""

    _fields_ = (("function", POINTER), ("args", ctypes.POINTER(OpArgs)))


class Relocation(ctypes.Structure):
    """`struct relocation`."""

    _fields_ = (("place", POINTER), ("base", SIZE), ("offset", SIZE))


class Averaged(ctypes.Structure):
    """`struct averaged`."""

    _fields_ = (("average", POINTER), ("of", POINTER), ("size", SIZE))


class PlanStruct(ctypes.Structure):
    """`struct plan`."""

    _fields_ = (
        *((name, ctypes.POINTER(Call)) for name in ("forward", "backward", "infer")),
        *((name, SIZE) for name in ("forward_count", "backward_count", "infer_count", "infer_once")),
        ("relocations", ctypes.POINTER(Relocation)),
        ("relocation_count", SIZE),
        ("args", ctypes.POINTER(OpArgs)),
        ("args_count", SIZE),
        ("images", POINTER),
        *((name, SIZE) for name in ("layout", "channels", "height", "width")),
        *((name, POINTER) for name in ("logits", "logits_gradient")),
        ("classes", SIZE),
        *((name, POINTER) for name in ("cross_entropy", "optimizer", "gradient")),
        ("size", SIZE),
        *((name, POINTER) for name in ("bytes", "floats", "labels", "batch_labels", "image", "random")),
    )


class Augmentation(ctypes.Structure):
    """`struct augmentation`."""

    _fields_ = tuple((name, POINTER) for name in ("flips", "shifts", "boxes"))


def _lane_struct(real: type, loss: type[ctypes.Structure]) -> type[ctypes.Structure]:
    """Return `struct lane` with numbers of the weights' type."""

    class LaneStruct(ctypes.Structure):
        _fields_ = (
            ("bases", ctypes.POINTER(POINTER)),
            *((name, POINTER) for name in ("scale", "shift", "order")),
            ("augmentation", Augmentation),
            *((name, SIZE) for name in ("batch", "count")),
            ("seeds", POINTER),
            ("rate", ctypes.c_double),
            ("loss", loss),
            *((name, POINTER) for name in ("weights", "first", "second", "recipe", "rates")),
            ("steps_at", SIZE),
            ("share", real),
            ("averages", ctypes.POINTER(Averaged)),
            ("average_count", SIZE),
            ("counters", ctypes.POINTER(POINTER)),
            ("counter_count", SIZE),
            ("losses", POINTER),
            *((name, ctypes.c_int64) for name in ("hits", "diverged")),
        )

    return LaneStruct


LANE_STRUCTS = (_lane_struct(ctypes.c_float, LOSS_STRUCTS[0]), _lane_struct(ctypes.c_double, LOSS_STRUCTS[1]))
"""`struct lane` for each of `REALS`."""


class PlanLibrary:
    """The functions of plan.c for a type of weights."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.train = function(library.train, SIZE, POINTER, POINTER, SIZE, SIZE)
        self.evaluate = function(library.evaluate, None, *[POINTER] * 3, SIZE, SIZE, POINTER)
        self.forward_pass = function(
            library.forward_pass, None, POINTER, POINTER, SIZE, ctypes.c_int, ctypes.c_uint64
        )
        self.backward_pass = function(library.backward_pass, None, POINTER)
        self.seed = function(library.seed, None, POINTER, ctypes.c_uint64, ctypes.c_double)
        self.random_bytes = function(library.random_bytes, SIZE)()

    @classmethod
    def build(cls, dtype: torch.dtype) -> PlanLibrary | None:
        """Return them; None where they cannot be compiled."""
        library = load(_SOURCE, {"DOUBLE": REALS.index(dtype)}) if dtype in REALS else None
        return None if library is None else cls(library)
