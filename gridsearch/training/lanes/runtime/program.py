"""A pack as a program: K lanes step together, each with its own recipe; lanes end and are replaced one by one.

Stands between the network of all lanes (`passes.py`) and the engine that reports what happens to each.  Steps are taken
in one of three ways: by compiled calls (`planned_steps.py`), without the host and recorded (`cuda_graphs.py`), or one
by one by the host.  What a lane trains on follows from what is its own (`members.py`).

Shapes: K lanes, B batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gridsearch.training import mixing, seeds
from gridsearch.training.lane_progress import LaneState
from gridsearch.training.lanes.compile.agreement import AGREEMENT
from gridsearch.training.lanes.compile.lane_values import SAMPLE
from gridsearch.training.lanes.compile.network_choice import choose
from gridsearch.training.lanes.compile.reference import check_sizes
from gridsearch.training.lanes.runtime.averages import PackAverages
from gridsearch.training.lanes.runtime.cuda_graphs import step_runner
from gridsearch.training.lanes.runtime.device_metrics import DeviceMetrics
from gridsearch.training.lanes.runtime.feed import BatchPosition, EpochFeed, EpochImages
from gridsearch.training.lanes.runtime.lane_by_lane import LaneByLane
from gridsearch.training.lanes.runtime.mask_orders import lay_out_masks
from gridsearch.training.lanes.runtime.masks import CounterMasks
from gridsearch.training.lanes.runtime.members import Member, MemberEpochs
from gridsearch.training.lanes.runtime.optimizers import PackOptimizer
from gridsearch.training.lanes.runtime.passes import PackPasses
from gridsearch.training.lanes.runtime.plan_choice import plan_steps
from gridsearch.training.metrics import Diverged, EpochMetrics, EpochTotals, Evaluation
from gridsearch.training.model_setup import batches_of, pays_channels_last
from gridsearch.training.own_code import OwnCode
from gridsearch.training.solo import evaluation_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from gridsearch.training.lanes.runtime.cuda_graphs import Recorder
    from gridsearch.training.lanes.runtime.planned_steps import PlannedSteps
    from gridsearch.training.precision import Precision
    from gridsearch.training.resident_data import ResidentData

_COMPARED = (
    32  # images of a step, at most, by which networks that make rounding large are compared with their models
)


class PackProgram:
    """K lanes of one group as one program.

    Args:
        members: the lanes; their recipes differ in fusible settings alone.
        models: each lane's model, as its own seed made it; they are used up, the program has copies of their tensors.
        data: what they train on, where a lane has no split of its own.
        precision: how they compute.
        counted: steps run without the host, which then draws no masks and reads no losses; None for what the
            device needs: all but a CPU do.
        recorder: captures such steps; None for CUDA graphs on CUDA.
        own: what of the lanes' recipe is code of the user's; steps with any are not captured.

    Attributes:
        network: what computes.
        plan: the batches of an epoch.
        members: the lanes, by slot.
        averages: the moving averages of their weights, for those that have one.

    Raises:
        NotPackable: the lanes must train one after the other.
        Exception: whatever the models raise.
    """

    def __init__(
        self,
        members: Sequence[Member],
        models: Sequence[nn.Module],
        data: ResidentData,
        precision: Precision,
        *,
        counted: bool | None = None,
        recorder: Recorder | None = None,
        own: OwnCode = OwnCode(),  # noqa: B008  (frozen)
    ) -> None:
        self.members = list(members)
        self.data = data
        self._counted = data.device.type != "cpu" if counted is None else counted
        self._precision = precision
        sample = data.batches(
            norm=members[0].settings.norm, dtype=precision.weights, memory_format=torch.contiguous_format
        )

        def first_images(count: int) -> torch.Tensor:
            return sample(data.train[torch.arange(count, device=data.device) % len(data.train)])

        self.plan = batches_of(models[0], members[0].settings, data)
        self.network, self.storage = choose(
            models,
            first_images(SAMPLE),
            precision,
            [m.settings.dropout for m in members],
            more=lambda: first_images(max(SAMPLE, min(members[0].settings.batch, _COMPARED))),
            whole=lambda: first_images(self.plan.batch),
            compiles=not self._counted,
            host_streams=not self._counted,
        )
        if self.network.method == "vmap":
            check_sizes(models[0], self.storage.names, map(first_images, self.plan.sizes), precision)
        self._epochs = MemberEpochs(data, self.plan, precision.weights, own.augment)
        packs_maps = self.network.method == "stacked" and pays_channels_last(models[0], precision)
        self._memory_format = torch.channels_last if packs_maps else torch.contiguous_format
        self._passes = PackPasses(
            self.network, self.storage, data, precision, self._memory_format, compiles=not self._counted
        )
        self._optimizer = (
            PackOptimizer([m.settings for m in members], self.storage, counted=self._counted)
            if own.optimizer is None
            else LaneByLane(own.optimizer, self.members, self.storage)
        )
        self.averages = PackAverages(self.storage)
        for member in self.members:
            self._epochs.set_schedule(member)
        self._planned = None
        if not self._counted and self.network.method == "stacked":
            norm = members[0].settings.norm
            lay_out_masks(self.network.dropout, models[0], norm, data, precision)
            self._planned = self._plan_steps(models[0], first_images)
        self._runner = step_runner(
            self._counted_step,
            batch=self.plan.batch,
            device=data.device,
            state=self._state,
            limit=AGREEMENT[precision.name],
            recorder=recorder,
            records=not own,
        )
        self._form: object = None
        self._allocate()
        self._update_lanes()

    def close(self) -> None:
        """Free the recordings and what refers to this program: it trains no more."""
        self._runner.release()
        del self._runner

    @property
    def lanes(self) -> int:
        """K."""
        return len(self.members)

    @property
    def planned(self) -> bool:
        """Whether compiled calls take the steps, several at a time."""
        return self._planned is not None and not self._mixes

    @property
    def taken(self) -> int | None:
        """How many steps all lanes have taken by such calls; None where there are none."""
        return self._planned.taken if self._planned is not None and not self._mixes else None

    @property
    def _mixes(self) -> bool:
        """Whether any lane mixes its images, which step plans do not."""
        return any(mixing.mixes(m.settings) for m in self.members)

    def lr(self, slot: int) -> float:
        """Return the learning rate of a lane's last step."""
        return self._optimizer.lr[slot]

    # Lanes that end and are replaced

    def lane_state(self, slot: int) -> LaneState:
        """Return a copy of a lane's state; its `LaneProgress` adds the epochs' results."""
        return LaneState(
            epoch=self.members[slot].epoch,
            step=self.members[slot].step,
            weights=self.storage.lane_tensors(slot),
            optimizer_state=self._optimizer.state_dict(slot),
            averages=self.averages.state_dict(slot),
        )

    def load_lane_state(self, slot: int, member: Member, state: LaneState) -> None:
        """Give a lane to another trial."""
        member.epoch, member.step = state.epoch, state.step
        self.members[slot] = member
        self.storage.load_lane_tensors(slot, state.weights)
        if isinstance(self._optimizer, LaneByLane):
            self._optimizer.load_lane(slot, member, state.optimizer_state)
        else:
            self._optimizer.load_state_dict(slot, member.settings, state.optimizer_state)
        self._epochs.set_schedule(member)
        self._optimizer.lr[slot] = member.settings.lr * member.schedule.factor(max(0, member.step - 1))
        self._update_lanes()
        self.averages.load_state_dict(slot, state.averages)

    def compact(self, slots: Sequence[int]) -> None:
        """Keep only these lanes, in this order, so that none that has ended costs time."""
        self.members = [self.members[slot] for slot in slots]
        self.storage.compact(slots)
        self._optimizer.compact(slots)
        self.averages.compact(slots)
        self.network.resize(len(slots))
        self._allocate()
        self._update_lanes()

    def _plan_steps(
        self, model: nn.Module, first_images: Callable[[int], torch.Tensor]
    ) -> PlannedSteps | None:
        if isinstance(self._optimizer, LaneByLane):
            return None
        return plan_steps(
            model,
            first_images,
            passes=self._passes,
            plan=self.plan,
            members=self.members,
            splits=self._splits,
            optimizer=self._optimizer,
            averages=self.averages,
        )

    def _allocate(self) -> None:
        """Allocate what must stay at its address as long as the number of lanes does."""
        self._runner.release()
        self._passes.allocate([m.settings for m in self.members], self._splits)
        device, dropout = self.data.device, self.network.dropout
        if self._counted:
            dropout.counter = CounterMasks(self.lanes, device)
            self._feed = EpochFeed(self.plan.batch, device)
            self._device_metrics = DeviceMetrics(self.plan.steps, self.lanes, self._precision.weights, device)
        else:
            dropout.generators = [torch.Generator(device) for _ in self.members]

    @property
    def _splits(self) -> list[ResidentData]:
        """The images that each lane trains and is evaluated on."""
        return self._epochs.splits(self.members)

    def _update_lanes(self) -> None:
        """Adapt to the lanes as they are now; recordings stay valid unless steps need other operations."""
        settings = [m.settings for m in self.members]
        if not self._passes.set_lanes(settings, self._splits):
            self._form = None
        self.averages.set_decays([s.ema for s in settings])
        self._lr_changes = any(m.schedule.moves for m in self.members)
        rates = self.network.dropout.rates = [s.dropout for s in settings]
        drops = None in rates, any(rates)
        form = self._passes.losses.form, drops, self.averages.active, self._optimizer.form
        if form != self._form:
            self._runner.release()
            self._form = form
        if self._planned is not None and not self._planned.fits():
            self._planned = None
        if self._planned is not None and isinstance(self._optimizer, PackOptimizer):
            self._planned.bind(self.members, self._optimizer, self.averages, rates, self._splits)

    # Training

    def train_epoch(self, check_stop: Callable[[], None] = lambda: None) -> list[EpochTotals | Diverged]:
        """Train every lane for its next epoch.

        Returns:
            for each lane its totals, or what ended it; training stops early once all lanes have diverged.
        """
        members = self.members
        first = members[0]
        seeds.reseed_others(seeds.stream(first.seed, seeds.EPOCH, first.epoch + 1))
        if self._planned is not None and not self._mixes:
            results = self._run_planned(self._planned, check_stop)
        else:
            run = self._run_counted if self._counted else self._run
            results = run(self._epochs.images(members), check_stop)
        for member in members:
            member.epoch += 1
        return results

    def _run_planned(
        self, planned: PlannedSteps, check_stop: Callable[[], None]
    ) -> list[EpochTotals | Diverged]:
        """Train an epoch by compiled calls."""
        epochs = self._epochs.lane_by_lane(self.members)
        try:
            results = planned.train(self.members, epochs, check_stop)
        finally:
            if isinstance(self._optimizer, PackOptimizer):
                self._optimizer.took_planned()
        for member in self.members:
            member.step += self.plan.steps
        return results

    def _run(self, images: EpochImages, check_stop: Callable[[], None]) -> list[EpochTotals | Diverged]:
        """Train an epoch, step by step by the host."""
        members, batch = self.members, self.plan.batch
        metrics = EpochMetrics(images.guessed, members)
        for i in range(self.plan.steps):
            check_stop()
            if self.network.has_dropout:
                for generator, m in zip(self.network.dropout.generators, members, strict=True):
                    generator.manual_seed(seeds.stream(m.seed, seeds.STEP, m.step))
            position = BatchPosition(slice(i * batch, (i + 1) * batch))
            losses_K, logits_KBY = self._passes.gradients(images, position)
            metrics.add(losses_K, logits_KBY)
            if self._lr_changes:
                self._optimizer.lr = [m.settings.lr * m.schedule.factor(m.step) for m in members]
            self._optimizer.step(self._passes.gradient)
            self.averages.step()
            for member in members:
                member.step += 1
            if metrics.all_diverged:
                break
        return metrics.results()

    def _run_counted(
        self, images: EpochImages, check_stop: Callable[[], None]
    ) -> list[EpochTotals | Diverged]:
        """Train an epoch whose steps need nothing from the host."""
        members, plan = self.members, self.plan
        rates = self._epochs.rates(members)
        self._feed.load(images, self._optimizer.coefficients(rates))
        self._device_metrics.start()
        masks = self.network.dropout.counter
        if self.network.has_dropout and masks is not None:
            lanes = [m.seed for m in members]
            masks.set_lanes(lanes, [m.step for m in members], self.network.dropout.rates)
        rest = plan.images % plan.batch
        whole = plan.images // plan.batch
        later = max(0, max(m.settings.epochs - m.epoch for m in members) - 1)
        self._runner.run(whole, rest, check_stop, left=later * whole, kind=images.form)
        self._optimizer.advance(rates)
        sizes = [plan.batch] * whole + [rest] * (rest > 0)
        results = self._device_metrics.results(members, sizes)
        for member in members:
            member.step += plan.steps
        return results

    def _counted_step(self, count: int) -> None:
        """Take the next step, of so many images; nothing here comes from the host, or goes to it."""
        feed, masks = self._feed, self.network.dropout.counter
        assert masks is not None
        position = feed.position(count)
        assert position.step is not None
        masks.begin_step()
        losses_K, logits_KBY = self._passes.gradients(feed.images, position)
        guessed_LB = feed.images.guessed[position.images].t()
        self._device_metrics.add(losses_K, logits_KBY, guessed_LB, position.step)
        self._optimizer.step(self._passes.gradient, feed.coefficients())
        self.averages.step()
        masks.steps.add_(1)
        feed.advance(count)

    def _state(self) -> list[torch.Tensor]:
        """All that a counted step changes."""
        masks = self.network.dropout.counter
        assert masks is not None
        own = [self.storage.flat, *self.storage.untrained(), *self._optimizer.state, *self.averages.state]
        return [*own, masks.steps, *self._feed.state, *self._device_metrics.state]

    # Evaluation

    def evaluate(self, check_stop: Callable[[], None] = lambda: None) -> list[Evaluation | None]:
        """Score the validation images, lane by lane; None for all if there are none."""
        vals = [split.val for split in self._splits]
        if len(vals[0]) == 0:
            return [None] * self.lanes
        with torch.no_grad(), self.averages.swapped_in([m.step for m in self.members]):
            if self._planned is not None:
                logits = self._planned.evaluate(vals, self.evaluation_batch, check_stop)
            else:
                logits = self._passes.evaluate(vals, self.evaluation_batch, check_stop)
        return [
            Evaluation.of(logits_NY, self.data.labels.index_select(0, val_N))
            for logits_NY, val_N in zip(logits, vals, strict=True)
        ]

    @property
    def evaluation_batch(self) -> int:
        """Images at a time in evaluation: a lone lane's share."""
        return max(1, evaluation_batch(self.data) // self.lanes)
