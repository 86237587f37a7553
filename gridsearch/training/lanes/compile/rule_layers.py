"""Rules of the rewrite for layers without products: norms, pooling, activations, sums, dropout; see `rule_products`.

Shapes: K lanes, B batch, C/H/W channels, height, width, F features.
"""
# ruff: noqa: A002, ARG001  (torch's argument names; all rules are called alike)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.utils import _pytree as pytree

from gridsearch.training.lanes.compile.lane_values import Form, NotStackable, Parts, TrainsAlone, Value
from gridsearch.training.lanes.runtime import stacked_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import fx

    from gridsearch.training.lanes.compile.graph_builder import GraphBuilder

    Rule = Callable[..., Any]


def require(condition: bool, what: str) -> None:
    """Check a condition of a rule.

    Raises:
        NotStackable: the condition does not hold.
    """
    if not condition:
        raise NotStackable(what)


def any_values(content: Any) -> bool:
    """Whether there is a value among arguments, or in a tuple, a list or a slice of them."""
    leaves = pytree.tree_leaves(content)
    slices = [s for s in leaves if isinstance(s, slice)]
    parts = [part for s in slices for part in (s.start, s.stop, s.step)]
    return any(isinstance(leaf, Value | Parts) for leaf in (*leaves, *parts))


def own_weight(g: GraphBuilder, place: str, module: nn.Module, name: str) -> Value | None:
    """Return a layer's own parameter or buffer; None if it has none of that name."""
    return None if getattr(module, name, None) is None else g.weight(f"{place}.{name}")


def mark_images_read(g: GraphBuilder, *found: Any) -> None:
    """Note that a layer which cannot fold the lanes' normalization in reads the images, if it does."""
    if any(isinstance(v, Value) and v.form is not Form.PLAIN and g.is_images(v) for v in found):
        g.read_images(folds=False)


def to_common_form(g: GraphBuilder, value: Value, together: list[Value], rank: int) -> Value:
    """Bring an operand into the form in which all operands broadcast as one lane's do."""
    forms = {v.form for v in together}
    if forms == {Form.SHARED}:
        return value
    maps = all(v.rank == 4 for v in together) and len({v.shape[1] for v in together}) == 1
    if maps and Form.PACKED in forms:
        return g.to(value, Form.PACKED)
    value = g.to(value, Form.STACKED)
    missing = rank - value.rank
    if not missing:
        return value
    index = (slice(None), *(None,) * missing)
    return g.emit(Form.STACKED, (*(1,) * missing, *value.shape), lambda t: t[index], value)


def map_form(x: Value) -> Form:
    """Return the form of maps that a value can have without a copy for each lane."""
    return Form.SHARED if x.form is Form.SHARED else Form.PACKED


# Normalization


def batch_norm_module(g: GraphBuilder, node: fx.Node, place: str, m: nn.BatchNorm2d, x: Value) -> Value:
    """Batch norm, with its counter."""
    mean, var = own_weight(g, place, m, "running_mean"), own_weight(g, place, m, "running_var")
    learns = m.training and mean is not None
    count = None
    if learns:
        counter = g.weight(f"{place}.num_batches_tracked")
        count = g.emit(Form.STACKED, (), lambda t: t.add_(1), counter)
    weight, bias = own_weight(g, place, m, "weight"), own_weight(g, place, m, "bias")
    # without a momentum, running statistics are the mean of all batches'
    momentum = count if learns and m.momentum is None else m.momentum or 0.0
    # modules are in training mode while they are rewritten; the traced mode is the rewriter's
    return batch_norm_rule(g, node, x, mean, var, weight, bias, m.training or mean is None, momentum, m.eps)


