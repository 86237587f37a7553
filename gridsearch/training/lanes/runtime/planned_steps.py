"""The steps of a pack as compiled calls: each takes a lane through several steps, images to averages.

Stands between the program, which knows its lanes and their epochs, and plan.c, which computes.  One plan, in one arena,
serves all lanes in turn, so that their number changes neither what a lane computes nor what a step of it costs.

Shapes: K lanes, B batch, C/H/W channels, height, width, N images of an epoch or of the validation split, P elements of
a lane's trained parameters, S steps of an epoch, Y classes.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from gridsearch.training import seeds
from gridsearch.training.kernels.calling import POINTER, REALS
from gridsearch.training.kernels.loss import CrossEntropy, LaneLosses
from gridsearch.training.kernels.op import SLACK, OpArgs, to_layout
from gridsearch.training.kernels.plan import (
    LANE_STRUCTS,
    LAYOUTS,
    Averaged,
    Call,
    PlanLibrary,
    PlanStruct,
    Relocation,
)
from gridsearch.training.lane_loss import LossRecipe
from gridsearch.training.lanes.compile.lane_values import SAMPLE, Form
from gridsearch.training.lanes.compile.step_graph import NoPlan
from gridsearch.training.lanes.compile.step_plan import lay_out
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
        self._memory = lay_out(steps, self._batch, self._evaluated, self._dtype)
        self._arena = _aligned(self._memory.size)
        self._gradient = torch.empty(storage.flat.shape[1], dtype=self._dtype)
        self._scratch = torch.empty(storage.flat.shape[1], dtype=self._dtype)
        self._tensors = [name for name in storage.tensors if storage.trained(name) is None]
        self._struct = self._build(losses.address, optimizer.address)
        self._kept: list[object] = []
        self._lanes: list[ctypes.Structure] = []

    @property
    def batch(self) -> int:
        """The most images that a pass takes."""
        return self._batch

    # The plan

    def _build(self, losses: int, optimizer: int) -> PlanStruct:
        """Return the C structure of the plan."""
        steps, data, size = self._steps, self._data, len(self._steps.ops)
        self._random = torch.zeros(self._library.random_bytes // 8 + 1, dtype=torch.int64)
        args = (OpArgs * (2 * size))()  # in training, then in evaluation
        relocations: list[Relocation] = []
        written: set[int] = set()
        for n in reversed(
            range(size)
        ):  # in the order of the backward pass: who writes a gradient, and who adds
            self._operands(n, args[n], relocations, written)
            self._operands(size + n, args[size + n], relocations, None)
        calls = [
            [(placed.op.library.forward, n) for n, placed in enumerate(steps.ops)],
            [(placed.op.library.backward, n) for n, placed in reversed(list(enumerate(steps.ops)))],
            [(placed.op.library.infer, size + n) for n, placed in enumerate(steps.ops)],
        ]
        forward, backward, infer = (_calls(each, args) for each in calls)
        labels, image = torch.empty(self._batch, dtype=torch.int64), torch.empty_like(data.pixels[0])
        table = (Relocation * len(relocations))(*relocations)
        self._parts = forward, backward, infer, args, table, labels, image
        logits = steps.slots[steps.logits]
        gradient = self._memory.gradients[steps.logits]
        assert gradient is not None
        return PlanStruct(
            forward=forward,
            backward=backward,
            infer=infer,
            forward_count=size,
            backward_count=size,
            infer_count=size,
            relocations=table,
            relocation_count=len(relocations),
            args=args,
            args_count=len(args),
            images=self._at(self._memory.slots[0]),
            layout=LAYOUTS.index(steps.slots[0].layout),
            channels=data.channels,
            height=data.image_size[0],
            width=data.image_size[1],
            logits=self._at(self._memory.slots[steps.logits]),
            logits_gradient=self._at(gradient),
            classes=logits.shape[0],
            cross_entropy=losses,
            optimizer=optimizer,
            gradient=self._gradient.data_ptr(),
            size=self._gradient.numel(),
            bytes=data.pixels.data_ptr() if data.pixels.dtype == torch.uint8 else None,
            floats=data.pixels.data_ptr() if data.pixels.dtype != torch.uint8 else None,
            labels=data.labels.data_ptr(),
            batch_labels=labels.data_ptr(),
            image=image.data_ptr(),
            random=self._random.data_ptr() if any(p.draws for p in steps.ops) else None,
        )

    def _at(self, offset: int) -> int:
        return self._arena.data_ptr() + offset

    def _operands(
        self, n: int, args: OpArgs, relocations: list[Relocation], written: set[int] | None
    ) -> None:
        """Fill in an operation's pointers, and note those that differ from lane to lane.

        Args:
            n: its number; after all those in training come those in evaluation.
            args: where to write.
            relocations: likewise.
            written: slots whose gradients operations that run before it in the backward pass write; None in evaluation.
        """
        memory, steps = self._memory, self._steps
        training = written is not None
        number = n % len(steps.ops)
        placed = steps.ops[number]
        args.y = self._at(memory.slots[placed.output])
        args.workspace = self._at(memory.workspace)
        args.constants = placed.op.constants
        args.saved = self._at(memory.saved[number]) if training else None
        for i, slot in enumerate(placed.inputs):
            args.x[i] = self._at(memory.slots[slot])
            gradient = memory.gradients[slot]
            if written is not None and gradient is not None:
                args.gx[i] = self._at(gradient)
                args.adds[i] = slot in written
                written.add(slot)
        own = memory.gradients[placed.output]
        args.gy = self._at(own) if training and own is not None else None
        for i, name in enumerate(placed.params):
            if name is None:
                continue
            self._relocate(relocations, args, OpArgs.params, i, name)
            offset = self._offset(name)
            place = self._scratch if offset is None else self._gradient[offset:]
            args.grads[i] = place.data_ptr() if training else None
        for i, name in enumerate(placed.buffers):
            self._relocate(relocations, args, OpArgs.buffers, i, name)
        if placed.draws:
            args.buffers[0] = self._random.data_ptr()
            args.saved = self._at(memory.saved[number])

    def _relocate(self, relocations: list[Relocation], args: OpArgs, field: Any, i: int, name: str) -> None:
        place = ctypes.addressof(args) + field.offset + i * ctypes.sizeof(POINTER)
        offset = self._offset(name)
        if offset is None:
            relocations.append(Relocation(place, 1 + self._tensors.index(name), 0))
        else:
            relocations.append(Relocation(place, 0, offset * self._gradient.element_size()))

    def _offset(self, name: str) -> int | None:
        """Return where a parameter lies in a lane's row of trained ones; None for what is not trained."""
        first = self._storage.trained(name)
        if first is None:
            return None
        return int(self._storage.split(self._storage.flat)[first].storage_offset())

    # The lanes

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
            tensors = [storage.flat, *(storage.tensors[name] for name in self._tensors)]
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
        return logits

    # Single passes, to hold against other ways of computing them

    def forward(self, k: int, x_BCHW: torch.Tensor, *, training: bool, seed: int = 0) -> torch.Tensor:
        """Return a lane's logits [B, Y] of images; `seed` is the dropout masks'."""
        numbers = to_layout(x_BCHW, self._steps.slots[0].layout)
        self._view(self._struct.images, numbers.numel()).copy_(numbers)
        self._library.forward_pass(
            *(ctypes.byref(self._struct), ctypes.byref(self._lanes[k]), len(x_BCHW), training, seed)
        )
        count = len(x_BCHW) * self._struct.classes
        return self._view(self._struct.logits, count).view(len(x_BCHW), -1).clone()

    def backward(self, gradient_BY: torch.Tensor) -> torch.Tensor:
        """Return the gradients [P] of the lane that ran `forward` last, given that of its logits."""
        self._view(self._struct.logits_gradient, gradient_BY.numel()).copy_(gradient_BY.reshape(-1))
        self._library.backward_pass(ctypes.byref(self._struct))
        return self._gradient.clone()

    def _view(self, place: int, count: int) -> torch.Tensor:
        offset = place - self._arena.data_ptr()
        return self._arena[offset : offset + count * self._gradient.element_size()].view(self._dtype)


