"""One lane as a program of its own: an ordinary module with an ordinary optimizer.

It is always correct, and what every other way of training is measured against; `solo_engine` runs it.

Shapes: B batch, C/H/W channels, height, width, Y classes, N images of an epoch or of the validation split.
"""

from __future__ import annotations

import functools
import operator
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch

from gridsearch.training import augment, mixing, seeds
from gridsearch.training.batches import for_evaluation
from gridsearch.training.beside_weights import Beside, beside_of
from gridsearch.training.clipping import clip_gradients
from gridsearch.training.epoch_order import epoch_order
from gridsearch.training.lane_loss import LossRecipe
from gridsearch.training.lane_optimizer import LaneOptimizer
from gridsearch.training.lane_progress import LaneState
from gridsearch.training.metrics import Diverged, EpochMetrics, EpochTotals, Evaluation, LoneLane
from gridsearch.training.model_outputs import check_logits
from gridsearch.training.model_setup import batches_of, build_network, count_parameters, lay_out, sample
from gridsearch.training.own_code import OwnCode
from gridsearch.training.own_optimizer import OwnOptimizer
from gridsearch.training.schedules import Schedule
from gridsearch.training.weight_average import WeightAverage

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from torch import nn

    from gridsearch.records import ImageSettings
    from gridsearch.training.precision import Precision
    from gridsearch.training.resident_data import ResidentData

_EVALUATION_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20, "mps": 64 << 20}  # of float32 images at a time
_EVALUATION_BATCH = 8192


