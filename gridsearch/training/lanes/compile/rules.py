"""The rules of the rewrite: for each layer, function and method what it is in the K-lane form.

A rule takes the builder, the node, and its arguments (values where the graph has tensors), appends
instructions and returns the value of the result.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.training.lanes.compile.fusion import pooled_convolution
from gridsearch.training.lanes.compile.lane_values import NotStackable, TrainsAlone
from gridsearch.training.lanes.compile.rule_any import any_rule
from gridsearch.training.lanes.compile.rule_layers import (
    activation_rule,
    attention_rule,
    batch_norm_module,
    batch_norm_rule,
    binary_rule,
    dropout_module,
    dropout_rule,
    elementwise_rule,
    group_norm_module,
    group_norm_rule,
    inplace_aware,
    layer_norm_module,
    layer_norm_rule,
    per_channel,
    per_channel_module,
)
from gridsearch.training.lanes.compile.rule_products import (
    conv2d_rule,
    conv_module,
    linear_module,
    linear_rule,
    pooled_convolution_rule,
)
from gridsearch.training.lanes.compile.rule_shapes import (
    along_module,
    along_rule,
    cat_rule,
    chunk_rule,
    flatten_module,
    flatten_rule,
    getattr_rule,
    getitem_rule,
    identity_rule,
    matmul_rule,
    permute_rule,
    reduction_rule,
    reshape_rule,
    same_rule,
    size_rule,
    squeeze_rule,
    stack_rule,
    transpose_rule,
    unflatten_module,
    unflatten_rule,
    unsqueeze_rule,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import fx

    from gridsearch.training.lanes.compile.graph_builder import GraphBuilder

    Rule = Callable[..., Any]


def apply_rule(g: GraphBuilder, node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Rewrite one node: by the rule that knows it, else as its own operation over all lanes.

    Raises:
        NotStackable: it has neither form.
        TrainsAlone: lanes cannot share it.
    """
    try:
        with g.attempt():
            return _known(g, node, args, kwargs)
    except TrainsAlone:
        raise
    except NotStackable as reason:
        try:
            with g.attempt():
                return any_rule(g, node, args, kwargs)
        except TrainsAlone:
            raise
        except NotStackable as other:
            raise NotStackable(f"{reason}; {other}") from other


