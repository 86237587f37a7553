"""The rule for what no other rule knows: the operation itself, mapped over the lanes, or called for each in turn.

One unknown operation so does not condemn a network: the others stay stacked layers.  A pure operation is vectorized
by `torch.func.vmap`.  One that draws random numbers is called lane by lane, each time with the lane's own generator
in the place of torch's, so that it draws what it would draw for that lane alone.  What changes its first argument in
place works on a copy; what changes others, or draws where no generator can be, has no such form.

Shapes: K lanes.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from gridsearch.training.lanes.compile.graph_builder import node_name
from gridsearch.training.lanes.compile.in_place import changes_first
from gridsearch.training.lanes.compile.lane_values import Form, NotStackable, Parts, TrainsAlone, Value
from gridsearch.training.lanes.compile.rule_layers import mark_images_read, require
from gridsearch.training.lanes.runtime.mapped import LaneByLane, Mapped, PlainResult, padded_embedding
from gridsearch.training.lanes.runtime.storage import placed_names
from gridsearch.training.weight_hooks import spectral_weight

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import fx

    from gridsearch.training.lanes.compile.graph_builder import GraphBuilder


def any_rule(g: GraphBuilder, node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Rewrite a node as its own operation.

    Returns:
        the value; for an operation that gives several tensors a list, with None for those that nobody asks for.

    Raises:
        NotStackable: it changes its arguments, or its results are no tensors.
        TrainsAlone: it draws random numbers that no lane could draw alone.
    """
    name = node_name(node, g.model)
    in_place = changes_first(node, g.model)
    changes = (
        node in g.found.changes and node.target is not spectral_weight
    )  # which changes a lane's own buffers
    if (changes and not in_place) or kwargs.get("out") is not None:
        raise NotStackable(f"{name} changes its arguments, which has no stacked form")
    draws = node in g.found.draws
    if draws and not g.training:
        raise TrainsAlone(f"its forward draws random numbers in evaluation too ({name})")
    if draws and not g.host_streams:
        raise TrainsAlone(f"its forward draws random numbers of its own ({name})")
    function, weights = _operation(g, node)
    if in_place and isinstance(args[0], Value) and args[0].form is not Form.PLAIN:
        function = _on_a_copy(function)
        args = [g.to(args[0], Form.STACKED), *args[1:]]  # the others may have a lane's part each
    leaves, spec = pytree.tree_flatten((weights, [_opened(arg) for arg in args], kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Value)]
    read = [n.name for n in node.all_input_nodes]
    names = [g.names.get(leaves[i].slot) for i in places]
    found_at = [read.index(name) if name in read else None for name in names]
    values = [_by_lane(g, leaves[i], draws=draws) for i in places]
    mark_images_read(g, *values)
    g.has_dropout |= draws
    constants = [None if isinstance(leaf, Value) else leaf for leaf in leaves]
    dims = tuple(0 if v.form is Form.STACKED else None for v in values)

    def run(*given: Any) -> Any:
        filled = list(constants)
        for place, one in zip(places, given, strict=True):
            filled[place] = one
        own, positional, named = pytree.tree_unflatten(filled, spec)
        return function(own, *map(_closed, positional), **named)

    def emit(pick: Callable[[Any], Any], shape: tuple[int, ...] | None) -> Value:
        def operation(*given: Any) -> Any:
            return pick(run(*given))

        if shape is None:
            return g.emit(Form.PLAIN, (), PlainResult(operation, dims), *values)
        if 0 not in dims and not draws:
            return g.emit(Form.SHARED, shape, operation, *values)
        layer = (
            LaneByLane(g.width, g.dropout, operation, dims, node.name, found_at)
            if draws
            else Mapped(operation, dims)
        )
        return g.emit(Form.STACKED, shape, layer, *values)

    def part(whole: Value, take: Callable[[Any], Any], shape: tuple[int, ...]) -> Value:
        return g.emit(whole.form, shape, take, whole)

    return _results(node, name, g.found.results[node], emit, part, draws=draws)


class _Slice(NamedTuple):
    """A slice whose bounds may be computed: unlike a slice it is looked into."""

    start: Any
    stop: Any
    step: Any


def _opened(value: Any) -> Any:
    """Return several results of an operation as torch gave them, and slices as what is looked into."""
    if isinstance(value, slice):
        return _Slice(value.start, value.stop, value.step)
    if isinstance(value, Parts) or type(value) is tuple:
        return tuple(map(_opened, value))
    return value


def _closed(value: Any) -> Any:
    """Return what `_opened` was given."""
    if isinstance(value, _Slice):
        return slice(*value)
    return tuple(map(_closed, value)) if type(value) is tuple else value


def _results(
    node: fx.Node,
    name: str,
    result: Any,
    emit: Callable[[Callable[[Any], Any], Any], Value],
    part: Callable[[Value, Callable[[Any], Any], tuple[int, ...]], Value],
    *,
    draws: bool,
) -> Any:
    """Return a value for each tensor of a node's result."""
    if isinstance(result, torch.Tensor):
        return emit(lambda found: found, tuple(result.shape))
    if not any(isinstance(r, torch.Tensor) for r in pytree.tree_leaves(result)):
        require(not draws, f"{name} draws numbers that are no tensor")
        return emit(lambda found: found, None)
    wanted = sorted(_wanted(node, name, result))
    if len(wanted) == 1:
        ((path, shape),) = wanted
        values = {path: emit(lambda found: _at(found, path), shape)}
    else:
        values = {}
        types = dict.fromkeys(_at(result, path).dtype for path, _ in wanted)
        require(len(types) <= 1 or not draws, f"{name} draws several types of tensors")
        for dtype in types:  # of each the operation runs once
            own = [(path, shape) for path, shape in wanted if _at(result, path).dtype is dtype]
            join = _Joined([path for path, _ in own])
            whole = emit(join, (sum(math.prod(shape) for _, shape in own),))
            values |= {path: part(whole, join.part(i), shape) for i, (path, shape) in enumerate(own)}
    return _nested(result, values)


