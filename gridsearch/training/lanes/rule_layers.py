"""Rules of the rewrite for layers: convolutions, dense layers, norms, pooling, activations, sums, dropout.

Shapes: K lanes, B batch, C/H/W channels, height, width, F features.
"""
# ruff: noqa: ARG001  (all rules are called alike)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.training.kernels import PooledConvolution, PooledShape
from gridsearch.training.lanes import layers, products
from gridsearch.training.lanes.values import DrawsNumbers, Form, NotStackable, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import fx

    from gridsearch.training.lanes.rewrite import Rewriter

    Rule = Callable[..., Any]


def want(condition: bool, what: str) -> None:
    """Refuse, unless.

    Raises:
        NotStackable: the condition does not hold.
    """
    if not condition:
        raise NotStackable(what)


def own_weight(r: Rewriter, place: str, module: nn.Module, name: str) -> Value | None:
    """Return a layer's own parameter or buffer; None if it has none of that name."""
    return None if getattr(module, name, None) is None else r.weight(f"{place}.{name}")


def note_reader(r: Rewriter, *found: Any) -> None:
    """A layer that cannot take the lanes' normalization reads the images, perhaps."""
    if any(isinstance(v, Value) and v.form is not Form.PLAIN and r.is_images(v) for v in found):
        r.read_images(folds=False)


def aligned(r: Rewriter, value: Value, together: list[Value], rank: int) -> Value:
    """Bring an operand into the form in which all operands broadcast as one lane's do."""
    forms = {v.form for v in together}
    if forms == {Form.SHARED}:
        return value
    maps = all(v.rank == 4 for v in together) and len({v.shape[1] for v in together}) == 1
    if maps and Form.PACKED in forms:
        return r.to(value, Form.PACKED)
    value = r.to(value, Form.STACKED)
    missing = rank - value.rank
    if not missing:
        return value
    index = (slice(None), *(None,) * missing)
    return r.emit(Form.STACKED, (*(1,) * missing, *value.shape), lambda t: t[index], value)


# Convolution and dense layers


def conv_module(r: Rewriter, node: fx.Node, place: str, m: nn.Conv2d, x: Value) -> Value:
    """A convolution, with whatever padding."""
    weight, bias = r.weight(f"{place}.weight"), own_weight(r, place, m, "bias")
    padding: Any = m.padding
    if m.padding_mode != "zeros":
        sides = list(m._reversed_padding_repeated_twice)
        shape = (*x.shape[:2], x.shape[2] + sides[2] + sides[3], x.shape[3] + sides[0] + sides[1])
        x = r.emit(x.form, shape, lambda t: F.pad(t, sides, mode=m.padding_mode), r.to(x, map_form(x)))
        padding = 0
    return conv2d_rule(r, node, x, weight, bias, m.stride, padding, m.dilation, m.groups)


def map_form(x: Value) -> Form:
    """Return the form of maps that a value can have without a copy for each lane."""
    return Form.SHARED if x.form is Form.SHARED else Form.PACKED


