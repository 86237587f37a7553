"""Whether lanes train as one program: where they do, it is made here.

Stands between the engine, or the probe, and `program.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.training import kernels
from gridsearch.training.lanes.compile.lane_values import NotPackable
from gridsearch.training.lanes.compile.tracing import known_code
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.own_code import OwnCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

    from gridsearch.training.lanes.runtime.members import Member
    from gridsearch.training.precision import Precision
    from gridsearch.training.resident_data import ResidentData


def min_lanes(device: torch.device) -> int:
    """Return the fewest lanes that may be worth a program; `build_program` knows when there is one.

    On CUDA a lone lane is: its steps are recorded, and its masks are those it would have among others.  On a CPU it is
    if it gets compiled kernels (LeNet, ms a step at batch 10 and 100: 1.8 and 7.7 alone, .86 and 3.0 in a program).
    """
    return 1 if device.type == "cuda" or (device.type == "cpu" and kernels.find_compiler()) else 2


def build_program(
    members: Sequence[Member],
    models: Sequence[nn.Module],
    data: ResidentData,
    precision: Precision,
    own: OwnCode = OwnCode(),  # noqa: B008  (frozen)
) -> PackProgram:
    """Return the program of some lanes, for which it is faster than the plain engine.

    Raises:
        NotPackable: it is not, or there is none.
        Exception: whatever the models raise.
    """
    alone = NotPackable("a lone lane trains as its model is")
    wants_kernels = len(members) == 1 and data.device.type == "cpu"
    # a lone model's own code runs when it trains, and not besides: one that has any is not looked into
    if wants_kernels and not known_code(models[0]):
        raise alone
    program = PackProgram(members, models, data, precision, own=own)
    if wants_kernels and not (program.network.kernels or program.planned):
        program.close()
        raise alone
    return program
