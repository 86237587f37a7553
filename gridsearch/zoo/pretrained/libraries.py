"""The two libraries that networks come from: their names, their constructors, and where their weights lie.

The one module that knows timm (extra `timm`); torchvision is known through `zoo.torchvision`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch.errors import UsageError, said
from gridsearch.zoo import torchvision
from gridsearch.zoo.hub import fetched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

Colours = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel that pixels of 0 to 1 are normalized with."""

_IMAGENET: Colours = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Library(ABC):
    """Networks by name."""

    version: str
    listing: str

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all networks."""

    def has(self, network: str) -> bool:
        """Whether there is a network of this name."""
        return network in self.names()

    @abstractmethod
    def build(self, network: str, num_classes: int) -> nn.Module:
        """Return a network with drawn weights whose last layer has so many outputs; 0: without that layer."""

    @abstractmethod
    def input_size(self, network: str) -> tuple[tuple[int, int], bool]:
        """Return (H, W) that a network was trained with, and whether it takes no other."""

    def colours(self, network: str) -> Colours:  # noqa: ARG002
        """Return what the images were normalized with that a network was trained on."""
        return _IMAGENET

    @abstractmethod
    def published(self, network: str) -> Path:
        """Return the file of the published weights, fetched if it is not there.

        Raises:
            UsageError: there are none, or they cannot be fetched.
        """


class Torchvision(Library):
    """The classification networks of torchvision."""

    listing = "torchvision.models.list_models(module=torchvision.models)"

    def __init__(self) -> None:
        self.version = str(torchvision.load().__version__)
        self._models = importlib.import_module("torchvision.models")

    def names(self) -> list[str]:
        """Return the names of all networks."""
        return list(self._models.list_models(module=self._models))

    def build(self, network: str, num_classes: int) -> nn.Module:
        """Return a network; see `Library`."""
        from torch import nn

        options: dict[str, Any] = {"num_classes": num_classes or 1000, "weights": None}
        if network in ("googlenet", "inception_v3"):  # whose other outputs are for training alone
            options |= {"aux_logits": False, "init_weights": False}
        model: nn.Module = self._models.get_model(network, **options)
        if num_classes:
            return model
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        if not linear or network.startswith("squeezenet"):
            raise UsageError(f"torchvision:{network} has no last dense layer to train alone")
        owner, _, name = linear[-1].rpartition(".")
        setattr(model.get_submodule(owner), name, nn.Identity())
        return model

    def input_size(self, network: str) -> tuple[tuple[int, int], bool]:
        """Return (H, W) that a network was trained with, and whether it takes no other."""
        weights = self._weights(network)
        side = int(weights.transforms().crop_size[0]) if weights is not None else 224
        return (side, side), network.startswith("vit_")

    def published(self, network: str) -> Path:
        """Return the file of the published weights; see `Library`."""
        import torch

        weights = self._weights(network)
        if weights is None:
            raise UsageError(f"model.weights=default: torchvision publishes no weights of {network}")
        name = weights.url.rpartition("/")[2]
        path = Path(str(torch.hub.get_dir()), "checkpoints", name)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            digest = path.stem.rpartition("-")[2]
            try:
                torch.hub.download_url_to_file(weights.url, str(path), digest, progress=False)
            except Exception as error:
                raise _not_fetched(f"torchvision:{network}", error) from error
        return path

    def _weights(self, network: str) -> Any:
        try:
            return self._models.get_model_weights(network).DEFAULT
        except (ValueError, AttributeError):
            return None


class Timm(Library):
    """The networks of timm."""

    listing = "timm.list_models()"

    def __init__(self) -> None:
        torchvision.admit()  # which timm imports
        self._timm = importlib.import_module("timm")
        self.version = str(self._timm.__version__)

    def names(self) -> list[str]:
        """Return the names of all networks."""
        return list(self._timm.list_models())

    def has(self, network: str) -> bool:
        """Whether there is a network of this name, and weights of its tag ("resnet18.a1_in1k")."""
        base, _, tag = network.partition(".")
        return base in self.names() and (not tag or network in self._timm.list_pretrained(f"{base}.*"))

    def build(self, network: str, num_classes: int) -> nn.Module:
        """Return a network; see `Library`."""
        model: nn.Module = self._timm.create_model(network, pretrained=False, num_classes=num_classes)
        return model

    def input_size(self, network: str) -> tuple[tuple[int, int], bool]:
        """Return (H, W) that a network was trained with, and whether it takes no other."""
        config = self._config(network)
        size = config.input_size if config is not None else (3, 224, 224)
        return (int(size[1]), int(size[2])), bool(config is not None and config.fixed_input_size)

    def colours(self, network: str) -> Colours:
        """Return what the images were normalized with that a network was trained on."""
        config = self._config(network)
        return _IMAGENET if config is None else (tuple(config.mean), tuple(config.std))

    def published(self, network: str) -> Path:
        """Return the file of the published weights; see `Library`."""
        config = self._config(network)
        if config is None or not config.hf_hub_id:
            raise UsageError(
                f"model.weights=default: no weights of timm:{network} are on the hub",
                hint="give a file, model.weights=FILE; or model.weights=none",
            )
        try:
            return fetched(str(config.hf_hub_id), "model.safetensors")
        except Exception as error:
            raise _not_fetched(f"timm:{network}", error) from error

    def _config(self, network: str) -> Any:
        return self._timm.get_pretrained_cfg(network)


def _not_fetched(model: str, error: Exception) -> UsageError:
    reason = " ".join(said(error).split()).partition(". ")[0][:160]
    return UsageError(
        f"model.weights=default: the weights of {model} are not here and cannot be fetched: {reason}",
        hint="fetch them where there is a network and give the file, model.weights=FILE; or model.weights=none",
    )


LIBRARIES: Mapping[str, Callable[[], Library]] = {"timm": cache(Timm), "torchvision": cache(Torchvision)}
"""By the word before the colon."""
