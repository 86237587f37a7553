"""Whether compiled calls take the steps of a pack: planned, held against the network, and timed where that is needed.

Stands between the program, which has what a plan needs, and `planned_steps`, which runs it.  Compiled operations on
maps take a vector's worth of images at a time: where a batch leaves many places of its last vector empty, torch's own
layers may be faster, and so may its recurrent layers, and wide layers on few pixels, whose weights take longer to
arrange and to fetch than to multiply; and of what torch computes in either way little may be left.  That is measured
once for a network and a batch size, and kept (`kernels.choices`).  The number of lanes is no part of it: a pack that is
made again of fewer lanes must compute as before.

Shapes: B batch, C/H/W channels, height, width, Y classes.
"""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from typing import TYPE_CHECKING

import torch

from gridsearch.training import augment
from gridsearch.training.failures import is_out_of_memory
from gridsearch.training.kernels import batch_inner, small_ops
from gridsearch.training.kernels.choices import kept_choice
from gridsearch.training.kernels.compiler import version_of
from gridsearch.training.kernels.op import Layout, vector_numbers
from gridsearch.training.kernels.stages import Recurrent, TorchPart, numbers
from gridsearch.training.lanes.compile.agreement import Disagrees, Undecided, check_same
from gridsearch.training.lanes.compile.batch_agreement import OfNetwork, check_batch
from gridsearch.training.lanes.compile.lane_values import SAMPLE
from gridsearch.training.lanes.compile.step_graph import NoPlan
from gridsearch.training.lanes.compile.step_plan import plan_network
from gridsearch.training.lanes.runtime.plan_passes import PlanNetwork
from gridsearch.training.lanes.runtime.planned_steps import PlannedSteps
from gridsearch.training.model_setup import lone_layout
from gridsearch.training.weight_hooks import copy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from gridsearch.training.batches import BatchPlan
    from gridsearch.training.lanes.compile.step_plan import Placed, Steps
    from gridsearch.training.lanes.runtime.averages import PackAverages
    from gridsearch.training.lanes.runtime.members import Member
    from gridsearch.training.lanes.runtime.optimizers import PackOptimizer
    from gridsearch.training.lanes.runtime.passes import PackPasses
    from gridsearch.training.lanes.runtime.storage import Storage
    from gridsearch.training.precision import Precision
    from gridsearch.training.resident_data import ResidentData

_log = logging.getLogger(__name__)

PLANNED = ("float32", "float64", "bfloat16")
"""Precisions for which there are step plans."""

COMPILED, MODULE = "compiled steps", "the module itself"
_WASTED = 1.15  # times as many places as images: with fewer the compiled steps are faster, or as fast
_COMPARED = 128
"""Images of a step, at most, by which a plan is compared whose network makes the rounding of fewer images large."""

_LARGE = 2**20  # weights of the layers on maps, from which on they do not stay in a core's own cache
_FEW = 32  # vectors, of images and pixels, that a weight multiplies on average: with more its arrangement counts little


def plan_steps(
    model: nn.Module,
    first_images: Callable[[int], torch.Tensor],
    *,
    passes: PackPasses,
    plan: BatchPlan,
    members: Sequence[Member],
    splits: Sequence[ResidentData],
    optimizer: PackOptimizer,
    averages: PackAverages,
) -> PlannedSteps | None:
    """Return the steps of a pack as compiled calls; None where a part of the network has none, or is faster without.

    Args:
        model: a lane's, which has been used up.
        first_images: gives so many images [B, C, H, W].
        passes: what the lanes compute otherwise.
        plan: the batches of an epoch.
        members: the lanes.
        splits: each lane's images.
        optimizer: of all lanes.
        averages: likewise.
    """
    if passes.network.method != "stacked" or passes.precision.name not in PLANNED:
        return None
    if members[0].settings.augment not in augment.COMPILED:
        return None
    try:
        return _planned(model, first_images, passes, plan, members, splits, optimizer, averages)
    except Undecided as error:
        _log.debug("no step plan: %s", error)
    except Disagrees as error:
        _log.warning("without a step plan: %s", error)
    except Exception as error:  # the plan meets whatever there is
        if is_out_of_memory(error):
            raise
        _log.log(logging.DEBUG if isinstance(error, NoPlan) else logging.WARNING, "no step plan: %s", error)
    return None