def conv2d_rule(  # noqa: PLR0913, PLR0917  (torch's signature)
    r: Rewriter,
    node: fx.Node,
    input: Value,  # noqa: A002  (torch's name)
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """A convolution: dense over shared images, else grouped."""
    want(input.rank == 4 and isinstance(weight, Value), "a convolution without a batch")
    affine = taken_affine(r, input, padding, groups)
    shared = input.form is Form.SHARED and groups == 1
    x, padding = settled_padding(r, input, padding, weight.shape[2:], dilation)
    layer = products.Conv(
        r.width,
        groups=groups,
        shared=shared,
        affine=affine,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    x = x if shared else r.to(x, Form.PACKED)
    return r.emit(Form.PACKED, r.shape_of(node), layer, x, weight, bias)


def taken_affine(r: Rewriter, input: Value, padding: Any, groups: int) -> products.InputAffine | None:  # noqa: A002
    """Note a convolution that reads the images; return the lanes' normalization if it takes that into itself."""
    if not r.is_images(input):
        return None
    folds = padding in (0, (0, 0), "valid") and groups == 1
    r.read_images(folds=folds)
    return r.affine if folds else None


def pooled_convolution_rule(
    r: Rewriter,
    node: fx.Node,
    x: Value,
    weight: Value,
    bias: Value | None,
    padding: tuple[int, int],
    pool: int,
    relu: bool,
) -> Value:
    """A convolution with its pooling: a compiled kernel, or one after the other where there is none that pays."""
    shape = PooledShape(
        channels=x.shape[1],
        height=x.shape[2],
        width=x.shape[3],
        kernel=(weight.shape[2], weight.shape[3]),
        padding=padding,
        pool=pool,
        relu=relu,
    )
    kernel = PooledConvolution.build(shape, r.storage.flat.dtype) if shape.pays(weight.shape[0]) else None
    out = r.shape_of(node)
    if kernel is not None:
        r.kernels += 1
        affine = taken_affine(r, x, padding, groups=1)
        shared = x.form is Form.SHARED
        layer = products.PooledConv(r.width, kernel, shared=shared, affine=affine)
        return r.emit(Form.PACKED, out, layer, x if shared else r.to(x, Form.PACKED), weight, bias)
    y = conv2d_rule(r, node, x, weight, bias, padding=padding)
    y = r.emit(Form.PACKED, out, layers.MaxPool(pool), y)
    return r.emit(Form.PACKED, out, layers.Relu(), y) if relu else y


def settled_padding(
    r: Rewriter, x: Value, padding: Any, kernel: Sequence[int], dilation: Any
) -> tuple[Value, Any]:
    """Return the maps and their padding in numbers; what it needs more at one side is added to the maps."""
    if not isinstance(padding, str):
        return x, padding
    if padding == "valid":
        return x, 0
    dilation = (dilation, dilation) if isinstance(dilation, int) else dilation
    height, width = (step * (side - 1) for step, side in zip(dilation, kernel, strict=True))
    if height % 2 == 0 and width % 2 == 0:
        return x, (height // 2, width // 2)
    more = [0, width % 2, 0, height % 2]  # torch has the odd one at the right and at the bottom
    shape = (*x.shape[:2], x.shape[2] + more[3], x.shape[3] + more[1])
    form = map_form(x)
    return r.emit(form, shape, lambda t: F.pad(t, more), r.to(x, form)), (height // 2, width // 2)


def linear_module(r: Rewriter, node: fx.Node, place: str, m: nn.Linear, x: Value) -> Value:
    """A dense layer."""
    return linear_rule(r, node, x, r.weight(f"{place}.weight"), own_weight(r, place, m, "bias"))


def linear_rule(r: Rewriter, node: fx.Node, input: Value, weight: Value, bias: Value | None = None) -> Value:  # noqa: A002
    """A dense layer: a batched product."""
    want(input.rank >= 2 and isinstance(weight, Value) and weight.rank == 2, "a dense layer without a batch")
    folds = r.is_images(input) and input.rank == 2
    if r.is_images(input):
        r.read_images(folds=folds)
    shared = input.form is Form.SHARED
    affine = r.affine if folds else None
    layer = products.Linear(r.width, shared=shared, affine=affine, joins=input.rank == 2)
    x = input if shared else r.to(input, Form.STACKED)
    return r.emit(Form.STACKED, r.shape_of(node), layer, x, weight, bias)


# Normalization


def batch_norm_module(r: Rewriter, node: fx.Node, place: str, m: nn.BatchNorm2d, x: Value) -> Value:
    """Batch norm, with its counter."""
    mean, var = own_weight(r, place, m, "running_mean"), own_weight(r, place, m, "running_var")
    learns = m.training and mean is not None
    if learns:
        want(m.momentum is not None, "batch norm with a cumulative average has no stacked form")
        counter = r.weight(f"{place}.num_batches_tracked")
        r.stage.add(lambda t: t.add_(1), counter)
    weight, bias = own_weight(r, place, m, "weight"), own_weight(r, place, m, "bias")
    # modules are in training mode while they are rewritten; the traced mode is the rewriter's
    return batch_norm_rule(
        r, node, x, mean, var, weight, bias, m.training or mean is None, m.momentum or 0.0, m.eps
    )


def batch_norm_rule(  # noqa: PLR0913, PLR0917  (torch's signature)
    r: Rewriter,
    node: fx.Node,
    input: Value,  # noqa: A002  (torch's name)
    running_mean: Value | None,
    running_var: Value | None,
    weight: Value | None = None,
    bias: Value | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    """Batch norm: lanes are more channels."""
    note_reader(r, input)
    how = (running_mean, running_var, weight, bias, training, momentum, eps)
    if input.rank == 4:
        return r.emit(Form.PACKED, r.shape_of(node), layers.batch_norm, r.to(input, Form.PACKED), *how)
    layer = layers.BatchNormFeatures(r.width)
    return r.emit(Form.STACKED, r.shape_of(node), layer, r.to(input, Form.STACKED), *how)


def group_norm_module(r: Rewriter, node: fx.Node, place: str, m: nn.GroupNorm, x: Value) -> Value:
    """Group norm."""
    weight, bias = own_weight(r, place, m, "weight"), own_weight(r, place, m, "bias")
    return group_norm_rule(r, node, x, m.num_groups, weight, bias, m.eps)


def group_norm_rule(
    r: Rewriter,
    node: fx.Node,
    input: Value,  # noqa: A002  (torch's name)
    num_groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    """Group norm: lanes are more groups."""
    want(input.rank == 4, "group norm of features has no stacked form")
    note_reader(r, input)
    layer = layers.GroupNorm(r.width, num_groups, eps)
    return r.emit(Form.PACKED, r.shape_of(node), layer, r.to(input, Form.PACKED), weight, bias)


def layer_norm_module(r: Rewriter, node: fx.Node, place: str, m: nn.LayerNorm, x: Value) -> Value:
    """Layer norm."""
    weight, bias = own_weight(r, place, m, "weight"), own_weight(r, place, m, "bias")
    return layer_norm_rule(r, node, x, m.normalized_shape, weight, bias, m.eps)


def layer_norm_rule(
    r: Rewriter,
    node: fx.Node,
    input: Value,  # noqa: A002  (torch's name)
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    """Layer norm, with each lane's own weights."""
    note_reader(r, input)
    x = r.to(input, Form.STACKED)
    return r.emit(Form.STACKED, x.shape, layers.layer_norm, x, tuple(normalized_shape), weight, bias, eps)


# Maps: layers that treat each channel alone


def per_channel(function: Callable[..., Any]) -> Rule:
    """Return the rule of a function that treats each channel of a map alone."""

    def rule(r: Rewriter, node: fx.Node, input: Value, *args: Any, **kwargs: Any) -> Value:  # noqa: A002
        want(input.rank == 4, f"{getattr(function, '__name__', function)} of features has no stacked form")
        want(not kwargs.get("return_indices"), "pooling with indices has no stacked form")
        note_reader(r, input)
        form = map_form(input)
        if function in (F.max_pool2d, torch.max_pool2d):
            kwargs.pop("return_indices", None)
            pool = layers.MaxPool(*args[:5], **kwargs)
            return r.emit(form, r.shape_of(node), pool, r.to(input, form))
        return r.emit(form, r.shape_of(node), lambda t: function(t, *args, **kwargs), r.to(input, form))

    return rule


def per_channel_module(r: Rewriter, node: fx.Node, place: str, m: nn.Module, x: Value) -> Value:
    """A layer without weights that treats each channel of a map alone."""
    want(not getattr(m, "return_indices", False), "pooling with indices has no stacked form")
    if isinstance(m, nn.MaxPool2d):
        how = (m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode)
        pooled: Value = per_channel(F.max_pool2d)(r, node, x, *how)
        return pooled
    result: Value = per_channel(m.forward)(r, node, x)
    return result


# Element by element


def elementwise_rule(function: Callable[..., Any]) -> Rule:
    """Return the rule of a function of each element alone."""

    def rule(r: Rewriter, node: fx.Node, input: Value, *args: Any, **kwargs: Any) -> Value:  # noqa: A002
        kwargs.pop("inplace", None)
        want(not any(isinstance(a, Value) for a in (*args, *kwargs.values())), "values as options")
        note_reader(r, input)
        layer = layers.Relu() if function is torch.relu else lambda t: function(t, *args, **kwargs)
        return r.emit(input.form, input.shape, layer, input)

    return rule


def activation_rule(function: Callable[..., Any], *options: str) -> Rule:
    """Return the rule of an activation layer with these options."""

    def rule(r: Rewriter, node: fx.Node, place: str, m: nn.Module, x: Value) -> Value:
        kwargs = {name: getattr(m, name) for name in options}
        note_reader(r, x)
        layer = layers.Relu() if function is torch.relu else lambda t: function(t, **kwargs)
        return r.emit(x.form, x.shape, layer, x)

    return rule


def inplace_aware(function: Callable[..., Any], plain: int) -> Rule:
    """A functional activation whose argument number `plain` (after the tensor) is `inplace`."""
    inner = elementwise_rule(function)

    def rule(r: Rewriter, node: fx.Node, input: Value, *args: Any, **kwargs: Any) -> Value:  # noqa: A002
        result: Value = inner(r, node, input, *args[:plain], **kwargs)
        return result

    return rule


def binary_rule(function: Callable[..., Any]) -> Rule:
    """Return the rule of an operator of two operands, which may broadcast."""

    def rule(r: Rewriter, node: fx.Node, input: Any, other: Any, **kwargs: Any) -> Value:  # noqa: A002
        given = [input, other]
        kinds = [v for v in given if isinstance(v, Value)]
        if all(v.form is Form.PLAIN for v in kinds):
            return r.emit(Form.PLAIN, (), function, *given)
        note_reader(r, *given)
        tensors = [v for v in kinds if v.form is not Form.PLAIN]
        shape = r.shape_of(node)
        ready = [
            aligned(r, v, tensors, len(shape)) if isinstance(v, Value) and v.form is not Form.PLAIN else v
            for v in given
        ]
        form = next(v.form for v in ready if isinstance(v, Value) and v.form is not Form.PLAIN)
        return r.emit(form, shape, lambda a, b: function(a, b, **kwargs), *ready)

    return rule


# Dropout


def dropout_module(r: Rewriter, node: fx.Node, place: str, m: Any, x: Value) -> Value:
    """A dropout layer, whose rate a recipe may set."""
    if not m.training:
        return x
    return draw(r, x, m.p, features=isinstance(m, nn.Dropout1d | nn.Dropout2d | nn.Dropout3d), ruled=True)


def dropout_rule(features: bool) -> Rule:
    """Return the rule of dropout as a function, whose rate is the model's."""

    def rule(
        r: Rewriter,
        node: fx.Node,
        input: Value,  # noqa: A002  (torch's name)
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Value:
        return draw(r, input, p, features=features, ruled=False) if training else input

    return rule


def draw(r: Rewriter, x: Value, rate: float, *, features: bool, ruled: bool) -> Value:
    """Drop values in training."""
    if not r.training:
        raise DrawsNumbers("its forward drops values in evaluation too")
    want(not features or x.rank == 4, "dropping channels of features has no stacked form")
    note_reader(r, x)
    r.draws_masks = True
    form = Form.PACKED if x.rank == 4 else Form.STACKED
    layer = layers.Dropout(r.draws, rate, features=features, ruled=ruled, packed=form is Form.PACKED)
    return r.emit(form, x.shape, layer, r.to(x, form))
