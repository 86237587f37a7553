"""What each function and method of a traced graph is as stages, and the whole network with them.

Stands between the step plan and `stage_reader`.  What only moves numbers is called with their codes; arithmetic becomes
stages.

Shapes: B batch.
"""
# ruff: noqa: A002, ARG001  (torch's argument names; all of a kind are called alike)

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import fx, nn
from torch.utils import _pytree as pytree

from gridsearch.training.kernels.stages import Activation, Curve
from gridsearch.training.lanes.compile import stage_attention, stage_layers, stage_numbers
from gridsearch.training.lanes.compile.row_drops import row_drop
from gridsearch.training.lanes.compile.stage_reader import StageReader
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.training.lanes.compile.lane_values import Order
    from gridsearch.training.lanes.compile.step_graph import StepGraph
    from gridsearch.training.lanes.compile.tracing import Found, Traced


def step_graph(
    model: nn.Module,
    traced: Traced,
    found: Found,
    orders: Mapping[str, Sequence[Order]],
    *,
    training: bool,
) -> StepGraph:
    """Return a traced network as stages.

    Args:
        model: the module that was traced.
        traced: its graph in one mode.
        found: what a sample has shown of it in this mode.
        orders: of each node's inputs, where a lone lane trains, by its name.
        training: the mode.

    Raises:
        NoPlan: it has what is no stage.
    """
    r = StageReader(model, found, stage_layers.layer, training=training)
    for node in traced.graph.nodes:
        r.order = next(iter(orders.get(node.name, ())), ())
        match node.op:
            case "placeholder":
                r.read_images(node)
            case "get_attr":
                r.read_tensor(node)
            case "call_module":
                _store(r, node, _module(r, node))
            case "call_function" | "call_method":
                _call(r, node)
            case "output":
                r.close(r.values.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None)
    return r.result()


def _module(r: StageReader, node: fx.Node) -> Any:
    module = r.model.get_submodule(str(node.target))
    args, kwargs = _given(r, node)
    names = {"query": 0, "key": 1, "value": 2, "input": 0, "src": 0}
    kwargs.pop("need_weights", None)
    given = list(args) + [None] * 3
    for name, value in kwargs.items():
        if name not in names:
            if value is not None and value is not False:
                raise NoPlan(f"{type(module).__name__} with options")
            continue
        given[names[name]] = value
    while given and given[-1] is None:
        given.pop()
    if not given:
        raise NoPlan(f"{node.target} of nothing")
    return r.layer(str(node.target), module, *given)


def _given(r: StageReader, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a node's arguments: codes for activations, and what a sample has shown for all else."""

    def known(one: fx.Node) -> Any:
        return r.values[one] if one in r.values else r.found.results[one]

    return tuple(fx.node.map_arg(node.args, known)), dict(fx.node.map_arg(node.kwargs, known))


def _store(r: StageReader, node: fx.Node, result: Any) -> None:
    if isinstance(result, torch.Tensor):
        r.set(node, result)
    else:
        r.values[node] = tuple(result)


def _call(r: StageReader, node: fx.Node) -> None:
    """Take in a function or a method."""
    if not any(one in r.values for one in node.all_input_nodes) or _is_of_sizes(r, node):
        return  # where it is used, what a sample has shown is enough
    args, kwargs = _given(r, node)
    target, name = node.target, getattr(node.target, "__name__", str(node.target))
    if any(t.is_meta for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)):
        raise NoPlan(f"{name} of a tensor that is no activation")
    if node.op == "call_method" and target in _MOVING_METHODS:
        _store(r, node, getattr(args[0], str(target))(*args[1:], **kwargs))
    elif target in _MOVES:
        _store(r, node, target(*args, **kwargs))
    elif (call := _CALLS.get(target) or _of_torchvision(target)) is not None:
        try:
            result = call(r, *args, **kwargs)
        except TypeError as error:
            raise NoPlan(f"{name} with options") from error
        _store(r, node, result)
    else:
        raise NoPlan(name)


def _of_torchvision(target: Any) -> Callable[..., Any] | None:
    """Return what takes in a function of torchvision, which is not imported here."""
    where = f"{getattr(target, '__module__', '')}.{getattr(target, '__name__', '')}"
    return _stochastic_depth if where == "torchvision.ops.stochastic_depth.stochastic_depth" else None