def _known(g: GraphBuilder, node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Rewrite a node by the rule that knows it.

    Raises:
        NotStackable: none does, or not with these arguments.
    """
    try:
        if node.op == "call_module":
            return _module(g, node, g.model.get_submodule(str(node.target)), args, kwargs)
        rule = METHODS.get(str(node.target)) if node.op == "call_method" else FUNCTIONS.get(node.target)
    except (KeyError, AttributeError) as error:
        raise NotStackable(f"{node.target} cannot be looked through") from error
    if rule is None:
        raise NotStackable(f"{getattr(node.target, '__name__', node.target)} has no stacked form")
    try:
        return rule(g, node, *args, **kwargs)
    except (TypeError, AttributeError) as error:
        raise NotStackable(f"{node.target} is called in a way that has no stacked form") from error


def _module(
    g: GraphBuilder, node: fx.Node, module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]
) -> Any:
    rule = MODULES.get(type(module))
    given = [*args, *kwargs.values()]
    if rule is None or len(given) != 1:
        raise NotStackable(f"{type(module).__name__} has no stacked form")
    return rule(g, node, str(node.target), module, given[0])


# The tables

_MAP_LAYERS: tuple[Any, ...] = (
    nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d,
    nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ConstantPad2d, nn.Upsample,
)  # fmt: skip

MODULES: dict[type[nn.Module], Rule] = {
    nn.Conv2d: conv_module,
    nn.Linear: linear_module,
    nn.BatchNorm1d: batch_norm_module,
    nn.BatchNorm2d: batch_norm_module,
    nn.GroupNorm: group_norm_module,
    nn.LayerNorm: layer_norm_module,
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d), dropout_module),
    **dict.fromkeys((nn.AlphaDropout, nn.FeatureAlphaDropout), dropout_module),
    nn.Identity: identity_rule,
    nn.Flatten: flatten_module,
    nn.Unflatten: unflatten_module,
    nn.Softmax: along_module(F.softmax),
    nn.LogSoftmax: along_module(F.log_softmax),
    nn.ReLU: activation_rule(torch.relu),
    nn.ReLU6: activation_rule(F.relu6),
    nn.LeakyReLU: activation_rule(F.leaky_relu, "negative_slope"),
    nn.ELU: activation_rule(F.elu, "alpha"),
    nn.CELU: activation_rule(F.celu, "alpha"),
    nn.SELU: activation_rule(F.selu),
    nn.GELU: activation_rule(F.gelu, "approximate"),
    nn.SiLU: activation_rule(F.silu),
    nn.Mish: activation_rule(F.mish),
    nn.Tanh: activation_rule(torch.tanh),
    nn.Sigmoid: activation_rule(torch.sigmoid),
    nn.LogSigmoid: activation_rule(F.logsigmoid),
    nn.Softplus: activation_rule(F.softplus, "beta", "threshold"),
    nn.Softsign: activation_rule(F.softsign),
    nn.Hardtanh: activation_rule(F.hardtanh, "min_val", "max_val"),
    nn.Hardswish: activation_rule(F.hardswish),
    nn.Hardsigmoid: activation_rule(F.hardsigmoid),
    **dict.fromkeys(_MAP_LAYERS, per_channel_module),
}

_UNARY: tuple[Any, ...] = (
    torch.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, torch.tanh, torch.sigmoid,
    F.tanh, F.sigmoid, F.logsigmoid, F.softplus, F.softsign, F.hardtanh, F.hardswish, F.hardsigmoid, torch.exp,
    torch.log, torch.sqrt, torch.abs, torch.square, torch.sin, torch.cos, torch.neg, torch.rsqrt, operator.neg,
    torch.clamp, operator.abs, torch.erf, torch.log1p,
)  # fmt: skip
_BINARY: tuple[Any, ...] = (
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.pow, torch.add, torch.sub,
    torch.mul, torch.div, torch.maximum, torch.minimum, torch.pow,
)  # fmt: skip
_PER_CHANNEL: tuple[Any, ...] = (
    F.max_pool2d, torch.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.pad, F.interpolate,
    F.lp_pool2d,
)  # fmt: skip

FUNCTIONS: dict[Any, Rule] = {
    **{f: elementwise_rule(f) for f in _UNARY},
    **{f: binary_rule(f) for f in _BINARY},
    **{f: per_channel(f) for f in _PER_CHANNEL},
    F.relu: inplace_aware(torch.relu, 0),
    **{f: inplace_aware(f, 0) for f in (F.relu6, F.silu, F.mish, F.selu, F.hardswish, F.hardsigmoid)},
    **{f: inplace_aware(f, 1) for f in (F.leaky_relu, F.elu, F.celu)},
    F.hardtanh: inplace_aware(F.hardtanh, 2),
    torch.conv2d: conv2d_rule,
    F.conv2d: conv2d_rule,
    pooled_convolution: pooled_convolution_rule,
    F.linear: linear_rule,
    F.batch_norm: batch_norm_rule,
    F.group_norm: group_norm_rule,
    F.layer_norm: layer_norm_rule,
    F.scaled_dot_product_attention: attention_rule,
    F.dropout: dropout_rule(features=False),
    F.dropout2d: dropout_rule(features=True),
    torch.flatten: flatten_rule,
    torch.reshape: reshape_rule,
    torch.permute: permute_rule,
    torch.transpose: transpose_rule,
    torch.squeeze: squeeze_rule,
    torch.unsqueeze: unsqueeze_rule,
    torch.cat: cat_rule,
    torch.concat: cat_rule,
    torch.stack: stack_rule,
    **{f: chunk_rule(f) for f in (torch.chunk, torch.split)},
    **{f: reduction_rule(f) for f in (torch.mean, torch.sum, torch.amax, torch.amin)},
    **{f: along_rule(f) for f in (torch.softmax, F.softmax, torch.log_softmax, F.log_softmax)},
    **dict.fromkeys((torch.matmul, torch.bmm, operator.matmul), matmul_rule),
    operator.getitem: getitem_rule,
    getattr: getattr_rule,
    operator.iadd: binary_rule(operator.add),
    operator.isub: binary_rule(operator.sub),
    operator.imul: binary_rule(operator.mul),
    operator.itruediv: binary_rule(operator.truediv),
}


def _as_methods(names: str, suffix: str = "") -> dict[str, Rule]:
    """Return the rules of torch's functions of these names for the methods of the same names."""
    return {name + suffix: FUNCTIONS[getattr(torch, name)] for name in names.split()}


METHODS: dict[str, Rule] = {
    **_as_methods(
        "relu tanh sigmoid exp log sqrt abs square clamp neg rsqrt add sub mul div pow maximum minimum"
    ),
    **_as_methods("relu tanh sigmoid clamp add sub mul div", suffix="_"),
    **_as_methods(
        "mean sum amax amin softmax log_softmax flatten reshape permute transpose squeeze unsqueeze"
    ),
    **_as_methods("chunk split matmul bmm"),
    "view": reshape_rule,
    "unflatten": unflatten_rule,
    "size": size_rule,
    "contiguous": same_rule,
    "clone": same_rule,
}
