"""A node of a traced graph as stages: what it calls is taken in.

Stands between `graph_reading` and `stage_functions`, which says what each function is.  What only moves numbers is
called with their codes; arithmetic becomes stages; a function or a layer that is neither is run itself with codes in
the place of its activations, so that what it calls is taken in (`Coded`).

Shapes: B batch.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from gridsearch.training.lanes.compile import (
    stage_attention,
    stage_layers,
    stage_recurrent,
)
from gridsearch.training.lanes.compile.places import Known
from gridsearch.training.lanes.compile.stage_functions import (
    CALLS,
    MOVES,
    MOVING_METHODS,
    OF_KNOWN,
    OPERATORS,
    of_torchvision,
)
from gridsearch.training.lanes.compile.stage_knowns import (
    SHAPING,
    TYPES,
    counts_images,
    is_of_sizes,
    is_repeated,
    keeps_numbers,
    learn,
)
from gridsearch.training.lanes.compile.stage_masks import CHOICES, OF_MASKS, is_mask
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.training.lanes.compile.stage_reader import StageReader


REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, AttributeError, NotImplementedError)
"""What torch raises of codes that it does not take."""


def take(r: StageReader, node: fx.Node, constants: Mapping[str, torch.Tensor]) -> None:
    """Take in a node."""
    match node.op:
        case "placeholder":
            r.read_images(node)
        case "get_attr":
            r.read_tensor(node, constants)
        case "call_module":
            _store(r, node, _module(r, node))
        case "call_function" | "call_method":
            _node(r, node)
        case "output":
            r.close(r.values.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None)


def _module(r: StageReader, node: fx.Node) -> Any:
    module = r.model.get_submodule(str(node.target))
    args, kwargs = _given(r, node)
    if type(module) is nn.Embedding:
        return _embedding(r, str(node.target), module, *args)
    if stage_attention.is_attention(module):
        if _has_mask(r, args, kwargs):
            raise NoPlan("attention by what images choose")
        return stage_attention.module(r, str(node.target), module, args, kwargs)
    if stage_recurrent.is_recurrent(module):
        with_cells = isinstance(module, nn.LSTM) and stage_recurrent.reads_cells(node)
        return stage_recurrent.module(r, str(node.target), module, args, kwargs, with_cells=with_cells)
    if not stage_layers.knows(module):
        return _run(r, module.forward, args, kwargs)
    if _has_mask(r, args, kwargs):
        raise NoPlan(f"{node.target} of a mask")
    given = [*args, *kwargs.values()]
    if not given:
        raise NoPlan(f"{node.target} of nothing")
    return r.layer(str(node.target), module, *(_as_codes(r, each) for each in given))


def _embedding(r: StageReader, place: str, m: nn.Embedding, index: Any) -> torch.Tensor:
    if (
        not isinstance(index, Known)
        or m.max_norm is not None
        or (m.padding_idx is not None and bool((index.content == m.padding_idx).any()))
        or m.scale_grad_by_freq
    ):
        raise NoPlan("an embedding of what is not known")
    rows: torch.Tensor = r.tensor(f"{place}.weight" if place else "weight")[index.content]
    return rows


def _given(r: StageReader, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a node's arguments: codes for activations, tensors that are known, and what a sample has shown else."""

    def known(one: fx.Node) -> Any:
        if one in r.values:
            return r.values[one]
        return Known(r.known[one]) if one in r.known else r.found.results[one]

    return tuple(fx.node.map_arg(node.args, known)), dict(fx.node.map_arg(node.kwargs, known))


def _store(r: StageReader, node: fx.Node, result: Any) -> None:
    if isinstance(result, torch.Tensor):
        r.set(node, result)
    elif isinstance(result, Known):
        r.known[node] = result.content
    else:
        r.values[node] = result if isinstance(result, tuple) else tuple(result)


def _node(r: StageReader, node: fx.Node) -> None:
    """Take in a function or a method."""
    if is_of_sizes(r, node):
        return  # where it is used, what a sample has shown is enough
    args, kwargs = _given(r, node)
    name = getattr(node.target, "__name__", str(node.target))
    if name == "getitem" and not node.users:
        return  # of several results one that nobody asks for
    if not any(one in r.values for one in node.all_input_nodes):
        if not is_repeated(r, node, name, args):
            learn(r, node, args, kwargs)
            return
        args = (r.constant(args[0].content), *args[1:])
    if name in TYPES and keeps_numbers(r, node, args[0]):
        _store(r, node, args[0])
        return
    if any(t.is_meta for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)):
        raise NoPlan(f"{name} of a tensor that is no activation")
    if name in _NEW:
        r.known[node] = getattr(torch.empty(0), name)(*args[1:], **kwargs)
        return
    if name not in SHAPING and any(counts_images(r, one) for one in node.all_input_nodes):
        raise NoPlan(f"{name} of how many images there are")
    _store(r, node, _call(r, node.target, name, args, kwargs, is_method=node.op == "call_method"))


# What is called


def _as_codes(r: StageReader, value: Any) -> Any:
    """Return what is known as the codes of numbers, or as a number."""
    if not isinstance(value, Known):
        return value
    return r.constant(value.content) if value.content.dim() else value.content.item()


