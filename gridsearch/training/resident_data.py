"""Images stay on the device as one tensor; the loop takes batches from it by index.

Stands between a loaded dataset and the loop.  There is no DataLoader and no per-image work: at batch 10 a
LeNet step takes 1.4 ms this way, and 2.9 to 3.5 ms with a DataLoader.  Bytes stay bytes until a batch is made
of them.

Shapes: N images of the training set, B batch, C/H/W channels, height, width.  Images rest as [N, H, W, C],
since a row of pixels with its channels is what a gather copies and what channels_last kernels read.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import torch

from gridsearch.training.folds import Folding
from gridsearch.training.pixel_tensors import channel_statistics, resident_pixels, tensor_of
from gridsearch.training.splits import Split, split

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridsearch.plugins import ImageData
    from gridsearch.records import ImageSettings

_NO_SPREAD = 1e-6  # a channel that varies less than this holds rounding errors, not pictures


Affine: TypeAlias = "tuple[list[float], list[float]]"
"""Scale and shift per channel."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ResidentData:
    """A dataset with its split, on a device.

    Attributes:
        pixels: [N, H, W, C] on the device; uint8 of 0..255, or float32 of 0..1.
        labels: int64 [N] on the device.
        train: int64 indices of the images to train on, on the device; `val` likewise (may be empty).
        split: the same indices, and those of a held-out test part, as numpy arrays.
        mean: per channel, over the images to train on, of pixels scaled to 0..1; `std` likewise (population).
        num_classes: Y.
        features: what computed the pixels of images, where these are features of a frozen network: [N, 1, 1, F].
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    train: torch.Tensor
    val: torch.Tensor
    split: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    features: Features | None = None

    @property
    def channels(self) -> int:
        """C."""
        return self.pixels.shape[3]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W), after resizing."""
        return self.pixels.shape[1], self.pixels.shape[2]

    @property
    def epoch_images(self) -> int:
        """How many of the images to train on an epoch takes; see `Split`."""
        return self.split.epoch_images

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.pixels.device

    @classmethod
    def build(
        cls,
        data: ImageData,
        *,
        val: float,
        split_seed: int,
        subset: int | None = None,
        folding: Folding | None = None,
        device: torch.device | str = "cpu",
        smallest_input: tuple[int, int] | None = None,
    ) -> ResidentData:
        """Split a dataset and put it on a device.

        Args:
            data: the loaded dataset.
            val: fraction held out for validation.
            split_seed: fixes the split.
            subset: train on that many images; None for all.
            folding: hold out this fold, in the place of `val`.
            device: where to keep it.
            smallest_input: (H, W) that a model needs at least; smaller images are resized to it.

        Raises:
            UsageError: `val` or `subset` cannot be had with these images.
        """
        return ResidentCache(data, device=device).get(
            val=val,
            split_seed=split_seed,
            subset=subset,
            folding=folding,
            smallest_input=smallest_input,
        )

    def class_counts(self) -> torch.Tensor:
        """Return how many images of each class are trained on, int64 [Y] on the CPU."""
        labels = self.labels.index_select(0, self.train)
        return torch.bincount(labels, minlength=self.num_classes).cpu()

    def affine(self, norm: str) -> Affine:
        """Return scale and shift per channel that make normalized pixels of pixels scaled to 0..1."""
        if norm == "none":
            return [1.0] * self.channels, [0.0] * self.channels
        spread = [s if s > _NO_SPREAD else 1.0 for s in self.std]
        return [1 / s for s in spread], [-m / s for m, s in zip(self.mean, spread, strict=True)]

    def batches(self, *, norm: str, dtype: torch.dtype, memory_format: torch.memory_format) -> BatchMaker:
        """Return what makes float batches of this data, see `BatchMaker`."""
        return BatchMaker(self, norm=norm, dtype=dtype, memory_format=memory_format)


class Features(Protocol):
    """What a frozen network makes of a dataset's images."""

    @property
    def key(self) -> str:
        """What decides the features."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) that the network gets."""
        ...

    def of(self, images: np.ndarray, part: str) -> np.ndarray:
        """Return the features float32 [N, 1, 1, F] of images [N, C, H, W], those of "train" or of "test"."""
        ...

    def whole(
        self, head: torch.nn.Module, *, scale: list[float], shift: list[float], channels: int
    ) -> torch.nn.Module:
        """Return the network from pixels of 0 to 1 to logits.

        Args:
            head: takes normalized features [B, F, 1, 1].
            scale: per feature; with `shift` it normalizes them.
            shift: per feature.
            channels: C of the images.
        """
        ...


