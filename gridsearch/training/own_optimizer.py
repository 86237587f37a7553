"""A user's own optimizer as the programs use it: one for each lane, with all that a checkpoint holds of it.

Stands beside `own_code.py`, which has what it is made with; `solo` and `lanes/runtime/lane_by_lane` take its steps.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from gridsearch.errors import RAISED, UsageError
from gridsearch.training import seeds
from gridsearch.training.own_code import CodeRefused, arguments, line_of, parameters_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.records import ImageSettings

_OWN, _TRAINED = "own", "trained"


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
        raise UsageError(f"optimizer {settings.optimizer!r} cannot be made: {line_of(error)}") from error
    closure = parameters_of(type(made._own).step).get("closure")
    if closure is not None and closure.default is closure.empty:
        raise UsageError(
            f"optimizer {settings.optimizer!r} computes the loss several times a step (closure), which no trial does"
        )


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
