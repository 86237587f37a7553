"""What a frozen backbone gives for the images of a dataset: computed once, kept in the cache, verified when read.

Between the images of a dataset and `ResidentCache`, for which features are images of one pixel and F channels.
Shapes: N images, C/H/W channels, height, width, F features.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from gridsearch.zoo.datasets import shared_arrays
from gridsearch.zoo.pretrained import backbones

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gridsearch.records import Value
    from gridsearch.zoo.pretrained.pretrained_model import PretrainedModel

_FORM = 1
"""Raised when the same weights and images would give other features."""

_CHUNK_PIXELS = 1 << 23
"""Values of images that go through the backbone at once, 32 MB of them."""


@dataclass(frozen=True, slots=True, eq=False)
class FrozenFeatures:
    """The features of one dataset's images by one frozen backbone.

    Attributes:
        model: the network.
        options: its `model.*` options, complete.
        weights: the digest of its weights.
        data: the fingerprint of the dataset.
        device: what it is computed on.
    """

    model: PretrainedModel
    options: Mapping[str, Value]
    weights: str
    data: str
    device: torch.device

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) that the backbone gets."""
        size: Any = self.options.get("size", "auto")
        return self.model.input_size(None, freeze="backbone", size=size)

    @property
    def key(self) -> str:
        """What decides the features: network, weights, images, transform, and the versions of the code."""
        home = self.model.home
        facts = {
            "form": _FORM,
            "network": [self.model.library, self.model.network, home.version, torch.__version__],
            "weights": self.weights,
            "data": self.data,
            "size": self.size,
            "colours": home.colours(self.model.network),
            "device": self.device.type,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def of(self, images: np.ndarray, part: str) -> np.ndarray:
        """Return features float32 [N, 1, 1, F], kept by an earlier call or computed now.

        Args:
            images: [N, C, H, W], bytes or fractions of 0 to 1.
            part: which of the dataset's images they are: "train" or "test".

        Raises:
            UsageError: the weights are not there any more, or do not fit.
        """

        def make(beat: Callable[[], None]) -> shared_arrays.Made:
            return {"features": self._computed(images, beat)}, {"network": self.model.network}

        try:
            return shared_arrays.find_or_make(f"features-{self.key[:40]}-{part}", make).arrays["features"]
        except OSError:  # a cache that cannot be written is done without
            return self._computed(images, lambda: None)

    def backbone(self, channels: int) -> nn.Module:
        """Build the backbone."""
        path = self.model.weight_files(self.options)[0]
        return backbones.backbone(
            self.model.home, self.model.network, in_channels=channels, size=self.size, weights=path
        )

    def whole(self, head: nn.Module, *, scale: list[float], shift: list[float], channels: int) -> nn.Module:
        """Return the network from pixels [B, C, H, W] of 0 to 1 to logits.

        Args:
            head: takes normalized features [B, F, 1, 1].
            scale: per feature; with `shift` it normalizes them.
            shift: per feature.
            channels: C.
        """
        return _Whole(self.backbone(channels), head, scale, shift)

    def _computed(self, images: np.ndarray, beat: Callable[[], None]) -> np.ndarray:
        feet = self.backbone(images.shape[1]).to(self.device)
        top = 255.0 if images.dtype == np.uint8 else 1.0
        rows = max(1, min(256, _CHUNK_PIXELS // (3 * self.size[0] * self.size[1])))
        found = []
        with torch.no_grad():
            for first in range(0, len(images), rows):
                beat()
                chunk = torch.from_numpy(np.array(images[first : first + rows], np.float32)).to(self.device)
                found.append(feet(chunk / top).to("cpu", torch.float32).numpy())
        features: np.ndarray = np.concatenate(found)[:, None, None, :]
        return features


class _Whole(nn.Module):
    """A backbone, the normalization of its features, and a head."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module, scale: list[float], shift: list[float]) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("shift", torch.tensor(shift))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return logits [B, Y]."""
        features_BF = self.backbone(x_BCHW) * self.scale + self.shift
        logits: torch.Tensor = self.head(features_BF[:, :, None, None])
        return logits
