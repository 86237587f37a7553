"""Whether a network's steps as compiled calls are faster than the module itself, where that is not sure.

Stands between the plan and the program that would train by it.  Compiled operations on maps take a vector's worth of
images at a time: where a batch leaves many places of its last vector empty, torch's own layers may be faster.  That is
measured once for a network and a batch size, and kept (`kernels.choices`).  The number of lanes is no part of it: a
pack that is made again of fewer lanes must compute as before.

Shapes: B batch, C/H/W channels, height, width, Y classes.
"""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING

import torch

from gridsearch.training.kernels import batch_inner
from gridsearch.training.kernels.choices import kept_choice
from gridsearch.training.kernels.compiler import version_of
from gridsearch.training.kernels.op import Layout, vector_numbers

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from gridsearch.training.lanes.compile.step_plan import Steps
    from gridsearch.training.lanes.runtime.planned_steps import PlannedSteps
    from gridsearch.training.lanes.runtime.storage import Storage
    from gridsearch.training.precision import Precision

COMPILED, MODULE = "compiled steps", "the module itself"
_WASTED = 1.15  # times as many places as images: with fewer the compiled steps are faster, or as fast


def module_is_faster(
    planned: PlannedSteps,
    steps: Steps,
    storage: Storage,
    model: nn.Module,
    x_BCHW: torch.Tensor,
    precision: Precision,
    *,
    images: int,
    channels_last: bool,
) -> bool:
    """Whether a lone lane's module takes clearly less time for a step than the compiled calls.

    Args:
        planned: the compiled calls, bound to their lanes.
        steps: what they are made of.
        storage: the lanes' weights.
        model: a lane's module.
        x_BCHW: a few images.
        precision: how it computes.
        images: of a batch.
        channels_last: the layout of the module's maps.
    """
    v = vector_numbers(precision.weights)
    by_blocks = any(placed.op.output is Layout.BATCH_INNER for placed in steps.ops)
    if not by_blocks or -(-images // v) * v < _WASTED * images:
        return False
    layers = hashlib.sha256(repr((x_BCHW.shape[1:], steps.stages)).encode()).hexdigest()[:24]
    versions = f"torch {torch.__version__}, {version_of(batch_inner.SOURCE, {})}"
    key = f"network {layers}, {images} images, {precision.name}; {versions}"
    x_BCHW = x_BCHW.repeat(-(-images // len(x_BCHW)), 1, 1, 1)[:images]

    def forms() -> dict[str, Callable[[], object]]:
        module = _module_step(model, x_BCHW, precision, channels_last=channels_last)
        return {COMPILED: _compiled_step(planned, x_BCHW), MODULE: module}

    before = storage.lane_tensors(0)
    with torch.random.fork_rng(devices=[]):
        chosen = kept_choice(key, forms)
    storage.load_lane_tensors(0, before)
    return chosen == MODULE


def _compiled_step(planned: PlannedSteps, x_BCHW: torch.Tensor) -> Callable[[], object]:
    return lambda: planned.backward(planned.forward(0, x_BCHW, training=True))


def _module_step(
    model: nn.Module, x_BCHW: torch.Tensor, precision: Precision, *, channels_last: bool
) -> Callable[[], object]:
    own = copy.deepcopy(model).train()
    if channels_last:
        own.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        own.zero_grad()
        with torch.enable_grad():
            with precision.forward():
                logits_BY = own(x_BCHW)
            logits_BY.float().square().sum().backward()

    return step