def _planned(
    model: nn.Module,
    first_images: Callable[[int], torch.Tensor],
    passes: PackPasses,
    plan: BatchPlan,
    members: Sequence[Member],
    splits: Sequence[ResidentData],
    optimizer: PackOptimizer,
    averages: PackAverages,
) -> PlannedSteps:
    """Return the steps of a pack as compiled calls, which agree with the network and are not slower than its module.

    Raises:
        Undecided: rounding alone is so large that nothing can be said.
        Disagrees: they give something else.
        NoPlan: a part of the network has none, or is faster without.
    """
    network, storage, precision = passes.network, passes.storage, passes.precision
    x_BCHW, norm = first_images(SAMPLE), members[0].settings.norm
    bf16 = precision.rounds
    steps = plan_network(model, x_BCHW, storage, images=plan.batch, orders=network.dropout.orders, bf16=bf16)
    planned = PlannedSteps(steps, storage, passes.data, plan, optimizer)
    if not planned.fits():
        raise NoPlan("masks or indices that differ from lane to lane")
    averages.set_decays([m.settings.ema for m in members])
    rates = [m.settings.dropout for m in members]
    planned.bind(members, optimizer, averages, rates, splits)
    network.dropout.rates = rates
    layout = partial(lone_layout, model, norm, passes.data, precision)
    lone = planned, steps, storage, model, x_BCHW, precision
    if module_is_faster(*lone, images=plan.batch, layout=layout):
        raise NoPlan(f"batches of {plan.batch} images are trained faster without one")
    _check(planned, passes, plan, first_images)
    return planned


def _check(
    planned: PlannedSteps, passes: PackPasses, plan: BatchPlan, first_images: Callable[[int], torch.Tensor]
) -> None:
    """Hold a plan against what the lanes compute otherwise.

    Raises:
        Undecided: rounding alone is so large that nothing can be said.
        Disagrees: they differ.
    """
    network, storage, precision = passes.network, passes.storage, passes.precision
    ours = PlanNetwork(planned, storage, has_dropout=network.has_dropout)
    whole_step = max(SAMPLE, min(plan.batch, _COMPARED))
    check_same(ours, network, storage, first_images(SAMPLE), precision, more=lambda: first_images(whole_step))
    if network.counts:
        check_batch(
            OfNetwork(ours, storage), OfNetwork(network, storage), first_images(plan.batch), precision
        )


def module_is_faster(
    planned: PlannedSteps,
    steps: Steps,
    storage: Storage,
    model: nn.Module,
    x_BCHW: torch.Tensor,
    precision: Precision,
    *,
    images: int,
    layout: Callable[[], torch.memory_format],
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
        layout: gives that of the module's maps.
    """
    blocks = -(-images // vector_numbers(precision.weights))
    on_maps = [placed for placed in steps.ops if placed.op.output is Layout.BATCH_INNER]
    wastes = bool(on_maps) and blocks * vector_numbers(precision.weights) >= _WASTED * images
    recurs = any(isinstance(stage, Recurrent) for stage in steps.stages)
    calls = any(isinstance(stage, TorchPart) for stage in steps.stages)
    if not (wastes or recurs or calls or _weights_wait(on_maps, steps, storage, blocks)):
        return False
    layers = hashlib.sha256(repr((x_BCHW.shape[1:], steps.stages)).encode()).hexdigest()[:24]
    sources = [batch_inner.SOURCE] + [small_ops.RECURRENT] * recurs
    versions = f"torch {torch.__version__}, {' '.join(version_of(source, {}) for source in sources)}"
    key = f"network {layers}, {images} images, {precision.name}; {versions}"
    x_BCHW = x_BCHW.repeat(-(-images // len(x_BCHW)), 1, 1, 1)[:images]

    def forms() -> dict[str, Callable[[], object]]:
        module = _module_step(model, x_BCHW, precision, layout())
        return {COMPILED: _compiled_step(planned, x_BCHW), MODULE: module}

    before = storage.lane_tensors(0)
    with torch.random.fork_rng(devices=[]):
        chosen = kept_choice(key, forms)
    storage.load_lane_tensors(0, before)
    return chosen == MODULE


def _weights_wait(on_maps: Sequence[Placed], steps: Steps, storage: Storage, blocks: int) -> bool:
    """Whether a batch of so many vectors gives most of many weights little to multiply."""

    def pixels(slot: int) -> int:
        shape = steps.slots[slot].shape
        return numbers(shape) // shape[0] if shape else 1

    weights = products = 0
    for placed in on_maps:
        own = sum(storage.tensors[name][0].numel() for name in placed.params if name in storage.tensors)
        weights += own
        products += own * blocks * min(map(pixels, (*placed.inputs, placed.output)))
    return weights >= _LARGE and products < _FEW * weights


def _compiled_step(planned: PlannedSteps, x_BCHW: torch.Tensor) -> Callable[[], object]:
    return lambda: planned.run_backward(planned.forward(0, x_BCHW, training=True))


def _module_step(
    model: nn.Module, x_BCHW: torch.Tensor, precision: Precision, memory_format: torch.memory_format
) -> Callable[[], object]:
    own = copy_of(model).train()
    if memory_format == torch.channels_last:
        own.to(memory_format=memory_format)  # type: ignore[call-overload]
        x_BCHW = x_BCHW.contiguous(memory_format=memory_format)

    def step() -> None:
        own.zero_grad()
        with torch.enable_grad():
            with precision.forward():
                logits_BY = own(x_BCHW)
            logits_BY.float().square().sum().backward()

    return step
