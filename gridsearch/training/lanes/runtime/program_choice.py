"""Whether lanes train as one program: where they do, it is made here.

Stands between the engine, or the probe, and `program.py`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gridsearch.training import kernels, mixing
from gridsearch.training.lanes.compile.lane_values import NotPackable
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

    A lone lane's model is looked into as those of a pack are: its code runs on a few images, in both modes, and is
    traced, before it trains.  What it keeps is seen by that (`reference`, `source_checks`), and such a model trains as
    it is; its trial makes a new one.

    Raises:
        NotPackable: it is not, or there is none.
        Exception: whatever the models raise.
    """
    if len(members) > 1 or data.device.type != "cpu":
        return PackProgram(members, models, data, precision, own=own)
    key = _look(members[0], models[0])
    if key in _ALONE:
        raise NotPackable(_ALONE[key])
    try:
        program = PackProgram(members, models, data, precision, own=own)
        if not (program.network.kernels or program.planned):
            program.close()
            raise NotPackable("a lone lane trains as its model is")
    except NotPackable as refusal:
        _ALONE[key] = str(refusal)
        raise
    return program


_ALONE: dict[bytes, str] = {}
"""Why lone lanes of these looks have no program: finding it again costs as much as some steps."""


def _look(member: Member, model: nn.Module) -> bytes:
    """Return what two lone lanes have alike that have a program both, or none."""
    about = member.settings.shape(), repr(model), mixing.mixes(member.settings), kernels.find_compiler()
    return hashlib.sha256(repr(about).encode()).digest()
