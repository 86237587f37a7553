"""Rules of the rewrite for what changes shapes: flattening, views, reductions, concatenation, indices.

Shapes: K lanes, B batch, C/H/W channels, height, width, F features.
"""
# ruff: noqa: A002, ARG001  (torch's argument names; all rules are called alike)

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch

from gridsearch.training.lanes.compile.lane_values import Form, NotStackable, Parts, Value
from gridsearch.training.lanes.compile.rule_layers import (
    any_values,
    mark_images_read,
    require,
    to_common_form,
)
from gridsearch.training.lanes.runtime import stacked_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import fx, nn

    from gridsearch.training.lanes.compile.graph_builder import GraphBuilder

    Rule = Callable[..., Any]


def shifted(dim: int, rank: int) -> int:
    """A lane's dimension, among [K, ...]."""
    require(-rank <= dim < rank, "a dimension that is not there")
    return dim % rank + 1


def shifted_all(dims: Any, rank: int) -> Any:
    """Several dimensions of a lane, or all, among [K, ...]."""
    if dims is None:
        return tuple(range(1, rank + 1))
    return shifted(dims, rank) if isinstance(dims, int) else tuple(shifted(d, rank) for d in dims)


def along_rule(function: Callable[..., Any]) -> Rule:
    """A function of a tensor and one dimension, that keeps the shape or not."""

    def rule(g: GraphBuilder, node: fx.Node, input: Value, dim: int, **kwargs: Any) -> Value:
        kwargs.pop("_stacklevel", None)
        mark_images_read(g, input)
        if input.form is Form.SHARED:
            return g.emit(Form.SHARED, g.shape_of(node), lambda t: function(t, dim, **kwargs), input)
        require(isinstance(dim, int), "a dimension that is not settled")
        place, x = shifted(dim, input.rank), g.to(input, Form.STACKED)
        return g.emit(Form.STACKED, g.shape_of(node), lambda t: function(t, place, **kwargs), x)

    return rule


def along_module(function: Callable[..., Any]) -> Rule:
    """Return the rule of a layer along one dimension."""
    inner = along_rule(function)

    def rule(g: GraphBuilder, node: fx.Node, place: str, m: Any, x: Value) -> Value:
        require(m.dim is not None, "a softmax without its dimension has no stacked form")
        result: Value = inner(g, node, x, m.dim)
        return result

    return rule


def reduction_rule(function: Callable[..., Any]) -> Rule:
    """Return the rule of a mean or its like."""

    def rule(
        g: GraphBuilder,
        node: fx.Node,
        input: Value,
        dim: Any = None,
        keepdim: bool = False,
    ) -> Value:
        mark_images_read(g, input)
        shape = g.shape_of(node)
        dims = (dim,) if isinstance(dim, int) else None if dim is None else tuple(dim)
        if input.form is Form.SHARED:
            how = {} if dims is None else {"dim": dims, "keepdim": keepdim}
            return g.emit(Form.SHARED, shape, lambda t: function(t, **how), input)
        if input.form is Form.PACKED and dims is not None:
            map_dims = tuple(shifted(d, 4) - 1 for d in dims)
            if 1 not in map_dims and (keepdim or len(map_dims) <= 2):
                require(keepdim or 0 not in map_dims, "a mean over the batch has no stacked form")
                layer = stacked_layers.PackedMean(g.width, function, map_dims, keepdim=keepdim)
                return g.emit(Form.PACKED if keepdim else Form.STACKED, shape, layer, input)
        places = shifted_all(dims, input.rank)
        x = g.to(input, Form.STACKED)
        return g.emit(Form.STACKED, shape, lambda t: function(t, dim=places, keepdim=keepdim), x)

    return rule


def flatten_module(g: GraphBuilder, node: fx.Node, place: str, m: nn.Flatten, x: Value) -> Value:
    """A flattening layer."""
    return flatten_rule(g, node, x, m.start_dim, m.end_dim)


def flatten_rule(
    g: GraphBuilder, node: fx.Node, input: Value, start_dim: int = 0, end_dim: int = -1
) -> Value:
    """Flattening; of maps to features it is one copy."""
    shape = g.shape_of(node)
    start, end = shifted(start_dim, input.rank), shifted(end_dim, input.rank)
    if input.form is Form.SHARED:
        flat = g.emit(Form.SHARED, shape, lambda t: t.flatten(start - 1, end - 1), input)
        return flattened_images(g, input, flat)
    if input.form is Form.PACKED and (start, end) == (2, 4):
        return flattened_images(g, input, g.emit(Form.STACKED, shape, stacked_layers.Flatten(g.width), input))
    return g.emit(Form.STACKED, shape, lambda t: t.flatten(start, end), g.to(input, Form.STACKED))