class PlanNetwork:
    """A plan's passes in the form of a network's, to be held against the models; see `network.Network`.

    Args:
        planned: the steps.
        storage: the lanes' weights.
        like: the network that the plan was made beside.
    """

    def __init__(self, planned: PlannedSteps, storage: Storage, *, has_dropout: bool) -> None:
        self._planned, self._storage = planned, storage
        self.has_dropout = has_dropout
        self.dropout = _Generators()

    def __call__(self, x: torch.Tensor, form: Form, *, training: bool) -> torch.Tensor:
        """Return logits [K, B, Y] of images in a form, shared or packed."""
        return torch.stack(
            [self._planned.forward(k, own, training=training, seed=s) for k, (own, s) in self._lanes(x, form)]
        )

    def forward_pass(self, x: torch.Tensor, form: Form) -> PlanPass:
        """Return the logits in training mode, with the pass that computes the gradients from theirs."""
        return PlanPass(
            self._planned, self._storage, list(self._lanes(x, form)), self(x, form, training=True)
        )

    def _lanes(self, x: torch.Tensor, form: Form) -> Sequence[tuple[int, tuple[torch.Tensor, int]]]:
        lanes = self._storage.lanes
        images = [x] * lanes if form is Form.SHARED else x.view(len(x), lanes, -1, *x.shape[2:]).unbind(1)
        given = [g.initial_seed() for g in self.dropout.generators] or [0] * lanes
        return list(enumerate(zip(images, given, strict=True)))


class _Generators:
    """Where the lanes' masks come from: a plan takes their seeds."""

    def __init__(self) -> None:
        self.generators: list[torch.Generator] = []


class PlanPass:
    """A forward pass of all lanes by a plan, and the backward pass from it."""

    def __init__(
        self,
        planned: PlannedSteps,
        storage: Storage,
        lanes: Sequence[tuple[int, tuple[torch.Tensor, int]]],
        logits: torch.Tensor,
    ) -> None:
        self._planned, self._storage, self._lanes_of, self.logits = planned, storage, lanes, logits

    def gradients(self, gradient_KBY: torch.Tensor, out_KP: torch.Tensor) -> None:
        """Write the gradients of all trained parameters; running statistics stay as the forward pass left them."""
        before = [t.clone() for t in self._storage.untrained()]
        for k, (images, seed) in self._lanes_of:  # all lanes have one arena: each goes forward once more
            self._planned.forward(k, images, training=True, seed=seed)
            out_KP[k].copy_(self._planned.backward(gradient_KBY[k]))
        for tensor, own in zip(self._storage.untrained(), before, strict=True):
            tensor.copy_(own)


def _aligned(size: int) -> torch.Tensor:
    """Return so many bytes that begin where a cache line does, with slack behind them."""
    raw = torch.zeros(size + SLACK + 64, dtype=torch.uint8)
    return raw[-raw.data_ptr() % 64 :]


def _calls(
    wanted: Sequence[tuple[ctypes._FuncPointer, int]], args: ctypes.Array[OpArgs]
) -> ctypes.Array[Call]:
    return (Call * len(wanted))(
        *(Call(ctypes.cast(function, POINTER).value, ctypes.pointer(args[n])) for function, n in wanted)
    )
