"""What a module has beside its tensors: state that its code may change, and what no K-lane form would keep.

Stands before the networks of lanes.  A rewritten or vmapped network has a model's tensors and operations, and
nothing else: hooks, methods that are called from outside and objects with state of their own would be lost silently.
A model with anything that is not known to be harmless trains lane after lane.
"""

from __future__ import annotations

import collections
import enum
import functools
import hashlib
import logging
import random
import types
import weakref
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from gridsearch.training.lanes.compile.lane_values import TrainsAlone
from gridsearch.training.lanes.compile.shared_memory import sharing
from gridsearch.training.weight_hooks import (
    computed_names,
    detach_computed,
    is_weight_hook,
    weight_hooks,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST = 8
"""How deep objects inside of objects are examined."""

OF_MODULES = frozenset(vars(nn.Module())) | {"__dict__", "__weakref__"}
"""Attributes that every module has: its tables of tensors, sub-modules and hooks, and its mode."""

HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith(("_hooks", "_pre_hooks", "_post_hooks")))

_CALLED = (
    "train",
    "eval",
    "__call__",
    "_call_impl",
    "state_dict",
    "_save_to_state_dict",
    "get_extra_state",
    "parameters",
    "named_parameters",
    "buffers",
    "named_buffers",
    "zero_grad",
    "__getattr__",
    "__getattribute__",
    "__setattr__",
)
"""What training calls of a module beside its forward; a K-lane form calls none of it."""

_PLAIN = (
    type(None), bool, int, float, complex, str, bytes, type(...), enum.Enum, range, slice, PurePath, torch.dtype,
    torch.device, torch.layout, torch.memory_format, torch.Size, np.generic, np.dtype,
)  # fmt: skip
_NAMED = (
    type, types.ModuleType, types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType,
    types.MethodDescriptorType, types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
    types.GenericAlias, np.ufunc, logging.Logger,
)  # fmt: skip
_WITHOUT_MEMORY = (
    object, dict, list, tuple, set, frozenset, collections.deque, collections.OrderedDict, collections.defaultdict,
    types.SimpleNamespace,
)  # fmt: skip
"""Classes that are not written in Python, all of whose content is examined."""
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that was written in Python


def is_torchs(kind: type) -> bool:
    """Whether a class is torch's own."""
    return kind.__module__.partition(".")[0] == "torch"


def own_classes(module: nn.Module) -> Iterator[type]:
    """Yield the classes of a module that are not torch's, the nearest first."""
    return (c for c in type(module).__mro__ if not is_torchs(c) and c.__module__ != "builtins")


def why_alone(model: nn.Module) -> str | None:
    """Return what a model has that a K-lane form would lose; None if there is nothing."""
    if nn.modules.module._has_any_global_hook():  # type: ignore[no-untyped-call]
        return "there are hooks on all modules"
    for name, module in model.named_modules():
        if reason := _why_alone(module):
            return f"{name or 'the model'} {reason}"
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        if tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None):
            return f"{name} has a hook on its gradient"
        if type(tensor) not in (nn.Parameter, torch.Tensor, nn.Buffer) or tensor.layout is not torch.strided:
            return f"{name} is a {type(tensor).__name__} of layout {tensor.layout}"
    return sharing(named)


def _why_alone(module: nn.Module) -> str | None:
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        return "is scripted"
    if kind.__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
        return "is compiled"
    if any(_hooks(module, table) for table in HOOKS if table in vars(module)):
        return "has hooks"
    for name in _CALLED:
        if _definer(kind, name) is not None:
            return f"has its own {name}()"
    for name in ("forward", *_CALLED):
        own = vars(module).get(name)
        form = getattr(kind, getattr(own, "__name__", ""), None)  # of a layer that has several
        if name in vars(module) and not (form and own == types.MethodType(form, module)):
            return f"has another {name}() than its class"
    if is_torchs(kind) and getattr(kind.forward, "__module__", "torch").partition(".")[0] != "torch":
        return f"is a {kind.__name__} whose forward() was replaced"
    if getattr(module, "max_norm", None) is not None:
        return "rescales its weights"
    return None


def _hooks(module: nn.Module, table: str) -> bool:
    """Whether a module has hooks in a table; torch's own on loading a state, as of weight norm, change no training.

    Its hooks that compute weights are known: what they compute is in a traced graph.
    """
    hooks = vars(module)[table].values()
    loads = table == "_load_state_dict_pre_hooks"
    return any(not (loads and _is_torchs_function(hook)) and not is_weight_hook(hook) for hook in hooks)


def _is_torchs_function(hook: object) -> bool:
    function = getattr(hook, "hook", hook)  # torch wraps it
    return str(getattr(function, "__module__", "")).partition(".")[0] == "torch"


def identities(model: nn.Module) -> list[tuple[str, int, int]]:
    """Return which tensors a model has, and how often its parameters were changed."""
    own = [(n, id(p), p._version) for n, p in model.named_parameters(remove_duplicate=False)]
    return own + [(n, id(b), 0) for n, b in model.named_buffers(remove_duplicate=False)]