def flattened_images(g: GraphBuilder, before: Value, after: Value) -> Value:
    """The images are still the images when each is one row of numbers, channel by channel."""
    if g.is_images(before):
        if after.rank == 2 and after.shape[0] == before.shape[0]:
            g.mark_flat_images(after)
        else:
            g.read_images(folds=False)
    return after


def reshape_rule(g: GraphBuilder, node: fx.Node, input: Value, *sizes: Any, **kwargs: Any) -> Value:
    """A view or its copy."""
    require(not kwargs, "a view as another type")
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = tuple(sizes[0])
    elif len(sizes) == 1 and isinstance(sizes[0], Value):
        raise NotStackable("a view with a computed shape has no stacked form")
    require(not any(isinstance(s, torch.dtype) for s in sizes), "a view as another type")
    shape = g.shape_of(node)
    if input.form is Form.SHARED:
        return flattened_images(
            g, input, g.emit(Form.SHARED, shape, lambda t, *s: t.reshape(s), input, *sizes)
        )
    if input.form is Form.PACKED and len(shape) == 2 and shape[0] == input.shape[0]:
        return flattened_images(g, input, g.emit(Form.STACKED, shape, stacked_layers.Flatten(g.width), input))
    x = g.to(input, Form.STACKED)
    return g.emit(Form.STACKED, shape, lambda t, *s: t.reshape(t.shape[0], *s), x, *sizes)


def unflatten_rule(g: GraphBuilder, node: fx.Node, input: Value, dim: int, sizes: Sequence[int]) -> Value:
    """One dimension split into several."""
    require(not any_values(sizes), "computed sizes")
    mark_images_read(g, input)
    place, x = shifted(dim, input.rank), g.to(input, Form.STACKED)
    return g.emit(Form.STACKED, g.shape_of(node), lambda t: t.unflatten(place, tuple(sizes)), x)


def unflatten_module(g: GraphBuilder, node: fx.Node, place: str, m: Any, x: Value) -> Value:
    """A layer that splits a dimension."""
    return unflatten_rule(g, node, x, m.dim, m.unflattened_size)


def permute_rule(g: GraphBuilder, node: fx.Node, input: Value, *dims: Any) -> Value:
    """A lane's dimensions in another order."""
    if len(dims) == 1 and isinstance(dims[0], tuple | list):
        dims = tuple(dims[0])
    mark_images_read(g, input)
    places, x = (0, *shifted_all(dims, input.rank)), g.to(input, Form.STACKED)
    return g.emit(Form.STACKED, g.shape_of(node), lambda t: t.permute(places), x)


def transpose_rule(g: GraphBuilder, node: fx.Node, input: Value, dim0: int, dim1: int) -> Value:
    """Two of a lane's dimensions exchanged."""
    mark_images_read(g, input)
    first, second = shifted(dim0, input.rank), shifted(dim1, input.rank)
    x = g.to(input, Form.STACKED)
    return g.emit(Form.STACKED, g.shape_of(node), lambda t: t.transpose(first, second), x)


def squeeze_rule(g: GraphBuilder, node: fx.Node, input: Value, dim: Any = None) -> Value:
    """A dimension of 1 taken away."""
    require(dim is not None, "a squeeze of whatever is 1 has no stacked form")
    mark_images_read(g, input)
    places, x = shifted_all(dim, input.rank), g.to(input, Form.STACKED)
    return g.emit(Form.STACKED, g.shape_of(node), lambda t: t.squeeze(places), x)


def unsqueeze_rule(g: GraphBuilder, node: fx.Node, input: Value, dim: int) -> Value:
    """A dimension of 1 put in."""
    mark_images_read(g, input)
    place, x = shifted(dim, input.rank + 1), g.to(input, Form.STACKED)
    return g.emit(Form.STACKED, g.shape_of(node), lambda t: t.unsqueeze(place), x)


