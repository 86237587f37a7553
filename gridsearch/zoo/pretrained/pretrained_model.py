"""A network of timm or torchvision as a model: its options, its weights' files, and what it is where it is frozen.

Checks words and finds files; `backbones` beside it builds, `frozen_features` computes what a frozen one gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gridsearch.errors import PluginError, UsageError, nearest
from gridsearch.folders import expanded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from gridsearch.records import Value
    from gridsearch.zoo.pretrained.libraries import Library

BACKBONE = "backbone"
_NEAR = 5


@dataclass(frozen=True, slots=True)
class PretrainedModel:
    """A network of a library, with a new last layer for the images' classes; callable as a model.

    Attributes:
        library: "timm" or "torchvision".
        network: its name there.
        file_options: options that may name a file.
        published: what they may name besides.
    """

    library: str
    network: str
    file_options: ClassVar[tuple[str, ...]] = ("weights",)
    published: ClassVar[tuple[str, ...]] = ("default",)

    def __call__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: tuple[int, int],
        *,
        weights: str | None = "default",
        freeze: str | None = None,
        size: str | int = "auto",
    ) -> nn.Module:
        """Build the whole network.

        Args:
            in_channels: 3, or 1: grey images are given as three equal channels.
            num_classes: width of the last layer.
            image_size: (H, W) of the images.
            weights: "default" for those that the library publishes, a file, or None to draw them.
            freeze: "backbone" to train the last layer alone; None to train all.
            size: side in pixels to which the network enlarges or shrinks images; "auto": the size that it was
                trained with where it is frozen or takes no other, else the images' own, at least 32.

        Raises:
            UsageError: an option is not one of the above, or the weights are not there or do not fit.
        """
        from gridsearch.zoo.pretrained import backbones

        self._check_options(weights, freeze, size)
        return backbones.whole(
            self.home,
            self.network,
            in_channels=in_channels,
            num_classes=num_classes,
            size=self.input_size(image_size, freeze=freeze, size=size),
            weights=self.weight_file(weights),
            frozen=freeze is not None,
        )

    @property
    def home(self) -> Library:
        """The library that the network comes from.

        Raises:
            PluginError: it is not installed.
        """
        from gridsearch.zoo.pretrained.libraries import LIBRARIES

        try:
            return LIBRARIES[self.library]()
        except ImportError as error:
            reason = " ".join(str(error).split())
            extra = "gridsearch[timm]" if self.library == "timm" else self.library
            raise PluginError(
                f"model '{self.library}:{self.network}' needs {self.library} ({reason})",
                hint=f"pip install '{extra}'",
            ) from error

    def check(self) -> None:
        """Refuse a network that the library does not have.

        Raises:
            PluginError: with the nearest names.
        """
        home = self.home
        if home.has(self.network):
            return
        import difflib

        near = difflib.get_close_matches(self.network, home.names(), n=_NEAR, cutoff=0.5)
        said = nearest(self.network, near) if near else f"; it has {len(home.names())} networks"
        others = (
            f"near: {', '.join(near)}"
            if near
            else f"python -c 'import {self.library}' lists them: {home.listing}"
        )
        raise PluginError(f"{self.library} has no network {self.network!r}{said}", hint=others)

    def weight_files(self, options: Mapping[str, Value]) -> tuple[Path, ...]:
        """Return the files whose content belongs to the model's identity; published ones are fetched.

        Raises:
            UsageError: one is not there, or cannot be fetched.
        """
        weights = options.get("weights", "default")
        self._check_options(weights, options.get("freeze"), options.get("size"))
        found = self.weight_file(None if weights is None else str(weights))
        return () if found is None else (found,)

    def weight_file(self, weights: str | None) -> Path | None:
        """Return the file of an option's weights; None where they are drawn.

        Raises:
            UsageError: there is no such file, or no published weights.
        """
        if weights is None:
            return None
        if weights == "default":
            return self.home.published(self.network)
        path = expanded(weights)
        if not path.is_file():
            raise UsageError(
                f"model.weights={weights}: neither a file nor a name{nearest(weights, ('default', 'none'))}",
                hint="give a state_dict as .safetensors or .pth, default for the published weights, or none",
            )
        return path

    def input_size(
        self, image_size: tuple[int, int] | None, *, freeze: str | None, size: str | int | None
    ) -> tuple[int, int]:
        """Return (H, W) that the network gets.

        Args:
            image_size: of the images; None for a frozen network.
            freeze: see `__call__`.
            size: likewise.

        Raises:
            UsageError: the network takes one size alone, and this is another.
        """
        own, fixed = self.home.input_size(self.network)
        if size not in ("auto", None):
            side = int(str(size))
            if fixed and (side, side) != own:
                raise UsageError(f"model.size={size}: {self.network} takes {own[0]}x{own[1]} pixels alone")
            return side, side
        if fixed or freeze is not None or image_size is None:
            return own
        return max(_SMALLEST, image_size[0]), max(_SMALLEST, image_size[1])

    def feature_bytes(self, options: Mapping[str, Value], images: int) -> int:
        """Return the size of the features of so many images, where the backbone is frozen."""
        from gridsearch.zoo.pretrained import backbones

        size: Any = options.get("size", "auto")
        return (
            4
            * images
            * backbones.width(self.home, self.network, size=self.input_size(None, freeze=BACKBONE, size=size))
        )

    def _check_options(self, weights: Value, freeze: Value, size: Value) -> None:
        if freeze not in (None, BACKBONE):
            raise UsageError(f"model.freeze={freeze}: expected none or {BACKBONE}")
        if freeze is not None and weights is None:
            raise UsageError(
                f"model.freeze={BACKBONE} with model.weights=none: a frozen network with drawn weights learns nothing",
                hint="give model.weights=default or a file",
            )
        if size not in ("auto", None) and not (str(size).isdigit() and 8 <= int(str(size)) <= 1024):
            raise UsageError(f"model.size={size}: expected auto, or a side of 8 to 1024 pixels")


_SMALLEST = 32


def frozen_of(target: Any, options: Mapping[str, Value]) -> PretrainedModel | None:
    """Return the model whose backbone is frozen by some options; None where all of a model is trained."""
    if isinstance(target, PretrainedModel) and options.get("freeze") == BACKBONE:
        return target
    return None