def _definer(kind: type, name: str) -> type | None:
    """Return the class that gives a module a method of its own, in place of torch's."""
    owner = next((c for c in kind.__mro__ if name in vars(c)), None)
    return None if owner is None or is_torchs(owner) or owner is object else owner


# State


def plain_state(model: nn.Module, *, rates: bool = True) -> dict[str, object]:
    """Return what a model's modules and their classes hold that is no tensor, so that two times can be compared.

    Args:
        model: to examine.
        rates: the rates of dropout modules too; a recipe may set them.

    Tensors that are attributes, and neither parameter nor buffer, count with their content.  What a recurrent layer
    notes of its own parameters does not.

    Raises:
        TrainsAlone: something deeper keeps a tensor, or may have a memory of its own.
    """
    fingerprint = Fingerprint(model)
    found: dict[str, object] = {}
    kinds: set[type] = set()
    for name, module in model.named_modules():
        computed = computed_names(module)
        for i, hook in enumerate(weight_hooks(module)):
            found[f"{name}:weights {i}"] = type(hook).__name__, str(vars(hook))
        for key, value in vars(module).items():
            if (
                key in computed
                or key in OF_MODULES
                or (key == "p" and not rates and isinstance(module, nn.modules.dropout._DropoutNd))
            ):
                continue
            if key in _OF_RECURRENT and isinstance(module, nn.RNNBase):
                _check_flat_weights(module, name)
                continue
            if isinstance(value, torch.Tensor):
                found[f"{name}.{key}"] = content(value)
                continue
            found[f"{name}.{key}"] = fingerprint.of(value, f"{name}.{key}" if name else key)
        found[f"{name}:type"] = f"{type(module).__module__}.{type(module).__qualname__}"
        for kind in own_classes(module):
            if kind not in kinds:
                kinds.add(kind)
                found |= {f"{kind.__qualname__}.{k}": v for k, v in _of_class(kind, fingerprint)}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[f"{name}:tensor"] = (tuple(tensor.shape), tensor.dtype, tensor.requires_grad)
    return found


_OF_RECURRENT = frozenset(("_flat_weights", "_flat_weight_refs"))
"""What `nn.RNNBase` keeps of its parameters beside their table."""


def _check_flat_weights(module: nn.RNNBase, name: str) -> None:
    """Refuse a recurrent layer that multiplies by other tensors than its parameters.

    Raises:
        TrainsAlone: it is one.
    """
    own = [module._parameters.get(key) for key in module._flat_weights_names]
    if len(own) != len(module._flat_weights) or any(
        a is not b for a, b in zip(own, module._flat_weights, strict=True)
    ):
        raise TrainsAlone(f"{name or 'the model'} computes with other weights than its parameters")


def generator_states() -> tuple[object, ...]:
    """Return the states of Python's and numpy's own generators, so that two looks can be compared.

    numpy's is compared as bytes: its text takes 2 ms, twice for each network of a grid.
    """
    state: Any = np.random.get_state()
    if not isinstance(state, tuple):  # of another bit generator than numpy's first
        return random.getstate(), repr(state)
    return random.getstate(), *(v.tobytes() if isinstance(v, np.ndarray) else v for v in state)


def content(tensor: torch.Tensor) -> tuple[object, ...]:
    """Return what two tensors have alike that hold the same."""
    plain = tensor.detach().cpu().contiguous().view(-1)
    data = plain.view(torch.uint8).numpy() if plain.numel() else np.empty(0)
    return str(tensor.dtype), tuple(tensor.shape), hashlib.sha256(data.tobytes()).hexdigest()


# Tensors that are plain attributes

_ADOPTED: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()


def adopt_tensors(model: nn.Module) -> None:
    """Make buffers of the tensors that a model's modules keep as plain attributes, so that each lane has its own.

    A fixed position embedding is one.  They are no part of its state_dict, before or after.

    Raises:
        TrainsAlone: one shares its memory with another tensor, has a graph behind it, or is of another kind.
    """
    named = [*model.named_parameters(), *model.named_buffers()]
    owners = collections.Counter(t.untyped_storage().data_ptr() for _, t in named)
    detach_computed(model)
    plain = [
        (name, module, key, value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, torch.Tensor) and key not in computed_names(module)
    ]
    for name, _, key, value in plain:
        strided = type(value) is torch.Tensor and value.layout is torch.strided
        if not strided or value.grad_fn is not None or value._backward_hooks:
            raise TrainsAlone(f"{name or 'the model'} keeps a tensor, {key}, that is no buffer")
    owners.update(value.untyped_storage().data_ptr() for *_, value in plain)
    for name, module, key, value in plain:
        if owners[value.untyped_storage().data_ptr()] > 1 or hasattr(type(module), key):
            raise TrainsAlone(f"{name or 'the model'} keeps a tensor, {key}, that is part of another")
        delattr(module, key)
        module.register_buffer(key, value.detach().clone(), persistent=False)
        _ADOPTED.setdefault(module, set()).add(key)