def _call(
    r: StageReader, target: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, is_method: bool
) -> Any:
    """Return the codes of what a function or a method gives.

    Raises:
        NoPlan: it is neither a stage, nor made of such.
    """
    if _has_mask(r, args, kwargs):
        if name in OF_MASKS:
            return OF_MASKS[name](r, *args, **kwargs)
        if name not in _TAKING_MASKS and target not in MOVES and not (is_method and name in MOVING_METHODS):
            raise NoPlan(f"{name} of a mask")
    if name in OF_KNOWN:
        return OF_KNOWN[name](r, *args, **kwargs)
    codes, options = pytree.tree_map(lambda value: _as_codes(r, value), (tuple(args), dict(kwargs)))
    if is_method and name in MOVING_METHODS:
        return getattr(codes[0], name)(*codes[1:], **options)
    if target in MOVES:
        return target(*codes, **options)
    call = CALLS.get(name if is_method else target) or of_torchvision(target)
    if call is not None:
        try:
            return call(r, *codes, **options)
        except TypeError as error:
            raise NoPlan(f"{name} with options: {error}") from error
    if is_method or not isinstance(target, types.FunctionType):
        raise NoPlan(name)
    return _run(r, target, args, kwargs)


def _has_mask(r: StageReader, *given: Any) -> bool:
    return any(is_mask(r, leaf) for leaf in pytree.tree_leaves(given))


_TAKING_MASKS = {*CHOICES, "getitem"}


# What is run itself


class Coded(torch.Tensor):
    """Codes of an activation, for functions that are run with them: what these call is taken in.

    Attributes:
        reader: what the network is read by.
    """

    reader: StageReader

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take in what is called."""
        given = args, kwargs or {}
        r = next(t.reader for t in pytree.tree_leaves(given) if isinstance(t, Coded))
        with torch._C.DisableTorchFunctionSubclass():
            args, kwargs = pytree.tree_map(lambda value: _uncoded(r, value), given)
        return pytree.tree_map(lambda value: _coded(r, value), _called(r, func, args, kwargs))


def _called(r: StageReader, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return what a function that is called with codes gives: codes, or what is asked of a tensor's shape."""
    name = func.__name__
    if name == "__get__":
        name = func.__self__.__name__
        if name not in _OF_TENSORS:
            raise NoPlan(f"a tensor's {name}")
        return _OF_TENSORS[name](args[0])
    if name in _ASKED:
        return getattr(args[0], name)(*args[1:], **kwargs)
    if name in _NEW:
        return Known(getattr(torch.empty(0), name)(*args[1:], **kwargs))
    is_method = getattr(torch.Tensor, name, None) is func
    if is_method and name in OPERATORS:
        func, turned = OPERATORS[name]
        args = args[::-1] if turned else args
        return _call(r, func, func.__name__, args, kwargs, is_method=False)
    return _call(r, func, name, args, kwargs, is_method=is_method)


_OF_TENSORS: dict[str, Any] = {
    "shape": lambda t: t.shape,
    "ndim": lambda t: t.dim(),
    "device": lambda t: t.device,
    "dtype": lambda _: torch.get_default_dtype(),
    "layout": lambda t: t.layout,
    "is_cuda": lambda _: False,
    "is_nested": lambda _: False,
    "requires_grad": lambda _: False,
}
_ASKED = {"size", "dim", "ndimension", "numel", "__len__", "nelement"}
_NEW = {"new_zeros", "new_ones", "new_full", "new_empty", "new_tensor"}


def _coded(r: StageReader, value: Any) -> Any:
    if isinstance(value, Known):
        return value.content
    if not isinstance(value, torch.Tensor):
        return value
    found = value.as_subclass(Coded)
    found.reader = r
    return found


def _uncoded(r: StageReader, value: Any) -> Any:
    if isinstance(value, Coded):
        return value.as_subclass(torch.Tensor)
    return r.take(value) if isinstance(value, torch.Tensor) else value


def _run(r: StageReader, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run a function with codes in the place of its activations.

    Raises:
        NoPlan: it has what is no stage, or cannot be run so.
    """
    own = getattr(function, "__func__", function)
    plain = _without_overrides(own)
    before = () if own is function else (function.__self__,)
    args, kwargs = pytree.tree_map(lambda value: _coded(r, value), (tuple(args), dict(kwargs)))
    try:
        result = plain(*before, *args, **kwargs)
    except NoPlan:
        raise
    except Exception as error:
        raise NoPlan(f"{own.__name__}: {error}") from error
    return pytree.tree_map(lambda value: _uncoded(r, value), result)


def _without_overrides(function: Any) -> Any:
    """Return a function that does not ask whether a tensor has its own form of it, as torch's do."""
    if not isinstance(function, types.FunctionType):
        raise NoPlan(f"{getattr(function, '__name__', function)} is no function in Python")
    asks = [name for name in function.__code__.co_names if name.startswith("has_torch_function")]
    if not asks:
        return function
    seen = {**function.__globals__, **dict.fromkeys(asks, lambda *_: False)}
    found = types.FunctionType(
        function.__code__, seen, function.__name__, function.__defaults__, function.__closure__
    )
    found.__kwdefaults__ = function.__kwdefaults__
    return found
