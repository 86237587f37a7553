"""A user's own augmentation and optimizer as the programs use them.

Both are found and addressed like a user's own models (`plugins`); a worker's trainer hands them to the programs.  An
augmentation is called on a lane's batch, lane after lane; each lane has an optimizer of its own.  What either draws,
from a generator that it is given or from the global ones of torch, numpy and Python, comes from the trial's own stream,
so that a lane trains in a pack as alone.

Shapes: B batch, C/H/W channels, height, width.
"""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gridsearch.errors import RAISED, UsageError, said
from gridsearch.records import ImageSettings
from gridsearch.training import seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gridsearch.records import Value

_OF_THE_RECIPE = ("lr", "weight_decay")


class CodeRefused(ValueError):
    """A user's augmentation or optimizer cannot be used; the message is one line."""


@dataclass(frozen=True, slots=True)
class OwnCode:
    """What of a trial's training is code of its user's.

    Attributes:
        augment: takes a batch of images and returns it changed; see `OwnAugment`.
        optimizer: a class of optimizers; see `own_optimizer`.
    """

    augment: Callable[..., Any] | None = None
    optimizer: Callable[..., Any] | None = None

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self.augment is not None or self.optimizer is not None


class OwnAugment:
    """One epoch of a user's augmentation, see `augment.EpochAugment`.

    The function gets images [B, C, H, W] as fractions of 1, in the type of the weights, before they are normalized; it
    may change them in place, and returns as many of that shape and type.  Where it has a parameter `generator`, that
    is torch's on the images' device.

    Args:
        name: of the function, for errors.
        function: the user's.
        seed: the trial's.
        epoch: counted from 1.
        top: what 1 is among the raw pixels.
        dtype: of the images.
    """

    sizes = None

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        seed: int,
        epoch: int,
        top: float,
        dtype: torch.dtype,
    ) -> None:
        self._name, self._function, self._top, self._dtype = name, function, top, dtype
        self._seed, self._epoch, self._calls = seed, epoch, 0
        self._takes_generator = "generator" in parameters_of(function)

    def apply(self, raw_BHWC: torch.Tensor, start: int | torch.Tensor) -> torch.Tensor:  # noqa: ARG002  (as in `EpochAugment`)
        """Return a batch's pixels, changed; batches come in the order of the epoch.

        Raises:
            CodeRefused: the function gives something else than such images.
            Exception: whatever it raises.
        """
        x_BCHW = raw_BHWC.permute(0, 3, 1, 2).to(
            self._dtype, memory_format=torch.contiguous_format, copy=True
        )
        x_BCHW.div_(self._top)
        wanted, device = x_BCHW.shape, x_BCHW.device
        stream = seeds.stream(self._seed, f"{seeds.AUGMENT}/{self._epoch}", self._calls)
        self._calls += 1
        with seeds.isolated(device), torch.no_grad():
            seeds.reseed(device, stream)
            seeds.reseed_others(stream)
            given = (
                {"generator": torch.Generator(device).manual_seed(stream)} if self._takes_generator else {}
            )
            y_BCHW = self._function(x_BCHW, **given)
        if not isinstance(y_BCHW, torch.Tensor):
            raise CodeRefused(f"augment {self._name} gives a {type(y_BCHW).__name__}, not a tensor of images")
        for what, ours, theirs in (
            ("shape", list(wanted), list(y_BCHW.shape)),
            ("type", self._dtype, y_BCHW.dtype),
            ("device", device, y_BCHW.device),
        ):
            if ours != theirs:
                raise CodeRefused(
                    f"augment {self._name} gives images of {what} {theirs} for {ours}; it must stay"
                )
        return (y_BCHW * self._top).permute(0, 2, 3, 1)

    def copy_(self, other: OwnAugment) -> None:
        """Become another epoch's."""
        self._seed, self._epoch, self._calls = other._seed, other._epoch, 0


def without_own_code(settings: ImageSettings) -> ImageSettings:
    """Return a recipe in which nothing beside the model is the user's own code, for what does not train."""
    plain = ImageSettings()
    return dataclasses.replace(
        settings, optimizer=plain.optimizer, optimizer_options={}, augment=plain.augment
    )


def arguments(make: Callable[..., Any], settings: ImageSettings) -> dict[str, Any]:
    """Return what an optimizer is made with: of the recipe's lr and weight_decay what it takes, and its options."""
    parameters = parameters_of(make)
    found: dict[str, Any] = {name: getattr(settings, name) for name in _OF_THE_RECIPE if takes(make, name)}
    for name, value in settings.optimizer_options.items():
        default = parameters[name].default if name in parameters else None
        found[name] = _numbers(name, value, len(default)) if isinstance(default, tuple) else value
    return found


def takes(make: Callable[..., Any], name: str) -> bool:
    """Whether a class takes an argument of this name."""
    parameters = parameters_of(make)
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_augment(function: Callable[..., Any], settings: ImageSettings, images_BCHW: np.ndarray) -> None:
    """Call an augmentation on a few images, as a dataset has them.

    Raises:
        UsageError: it raises, or gives something else than such images.
    """
    raw_BHWC = torch.from_numpy(np.array(images_BCHW)).permute(0, 2, 3, 1)
    top = 255.0 if raw_BHWC.dtype == torch.uint8 else 1.0
    own = OwnAugment(settings.augment, function, seed=0, epoch=1, top=top, dtype=torch.float32)
    try:
        own.apply(raw_BHWC, 0)
    except CodeRefused as error:
        raise UsageError(str(error)) from None
    except RAISED as error:
        raise UsageError(f"augment {settings.augment!r} cannot run: it raises {line_of(error)}") from error


def line_of(error: BaseException) -> str:
    """Return what was raised, with its type, in one line."""
    return f"{type(error).__name__}: {' '.join(said(error).split())}"


def parameters_of(target: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function or a class; none where Python cannot tell."""
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}


def _numbers(name: str, given: Value, count: int) -> tuple[float, ...]:
    """Read so many numbers, as betas of "0.9 0.99"."""
    try:
        found = tuple(float(word) for word in str(given).split())
    except ValueError:
        found = ()
    if len(found) != count:
        raise CodeRefused(f"optimizer.{name} takes {count} numbers, as '0.9 0.99', not {given!r}")
    return found