def cat_rule(
    g: GraphBuilder, node: fx.Node, tensors: Sequence[Value], dim: int = 0, axis: int | None = None
) -> Value:
    """Concatenation, lane by lane."""
    dim = dim if axis is None else axis
    mark_images_read(g, *tensors)
    shape = g.shape_of(node)
    if all(t.form is Form.SHARED for t in tensors):
        return g.emit(Form.SHARED, shape, lambda *each: torch.cat(each, dim), *tensors)
    if all(t.rank == 4 for t in tensors):
        layer = stacked_layers.PackedCat(g.width, dim % 4)
        return g.emit(Form.PACKED, shape, layer, *[g.to(t, Form.PACKED) for t in tensors])
    place = shifted(dim, len(shape))
    stacked = [g.to(t, Form.STACKED) for t in tensors]
    return g.emit(Form.STACKED, shape, lambda *each: torch.cat(each, place), *stacked)


def stack_rule(g: GraphBuilder, node: fx.Node, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Stacking along a new dimension of each lane."""
    mark_images_read(g, *tensors)
    place = shifted(dim, tensors[0].rank + 1)
    stacked = [g.to(t, Form.STACKED) for t in tensors]
    return g.emit(Form.STACKED, g.shape_of(node), lambda *each: torch.stack(each, place), *stacked)


def chunk_rule(function: Callable[..., Any]) -> Rule:
    """Return the rule of a split into parts."""

    def rule(g: GraphBuilder, node: fx.Node, input: Value, sizes: Any, dim: int = 0) -> list[Value]:
        mark_images_read(g, input)
        place, x = shifted(dim, input.rank), g.to(input, Form.STACKED)
        shape = list(x.shape)
        side = shape.pop(dim % input.rank)
        parts = function(torch.empty(side, device="meta"), sizes, 0)
        found = []
        for i, part in enumerate(parts):
            own = [*shape[: place - 1], len(part), *shape[place - 1 :]]
            found.append(g.emit(Form.STACKED, tuple(own), lambda t, i=i: function(t, sizes, place)[i], x))
        return found

    return rule


def getitem_rule(g: GraphBuilder, node: fx.Node, input: Any, index: Any) -> Any:
    """A part of a tensor, of a shape or of a list."""
    if isinstance(input, tuple | list):
        return input[index]
    if input.form is Form.PLAIN:
        return g.emit(Form.PLAIN, (), operator.getitem, input, index)
    parts = index if isinstance(index, tuple) else (index,)
    simple = all(isinstance(p, int | slice | None) or p is Ellipsis for p in parts)
    require(simple and not any(isinstance(p, Value) for p in parts), "an index that is computed")
    for part in parts:
        if isinstance(part, slice):
            require(
                not any(isinstance(v, Value) for v in (part.start, part.stop, part.step)), "a computed slice"
            )
    mark_images_read(g, input)
    x = g.to(input, Form.STACKED)
    return g.emit(Form.STACKED, g.shape_of(node), lambda t: t[(slice(None), *parts)], x)


def size_rule(g: GraphBuilder, node: fx.Node, input: Value, dim: int | None = None) -> Value:
    """The shape of one lane, or one of its sides."""
    width, form = g.width, input.form

    def size(t: torch.Tensor) -> Any:
        if form is Form.PACKED:
            found: tuple[int, ...] = (t.shape[0], t.shape[1] // width.lanes, *t.shape[2:])
        else:
            found = tuple(t.shape[1:] if form is Form.STACKED else t.shape)
        return found if dim is None else found[dim]

    return g.emit(Form.PLAIN, (), size, input)


def getattr_rule(g: GraphBuilder, node: fx.Node, input: Any, name: str) -> Any:
    """An attribute of a tensor, its shape or its rank, or one of several results by its name."""
    if isinstance(input, Parts):
        return input[input.names[name]]
    if name == "shape":
        return size_rule(g, node, input)
    if name == "ndim":
        return input.rank
    raise NotStackable(f"the attribute {name} of a tensor has no stacked form")


def same_rule(g: GraphBuilder, node: fx.Node, input: Value, *args: Any, **kwargs: Any) -> Value:
    """What changes the memory layout alone."""
    return input


def identity_rule(g: GraphBuilder, node: fx.Node, place: str, m: nn.Module, x: Value) -> Value:
    """A layer that gives what it takes."""
    return x


def matmul_rule(g: GraphBuilder, node: fx.Node, input: Value, other: Value) -> Value:
    """A matrix product, lane by lane."""
    require(input.rank >= 2 and other.rank >= 2, "a product with a vector has no stacked form")
    mark_images_read(g, input, other)
    rank = max(input.rank, other.rank)
    stacked = [to_common_form(g, v, [Value(0, Form.STACKED, ())], rank) for v in (input, other)]
    return g.emit(Form.STACKED, g.shape_of(node), torch.matmul, *stacked)