def adopted(model: nn.Module) -> set[str]:
    """Return the names of buffers that `adopt_tensors` has made."""
    return {
        f"{name}.{key}" if name else key
        for name, module in model.named_modules()
        for key in _ADOPTED.get(module, ())
    }


def _of_class(kind: type, fingerprint: Fingerprint) -> Iterator[tuple[str, object]]:
    for key, value in vars(kind).items():
        if key.startswith("__") or key in ("_abc_impl", "_is_protocol", "_parameters"):
            continue
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__  # noqa: PLW2901
        if isinstance(value, property | functools.cached_property):
            continue
        yield key, fingerprint.of(value, f"{kind.__qualname__}.{key}")


class Fingerprint:
    """Fingerprints of objects: that of an object is equal as long as the object stays as it is.

    Args:
        model: its modules may be referred to from anywhere in it.
        tensors: tensors that are not the model's are allowed, as constants; their versions are compared.
    """

    def __init__(self, model: nn.Module, *, tensors: bool = False) -> None:
        self._modules = {id(module): name for name, module in model.named_modules()}
        self._tensors = tensors

    def of(self, value: Any, where: str, depth: int = 0) -> object:
        """Return an object's fingerprint.

        Raises:
            TrainsAlone: it has none.
        """
        if isinstance(value, _PLAIN):
            return f"{type(value).__qualname__} {value!r}"
        if isinstance(value, torch.Tensor):
            if not self._tensors:
                raise TrainsAlone(f"{where} keeps a tensor that is no buffer")
            return id(value), value._version
        if isinstance(value, nn.Module):
            if id(value) not in self._modules:
                raise TrainsAlone(f"{where} is a module that is none of its sub-modules")
            return f"module {self._modules[id(value)]}"
        if isinstance(value, _NAMED):
            return f"{type(value).__qualname__} {getattr(value, '__module__', '')}.{_name(value)}"
        if depth >= _DEEPEST:
            raise TrainsAlone(f"{where} holds objects in objects, deeper than is looked")
        return self._inside(value, where, depth + 1)

    def _inside(self, value: Any, where: str, depth: int) -> object:
        if isinstance(value, np.ndarray):
            return value.shape, str(value.dtype), hashlib.sha256(value.tobytes()).hexdigest()
        if isinstance(value, types.FunctionType):
            return self._function(value, where, depth)
        if isinstance(value, types.MethodType):
            return self.of(value.__func__, where, depth), self.of(value.__self__, where, depth)
        if isinstance(value, functools.partial):
            return tuple(self.of(v, where, depth) for v in (value.func, value.args, value.keywords))
        if isinstance(value, functools._lru_cache_wrapper):
            return "cached", self.of(value.__wrapped__, where, depth)
        kind = type(value)
        if not all(c.__flags__ & _HEAP_TYPE for c in kind.__mro__ if c not in _WITHOUT_MEMORY):
            raise TrainsAlone(f"{where} is a {kind.__name__}, which may keep state of its own")
        return kind.__qualname__, *self._items(value, where, depth), *self._attributes(value, where, depth)

    def _items(self, value: Any, where: str, depth: int) -> Iterator[object]:
        if isinstance(value, dict):
            for key, item in dict.items(value):
                yield self.of(key, where, depth), self.of(item, f"{where}[{key!r}]"[:80], depth)
        elif isinstance(value, set | frozenset):
            yield from sorted(map(repr, (self.of(item, where, depth) for item in value)))
        elif isinstance(value, list | tuple | collections.deque):
            for item in value:
                yield self.of(item, where, depth)

    def _attributes(self, value: Any, where: str, depth: int) -> Iterator[object]:
        names = [*getattr(value, "__dict__", ())]
        for kind in type(value).__mro__:
            slots = vars(kind).get("__slots__", ())
            names += [slots] if isinstance(slots, str) else slots
        for name in names:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, self.of(getattr(value, name), f"{where}.{name}", depth)
        for kind in type(value).__mro__:
            for name, held in vars(kind).items():
                if isinstance(held, dict | list | set | collections.deque) and not name.startswith("__"):
                    yield name, self.of(held, f"{where}.{name}", depth)

    def _function(self, function: types.FunctionType, where: str, depth: int) -> object:
        """A function with what it holds; its globals are examined where it is called."""
        name = f"function {function.__module__}.{function.__qualname__}"
        if function.__module__.partition(".")[0] == "torch":
            return name
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
        held = [*cells, function.__defaults__, function.__kwdefaults__, vars(function) or None]
        return name, function.__code__.co_code, *(self.of(item, where, depth) for item in held)


def _is_full(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _name(value: Any) -> str:
    return str(getattr(value, "__qualname__", getattr(value, "__name__", value)))


__all__ = [
    "HOOKS",
    "OF_MODULES",
    "Fingerprint",
    "adopt_tensors",
    "adopted",
    "content",
    "identities",
    "is_torchs",
    "own_classes",
    "plain_state",
    "why_alone",
]