def evaluation_batch(data: ResidentData) -> int:
    """Return how many images to evaluate at a time: what fits into a CPU's cache, many on a GPU."""
    height, width = data.image_size
    limit = _EVALUATION_BYTES.get(data.device.type, 4 << 20)
    return min(_EVALUATION_BATCH, max(1, limit // (4 * data.channels * height * width)))


class _Labels(NamedTuple):
    """The labels of a batch.

    Attributes:
        own: of its images.
        others: of those that are mixed in, None where none are.
        share: of the own labels, one number.
    """

    own: torch.Tensor
    others: torch.Tensor | None = None
    share: torch.Tensor | None = None


class SoloProgram:
    """One lane as a program: a model, its optimizer, its place in the schedule and its streams.

    Args:
        settings: the trial's recipe.
        seed: of all its streams.
        data: what it trains on.
        build: gives the model.
        precision: how it computes.
        own: what of the recipe is the user's own code.

    Raises:
        ModelRefused: the model cannot be trained.
        Exception: whatever the user's code raises.
    """

    def __init__(
        self,
        settings: ImageSettings,
        seed: int,
        data: ResidentData,
        build: Callable[[ImageSettings, ResidentData], nn.Module],
        precision: Precision,
        own: OwnCode = OwnCode(),  # noqa: B008  (frozen)
    ) -> None:
        self.settings = settings
        self._own = own
        self.data = data
        self.step = 0
        self.epoch_started = 0.0
        self._seed = seed
        self._precision = precision
        self.model = build_network(settings, seed, data, build, precision)
        memory_format = lay_out(self.model, settings, data, precision)
        self._make = data.batches(norm=settings.norm, dtype=precision.weights, memory_format=memory_format)
        named = dict(self.model.named_parameters())
        self._names = [n for n, p in named.items() if p.requires_grad]
        self._frozen = {n: p for n, p in named.items() if not p.requires_grad}
        self._parameters = tuple(named.values())
        trained = [named[n] for n in self._names]
        self._optimizer = (
            LaneOptimizer(settings, trained)
            if own.optimizer is None
            else OwnOptimizer(own.optimizer, settings, trained, seed=seed)
        )
        self._average = WeightAverage(settings.ema, self.model) if settings.ema else None
        self.plan = batches_of(self.model, settings, data)
        self._schedule = Schedule.of(
            settings.schedule, epochs=settings.epochs, steps_per_epoch=self.plan.steps, warmup=settings.warmup
        )
        self._set_lr(0)

    @functools.cached_property
    def _loss(self) -> LossRecipe:
        """The loss; made when it is asked for, since a program that only evaluates has the wrong images for it."""
        return LossRecipe.of(self.settings, self.data).on(self.data.device, self._precision.weights)

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return self._optimizer.lr

    @property
    def parameter_count(self) -> int:
        """Trainable parameters; a tied one counts once."""
        return count_parameters(self.model)

    @property
    def resumable(self) -> bool:
        """Whether a checkpoint holds all that its optimizer has."""
        return not isinstance(self._optimizer, OwnOptimizer) or not self._optimizer.keeps

    def state_dict(self) -> dict[str, object]:
        """Return the model's state_dict, with `ema` of its average: a copy then."""
        if self._average is None:
            return self.model.state_dict()
        with self._evaluated():
            state = self.model.state_dict()
            return {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in state.items()}

    def parameters(self) -> list[torch.Tensor]:
        """Return the model's parameters, with `ema` their average: a copy then."""
        if self._average is None:
            return list(self.model.parameters())
        with self._evaluated():
            return [p.detach().clone() for p in self.model.parameters()]

    def beside(self) -> Beside:
        """Return what the model has beside its state_dict as it is evaluated; a copy."""
        with self._evaluated():
            return beside_of(self.model, self.sample_logits(self.data))

    def sample_logits(self, data: ResidentData) -> torch.Tensor:
        """Return what the model gives for the first two training images in evaluation mode, [2, Y]."""
        stream = seeds.stream(self._seed, seeds.EVALUATION)
        seeds.reseed(data.device, stream)
        seeds.reseed_others(stream)
        x_BCHW = sample(data, self.settings.norm, self._precision, torch.contiguous_format)
        self.model.eval()
        with torch.no_grad(), self._precision.forward():
            logits_BY: torch.Tensor = self.model(x_BCHW)
        return logits_BY

    def _evaluated(self) -> AbstractContextManager[None]:
        """Return the context in which the model has the weights that are evaluated."""
        return nullcontext() if self._average is None else self._average.swapped_in(self.step)

    def lane_state(self) -> LaneState:
        """Return a copy of the lane's weights, average, optimizer and step; the progress adds what it knows."""
        tensors = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        return LaneState(
            step=self.step,
            weights={name: t.detach().clone() for name, t in tensors.items()},
            optimizer_state=self._optimizer.state_dict(self._names),
            averages={} if self._average is None else self._average.state_dict(),
        )

    def load_lane_state(self, state: LaneState) -> None:
        """Go on from a state; it is copied."""
        tensors = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(state.weights[name])
            for name in state.weights.keys() - tensors.keys():  # a pack had made a buffer of it
                operator.attrgetter(name)(self.model).copy_(state.weights[name])
        with_state = {name for tensors in state.optimizer_state.values() for name in tensors}
        self._unfreeze([name for name in self._frozen if name in with_state])
        self._optimizer.load_state_dict(self._names, state.optimizer_state)
        if self._average is not None:
            self._average.load_state_dict(state.averages)
        self.step = state.step
        self._set_lr(max(0, self.step - 1))

    def train_epoch(self, epoch: int, check_stop: Callable[[], None] = lambda: None) -> EpochTotals:
        """Train for one epoch.

        Args:
            epoch: counted from 1; decides order and augmentation.
            check_stop: called before each step; raises to leave.

        Raises:
            Diverged: a loss is not finite.
            Exception: whatever the user's code raises.
        """
        order = epoch_order(
            self.data, self.settings.sampling, seed=self._seed, epoch=epoch, images=self.plan.images
        )
        labels_N = self.data.labels.index_select(0, order)
        drawn = augment.draw_for(
            self.settings,
            self._seed,
            epoch,
            count=len(order),
            data=self.data,
            dtype=self._precision.weights,
            own=self._own.augment,
        )
        mix = mixing.draw(
            [(self.settings, self._seed, epoch)],
            self.plan,
            image_size=self.data.image_size,
            device=self.data.device,
            dtype=self._precision.weights,
        )
        labels_N1 = labels_N.unsqueeze(1)
        others_N1, guessed_N1 = (None, labels_N1) if mix is None else mix.labels(labels_N1)
        metrics = EpochMetrics(guessed_N1, [LoneLane(epoch - 1, self.step)])
        seeds.reseed_others(seeds.stream(self._seed, seeds.EPOCH, epoch))
        self.model.train()
        batch = self.plan.batch
        for i, chosen_B in enumerate(torch.split(order, batch)):
            check_stop()
            part = slice(i * batch, (i + 1) * batch)
            raw_BHWC = self._make.raw(chosen_B)
            if drawn is not None:
                raw_BHWC = drawn.apply(raw_BHWC, part.start)
            x_BCHW = self._make.finish(raw_BHWC)
            labels = _Labels(labels_N[part])
            if mix is not None and others_N1 is not None:
                x_BCHW = mix.images(x_BCHW, part)
                labels = _Labels(labels_N[part], others_N1[part, 0], mix.shares_of(part)[0])
            self._train_step(x_BCHW, labels, metrics, check=i == 0)
            if metrics.all_diverged:
                break
        (totals,) = metrics.results()
        if isinstance(totals, Diverged):
            raise totals
        return totals

    def evaluate(self, epoch: int, check_stop: Callable[[], None] = lambda: None) -> Evaluation | None:
        """Score the validation images in evaluation mode; None if there are none.

        Args:
            epoch: counted from 1; for models that draw random numbers in evaluation mode.
            check_stop: called before each batch; raises to leave.
        """
        data = self.data
        if len(data.val) == 0:
            return None
        seeds.reseed(data.device, seeds.stream(self._seed, seeds.EVALUATION, epoch))
        self.model.eval()
        parts = []
        with torch.no_grad(), self._evaluated():
            for chosen_B in for_evaluation(data.val, self.evaluation_batch):
                check_stop()
                with self._precision.forward():
                    logits_BY = self.model(self._make(chosen_B))
                parts.append(logits_BY.to(self._precision.weights))
        return Evaluation.of(torch.cat(parts), data.labels.index_select(0, data.val))

    @property
    def evaluation_batch(self) -> int:
        """Images at a time in evaluation."""
        return evaluation_batch(self.data)

    def _train_step(
        self, x_BCHW: torch.Tensor, labels: _Labels, metrics: EpochMetrics, *, check: bool
    ) -> None:
        seeds.reseed(self.data.device, seeds.stream(self._seed, seeds.STEP, self.step))
        with self._precision.forward():
            logits_BY = self.model(x_BCHW)
        if check:
            check_logits(logits_BY, len(x_BCHW), self.data.num_classes, training=True)
        logits_BY = logits_BY.to(self._precision.weights)
        loss = self._loss(logits_BY, labels.own)
        if labels.others is not None and labels.share is not None:
            loss = torch.lerp(self._loss(logits_BY, labels.others), loss, labels.share)
        metrics.add(loss.detach().unsqueeze(0), logits_BY.detach().unsqueeze(0))
        if metrics.all_diverged:
            return
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        if self._frozen:
            self._unfreeze([name for name, p in self._frozen.items() if p.grad is not None])
        clip_gradients(self._parameters, self.settings)
        if self._schedule.moves:
            self._set_lr(self.step)
        self._optimizer.step()
        if self._average is not None:
            self._average.step()
        self.step += 1

    def _unfreeze(self, names: list[str]) -> None:
        """Train parameters that rested so far: a model's own code has asked for their gradients."""
        if names:
            unfrozen = {name: self._frozen.pop(name) for name in names}
            self._names += names
            self._optimizer.add(list(unfrozen.values()))
            if self._average is not None:
                self._average.add(unfrozen, self.step)

    def _set_lr(self, step: int) -> None:
        self._optimizer.lr = self.settings.lr * self._schedule.factor(step)
