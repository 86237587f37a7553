"""The optimizer of one lane: torch's own update functions, over a state kept here.

The classes of `torch.optim` are left aside because making the first one imports torch's compiler, which takes as
long as importing torch.  Where torch has a fused form of an update it is taken: milliseconds per step over
LeNet's ten tensors, one thread: Adam .41 as a loop, .29 foreach, .12 fused; SGD with momentum .12, .11, .03;
NAdam .49, .36 and RMSprop .27, .20 have no fused form.  Each is deterministic.

`PackOptimizer` takes the same updates lane by lane where it has nothing faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.nadam import nadam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from gridsearch.training.clipping import refuse_sparse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.records import ImageSettings

OPTIMIZERS = ("sgd", "adam", "adamw", "nadam", "rmsprop")

BETA1, BETA2, EPS, ALPHA, MOMENTUM_DECAY = 0.9, 0.999, 1e-8, 0.99, 4e-3
"""The defaults of torch.optim for what a recipe leaves open."""

STATE = {
    "sgd": ("momentum",),
    "adam": ("mean", "square"),
    "adamw": ("mean", "square"),
    "nadam": ("mean", "square"),
    "rmsprop": ("square",),
}
"""What each optimizer keeps of each element of a parameter; all of it is zero before the first step."""

_FUSED = ("sgd", "adam", "adamw")  # those of which torch has a fused form


class LaneOptimizer:
    """The recipe's optimizer over a lane's parameters, with torch's defaults for what the recipe leaves open.

    `weight_decay` is decoupled from the gradient in adamw alone; elsewhere it is an L2 term of the gradient.
    `momentum` and `nesterov` are sgd's.  A parameter without a gradient is passed over, state and all.

    Args:
        settings: the trial's recipe.
        parameters: those to train.

    Attributes:
        lr: the learning rate of the next step.
    """

    def __init__(self, settings: ImageSettings, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.lr = settings.lr
        self._settings = settings
        self._parameters: tuple[torch.nn.Parameter, ...] = ()
        self._fused = can_fuse(settings.optimizer, parameters)
        scalars = ("step", "mu_product") if settings.optimizer == "nadam" else ("step",)
        self._state: dict[str, list[torch.Tensor]] = {k: [] for k in (*STATE[settings.optimizer], *scalars)}
        self.add(parameters)

    def add(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Train these parameters too from the next step on, as if they had been passed over so far."""
        self._parameters += tuple(parameters)
        state = self._state
        for name in STATE[self._settings.optimizer]:
            state[name] += [torch.zeros_like(p, requires_grad=False) for p in parameters]
        state["step"] += [self._scalar(p, 0.0) for p in parameters]
        if "mu_product" in state:
            state["mu_product"] += [self._scalar(p, 1.0) for p in parameters]
        if self._fused and not can_fuse(self._settings.optimizer, parameters):
            self._fused = False
            state["step"] = [step.cpu() for step in state["step"]]

    def _scalar(self, parameter: torch.nn.Parameter, value: float) -> torch.Tensor:
        """A counter; a fused kernel reads it on the device, the others on the CPU."""
        device = parameter.device if self._fused else "cpu"
        return torch.full((), value, dtype=torch.float32, device=device)

    def state_dict(self, names: Sequence[str]) -> dict[str, dict[str, torch.Tensor]]:
        """Return a copy of its state, by kind and then by the parameters' names."""
        return {
            kind: {name: t.clone() for name, t in zip(names, tensors, strict=True)}
            for kind, tensors in self._state.items()
        }

    def load_state_dict(self, names: Sequence[str], state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Go on from what `state_dict` gave, which is copied; what is missing stays as it was at the start."""
        for kind, tensors in self._state.items():
            for name, tensor in zip(names, tensors, strict=True):
                if name in state.get(kind, {}):
                    tensor.copy_(state[kind][name])

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters by their gradients."""
        parameters: list[torch.Tensor] = list(self._parameters)
        gradients: list[Any] = [p.grad for p in parameters]
        refuse_sparse(parameters, f"{self._settings.optimizer} does not take")
        state = self._state
        if any(g is None for g in gradients):
            there = [i for i, g in enumerate(gradients) if g is not None]
            parameters = [parameters[i] for i in there]
            gradients = [gradients[i] for i in there]
            state = {name: [tensors[i] for i in there] for name, tensors in state.items()}
        if parameters:
            torch_step(self._settings, self.lr, parameters, gradients, state, fused=self._fused)


def torch_step(
    settings: ImageSettings,
    lr: float,
    parameters: list[torch.Tensor],
    gradients: list[torch.Tensor],
    state: Mapping[str, list[torch.Tensor]],
    *,
    fused: bool,
) -> None:
    """Take one step of a recipe's optimizer by torch's own function.

    Args:
        settings: the recipe.
        lr: the learning rate.
        parameters: moved in place.
        gradients: of each parameter.
        state: by kind, for each parameter; changed in place.
        fused: torch's fused form (see `can_fuse`).
    """
    form: dict[str, Any] = (
        {"fused": fused, "foreach": not fused} if settings.optimizer in _FUSED else {"foreach": True}
    )
    common: dict[str, Any] = {"lr": lr, "weight_decay": settings.weight_decay, "maximize": False, **form}
    if settings.optimizer != "sgd":
        common |= {"eps": EPS, "has_complex": any(p.is_complex() for p in parameters)}
    update, lists, own = _update(settings, state)
    update(parameters, gradients, *lists, **common, **own)


def _update(
    settings: ImageSettings, state: Mapping[str, list[torch.Tensor]]
) -> tuple[Callable[..., None], list[list[torch.Tensor]], dict[str, Any]]:
    """Return torch's function for an optimizer, the lists of state that it takes, and the options it alone has."""
    betas = {"beta1": BETA1, "beta2": BETA2}
    match settings.optimizer:
        case "sgd":
            moves = settings.momentum > 0
            # a momentum of zero is torch's "no buffer yet": both give the gradient at the first step
            buffers = list(state["momentum"]) if moves else []
            nesterov = settings.nesterov and moves
            return sgd, [buffers], {"momentum": settings.momentum, "dampening": 0.0, "nesterov": nesterov}
        case "adam" | "adamw":
            function = adam if settings.optimizer == "adam" else adamw
            return function, [state["mean"], state["square"], [], state["step"]], {"amsgrad": False, **betas}
        case "nadam":
            lists = [state[name] for name in ("mean", "square", "mu_product", "step")]
            return nadam, lists, {"momentum_decay": MOMENTUM_DECAY, **betas}
        case _:
            options = {"alpha": ALPHA, "momentum": 0.0, "centered": False}
            return rmsprop, [state["square"], [], [], state["step"]], options


def can_fuse(optimizer: str, parameters: Sequence[torch.Tensor]) -> bool:
    """Whether torch has a fused form of an optimizer for dense floating tensors on these devices."""
    return optimizer in _FUSED and all(
        p.is_floating_point() and p.layout == torch.strided and p.device.type in ("cpu", "cuda", "mps")
        for p in parameters
    )
