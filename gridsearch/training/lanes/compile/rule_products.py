"""Rules of the rewrite for the layers that multiply by weights: convolutions and dense layers.

Shapes: K lanes, B batch, C/H/W channels, height, width, F features.
"""
# ruff: noqa: A002  (torch's argument names)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels import PooledConvolution, PooledShape
from gridsearch.training.lanes.compile.lane_values import Form, Value
from gridsearch.training.lanes.compile.rule_layers import any_values, map_form, own_weight, require
from gridsearch.training.lanes.runtime import products, stacked_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx, nn

    from gridsearch.training.lanes.compile.graph_builder import GraphBuilder


def conv_module(g: GraphBuilder, node: fx.Node, place: str, m: nn.Conv2d, x: Value) -> Value:
    """A convolution, with whatever padding."""
    weight, bias = g.weight(f"{place}.weight"), own_weight(g, place, m, "bias")
    padding: Any = m.padding
    if m.padding_mode != "zeros":
        sides = list(m._reversed_padding_repeated_twice)
        shape = (*x.shape[:2], x.shape[2] + sides[2] + sides[3], x.shape[3] + sides[0] + sides[1])
        x = g.emit(x.form, shape, lambda t: F.pad(t, sides, mode=m.padding_mode), g.to(x, map_form(x)))
        padding = 0
    return conv2d_rule(g, node, x, weight, bias, m.stride, padding, m.dilation, m.groups)


def conv2d_rule(  # noqa: PLR0913, PLR0917  (torch's signature)
    g: GraphBuilder,
    node: fx.Node,
    input: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """A convolution: dense over shared images, else grouped."""
    require(input.rank == 4 and isinstance(weight, Value), "a convolution without a batch")
    require(not any_values((stride, padding, dilation, groups)), "a convolution by the number of images")
    affine = folded_affine(g, input, padding, groups)
    shared = input.form is Form.SHARED and groups == 1
    x, padding = numeric_padding(g, input, padding, weight.shape[2:], dilation)
    layer = products.Conv(
        g.width,
        groups=groups,
        shared=shared,
        affine=affine,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    x = x if shared else g.to(x, Form.PACKED)
    return g.emit(Form.PACKED, g.shape_of(node), layer, x, *_by_lane(g, weight, bias))


def folded_affine(g: GraphBuilder, input: Value, padding: Any, groups: int) -> products.InputAffine | None:
    """Note a convolution that reads the images; return the lanes' normalization if it folds that into itself."""
    if not g.is_images(input):
        return None
    folds = padding in (0, (0, 0), "valid") and groups == 1
    g.read_images(folds=folds)
    return g.affine if folds else None


def pooled_convolution_rule(
    g: GraphBuilder,
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
        outputs=weight.shape[0],
        height=x.shape[2],
        width=x.shape[3],
        kernel=(weight.shape[2], weight.shape[3]),
        padding=padding,
        pool=pool,
        relu=relu,
    )
    kernel = PooledConvolution.build(shape, g.storage.flat.dtype) if shape.pays() else None
    out = g.shape_of(node)
    if kernel is not None:
        g.kernels += 1
        affine = folded_affine(g, x, padding, groups=1)
        layer = products.PooledConv(kernel, affine=affine)
        maps = x if x.form is Form.SHARED else g.to(x, Form.PACKED)
        return g.emit(Form.PACKED, out, layer, maps, weight, bias)
    y = conv2d_rule(g, node, x, weight, bias, padding=padding)
    y = g.emit(Form.PACKED, out, stacked_layers.MaxPool(pool), y)
    return g.emit(Form.PACKED, out, stacked_layers.Relu(), y) if relu else y


def numeric_padding(
    g: GraphBuilder, x: Value, padding: Any, kernel: Sequence[int], dilation: Any
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
    return g.emit(form, shape, lambda t: F.pad(t, more), g.to(x, form)), (height // 2, width // 2)


def linear_module(g: GraphBuilder, node: fx.Node, place: str, m: nn.Linear, x: Value) -> Value:
    """A dense layer."""
    return linear_rule(g, node, x, g.weight(f"{place}.weight"), own_weight(g, place, m, "bias"))


def linear_rule(
    g: GraphBuilder, node: fx.Node, input: Value, weight: Value, bias: Value | None = None
) -> Value:
    """A dense layer: a batched product."""
    require(
        input.rank >= 2 and isinstance(weight, Value) and weight.rank == 2, "a dense layer without a batch"
    )
    folds = g.is_images(input) and input.rank == 2
    if g.is_images(input):
        g.read_images(folds=folds)
    shared = input.form is Form.SHARED
    affine = g.affine if folds else None
    layer = products.Linear(g.width, shared=shared, affine=affine, can_fuse=input.rank == 2)
    x = input if shared else g.to(input, Form.STACKED)
    return g.emit(Form.STACKED, g.shape_of(node), layer, x, *_by_lane(g, weight, bias))


def _by_lane(g: GraphBuilder, *weights: Value | None) -> list[Value | None]:
    """Return weights with a dimension of lanes, also those that the network has computed as maps, or for all lanes."""
    return [None if weight is None else g.to(weight, Form.STACKED) for weight in weights]