def _is_of_sizes(r: StageReader, node: fx.Node) -> bool:
    """Whether a node gives no tensor: a shape, or what is made of one."""
    leaves = pytree.tree_leaves(r.found.results[node])
    return not any(isinstance(leaf, torch.Tensor) for leaf in leaves)


# Functions, each with torch's own arguments


def _each(stage: Any) -> Callable[..., torch.Tensor]:
    def call(r: StageReader, input: torch.Tensor, inplace: bool = False) -> torch.Tensor:
        return stage_numbers.each(r, input, stage)

    return call


def _as_module(kind: Callable[..., nn.Module]) -> Callable[..., torch.Tensor]:
    """Return the function of a layer without parameters: it takes what the layer does, after the input."""

    def call(r: StageReader, input: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return r.layer("", kind(*args, **kwargs), input)

    return call


def _sum(r: StageReader, a: Any, b: Any) -> torch.Tensor:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return stage_numbers.add(r, a, b)
    codes, number = (a, b) if isinstance(a, torch.Tensor) else (b, a)
    return stage_numbers.affine(r, codes, 1.0, number)


def _difference(r: StageReader, a: Any, b: Any) -> torch.Tensor:
    if not isinstance(b, torch.Tensor):
        return stage_numbers.affine(r, a, 1.0, -b)
    if not isinstance(a, torch.Tensor):
        return stage_numbers.affine(r, b, -1.0, a)
    return stage_numbers.add(r, a, stage_numbers.affine(r, b, -1.0, 0.0))


def _product(r: StageReader, a: Any, b: Any) -> torch.Tensor:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return stage_numbers.multiply(r, a, b)
    codes, number = (a, b) if isinstance(a, torch.Tensor) else (b, a)
    return stage_numbers.affine(r, codes, number, 0.0)


def _quotient(r: StageReader, a: torch.Tensor, b: Any) -> torch.Tensor:
    if isinstance(b, torch.Tensor) or not isinstance(a, torch.Tensor):
        raise NoPlan("a division by an activation")
    return stage_numbers.affine(r, a, 1 / b, 0.0)


def _negative(r: StageReader, a: torch.Tensor) -> torch.Tensor:
    return stage_numbers.affine(r, a, -1.0, 0.0)


def _gelu(r: StageReader, input: torch.Tensor, approximate: str = "none") -> Any:
    return r.layer("", nn.GELU(approximate), input)


def _leaky(r: StageReader, input: torch.Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    return r.layer("", nn.LeakyReLU(negative_slope), input)


def _elu(r: StageReader, input: torch.Tensor, alpha: float = 1.0, inplace: bool = False) -> Any:
    return r.layer("", nn.ELU(alpha), input)


def _mean(r: StageReader, input: torch.Tensor, dim: Any = None, keepdim: bool = False) -> torch.Tensor:
    dims = (dim,) if isinstance(dim, int) else tuple(dim or ())
    return stage_numbers.mean(r, input, dims, keeps=keepdim)


def _adaptive(r: StageReader, input: torch.Tensor, output_size: Any) -> torch.Tensor:
    return stage_layers.adaptive_mean(r, input, output_size)


def _linear(r: StageReader, input: torch.Tensor, weight: Any, bias: Any = None) -> torch.Tensor:
    outputs, inputs = weight.shape
    return stage_numbers.dense(r, input, inputs, outputs, (r.parameter(weight), r.parameter(bias)))


def _layer_norm(
    r: StageReader,
    input: torch.Tensor,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    return stage_layers.layer_norm(r, input, normalized_shape, eps, (r.parameter(weight), r.parameter(bias)))


def _group_norm(
    r: StageReader,
    input: torch.Tensor,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    return stage_layers.group_norm(r, input, num_groups, eps, (r.parameter(weight), r.parameter(bias)))


def _dropout(features: bool) -> Callable[..., torch.Tensor]:
    def call(
        r: StageReader, input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        del inplace
        if training and not r.training:
            raise NoPlan("dropout in evaluation")
        # in evaluation the same layers must be found, for which it must be there too
        if r.training and not training:
            return input
        if features:
            return stage_layers.channel_dropout(r, input, p, from_recipe=False)
        return stage_numbers.dropout(r, input, p, r.order, from_recipe=False)

    return call


def _max_pool(r: StageReader, input: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    kwargs.pop("return_indices", None)
    return r.layer("", nn.MaxPool2d(*args[:3], **_pooling(args, kwargs)), input)


def _mean_pool(r: StageReader, input: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    return r.layer("", nn.AvgPool2d(*args[:3], **_pooling(args, kwargs)), input)


def _pooling(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    if len(args) > 3 or set(kwargs) - {"kernel_size", "stride", "padding", "ceil_mode", "dilation"}:
        raise NoPlan("pooling with options")
    return kwargs


def _softmax(
    r: StageReader, input: torch.Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: None = None
) -> torch.Tensor:
    if dtype is not None:
        raise NoPlan("softmax of another type")
    return stage_attention.softmax(r, input, dim)


def _attention(
    r: StageReader,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> torch.Tensor:
    if attn_mask is not None or is_causal or query.dim() < 3:
        raise NoPlan("masked attention")
    return stage_attention.attention(r, query, key, value, scale=scale, rate=dropout_p)


def _stochastic_depth(
    r: StageReader, input: torch.Tensor, p: float, mode: str, training: bool = True
) -> torch.Tensor:
    if p == 0 or mode != "row":
        if p == 0:
            return input
        raise NoPlan("stochastic depth of batches")
    if training and not r.training:
        raise NoPlan("stochastic depth in evaluation")
    return stage_numbers.dropout(r, input, p, from_recipe=False, whole=-1)


def _row_drop(r: StageReader, input: torch.Tensor, keep: float) -> torch.Tensor:
    return _stochastic_depth(r, input, 1 - keep, "row")


_MOVING_METHODS = {
    *("view", "reshape", "flatten", "unflatten", "transpose", "permute", "swapaxes", "swapdims", "movedim"),
    *("t", "mT", "chunk", "split", "unbind", "select", "narrow", "squeeze", "unsqueeze", "expand"),
    *("expand_as", "view_as", "reshape_as", "repeat", "tile", "roll", "flip", "contiguous", "clone"),
}
_MOVES = {
    *(operator.getitem, getattr, torch.cat, torch.concat, torch.stack, torch.flatten, torch.unflatten),
    *(torch.reshape, torch.transpose, torch.permute, torch.swapaxes, torch.movedim, torch.chunk),
    *(torch.split, torch.unbind, torch.select, torch.narrow, torch.squeeze, torch.unsqueeze, torch.roll),
    *(torch.flip, torch.tile, torch.pixel_shuffle, torch.pixel_unshuffle, torch.channel_shuffle),
    *(F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle, torch.broadcast_to, torch.clone),
}
"""What only moves numbers: it moves codes too."""

_CALLS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((F.relu, torch.relu, "relu", "relu_", F.relu_), _as_module(lambda *_, **__: nn.ReLU())),
    **dict.fromkeys((F.relu6,), _each(Activation(Curve.RELU6))),
    F.hardsigmoid: _each(Activation(Curve.HARDSIGMOID)),
    F.hardswish: _each(Activation(Curve.HARDSWISH)),
    **dict.fromkeys((F.silu,), _each(Activation(Curve.SILU))),
    F.mish: _each(Activation(Curve.MISH)),
    **dict.fromkeys((F.sigmoid, torch.sigmoid, "sigmoid"), _each(Activation(Curve.SIGMOID))),
    **dict.fromkeys((F.tanh, torch.tanh, "tanh"), _each(Activation(Curve.TANH))),
    F.gelu: _gelu,
    F.leaky_relu: _leaky,
    F.elu: _elu,
    F.selu: _as_module(lambda *_, **__: nn.SELU()),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _sum),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), _difference),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), _product),
    **dict.fromkeys((operator.truediv, torch.div, "div"), _quotient),
    **dict.fromkeys((operator.neg, torch.neg, "neg"), _negative),
    **dict.fromkeys((operator.matmul, torch.matmul, torch.bmm, "matmul", "bmm"), stage_attention.product),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), _max_pool),
    F.avg_pool2d: _mean_pool,
    **dict.fromkeys(("mean", torch.mean), _mean),
    **dict.fromkeys((F.adaptive_avg_pool2d, F.adaptive_avg_pool1d), _adaptive),
    F.dropout: _dropout(features=False),
    F.dropout2d: _dropout(features=True),
    row_drop: _row_drop,
    **dict.fromkeys((F.softmax, torch.softmax, "softmax"), _softmax),
    F.scaled_dot_product_attention: _attention,
    F.linear: _linear,
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
}
"""What takes in a function or a method."""
