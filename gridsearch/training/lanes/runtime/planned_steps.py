"""The steps of a pack as compiled calls: each takes a lane through several steps, images to averages.

Stands between the program, which knows its lanes and their epochs, and plan.c, which computes.  One plan, in one arena
(`built_plan.py`), serves all lanes in turn, so that their number changes neither what a lane computes nor what a step
of it costs.

Shapes: K lanes, B batch, C/H/W channels, height, width, N images of an epoch or of the validation split, P elements of
a lane's trained parameters, S steps of an epoch, Y classes.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from gridsearch.training import seeds
from gridsearch.training.kernels.calling import POINTER, REALS
from gridsearch.training.kernels.loss import CrossEntropy, LaneLosses
from gridsearch.training.kernels.op import to_layout
from gridsearch.training.kernels.plan import LANE_STRUCTS, Averaged, PlanLibrary
from gridsearch.training.kernels.torch_op import TorchOp
from gridsearch.training.lane_loss import LossRecipe
from gridsearch.training.lanes.compile.lane_values import SAMPLE
from gridsearch.training.lanes.compile.step_graph import NoPlan
from gridsearch.training.lanes.runtime.built_plan import BuiltPlan
from gridsearch.training.metrics import MetricLane, epoch_results

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.records import ImageSettings
    from gridsearch.training.augment import EpochAugment
    from gridsearch.training.batches import BatchPlan
    from gridsearch.training.lanes.compile.step_plan import Steps
    from gridsearch.training.lanes.runtime.averages import PackAverages
    from gridsearch.training.lanes.runtime.optimizers import PackOptimizer
    from gridsearch.training.lanes.runtime.storage import Storage
    from gridsearch.training.metrics import Diverged, EpochTotals
    from gridsearch.training.resident_data import Affine, ResidentData

_SLICE = 0.02  # seconds of all lanes together between two looks at whether to stop
_EVALUATED = 32  # images of an evaluated batch, at least: more would not stay in the core's own cache


class PlannedLane(MetricLane, Protocol):
    """A lane of a pack: its recipe, the seed of its streams, and how far it is."""

    settings: ImageSettings
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class LaneEpoch:
    """What a lane sees in its next epoch.

    Attributes:
        order: its images, int64 [N].
        drawn: their augmentation.
        rates: learning rates of its steps, float64 [S].
    """

    order: torch.Tensor
    drawn: EpochAugment | None
    rates: np.ndarray


class PlannedSteps:
    """Trains and evaluates the lanes of a pack by a plan.

    Args:
        steps: the operations of a step.
        storage: the lanes' weights.
        data: the images.
        plan: the batches of an epoch.
        optimizer: of all lanes; has a compiled kernel.

    Attributes:
        taken: steps that all lanes took, since ever.

    Raises:
        NoPlan: something cannot be compiled.
    """

    def __init__(
        self, steps: Steps, storage: Storage, data: ResidentData, plan: BatchPlan, optimizer: PackOptimizer
    ) -> None:
        self.taken = 0
        self._steps, self._storage, self._data, self._plan = steps, storage, data, plan
        self._dtype = storage.flat.dtype
        self._batch = max(plan.batch, SAMPLE)
        self._evaluated = max(self._batch if plan.batch < _EVALUATED else 0, _EVALUATED)
        self._seconds = 0.0  # of a lane's step
        library, losses = PlanLibrary.build(self._dtype), CrossEntropy.build(self._dtype)
        if library is None or losses is None or optimizer.address is None:
            raise NoPlan("no compiler")
        self._library = library
        self._built = BuiltPlan(
            *(steps, storage, data),
            batch=self._batch,
            evaluated=self._evaluated,
            random_bytes=library.random_bytes,
            losses=losses.address,
            optimizer=optimizer.address,
        )
        self._struct = self._built.struct
        self._torch = [placed.op for placed in steps.ops if isinstance(placed.op, TorchOp)]
        self._kept: list[object] = []
        self._lanes: list[ctypes.Structure] = []

    @property
    def batch(self) -> int:
        """The most images that a pass takes."""
        return self._batch

    # The lanes

    def fits(self) -> bool:
        """Whether all lanes have the buffers whose content the operations have."""
        tensors = self._storage.tensors
        return all(bool((tensors[name] == own).all()) for name, own in self._steps.pinned.items())

    def bind(
        self,
        members: Sequence[PlannedLane],
        optimizer: PackOptimizer,
        averages: PackAverages,
        dropout_rates: Sequence[float | None],
        splits: Sequence[ResidentData],
    ) -> None:
        """Take note of who the lanes are, and where all that is theirs lies.

        Args:
            members: the lanes.
            optimizer: of all lanes.
            averages: likewise.
            dropout_rates: each lane's; None for the model's own.
            splits: each lane's images, of one dataset.
        """
        self._kept, self._lanes = [], []
        storage, real = self._storage, REALS.index(self._dtype)
        recipes = [LossRecipe.of(m.settings, split) for m, split in zip(members, splits, strict=True)]
        losses = LaneLosses(recipes, self._dtype)
        for k, (member, rate, split) in enumerate(zip(members, dropout_rates, splits, strict=True)):
            settings = member.settings
            affine = self._of_numbers(split.affine(settings.norm))
            scale, shift = (torch.tensor(each, dtype=self._dtype) for each in affine)
            tensors = [storage.flat, *(storage.tensors[name] for name in self._built.tensors)]
            bases = (POINTER * len(tensors))(*(t[k].data_ptr() for t in tensors))
            state = [t[k].data_ptr() for t in optimizer.state]
            pairs = averages.pairs(k) if settings.ema else []
            averaged = (Averaged * len(pairs))(
                *(Averaged(a.data_ptr(), t.data_ptr(), t.numel()) for a, t in pairs)
            )
            counts = [storage.tensors[name][k].data_ptr() for name in self._steps.counters]
            counters = (POINTER * len(counts))(*counts)
            recipe, steps_at = optimizer.recipe(k)
            self._kept.append((scale, shift, bases, averaged, counters, losses))
            self._lanes.append(
                LANE_STRUCTS[real](
                    bases=bases,
                    scale=scale.data_ptr(),
                    shift=shift.data_ptr(),
                    batch=self._plan.batch,
                    count=self._plan.images,
                    rate=-1.0 if rate is None else rate,
                    loss=losses.structs[k],
                    weights=storage.flat[k].data_ptr(),
                    first=state[0] if state else None,
                    second=state[1] if len(state) > 1 else None,
                    recipe=recipe,
                    steps_at=steps_at,
                    share=1 - settings.ema if settings.ema else 0.0,
                    averages=averaged,
                    average_count=len(pairs),
                    counters=counters,
                    counter_count=len(counts),
                )
            )

    def _of_numbers(self, affine: Affine) -> Affine:
        """Return scale and shift per channel that make normalized images of the dataset's numbers."""
        scale, shift = affine
        top = 255.0 if self._data.pixels.dtype == torch.uint8 else 1.0
        return [s / top for s in scale], shift

    # Training and evaluation

    def train(
        self, members: Sequence[PlannedLane], epochs: Sequence[LaneEpoch], check_stop: Callable[[], None]
    ) -> list[EpochTotals | Diverged]:
        """Train an epoch, each lane its own; the members' steps are those before it.

        Raises:
            IndexError: a label is that of no class.
        """
        plan, count = self._plan, len(members)
        losses_KS = np.full((count, plan.steps), np.nan)
        draws = self._struct.random is not None
        for lane, epoch, row in zip(self._lanes, epochs, losses_KS, strict=True):
            lane.order, lane.rates, lane.losses = (
                epoch.order.data_ptr(),
                epoch.rates.ctypes.data,
                row.ctypes.data,
            )
            lane.hits = lane.diverged = 0
            for name in ("flips", "shifts", "boxes"):
                drawn = None if epoch.drawn is None else getattr(epoch.drawn, name)
                setattr(lane.augmentation, name, None if drawn is None else drawn.data_ptr())
        step = 0
        while step < plan.steps and not all(lane.diverged for lane in self._lanes):
            check_stop()
            end = min(plan.steps, step + self._slice_steps)
            began = time.perf_counter()
            for lane, member, epoch in zip(self._lanes, members, epochs, strict=True):
                if draws:
                    wanted = [
                        seeds.stream(member.seed, seeds.STEP, member.step + s) for s in range(step, end)
                    ]
                    numbers = np.array(wanted, dtype=np.uint64)
                    lane.seeds = numbers.ctypes.data
                wrong = self._library.train(ctypes.byref(self._struct), ctypes.byref(lane), step, end)
                self._raise_failure()
                if wrong:
                    label = int(self._data.labels[epoch.order[wrong - 1]])
                    raise IndexError(
                        f"a label is {label}, where there are {self._struct.classes} classes, counted from 0"
                    )
            self._seconds = (time.perf_counter() - began) / (end - step) / count
            self.taken += end - step
            step = end
        sizes = np.full(plan.steps, plan.batch)
        sizes[-1] = plan.images - plan.batch * (plan.steps - 1)
        return epoch_results(members, losses_KS, sizes, [lane.hits for lane in self._lanes])

    @property
    def _slice_steps(self) -> int:
        """Steps of a call; before anything was timed, one."""
        if not self._seconds:
            return 1
        return max(1, int(_SLICE / (self._seconds * len(self._lanes))))

    def evaluate(
        self, indices_KN: Sequence[torch.Tensor], at_a_time: int, check_stop: Callable[[], None]
    ) -> list[torch.Tensor]:
        """Return each lane's logits [N, Y] of some images.

        Args:
            indices_KN: of each lane's images, whose number may differ.
            at_a_time: of them between two looks at whether to stop.
            check_stop: raises if training is to stop.
        """
        logits = [torch.empty(len(own), self._struct.classes, dtype=self._dtype) for own in indices_KN]
        for start in range(0, max(map(len, indices_KN)), at_a_time):
            check_stop()
            for lane, indices_N, logits_NY in zip(self._lanes, indices_KN, logits, strict=True):
                part = indices_N[start : start + at_a_time]
                self._library.evaluate(
                    *(ctypes.byref(self._struct), ctypes.byref(lane), part.data_ptr(), len(part)),
                    *(self._evaluated, logits_NY[start:].data_ptr()),
                )
                self._raise_failure()
        return logits

    # Single passes, to hold against other ways of computing them

    def forward(self, k: int, x_BCHW: torch.Tensor, *, training: bool, seed: int = 0) -> torch.Tensor:
        """Return a lane's logits [B, Y] of images; `seed` is the dropout masks'."""
        numbers = to_layout(x_BCHW, self._steps.slots[0].layout)
        self._built.view(self._struct.images, numbers.numel()).copy_(numbers)
        self._library.forward_pass(
            *(ctypes.byref(self._struct), ctypes.byref(self._lanes[k]), len(x_BCHW), training, seed)
        )
        self._raise_failure()
        count = len(x_BCHW) * self._struct.classes
        return self._built.view(self._struct.logits, count).view(len(x_BCHW), -1).clone()

    def backward(self, gradient_BY: torch.Tensor) -> torch.Tensor:
        """Return the gradients [P] of the lane that ran `forward` last, given that of its logits."""
        self.run_backward(gradient_BY)
        return self._built.gradient.clone()

    def run_backward(self, gradient_BY: torch.Tensor) -> None:
        """Compute what `backward` returns, and leave it where the next pass finds its memory."""
        self._built.view(self._struct.logits_gradient, gradient_BY.numel()).copy_(gradient_BY.reshape(-1))
        self._library.backward_pass(ctypes.byref(self._struct))
        self._raise_failure()

    def _raise_failure(self) -> None:
        """Raise what torch has met in a part of the network, which C called."""
        for op in self._torch:
            op.raise_failure()