class BatchMaker:
    """Turns raw pixels [B, H, W, C] into normalized images [B, C, H, W].

    Args:
        data: the images.
        norm: "none" scales pixels to 0..1; "standard" then takes away the mean and divides by the standard
            deviation of the images to train on, per channel (a channel without variation is divided by 1).
        dtype: of the result.
        memory_format: of the result.
    """

    def __init__(
        self, data: ResidentData, *, norm: str, dtype: torch.dtype, memory_format: torch.memory_format
    ) -> None:
        assert norm in ("none", "standard"), norm
        self._data = data
        self._dtype = dtype
        self._memory_format = memory_format
        top = 255.0 if data.pixels.dtype == torch.uint8 else 1.0
        self._divisor = top if norm == "none" and top != 1.0 else None
        self._affine: tuple[float | torch.Tensor, float | torch.Tensor] | None = None
        if norm == "standard":
            spread = [s if s > _NO_SPREAD else 1.0 for s in data.std]
            scale = [1 / (top * s) for s in spread]
            shift = data.affine(norm)[1]
            if data.channels == 1:  # numbers are cheaper than tensors that broadcast
                self._affine = (scale[0], shift[0])
            else:
                self._affine = (self._per_channel(scale), self._per_channel(shift))

    def _per_channel(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=self._dtype, device=self._data.device).view(-1, 1, 1)

    def raw(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the pixels [B, H, W, C] of the images with these indices [B]."""
        return self._data.pixels.index_select(0, chosen)

    def finish(self, raw_BHWC: torch.Tensor, repeats: int = 1) -> torch.Tensor:
        """Convert and normalize pixels; the result is a new tensor [B, C, H, W].

        Args:
            raw_BHWC: pixels.
            repeats: how many images lie side by side in C.
        """
        x_BCHW = raw_BHWC.permute(0, 3, 1, 2).to(self._dtype, memory_format=self._memory_format, copy=True)
        if self._divisor is not None:
            x_BCHW.div_(self._divisor)
        elif self._affine is not None:
            scale, shift = self._affine
            if isinstance(scale, torch.Tensor) and isinstance(shift, torch.Tensor) and repeats > 1:
                scale, shift = scale.repeat(repeats, 1, 1), shift.repeat(repeats, 1, 1)
            x_BCHW.mul_(scale).add_(shift)
        return x_BCHW

    def __call__(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the images [B, C, H, W] with these indices [B], without augmentation."""
        return self.finish(self.raw(chosen))


class ResidentCache:
    """Keeps a dataset's images on a device once, however many splits the trials ask for.

    Calling it with a trial's settings gives that trial's `ResidentData`; that is the `data` argument of
    `train_pack`.

    Args:
        data: the loaded dataset.
        device: where to keep it.
        smallest_input: gives the smallest (H, W) that the settings' model takes, or None.
        features: gives what computes the features that a trial trains on in place of images, or None.
        keep: how many splits to keep; the least recently used goes first.
        share: given a size and what makes the images [N, H, W, C] of that size, returns them; other processes of this
            machine may have made them before.
    """

    def __init__(
        self,
        data: ImageData,
        *,
        device: torch.device | str,
        smallest_input: Callable[[ImageSettings], tuple[int, int] | None] = lambda _: None,
        features: Callable[[ImageSettings], Features | None] = lambda _: None,
        keep: int = 32,
        share: Callable[[tuple[int, int], Callable[[], np.ndarray]], np.ndarray] = lambda _, make: make(),
    ) -> None:
        self._data = data
        self._share = share
        self._device = torch.device(device)
        self._smallest_input = smallest_input
        self._features = features
        self._keep = keep
        self._pixels: dict[object, tuple[torch.Tensor, torch.Tensor]] = {}
        self._labels: torch.Tensor | None = None
        self._ready: OrderedDict[tuple[object, ...], ResidentData] = OrderedDict()

    @property
    def source(self) -> ImageData:
        """The dataset as it was loaded."""
        return self._data

    def __call__(self, settings: ImageSettings) -> ResidentData:
        """Return the data that a trial trains on."""
        return self.get(
            val=settings.val,
            split_seed=settings.split_seed,
            subset=settings.subset,
            folding=Folding.of(settings),
            grouped=settings.group is not None,
            smallest_input=self._smallest_input(settings),
            features=self._features(settings),
        )

    def get(
        self,
        *,
        val: float,
        split_seed: int,
        subset: int | None,
        folding: Folding | None = None,
        grouped: bool = False,
        smallest_input: tuple[int, int] | None = None,
        features: Features | None = None,
    ) -> ResidentData:
        """Return the data of one split that divides no group, if `grouped`; see `ResidentData.build` for the rest."""
        size = self._size(smallest_input)
        form = size if features is None else features.key
        key = (val, split_seed, subset, folding, grouped, form)
        found = self._ready.get(key)
        if found is None:
            parts = split(
                self._data.train_labels,
                val=val,
                split_seed=split_seed,
                subset=subset,
                hold_out_test=self._data.test_images is None,
                own_val=self._data.val_indices,
                groups=self._data.groups if grouped else None,
                folding=folding,
            )
            found = self._ready[key] = self._build(parts, size, features)
            if len(self._ready) > self._keep:
                self._ready.popitem(last=False)
        self._ready.move_to_end(key)
        return found

    def test(self, settings: ImageSettings) -> ResidentData:
        """Return a trial's data with the test images in the place of the validation images.

        Their pixels are resized and normalized as those that the trial trains on.  `train` is only there to try
        a model on a batch.
        """
        data = self(settings)
        if self._data.test_images is None:
            held_out = torch.from_numpy(data.split.test_from_train).to(self._device)
            return replace(data, val=held_out)
        assert self._data.test_labels is not None
        if data.features is not None:
            pixels = tensor_of(data.features.of(self._data.test_images, "test")).to(self._device)
        else:
            pixels = resident_pixels(self._data.test_images, size=data.image_size).to(self._device)
        labels = torch.from_numpy(np.array(self._data.test_labels, dtype=np.int64)).to(self._device)
        all_N = torch.arange(len(labels), device=self._device)
        return replace(data, pixels=pixels, labels=labels, train=all_N, val=all_N)

    def test_sample(self, settings: ImageSettings, count: int) -> np.ndarray:
        """Return so many test images [N, C, H, W] as the dataset has them, from all over the test set."""
        images, chosen = self._data.test_images, None
        if images is None:
            images, chosen = self._data.train_images, self(settings).split.test_from_train
        total = len(images) if chosen is None else len(chosen)
        spread = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))
        sample: np.ndarray = images[spread if chosen is None else chosen[spread]]
        return sample

    def _size(self, smallest: tuple[int, int] | None) -> tuple[int, int]:
        height, width = self._data.train_images.shape[2:]
        if smallest is None:
            return height, width
        return max(height, smallest[0]), max(width, smallest[1])

    def _pixels_of(self, images: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        """Return images on the host, in mapped memory where they can be shared."""
        if tuple(images.shape[2:]) == size:
            return resident_pixels(images, size=size)
        return tensor_of(self._share(size, lambda: resident_pixels(images, size=size).numpy()))

    def _build(self, parts: Split, size: tuple[int, int], features: Features | None) -> ResidentData:
        form = size if features is None else features.key
        if form not in self._pixels:
            images = self._data.train_images
            host = (
                self._pixels_of(images, size) if features is None else tensor_of(features.of(images, "train"))
            )
            self._pixels[form] = (host, host.to(self._device))
        if self._labels is None:
            labels = np.array(self._data.train_labels, dtype=np.int64)
            self._labels = torch.from_numpy(labels).to(self._device)
        host, pixels = self._pixels[form]
        mean, std = channel_statistics(host, torch.from_numpy(parts.train))
        return ResidentData(
            pixels=pixels,
            labels=self._labels,
            train=torch.from_numpy(parts.train).to(self._device),
            val=torch.from_numpy(parts.val).to(self._device),
            split=parts,
            mean=mean,
            std=std,
            num_classes=len(self._data.class_names),
            features=features,
        )