Path = tuple[int, ...]
"""Where a tensor is among the tuples of a result."""


def _wanted(node: fx.Node, name: str, result: Any, path: Path = ()) -> set[tuple[Path, tuple[int, ...]]]:
    """Return which tensors of a result are read, and their shapes."""
    if isinstance(result, torch.Tensor):
        return {(path, tuple(result.shape))} if node.users else set()
    if result is None:
        return set()
    require(isinstance(result, tuple | list), f"{name} gives more than tensors")
    found: set[tuple[Path, tuple[int, ...]]] = set()
    for user in node.users:
        place = _place(user, result)
        if place >= 0:
            found |= _wanted(user, name, result[place], (*path, place))
            continue
        for i, one in enumerate(result):  # as a whole, by another layer
            require(one is None or isinstance(one, torch.Tensor), f"{name} gives several tensors at once")
            found |= _wanted(node, name, one, (*path, i))
    return found


def _at(result: Any, path: Path) -> Any:
    for place in path:
        result = result[place]
    return result


def _nested(result: Any, values: Mapping[Path, Value], path: Path = ()) -> Any:
    """Return the values of a result's tensors where these are; None for those that nobody asks for."""
    if not isinstance(result, tuple | list):
        return values.get(path)
    names = {n: i for i, one in enumerate(result) for n in dir(result) if getattr(result, n, None) is one}
    return Parts([_nested(one, values, (*path, i)) for i, one in enumerate(result)], names)


class _Joined:
    """Several tensors of a result as one, so that what gives them runs once.

    Args:
        paths: of the tensors.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._shapes: list[torch.Size] = []

    def __call__(self, result: Any) -> torch.Tensor:
        """Return the numbers of all, one lane's."""
        tensors = [_at(result, path) for path in self._paths]
        self._shapes = [tensor.shape for tensor in tensors]
        return torch.cat([tensor.reshape(-1) for tensor in tensors])

    def part(self, which: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return what takes one of them [K, ...] from the numbers of all lanes [K, N]."""

        def take(joined: torch.Tensor) -> torch.Tensor:
            own, before = self._shapes[which], sum(shape.numel() for shape in self._shapes[:which])
            return joined.narrow(-1, before, own.numel()).reshape(*joined.shape[:-1], *own)

        return take


def _place(user: fx.Node, result: Sequence[Any]) -> int:
    """Return which of several results a node takes; -1 where it takes all, or an unknown one."""
    if user.target is operator.getitem and isinstance(user.args[1], int):
        return user.args[1] % len(result)
    if user.target is getattr and isinstance(user.args[1], str):  # of a named tuple, as torch.max gives
        chosen = getattr(result, user.args[1], None)
        return next((i for i, one in enumerate(result) if one is chosen), -1)
    return -1


def _by_lane(g: GraphBuilder, value: Value, *, draws: bool) -> Value:
    """Return a value as the operation takes it: its first dimension that of the lanes, unless they share it."""
    if value.form in (Form.PLAIN, Form.STACKED) or (value.form is Form.SHARED and not draws):
        return value
    return g.to(value, Form.STACKED)


def _operation(g: GraphBuilder, node: fx.Node) -> tuple[Callable[..., Any], dict[str, Value]]:
    """Return what a node calls, as a function of a module's tensors and its arguments, with those tensors' values."""
    target: Any = node.target
    if node.op == "call_module":
        module = g.model.get_submodule(str(target))
        if isinstance(module, nn.modules.dropout._DropoutNd) and g.training:
            raise TrainsAlone(f"the rate of its {type(module).__name__} may differ from lane to lane")
        if type(module) is nn.Embedding and module.padding_idx is not None:
            return _padded(module), {"weight": g.weight(f"{target}.weight")}
        names = placed_names(module)
        training = g.training

        def call(own: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
            module.train(training)
            try:
                return functional_call(module, own, args, kwargs, tie_weights=False)
            finally:
                if isinstance(module, nn.RNNBase):  # which keeps a list of them beside their table
                    module._init_flat_weights()

        return call, {name: g.weight(f"{target}.{name}") for name in names}
    if node.op == "call_method":
        return lambda _, own, *args, **kwargs: getattr(own, str(target))(*args, **kwargs), {}
    if target is F.embedding and (len(node.args) > 2 or node.kwargs.get("padding_idx") is not None):
        raise NotStackable("embedding with padding has a stacked form as a layer alone")
    return lambda _, *args, **kwargs: target(*args, **kwargs), {}


def _padded(module: nn.Embedding) -> Callable[..., torch.Tensor]:
    """Return an embedding one of whose rows has no gradient, given its table and an index."""
    how: Any = {"padding_idx": module.padding_idx, "scale_grad_by_freq": module.scale_grad_by_freq}
    return lambda own, index: padded_embedding(index, own["weight"], **how)


def _on_a_copy(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that leaves its first argument as it is; nobody reads that later, as the rewrite has seen."""
    return lambda own, first, *args, **kwargs: function(own, first.clone(), *args, **kwargs)
