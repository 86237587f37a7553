"""A pack as a program: K lanes step together, each with its own recipe, and end, leave and come one by one.

Stands between the network of all lanes and the engine that tells what happens to each.  Everything that a
trial's result depends on is the lane's own: seed, epoch, step, schedule, rates.  Where all lanes are at the
same epoch of the same seed they see the same images in the same order, and share one batch.

Shapes: K lanes, B batch, N images of an epoch or of the validation split, P parameters of a lane, Y classes.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training import augment, seeds
from gridsearch.training.batches import batch_plan
from gridsearch.training.course import LaneState
from gridsearch.training.lanes.inputs import PackInputs
from gridsearch.training.lanes.network import choose
from gridsearch.training.lanes.optimizers import PackOptimizer
from gridsearch.training.lanes.values import SAMPLE
from gridsearch.training.metrics import Diverged, EpochTotals, Evaluation
from gridsearch.training.network import has_batch_norm, pays_channels_last
from gridsearch.training.schedules import Schedule
from gridsearch.training.solo import evaluation_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from gridsearch.records import Settings
    from gridsearch.training.data import ResidentData
    from gridsearch.training.precision import Precision

_BLOCK = 64  # steps between two looks at what is on the device
_PATIENCE = 0.2  # seconds between two looks, where steps are slow


@dataclass(slots=True, eq=False)
class Member:
    """A lane of a program.

    Attributes:
        settings: its recipe.
        seed: of all its streams.
        epoch: epochs trained.
        step: optimizer steps taken.
        schedule: of its learning rate; set by the program.
        diverged: what broke it.
    """

    settings: Settings
    seed: int
    epoch: int = 0
    step: int = 0
    schedule: Schedule = field(default_factory=lambda: Schedule(total=1))
    diverged: Diverged | None = None


class PackProgram:
    """K lanes of one group as one program.

    Args:
        members: the lanes; their recipes differ in fusible settings alone.
        models: each lane's model, as its own seed made it; not changed.
        data: what they train on.
        precision: how they compute.

    Attributes:
        network: what computes.
        plan: the batches of an epoch.
        members: the lanes, by slot.

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
    ) -> None:
        self.members = list(members)
        self.data = data
        self._precision = precision
        sample = data.batches(
            norm=members[0].settings.norm, dtype=precision.weights, memory_format=torch.contiguous_format
        )
        tried = data.train[torch.arange(SAMPLE, device=data.device) % len(data.train)]
        self.network, self.storage = choose(
            models, sample(tried), precision, [m.settings.dropout for m in members]
        )
        self.plan = batch_plan(
            len(data.train),
            members[0].settings.batch,
            drop_last=members[0].settings.drop_last,
            drop_single=has_batch_norm(models[0]),
        )
        packs_maps = self.network.method == "stacked" and pays_channels_last(models[0], precision)
        self._memory_format = torch.channels_last if packs_maps else torch.contiguous_format
        self._optimizer = PackOptimizer([m.settings for m in members], self.storage.flat)
        for member in self.members:
            self._schedule(member)
        self._bind()

    @property
    def lanes(self) -> int:
        """K."""
        return len(self.members)

    def lr(self, slot: int) -> float:
        """Return the learning rate of a lane's last step."""
        return self._optimizer.lr[slot]

    # Lanes that leave and come

    def take(self, slot: int) -> LaneState:
        """Return a copy of all that a lane is; the lane's course adds what it knows."""
        return LaneState(
            epoch=self.members[slot].epoch,
            step=self.members[slot].step,
            weights=self.storage.take(slot),
            memory=self._optimizer.take(slot, self._shapes()),
        )

    def put(self, slot: int, member: Member, state: LaneState) -> None:
        """Give a lane to another trial."""
        member.epoch, member.step = state.epoch, state.step
        self.members[slot] = member
        self.storage.put(slot, state.weights)
        self._optimizer.put(slot, member.settings, self._shapes(), state.memory)
        self._schedule(member)
        self._optimizer.lr[slot] = member.settings.lr * member.schedule.factor(max(0, member.step - 1))
        self._bind()

    def keep(self, slots: Sequence[int]) -> None:
        """Leave only these lanes, in this order, so that none that has ended costs time."""
        self.members = [self.members[slot] for slot in slots]
        self.storage.keep(slots)
        self._optimizer.keep(slots, self.storage.flat)
        self.network.resize(len(slots))
        self._bind()

    def _shapes(self) -> dict[str, torch.Tensor]:
        return {name: self.storage.tensors[name] for name in self.storage.names}

    def _schedule(self, member: Member) -> None:
        s = member.settings
        member.schedule = Schedule.of(
            s.schedule, epochs=s.epochs, steps_per_epoch=self.plan.steps, warmup=s.warmup
        )

    def _bind(self) -> None:
        """Take in who the lanes are now."""
        settings = [m.settings for m in self.members]
        norms = [s.norm for s in settings]
        self._inputs = PackInputs(self.data, norms, self._precision, self._memory_format, self.network)
        self._leaves = self.storage.leaves()
        self._gradient = torch.empty_like(self.storage.flat)
        smoothing = [s.label_smoothing for s in settings]
        self._smoothing = None
        if any(smoothing):
            self._smoothing = torch.tensor(
                smoothing, dtype=self._precision.weights, device=self.data.device
            ).view(-1, 1)
        self._moves = any(m.schedule.moves for m in self.members)
        draws = self.network.draws
        draws.channels_last = self._memory_format == torch.channels_last
        draws.rates = [s.dropout for s in settings]
        draws.generators = [torch.Generator(self.data.device) for _ in self.members]

    # Training

    def train_epoch(self, check_stop: Callable[[], None] = lambda: None) -> list[EpochTotals | Diverged]:
        """Train every lane for its next epoch.

        Returns:
            for each lane its totals, or what broke it; all lanes leave early when all are broken.
        """
        members, data, batch = self.members, self.data, self.plan.batch
        epochs = {(m.seed, m.epoch + 1) for m in members}
        orders = (
            [self._order(*one) for one in epochs]
            if len(epochs) == 1
            else [self._order(m.seed, m.epoch + 1) for m in members]
        )
        drawn = (
            [self._augment(*one) for one in epochs]
            if len(epochs) == 1
            else [self._augment(m.seed, m.epoch + 1) for m in members]
        )
        order_NL = torch.stack(orders, 1)
        labels_NL = data.labels[order_NL]
        tally = PackTally(labels_NL, members)
        first = members[0]
        seeds.reseed_others(seeds.stream(first.seed, seeds.EPOCH, first.epoch + 1))
        for i in range(self.plan.steps):
            check_stop()
            start = i * batch
            chosen = order_NL[start : start + batch]
            if len(epochs) == 1:
                x, form = self._inputs.shared(chosen[:, 0], drawn[0], start)
            else:
                x, form = self._inputs.own(chosen, drawn, start)
            labels_LB = labels_NL[start : start + batch].t()
            if self.network.draws_masks:
                for generator, m in zip(self.network.draws.generators, members, strict=True):
                    generator.manual_seed(seeds.stream(m.seed, seeds.STEP, m.step))
            with self._precision.forward():
                logits_KBY = self.network(x, form, training=True)
            self._move(logits_KBY.to(self._precision.weights), labels_LB, tally)
            if tally.all_broken:
                break
        for member in members:
            member.epoch += 1
        return tally.results()

    def _move(self, logits_KBY: torch.Tensor, labels_LB: torch.Tensor, tally: PackTally) -> None:
        """Take losses and gradients of a step and move the lanes."""
        with torch.no_grad():
            losses_K, slopes_KBY = self._losses(logits_KBY, labels_LB)
        tally.add(losses_K, logits_KBY.detach())
        gradients = torch.autograd.grad(logits_KBY, self._leaves, slopes_KBY)
        torch.cat([g.flatten(1) if g.dim() > 1 else g.unsqueeze(1) for g in gradients], 1, out=self._gradient)
        if self._moves:
            self._optimizer.lr = [m.settings.lr * m.schedule.factor(m.step) for m in self.members]
        self._optimizer.step(self._gradient)
        for member in self.members:
            member.step += 1

    def _losses(self, logits_KBY: torch.Tensor, labels_LB: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each lane's mean cross-entropy [K] and its slope by the logits [K, B, Y].

        The slope of a cross-entropy is softmax - target, which is cheaper than to have it derived.
        """
        lanes, count, classes = logits_KBY.shape
        labels_KB1 = labels_LB.expand(lanes, count).unsqueeze(2)
        logp_KBY = F.log_softmax(logits_KBY, 2)
        losses_K = logp_KBY.gather(2, labels_KB1).sum((1, 2)).neg_()
        slopes_KBY = logp_KBY.exp()
        if self._smoothing is None:
            slopes_KBY.scatter_add_(2, labels_KB1, slopes_KBY.new_full((), -1.0).expand(labels_KB1.shape))
        else:
            rest_K1 = self._smoothing / classes
            smooth_K = logp_KBY.sum((1, 2)).neg_() * rest_K1.squeeze(1)
            own = self._smoothing.squeeze(1)
            losses_K = torch.where(own > 0, (1 - own) * losses_K + smooth_K, losses_K)
            slopes_KBY.sub_(rest_K1.unsqueeze(2))
            slopes_KBY.scatter_add_(
                2, labels_KB1, (self._smoothing - 1).unsqueeze(2).expand(labels_KB1.shape)
            )
        return losses_K.div_(count), slopes_KBY.div_(count)

    def _order(self, seed: int, epoch: int) -> torch.Tensor:
        """The indices of an epoch's images in their order, drawn on the CPU whatever the device."""
        train = self.data.train
        drawn = torch.randperm(len(train), generator=seeds.generator(seed, seeds.ORDER, epoch))
        return train.index_select(0, drawn[: self.plan.images].to(train.device))

    def _augment(self, seed: int, epoch: int) -> augment.EpochAugment | None:
        return augment.draw(
            self.members[0].settings.augment,
            seed=seed,
            epoch=epoch,
            count=self.plan.images,
            image_size=self.data.image_size,
            device=self.data.device,
        )

    # Evaluation

    def evaluate(self, check_stop: Callable[[], None] = lambda: None) -> list[Evaluation | None]:
        """Score the validation images, lane by lane; None for all if there are none."""
        data = self.data
        if len(data.val) == 0:
            return [None] * self.lanes
        parts = []
        with torch.no_grad():
            for chosen_B in torch.split(data.val, self.evaluation_batch):
                check_stop()
                x, form = self._inputs.shared(chosen_B)
                with self._precision.forward():
                    logits_KBY = self.network(x, form, training=False)
                parts.append(logits_KBY.to(self._precision.weights))
        labels_N = data.labels.index_select(0, data.val)
        return [Evaluation.of(logits_NY, labels_N) for logits_NY in torch.cat(parts, 1).unbind(0)]

    @property
    def evaluation_batch(self) -> int:
        """Images at a time in evaluation: a lone lane's share."""
        return max(1, evaluation_batch(self.data) // self.lanes)


class PackTally:
    """Gathers the losses and hits of one epoch of all lanes; see `metrics.EpochTally`, which it equals.

    Args:
        labels_NL: labels of the epoch's images in its order; one column for all lanes, or one for each.
        members: the lanes, before the epoch.

    Attributes:
        all_broken: whether no lane has a finite loss any more.
    """

    def __init__(self, labels_NL: torch.Tensor, members: Sequence[Member]) -> None:
        self.all_broken = False
        self._labels_LN = labels_NL.t()
        self._members = members
        self._first = [m.step for m in members]
        self._immediate = labels_NL.device.type == "cpu"
        self._losses: list[list[float]] = []
        self._sizes: list[int] = []
        self._waiting_losses: list[torch.Tensor] = []
        self._waiting_logits: list[torch.Tensor] = []
        self._seen = 0
        self._hits = torch.zeros(len(members), dtype=torch.int64, device=labels_NL.device)
        self._looked = time.monotonic()

    def add(self, losses_K: torch.Tensor, logits_KBY: torch.Tensor) -> None:
        """Take in one step's mean losses and its logits."""
        self._sizes.append(logits_KBY.shape[1])
        self._waiting_logits.append(logits_KBY)
        if self._immediate:
            self._take(losses_K.tolist())
        else:
            self._waiting_losses.append(losses_K)
        if len(self._waiting_logits) >= _BLOCK or time.monotonic() - self._looked > _PATIENCE:
            self._look()

    def results(self) -> list[EpochTotals | Diverged]:
        """Return each lane's means over all that was added, or what broke it."""
        self._look()
        hits = self._hits.tolist()
        found: list[EpochTotals | Diverged] = []
        for lane, member in enumerate(self._members):
            if member.diverged is not None:
                found.append(member.diverged)
                continue
            own = [losses[lane] for losses in self._losses]
            weighted = math.fsum(loss * size for loss, size in zip(own, self._sizes, strict=True))
            found.append(EpochTotals(weighted / self._seen, hits[lane] / self._seen, self._seen))
        return found

    def _look(self) -> None:
        for losses in torch.stack(self._waiting_losses).tolist() if self._waiting_losses else ():
            self._take(losses)
        self._waiting_losses.clear()
        if self._waiting_logits:
            guesses_KB = torch.cat(self._waiting_logits, 1).argmax(2)
            count = guesses_KB.shape[1]
            self._hits += (guesses_KB == self._labels_LN[:, self._seen : self._seen + count]).sum(1)
            self._seen += count
            self._waiting_logits.clear()
        self._looked = time.monotonic()

    def _take(self, losses: list[float]) -> None:
        self._losses.append(losses)
        if math.isfinite(math.fsum(losses)):
            return
        for lane, (loss, member) in enumerate(zip(losses, self._members, strict=True)):
            if member.diverged is None and not math.isfinite(loss):
                step = self._first[lane] + len(self._losses)
                member.diverged = Diverged("loss", step=step, epoch=member.epoch + 1, value=loss)
        self.all_broken = all(m.diverged is not None for m in self._members)
