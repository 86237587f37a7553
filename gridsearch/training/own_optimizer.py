"""A user's own optimizer as the programs use it: one for each lane, with all that a checkpoint holds of it.

Stands beside `own_code.py`, which has what it is made with; `solo` and `lanes/runtime/lane_by_lane` take its steps.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from gridsearch.errors import RAISED, UsageError, said
from gridsearch.training import seeds
from gridsearch.training.lanes.compile.source_checks import Watch
from gridsearch.training.own_code import CodeRefused, arguments, line_of, parameters_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.records import ImageSettings

_OWN, _TRAINED = "own", "trained"
_TABLES = "state", "param_groups", "defaults"


class OwnOptimizer:
    """A user's optimizer of one lane, in the form of `LaneOptimizer`.

    Its state is what torch says it is: `state` and `param_groups`; besides, its other attributes that are numbers,
    texts, tensors or parameters, and optimizers that it wraps, likewise.

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
        moves = settings.schedule != "constant" or settings.warmup > 0
        self._rates = [group.get("lr") if moves else None for group in self._own.param_groups]

    def add(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Train these parameters too from the next step on."""
        self.parameters += parameters
        self._own.param_groups[0]["params"].extend(parameters)

    @property
    def keeps(self) -> str:
        """What it has that no checkpoint holds, so that it cannot go on from one; "" for nothing."""
        found = (
            f"{name}, a {kind}"
            for each in _wrapped(self._own)
            for name, value in _attributes(each).items()
            if not isinstance(value, torch.optim.Optimizer) and (kind := _not_plain(value))
        )
        return next(found, "")

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
        states = [s for each in _wrapped(self._own) for s in each.state.values()] if self._steps == 1 else []
        if kept := _not_plain(states):
            raise CodeRefused(
                f"optimizer {self._name} keeps a {kept} in its state, and a checkpoint holds numbers and tensors alone"
            )

    def state_dict(self, names: Sequence[str]) -> dict[str, dict[str, torch.Tensor]]:
        """Return a copy of its state: its tensors by number, all else as JSON, and the names of what it trains."""
        own, *wrapped = _wrapped(self._own)
        tensors: dict[str, torch.Tensor] = {}
        places = {id(p): name for p, name in zip(self.parameters, names, strict=True)}
        content = {"steps": self._steps, **_content(own), "wrapped": [_content(each) for each in wrapped]}
        text = json.dumps(_taken_apart(content, tensors, places)).encode()
        tensors[""] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return {_OWN: tensors, _TRAINED: {name: torch.empty(0) for name in names}}

    def load_state_dict(self, names: Sequence[str], state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Go on from what `state_dict` gave; an empty one is a fresh start."""
        if _OWN not in state:
            return
        text = state[_OWN][""].cpu().numpy().tobytes()
        places = dict(zip(names, self.parameters, strict=True))
        found = _together(json.loads(text), state[_OWN], places)
        self._steps = found["steps"]
        for own, content in zip(_wrapped(self._own), [found, *found.get("wrapped", ())], strict=True):
            own.state.clear()
            for key, kept in content["state"].items():
                parameter = places.get(key, key) if isinstance(key, str) else key
                own.state[parameter] = _placed(kept, parameter)
            for group, kept in zip(own.param_groups, content["groups"], strict=True):
                group.update(kept)
            for name, value in content["attributes"].items():
                setattr(own, name, value)


def _wrapped(optimizer: Any) -> list[Any]:
    """Return an optimizer with those that it wraps, at any depth, in the order of its attributes."""
    found = [optimizer]
    for each in found:  # grows
        inner = (v for v in vars(each).values() if isinstance(v, torch.optim.Optimizer))
        found += [v for v in inner if not any(v is known for known in found)]
    return found


def _attributes(optimizer: Any) -> dict[str, Any]:
    """Return an optimizer's attributes beside what torch says is its state, or that of one that it wraps."""
    tables = [vars(each).get(name) for each in _wrapped(optimizer) for name in _TABLES]
    tables = [table for table in tables if table is not None]
    return {name: v for name, v in vars(optimizer).items() if not any(v is table for table in tables)}


def _content(optimizer: Any) -> dict[str, Any]:
    """Return what a checkpoint holds of an optimizer."""
    return {
        "state": dict(optimizer.state),
        "groups": [
            {k: v for k, v in group.items() if k != "params" and not _not_plain(v)}
            for group in optimizer.param_groups
        ],
        "attributes": {n: v for n, v in _attributes(optimizer).items() if not _not_plain(v)},
    }


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
    """Make an optimizer of a few numbers and let it move them twice, to see whether it can train as it is called here.

    Raises:
        UsageError: it does not take a recipe's arguments, or raises, computes the loss several times a step, or keeps
            state where all trials of a process share it.
    """
    name = f"optimizer {settings.optimizer!r}"
    several = f"{name} computes the loss several times a step (closure), which no trial does"
    did = "made"
    try:
        with seeds.isolated(torch.device("cpu")):
            parameters = [
                torch.nn.Parameter(torch.linspace(-1, 1, 4).view(shape)) for shape in ((2, 2), (4,))
            ]
            made = OwnOptimizer(make, settings, parameters, seed=0)
            closure = parameters_of(type(made._own).step).get("closure")
            if closure is not None and closure.default is closure.empty:
                raise UsageError(several)
            if all(hasattr(made._own, each) for each in ("first_step", "second_step")):  # as SAM has
                raise UsageError(several)
            did = "used"
            for _ in range(2):  # the first step may fill a cache
                for parameter in parameters:
                    parameter.grad = torch.ones_like(parameter)
                with (watch := Watch(torch.nn.Module(), refuses=False)):
                    made.step()
            changes = next(watch.changed(), "")
    except UsageError:
        raise
    except CodeRefused as error:
        raise UsageError(str(error)) from None
    except RAISED as error:
        if did == "used" and "closure" in said(error):
            raise UsageError(several) from error
        raise UsageError(f"{name} cannot be {did}: {line_of(error)}") from error
    if changes:
        raise UsageError(
            f"{name} changes {changes} in each step, which all trials of a process share",
            hint="keep it in self.state or self.param_groups, or as an attribute of self",
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


def _taken_apart(value: Any, tensors: dict[str, torch.Tensor], places: Mapping[int, str]) -> Any:
    """Return plain values as JSON has them.

    Args:
        value: to take apart.
        tensors: a copy of each tensor is added to these, under a number.
        places: names of the parameters that are trained, by id; they are referred to, not copied.
    """
    if isinstance(value, torch.Tensor):
        if id(value) in places:
            return {"parameter": places[id(value)]}
        number = str(len(tensors))
        tensors[number] = value.detach().clone().contiguous()
        return {"tensor": number}
    if isinstance(value, Mapping):
        return {"dict": [[_taken_apart(part, tensors, places) for part in pair] for pair in value.items()]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_taken_apart(part, tensors, places) for part in value]}
    return value


def _together(
    value: Any, tensors: Mapping[str, torch.Tensor], places: Mapping[str, torch.nn.Parameter]
) -> Any:
    """Return what `_taken_apart` took apart, with copies of the tensors and the parameters of these names."""
    if not isinstance(value, dict):
        return value
    ((kind, parts),) = value.items()
    if kind == "tensor":
        return tensors[parts].clone()
    if kind == "parameter":
        return places[parts]
    if kind == "dict":
        return {_together(k, tensors, places): _together(v, tensors, places) for k, v in parts}
    found = [_together(part, tensors, places) for part in parts]
    return tuple(found) if kind == "tuple" else found


def _placed(kept: Any, parameter: Any) -> Any:
    """Return what was loaded of a parameter on its device, but for counters, which torch keeps on the CPU."""
    if not isinstance(kept, dict) or not isinstance(parameter, torch.Tensor):
        return kept
    return {
        k: v.to(parameter.device) if isinstance(v, torch.Tensor) and v.ndim else v for k, v in kept.items()
    }
