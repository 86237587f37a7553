"""The images of a step for all lanes: one batch for all, or a batch for each.

Stands between the resident data and the network.  Lanes that differ in their normalization alone share the
gathered pixels: the network folds each lane's own scale and shift into its first layer where it can, else each lane
gets its own images.

Shapes: K lanes, B batch, C/H/W channels, height, width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gridsearch.training.lanes.compile.lane_values import Form, unflatten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.training.augment import Augmentation
    from gridsearch.training.lanes.compile.network import Network
    from gridsearch.training.lanes.runtime.feed import BatchPosition, EpochImages
    from gridsearch.training.precision import Precision
    from gridsearch.training.resident_data import Affine, ResidentData


class PackInputs:
    """Makes the images of a pack.

    Args:
        splits: each lane's images, of one dataset.
        norms: each lane's normalization.
        precision: how the lanes compute.
        memory_format: of the images.
        network: takes each lane's normalization, if they differ and it can fold them in.
    """

    def __init__(
        self,
        splits: Sequence[ResidentData],
        norms: Sequence[str],
        precision: Precision,
        memory_format: torch.memory_format,
        network: Network,
    ) -> None:
        data = splits[0]
        self._device = data.device
        self._memory_format = memory_format
        self._dtype = precision.weights
        self._affines = affines = _affines(splits, norms)
        mixed = _differ(affines)
        self._batches = data.batches(
            norm="none" if mixed else norms[0], dtype=precision.weights, memory_format=memory_format
        )
        network.affine.clear()
        self._each: tuple[torch.Tensor, torch.Tensor] | None = None
        self._affine: tuple[torch.Tensor, torch.Tensor] | None = None
        if mixed:
            self._affine = scale, shift = self._stacked(affines)
            if network.folds:
                network.affine.set(scale, shift)
            else:
                self._each = scale.view(-1, 1, 1), shift.view(-1, 1, 1)

    def _stacked(self, affines: Sequence[Affine]) -> tuple[torch.Tensor, torch.Tensor]:
        scale, shift = (
            torch.tensor([a[i] for a in affines], dtype=self._dtype, device=self._device) for i in (0, 1)
        )
        return scale, shift

    def set_lanes(self, splits: Sequence[ResidentData], norms: Sequence[str]) -> bool:
        """Write other normalizations into the same buffers; False where they need other operations."""
        affines = _affines(splits, norms)
        if len(affines) != len(self._affines) or _differ(affines) != _differ(self._affines):
            return False
        if self._affine is None:
            return affines[0] == self._affines[0]
        self._affines = affines
        for mine, new in zip(self._affine, self._stacked(affines), strict=True):
            mine.copy_(new)
        return True

    def step(self, images: EpochImages, position: BatchPosition) -> tuple[torch.Tensor, Form]:
        """Return the images of a step, augmented and mixed, and their form."""
        chosen_BL, start = images.order[position.images], position.start
        if images.shared:
            drawn = images.drawn[0]
            raw_BHWC = self._batches.raw(chosen_BL[:, 0])
            raw_BHWC = raw_BHWC if drawn is None else drawn.apply(raw_BHWC, start)
        else:
            raw_BHWC = self._side_by_side(chosen_BL, images.drawn, start)
        x = self._batches.finish(raw_BHWC, chosen_BL.shape[1])
        if images.mix is not None:
            x = images.mix.images(x, position.images)
        return self._for_all(x) if images.shared else (self._own(x), Form.PACKED)

    def shared(self, chosen_B: torch.Tensor) -> tuple[torch.Tensor, Form]:
        """Return the images with these indices as they are, the same for all lanes, and their form."""
        return self._for_all(self._batches.finish(self._batches.raw(chosen_B)))

    def own(self, chosen_BK: torch.Tensor) -> tuple[torch.Tensor, Form]:
        """Return each lane's images as they are, and their form."""
        raw_BHWC = self._side_by_side(chosen_BK, [None], 0)
        return self._own(self._batches.finish(raw_BHWC, chosen_BK.shape[1])), Form.PACKED

    def _for_all(self, x: torch.Tensor) -> tuple[torch.Tensor, Form]:
        if self._each is None:
            return x, Form.SHARED
        # one channel alone has both layouts, and what is made of it has torch's default
        packed = x.repeat(1, len(self._affines), 1, 1).contiguous(memory_format=self._memory_format)
        return self._own(packed), Form.PACKED

    def _side_by_side(
        self, chosen_BK: torch.Tensor, drawn: Sequence[Augmentation | None], start: int | torch.Tensor
    ) -> torch.Tensor:
        """Return each lane's pixels [B, H, W, K*C]."""
        if drawn[0] is None:
            raw = unflatten(self._batches.raw(chosen_BK.flatten()), 0, *chosen_BK.shape)
        else:
            pairs = zip(chosen_BK.unbind(1), drawn, strict=True)
            raw = torch.stack([d.apply(self._batches.raw(c), start) for c, d in pairs if d is not None], 1)
        # [B, K, H, W, C] to [B, H, W, K*C], then the bytes become numbers in the layout that is wanted
        return raw.permute(0, 2, 3, 1, 4).flatten(3)

    def _own(self, x: torch.Tensor) -> torch.Tensor:
        if self._each is not None:
            scale, shift = self._each
            x = x.mul_(scale).add_(shift)
        return x


def _affines(splits: Sequence[ResidentData], norms: Sequence[str]) -> list[Affine]:
    """Return what normalizes each lane's images: by the images that the lane trains on."""
    return [split.affine(norm) for split, norm in zip(splits, norms, strict=True)]


def _differ(affines: Sequence[Affine]) -> bool:
    return any(affine != affines[0] for affine in affines)