def batch_norm_rule(  # noqa: PLR0913, PLR0917  (torch's signature)
    g: GraphBuilder,
    node: fx.Node,
    input: Value,
    running_mean: Value | None,
    running_var: Value | None,
    weight: Value | None = None,
    bias: Value | None = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> Value:
    """Batch norm: lanes are more channels; the momentum may be how many batches each lane has seen."""
    mark_images_read(g, input)
    how = (running_mean, running_var, weight, bias, training, momentum, eps)
    if input.rank == 4:
        return g.emit(
            Form.PACKED, g.shape_of(node), stacked_layers.batch_norm, g.to(input, Form.PACKED), *how
        )
    layer = stacked_layers.BatchNormFeatures(g.width)
    return g.emit(Form.STACKED, g.shape_of(node), layer, g.to(input, Form.STACKED), *how)


def group_norm_module(g: GraphBuilder, node: fx.Node, place: str, m: nn.GroupNorm, x: Value) -> Value:
    """Group norm."""
    weight, bias = own_weight(g, place, m, "weight"), own_weight(g, place, m, "bias")
    return group_norm_rule(g, node, x, m.num_groups, weight, bias, m.eps)


def group_norm_rule(
    g: GraphBuilder,
    node: fx.Node,
    input: Value,
    num_groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    """Group norm: lanes are more groups."""
    require(input.rank == 4, "group norm of features has no stacked form")
    mark_images_read(g, input)
    layer = stacked_layers.GroupNorm(g.width, num_groups, eps)
    return g.emit(Form.PACKED, g.shape_of(node), layer, g.to(input, Form.PACKED), weight, bias)


def layer_norm_module(g: GraphBuilder, node: fx.Node, place: str, m: nn.LayerNorm, x: Value) -> Value:
    """Layer norm."""
    weight, bias = own_weight(g, place, m, "weight"), own_weight(g, place, m, "bias")
    return layer_norm_rule(g, node, x, m.normalized_shape, weight, bias, m.eps)


def layer_norm_rule(
    g: GraphBuilder,
    node: fx.Node,
    input: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    """Layer norm, with each lane's own weights."""
    mark_images_read(g, input)
    x = g.to(input, Form.STACKED)
    return g.emit(
        Form.STACKED, x.shape, stacked_layers.layer_norm, x, tuple(normalized_shape), weight, bias, eps
    )


# Attention


def attention_rule(
    g: GraphBuilder, node: fx.Node, query: Value, key: Value, value: Value, **kwargs: Any
) -> Value:
    """Scaled dot-product attention without mask or dropout: lanes are more images."""
    known = kwargs.pop("dropout_p", 0.0) == 0.0 and kwargs.pop("attn_mask", None) is None
    require(known and not any_values(kwargs) and query.rank >= 3, "attention with a mask or dropout")
    mark_images_read(g, query, key, value)
    ready = [g.to(v, Form.STACKED) for v in (query, key, value)]
    same = len({v.shape[0] for v in ready}) == 1 and len({v.rank for v in ready}) == 1
    require(same, "attention over a batch that broadcasts")

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        lanes, batch = q.shape[:2]
        whole = F.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), **kwargs)
        return whole.reshape(lanes, batch, *whole.shape[1:])

    return g.emit(Form.STACKED, g.shape_of(node), attend, *ready)


# Maps: layers that treat each channel alone


def per_channel(function: Callable[..., Any]) -> Rule:
    """Return the rule of a function that treats each channel of a map alone."""

    def rule(g: GraphBuilder, node: fx.Node, input: Value, *args: Any, **kwargs: Any) -> Value:
        require(input.rank == 4, f"{getattr(function, '__name__', function)} of features has no stacked form")
        require(not kwargs.get("return_indices"), "pooling with indices has no stacked form")
        require(
            not any_values((args, kwargs)), f"{getattr(function, '__name__', function)} by a computed size"
        )
        if function is F.pad:
            pads = args[0] if args else kwargs["pad"]
            require(len(pads) <= 4, "padding of more than maps")  # channels of lanes lie beside each other
        mark_images_read(g, input)
        form = map_form(input)
        if function in (F.max_pool2d, torch.max_pool2d):
            kwargs.pop("return_indices", None)
            pool = stacked_layers.MaxPool(*args[:5], **kwargs)
            return g.emit(form, g.shape_of(node), pool, g.to(input, form))
        return g.emit(form, g.shape_of(node), lambda t: function(t, *args, **kwargs), g.to(input, form))

    return rule


def per_channel_module(g: GraphBuilder, node: fx.Node, place: str, m: nn.Module, x: Value) -> Value:
    """A layer without weights that treats each channel of a map alone."""
    require(not getattr(m, "return_indices", False), "pooling with indices has no stacked form")
    if isinstance(m, nn.MaxPool2d):
        how = (m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode)
        pooled: Value = per_channel(F.max_pool2d)(g, node, x, *how)
        return pooled
    result: Value = per_channel(m.forward)(g, node, x)
    return result


# Element by element


def elementwise_rule(function: Callable[..., Any]) -> Rule:
    """Return the rule of a function of each element alone."""

    def rule(g: GraphBuilder, node: fx.Node, input: Value, *args: Any, **kwargs: Any) -> Value:
        kwargs.pop("inplace", None)
        require(not any_values((args, kwargs)), "values as options")
        mark_images_read(g, input)
        layer = stacked_layers.Relu() if function is torch.relu else lambda t: function(t, *args, **kwargs)
        return g.emit(input.form, input.shape, layer, input)

    return rule


def activation_rule(function: Callable[..., Any], *options: str) -> Rule:
    """Return the rule of an activation layer with these options."""

    def rule(g: GraphBuilder, node: fx.Node, place: str, m: nn.Module, x: Value) -> Value:
        kwargs = {name: getattr(m, name) for name in options}
        mark_images_read(g, x)
        layer = stacked_layers.Relu() if function is torch.relu else lambda t: function(t, **kwargs)
        return g.emit(x.form, x.shape, layer, x)

    return rule


def inplace_aware(function: Callable[..., Any], plain: int) -> Rule:
    """A functional activation whose argument number `plain` (after the tensor) is `inplace`."""
    inner = elementwise_rule(function)

    def rule(g: GraphBuilder, node: fx.Node, input: Value, *args: Any, **kwargs: Any) -> Value:
        result: Value = inner(g, node, input, *args[:plain], **kwargs)
        return result

    return rule


def binary_rule(function: Callable[..., Any]) -> Rule:
    """Return the rule of an operator of two operands, which may broadcast."""

    def rule(g: GraphBuilder, node: fx.Node, input: Any, other: Any, **kwargs: Any) -> Value:
        given = [input, other]
        require(not any(isinstance(one, tuple | list) for one in given), "a sum of shapes")
        kinds = [v for v in given if isinstance(v, Value)]
        if all(v.form is Form.PLAIN for v in kinds):
            return g.emit(Form.PLAIN, (), function, *given)
        mark_images_read(g, *given)
        tensors = [v for v in kinds if v.form is not Form.PLAIN]
        shape = g.shape_of(node)
        ready = [
            to_common_form(g, v, tensors, len(shape))
            if isinstance(v, Value) and v.form is not Form.PLAIN
            else v
            for v in given
        ]
        form = next(v.form for v in ready if isinstance(v, Value) and v.form is not Form.PLAIN)
        return g.emit(form, shape, lambda a, b: function(a, b, **kwargs), *ready)

    return rule


# Dropout


def dropout_module(g: GraphBuilder, node: fx.Node, place: str, m: Any, x: Value) -> Value:
    """A dropout layer, whose rate a recipe may set."""
    if not m.training:
        return x
    features = not isinstance(m, nn.Dropout | nn.AlphaDropout)
    alpha = isinstance(m, nn.AlphaDropout | nn.FeatureAlphaDropout)
    return dropout_of(g, node, x, m.p, features=features, from_recipe=True, alpha=alpha)


def dropout_rule(features: bool) -> Rule:
    """Return the rule of dropout as a function, whose rate is the model's."""

    def rule(
        g: GraphBuilder,
        node: fx.Node,
        input: Value,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Value:
        return dropout_of(g, node, input, p, features=features, from_recipe=False) if training else input

    return rule


def dropout_of(
    g: GraphBuilder,
    node: fx.Node,
    x: Value,
    rate: float,
    *,
    features: bool,
    from_recipe: bool,
    alpha: bool = False,
) -> Value:
    """Drop values in training."""
    if not g.training:
        raise TrainsAlone("its forward drops values in evaluation too")
    if alpha and not g.host_streams:
        raise TrainsAlone("its alpha dropout draws from streams of the host")
    require(not features or x.rank in (3, 4), "dropping channels of features has no stacked form")
    mark_images_read(g, x)
    g.has_dropout = True
    form = Form.PACKED if x.rank == 4 else Form.STACKED
    how = {"features": features, "from_recipe": from_recipe, "packed": form is Form.PACKED, "alpha": alpha}
    layer = stacked_layers.Dropout(g.dropout, node.name, rate, **how)
    return g.emit(form, x.shape, layer, g.to(x, form))
