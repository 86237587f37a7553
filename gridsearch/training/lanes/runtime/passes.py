"""What all lanes compute at once: a step's losses and gradients, and the logits of validation images.

Stands between the program, which knows lanes and their epochs, and the network of all lanes: makes the images of a step
(`inputs.py`), takes them through the network, and the gradients of the losses (`losses.py`) back through it.

Shapes: K lanes, L one column for all lanes or K, B batch, N validation images, P elements of a lane's trained
parameters, Y classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gridsearch.training.batches import for_evaluation
from gridsearch.training.lane_loss import LossRecipe
from gridsearch.training.lanes.runtime.inputs import PackInputs
from gridsearch.training.lanes.runtime.losses import PackLosses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.records import ImageSettings
    from gridsearch.training.lanes.compile.network import Network
    from gridsearch.training.lanes.runtime.feed import BatchPosition, EpochImages
    from gridsearch.training.lanes.runtime.storage import Storage
    from gridsearch.training.precision import Precision
    from gridsearch.training.resident_data import ResidentData


class PackPasses:
    """Takes images of all lanes through their network; `allocate` and `set_lanes` come first.

    Args:
        network: of all lanes.
        storage: the lanes' weights.
        data: the dataset of the lanes' images.
        precision: how the lanes compute.
        memory_format: of the images.
        compiles: compiled kernels may compute losses, which recorded steps cannot run.

    Attributes:
        network: see above; likewise storage, data, precision and memory_format.
        inputs: makes the images.
        losses: of all lanes.
        gradient: of the last step, [K, P].
    """

    inputs: PackInputs
    losses: PackLosses
    gradient: torch.Tensor

    def __init__(
        self,
        network: Network,
        storage: Storage,
        data: ResidentData,
        precision: Precision,
        memory_format: torch.memory_format,
        *,
        compiles: bool,
    ) -> None:
        self.network, self.storage, self.data = network, storage, data
        self.precision, self.memory_format, self._compiles = precision, memory_format, compiles

    def allocate(self, settings: Sequence[ImageSettings], splits: Sequence[ResidentData]) -> None:
        """Allocate what must stay at its address as long as the number of lanes does.

        Args:
            settings: each lane's recipe.
            splits: each lane's images.
        """
        data = self.data
        self._make_inputs(settings, splits)
        self.gradient = torch.empty_like(self.storage.flat)
        self.losses = PackLosses(
            len(settings), data.num_classes, self.precision.weights, data.device, compiles=self._compiles
        )

    def set_lanes(self, settings: Sequence[ImageSettings], splits: Sequence[ResidentData]) -> bool:
        """Adapt to lanes of these recipes and images; False where their images need other operations than before."""
        same = self.inputs.set_lanes(splits, [s.norm for s in settings])
        if not same:
            self._make_inputs(settings, splits)
        self.losses.set_recipes([LossRecipe.of(s, split) for s, split in zip(settings, splits, strict=True)])
        return same

    def _make_inputs(self, settings: Sequence[ImageSettings], splits: Sequence[ResidentData]) -> None:
        norms = [s.norm for s in settings]
        self.inputs = PackInputs(splits, norms, self.precision, self.memory_format, self.network)

    def gradients(self, images: EpochImages, position: BatchPosition) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the gradients of a step, and return its losses [K] and logits [K, B, Y]."""
        x, form = self.inputs.step(images, position)
        with self.precision.forward():
            forward = self.network.forward_pass(x, form)
        logits_KBY = forward.logits.to(self.precision.weights)
        losses_K, gradient_KBY = self._loss(logits_KBY, images, position)
        forward.gradients(gradient_KBY, self.gradient)
        return losses_K, logits_KBY

    def _loss(
        self, logits_KBY: torch.Tensor, images: EpochImages, position: BatchPosition
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the losses [K] of a step, and their gradients with respect to the logits."""
        part = position.images
        labels_LB = images.labels[part].t()
        if images.mix is None or images.others is None:
            return self.losses(logits_KBY, labels_LB)
        others_LB, shares_L = images.others[part].t(), images.mix.shares_of(part)
        return self.losses.mixed(logits_KBY, labels_LB, others_LB, shares_L)

    def evaluate(
        self, indices_KN: Sequence[torch.Tensor], at_a_time: int, check_stop: Callable[[], None]
    ) -> list[torch.Tensor]:
        """Return each lane's logits [N, Y] of some images.

        Args:
            indices_KN: of each lane's images, whose number may differ a little; one tensor for all where they are the
                same.
            at_a_time: images of a pass.
            check_stop: raises if training is to stop.
        """
        shared = all(own_N is indices_KN[0] for own_N in indices_KN)
        most = max(map(len, indices_KN))
        # a lane that has fewer sees its first one again, and what comes of it is left out
        padded = [torch.cat([own_N, own_N[:1].expand(most - len(own_N))]) for own_N in indices_KN]
        order_NL = torch.stack(padded[:1] if shared else padded, 1)
        parts = []
        for chosen_BL in for_evaluation(order_NL, at_a_time):
            check_stop()
            if shared:
                x, form = self.inputs.shared(chosen_BL[:, 0])
            else:
                x, form = self.inputs.own(chosen_BL)
            with self.precision.forward():
                logits_KBY = self.network(x, form, training=False)
            parts.append(logits_KBY.to(self.precision.weights))
        logits_KNY = torch.cat(parts, 1)
        return [logits_NY[: len(own_N)] for logits_NY, own_N in zip(logits_KNY, indices_KN, strict=True)]
