"""A user's own augmentation and optimizer as the programs use them.

Both are found and addressed like a user's own models (`plugins`); a worker's trainer hands them to the programs.  An
augmentation is called on a lane's batch, lane after lane; each lane has an optimizer of its own.  What either draws,
from a generator that it is given or from the global ones of torch, numpy and Python, comes from the trial's own stream,
so that a lane trains in a pack as alone.

Shapes: B batch, C/H/W channels, height, width.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gridsearch.errors import RAISED, UsageError, said
from gridsearch.records import ImageSettings
from gridsearch.training import seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.records import Value

_OWN, _TRAINED = "own", "trained"
_OF_THE_RECIPE = ("lr", "weight_decay")


class CodeRefused(ValueError):
    """A user's augmentation or optimizer cannot be used; the message is one line."""


@dataclass(frozen=True, slots=True)
class OwnCode:
    """What of a trial's training is code of its user's.

    Attributes:
        augment: takes a batch of images and returns it changed; see `OwnAugment`.
        optimizer: a class of optimizers; see `OwnOptimizer`.
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
        self._takes_generator = "generator" in _parameters(function)

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


class OwnOptimizer:
    """A user's optimizer of one lane, in the form of `LaneOptimizer`.

    Its state is what torch says it is: `state` and `param_groups`; besides, its other attributes that are numbers,
    texts or tensors.

    Args:
        make: the class.
        settings: the trial's recipe.
        parameters: those to train.

    Attributes:
        lr: the learning rate of the next step.
        seed: of its stream.
        settings: the recipe.
        parameters: those that it trains.

    Raises:
        CodeRefused: it gives no optimizer.
        Exception: whatever it raises.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        settings: ImageSettings,
        parameters: Sequence[torch.nn.Parameter],
        *,
        seed: int,
    ) -> None:
        self.lr, self.seed = settings.lr, seed
        self.settings, self._name = settings, settings.optimizer
        self.parameters = list(parameters)
        self._steps = 0
        self._own: Any = _derived(make)(self.parameters, **arguments(make, settings))
        if not isinstance(self._own, torch.optim.Optimizer):
            raise CodeRefused(
                f"optimizer {self._name} gives a {type(self._own).__name__}, no torch.optim.Optimizer"
            )
        self._attributes = {n for n in vars(self._own) if n not in ("state", "param_groups", "defaults")}
        moves = settings.schedule != "constant" or settings.warmup > 0
        self._rates = [group.get("lr") if moves else None for group in self._own.param_groups]

    def add(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Train these parameters too from the next step on."""
        self.parameters += parameters
        self._own.param_groups[0]["params"].extend(parameters)

    def move(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Train these parameters in the place of the present ones, which are the same elsewhere."""
        new = {id(old): own for old, own in zip(self.parameters, parameters, strict=True)}
        for group in self._own.param_groups:
            group["params"] = [new[id(p)] for p in group["params"]]
        for old in self.parameters:
            if old in self._own.state:
                self._own.state[new[id(old)]] = self._own.state.pop(old)
        self.parameters = list(parameters)

    def step(self) -> None:
        """Move the parameters by their gradients.

        Raises:
            CodeRefused: it keeps what no checkpoint can hold.
            Exception: whatever it raises.
        """
        device = self.parameters[0].device
        for group, rate in zip(self._own.param_groups, self._rates, strict=False):
            if rate is not None:  # as torch's schedulers do it: a group may have a rate of its own
                own = rate == self.settings.lr
                group["lr"] = self.lr if own else rate * (self.lr / self.settings.lr)
        with seeds.isolated(device):
            stream = seeds.stream(self.seed, seeds.OPTIMIZER, self._steps)
            seeds.reseed(device, stream)
            seeds.reseed_others(stream)
            self._own.step()
        self._steps += 1
        if self._steps == 1 and (
            kept := _not_plain({str(n): s for n, s in enumerate(self._own.state.values())})
        ):
            raise CodeRefused(
                f"optimizer {self._name} keeps a {kept} in its state, and a checkpoint holds numbers and tensors alone"
            )

    def state_dict(self, names: Sequence[str]) -> dict[str, dict[str, torch.Tensor]]:
        """Return a copy of its state: its tensors by number, all else as JSON, and the names of what it trains."""
        own = self._own
        named = {id(p): name for p, name in zip(self.parameters, names, strict=True)}
        others = {n: v for n, v in vars(own).items() if n in self._attributes and not _not_plain(v)}
        content = {
            "steps": self._steps,
            "state": {named[id(p)]: dict(state) for p, state in own.state.items()},
            "groups": [
                {k: v for k, v in g.items() if k != "params" and not _not_plain(v)} for g in own.param_groups
            ],
            "attributes": others,
        }
        tensors: dict[str, torch.Tensor] = {}
        text = json.dumps(_taken_apart(content, tensors)).encode()
        tensors[""] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return {_OWN: tensors, _TRAINED: {name: torch.empty(0) for name in names}}

    def load_state_dict(self, names: Sequence[str], state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Go on from what `state_dict` gave; an empty one is a fresh start."""
        if _OWN not in state:
            return
        text = state[_OWN][""].cpu().numpy().tobytes()
        found = _together(json.loads(text), state[_OWN])
        own = self._own
        self._steps = found["steps"]
        for parameter, name in zip(self.parameters, names, strict=True):
            if name in found["state"]:
                own.state[parameter] = {k: _placed(v, parameter) for k, v in found["state"][name].items()}
        for group, kept in zip(own.param_groups, found["groups"], strict=True):
            group.update(kept)
        for name, value in found["attributes"].items():
            setattr(own, name, value)


def _derived(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a class that derives from a user's: torch puts another `step` into the class of what it makes.

    The user's own stays as its address says.
    """
    if isinstance(make, functools.partial):
        return functools.partial(_derived(make.func), *make.args, **make.keywords)
    if not isinstance(make, type):
        return make
    return type(make)(make.__name__, (make,), {"__module__": make.__module__, "__doc__": make.__doc__})


def without_own_code(settings: ImageSettings) -> ImageSettings:
    """Return a recipe in which nothing beside the model is the user's own code, for what does not train."""
    plain = ImageSettings()
    return dataclasses.replace(
        settings, optimizer=plain.optimizer, optimizer_options={}, augment=plain.augment
    )


def arguments(make: Callable[..., Any], settings: ImageSettings) -> dict[str, Any]:
    """Return what an optimizer is made with: of the recipe's lr and weight_decay what it takes, and its options."""
    parameters = _parameters(make)
    found: dict[str, Any] = {name: getattr(settings, name) for name in _OF_THE_RECIPE if takes(make, name)}
    for name, value in settings.optimizer_options.items():
        default = parameters[name].default if name in parameters else None
        found[name] = _numbers(name, value, len(default)) if isinstance(default, tuple) else value
    return found


def takes(make: Callable[..., Any], name: str) -> bool:
    """Whether a class takes an argument of this name."""
    parameters = _parameters(make)
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def check_optimizer(make: Callable[..., Any], settings: ImageSettings) -> None:
    """Make an optimizer of one number, to see whether it takes a recipe's arguments.

    Raises:
        UsageError: it does not, or it cannot train here.
    """
    try:
        with seeds.isolated(torch.device("cpu")):
            made = OwnOptimizer(make, settings, [torch.nn.Parameter(torch.zeros(1))], seed=0)
    except CodeRefused as error:
        raise UsageError(str(error)) from None
    except RAISED as error:
        raise UsageError(f"optimizer {settings.optimizer!r} cannot be made: {_line(error)}") from error
    closure = _parameters(type(made._own).step).get("closure")
    if closure is not None and closure.default is closure.empty:
        raise UsageError(
            f"optimizer {settings.optimizer!r} computes the loss several times a step (closure), which no trial does"
        )


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
        raise UsageError(f"augment {settings.augment!r} cannot run: it raises {_line(error)}") from error


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(said(error).split())}"


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
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


def _not_plain(value: object) -> str:
    """Return the name of a type that a checkpoint cannot hold, of a value or what it consists of; "" for none."""
    if value is None or isinstance(value, bool | int | float | str | torch.Tensor):
        return ""
    if isinstance(value, Mapping) and type(value).__module__ in ("builtins", "collections"):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        return next((kind for each in value if (kind := _not_plain(each))), "")
    return type(value).__name__


def _taken_apart(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return plain values as JSON has them; a copy of each tensor among them is added to the others, under a number."""
    if isinstance(value, torch.Tensor):
        number = str(len(tensors))
        tensors[number] = value.detach().clone().contiguous()
        return {"tensor": number}
    if isinstance(value, Mapping):
        return {"dict": [[_taken_apart(part, tensors) for part in pair] for pair in value.items()]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_taken_apart(part, tensors) for part in value]}
    return value


def _together(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Return what `_taken_apart` took apart, with copies of the tensors."""
    if not isinstance(value, dict):
        return value
    ((kind, parts),) = value.items()
    if kind == "tensor":
        return tensors[parts].clone()
    if kind == "dict":
        return {_together(k, tensors): _together(v, tensors) for k, v in parts}
    found = [_together(part, tensors) for part in parts]
    return tuple(found) if kind == "tuple" else found


def _placed(value: Any, parameter: torch.Tensor) -> Any:
    """Return a loaded part of a parameter's state on its device, but for counters, which torch keeps on the CPU."""
    return value.to(parameter.device) if isinstance(value, torch.Tensor) and value.ndim else value
