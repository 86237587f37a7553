"""Small data, small networks and a way to run packs, for the tests of training."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from gridsearch.plugins import ImageData
from gridsearch.records import (
    EpochEnded,
    ImageSettings,
    Lane,
    Pack,
    Trial,
    TrialFailed,
    TrialFinished,
    TrialState,
)
from gridsearch.training import loop
from gridsearch.training.context import TrainContext
from gridsearch.training.loop import train_pack
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo_engine import SoloEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images_of(
    count: int = 60,
    *,
    classes: int = 3,
    size: int = 8,
    channels: int = 1,
    test: bool = True,
    seed: int = 0,
    learnable: bool = True,
) -> ImageData:
    """Noise with a bright band whose place tells the class; learnable, and not at once, or not at all."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = rng.integers(0, 120, (count, channels, size, size), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, label * size // classes : (label + 1) * size // classes] += 90
    if not learnable:
        labels = rng.permutation(labels)
    return ImageData(
        train_images=images,
        train_labels=labels.astype(np.int64),
        test_images=images[:classes] if test else None,
        test_labels=labels[:classes].astype(np.int64) if test else None,
        class_names=tuple("abcdefghij"[:classes]),
    )


def conv_net(settings: ImageSettings, data: Any) -> nn.Module:
    """Convolution, batch norm, pooling and dropout, as users write them."""
    height, width = data.image_size
    return nn.Sequential(
        nn.Conv2d(data.channels, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(6 * (height // 2) * (width // 2), data.num_classes),
    )


def dense_net(settings: ImageSettings, data: Any) -> nn.Module:
    height, width = data.image_size
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(data.channels * height * width, 12),
        nn.ReLU(),
        nn.Linear(12, data.num_classes),
    )


def settings_of(**changes: Any) -> ImageSettings:
    defaults: dict[str, Any] = {"dataset": "bands", "model": "net", "epochs": 2, "batch": 16, "lr": 0.01}
    return ImageSettings(**defaults | changes)


@dataclass
class Run:
    """What came of a pack: its events, in order, and its files."""

    events: list[Any] = field(default_factory=list)
    scratch: dict[int, Path] = field(default_factory=dict)

    def epochs(self, trial: int = 0) -> list[EpochEnded]:
        return [e for e in self.events if isinstance(e, EpochEnded) and e.trial == trial]

    def end(self, trial: int = 0) -> Any:
        ends = [e for e in self.events if isinstance(e, TrialFinished | TrialFailed) and e.trial == trial]
        assert len(ends) == 1, self.events
        return ends[0]

    def finished(self, trial: int = 0) -> TrialFinished:
        end = self.end(trial)
        assert isinstance(end, TrialFinished), getattr(end, "traceback", end)
        return end

    def bytes_of(self, trial: int = 0) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in sorted(self.scratch[trial].iterdir())}

    def weights(self, trial: int = 0) -> dict[str, torch.Tensor]:
        return safetensors.torch.load_file(self.scratch[trial] / "weights.safetensors")

    def predictions(self, trial: int = 0) -> dict[str, torch.Tensor]:
        return safetensors.torch.load_file(self.scratch[trial] / "predictions.safetensors")


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Run]:
    """Run trials, given as settings or (settings, seed), as one pack."""
    runs = 0

    def run(
        *trials: ImageSettings | tuple[ImageSettings, int],
        data: ImageData | None = None,
        build: Callable[..., Any] = conv_net,
        stop: Callable[[], bool] = lambda: False,
        emit: Callable[[Any], None] | None = None,
        smallest_input: Callable[[ImageSettings], tuple[int, int] | None] = lambda _: None,
        device: str = "cpu",
        **how: Any,
    ) -> Run:
        nonlocal runs
        runs += 1
        result = Run()
        lanes = []
        for number, given in enumerate(trials):
            settings, seed = given if isinstance(given, tuple) else (given, 0)
            trial = Trial(
                id=number,
                number=number,
                key=str(number),
                seed=seed,
                settings=settings,
                params={},
                state=TrialState.RUNNING,
                attempt=1,
            )
            result.scratch[number] = tmp_path / f"run{runs}" / str(number)
            lanes.append(Lane(trial, str(result.scratch[number])))
        context = TrainContext(
            data=ResidentCache(data or images_of(), device=device, smallest_input=smallest_input),
            build=build,
            device=device,
            stop=stop,
            **how,
        )
        train_pack(Pack("pack", tuple(lanes)), context, emit=emit or result.events.append)
        return result

    return run


@pytest.fixture
def alone(train: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Train trials one after the other, with the plain engine."""

    def run(*trials: ImageSettings | tuple[ImageSettings, int], **how: Any) -> Run:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "ENGINES", (SoloEngine(),))
            return train(*trials, **how)

    return run


@pytest.fixture
def make_images() -> Callable[..., ImageData]:
    return images_of


@pytest.fixture
def make_settings() -> Callable[..., ImageSettings]:
    return settings_of


@pytest.fixture
def nets() -> dict[str, Callable[..., nn.Module]]:
    return {"conv": conv_net, "dense": dense_net}


SMALL: dict[str, dict[str, Any]] = {
    "lenet": {"width": 0.34},
    "lenet_bn": {"width": 0.25},
    "mlp": {"hidden": 9, "depth": 2, "dropout": 0.2},
    "tinyvgg": {"width": 0.3},
    "cnn": {"width": 0.1},
    "cnn_dropout": {"width": 0.1},
    "cnn3": {"width": 0.06, "dropout": 0.2, "conv_dropout": 0.1},
    "resnet9": {"width": 0.1, "dropout": 0.2},
    "vgg16": {"hidden": 9, "dropout": 0.2},
}
"""Options that make a network of the zoo quick to train."""

ABSORBED = {
    "lenet_bn": ("conv1.bias", "conv2.bias", "norm1.running_mean", "norm2.running_mean"),
    "cnn3": tuple(f"{n}{i}.{t}" for i in (1, 2, 3) for n, t in (("conv", "bias"), ("norm", "running_mean"))),
}
"""Biases that feed a batch norm, whose true gradient is zero, and the running means that absorb them."""


def narrow_features(_network: str) -> nn.Module:
    """VGG16's convolutions with few channels each; the last has as many as ever, since the classifier counts on it."""
    from gridsearch.zoo import torchvision

    torchvision.load()
    from torchvision.models.vgg import make_layers

    return make_layers([4, 4, "M", 4, 4, "M", 6, 6, 6, "M", 6, 6, 6, "M", 6, 6, 512, "M"])


@pytest.fixture
def zoo_net(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], SimpleNamespace]:
    """Give a small form of a network of the zoo: `build`, the `side` of its images, and what is `absorbed`."""
    from gridsearch.zoo import models, torchvision

    monkeypatch.setattr(torchvision, "features", narrow_features)

    def small(name: str) -> SimpleNamespace:
        factory = getattr(models, name)

        def build(settings: ImageSettings, data: Any) -> nn.Module:
            net: nn.Module = factory(data.channels, data.num_classes, tuple(data.image_size), **SMALL[name])
            return net

        return SimpleNamespace(
            build=build,
            # at 8x8 the residual network's last maps are one pixel: a batch norm over four values
            side=16 if name == "resnet9" else max(8, *factory.smallest_input),
            absorbed=ABSORBED.get(name, ()),
        )

    return small
