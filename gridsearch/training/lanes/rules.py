"""The rules of the rewrite: for each layer, function and method what it is in the K-lane form.

A rule takes the rewriter, the node, and its arguments (values where the graph has tensors), appends
instructions and returns the value of the result.

Shapes: K lanes, B batch, C/H/W channels, height, width, F features.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.training.lanes import layers
from gridsearch.training.lanes.values import DrawsNumbers, Form, NotStackable, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import fx

    from gridsearch.training.lanes.rewrite import Rewriter

    Rule = Callable[..., Any]


def apply_rule(r: Rewriter, node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Rewrite one node.

    Raises:
        NotStackable: no rule knows it, or not with these arguments.
    """
    try:
        if node.op == "call_module":
            module = r.model.get_submodule(str(node.target))
            return _module(r, node, module, args[0] if args else kwargs["input"])
        if node.op == "call_method":
            rule = METHODS.get(str(node.target))
        else:
            rule = FUNCTIONS.get(node.target)
    except (KeyError, AttributeError) as error:
        raise NotStackable(f"{node.target} cannot be looked through") from error
    if rule is None:
        name = getattr(node.target, "__name__", node.target)
        if name in _RANDOM:
            raise DrawsNumbers(f"its forward draws random numbers of its own ({name})")
        raise NotStackable(f"{name} has no stacked form")
    try:
        return rule(r, node, *args, **kwargs)
    except TypeError as error:
        raise NotStackable(f"{node.target} is called in a way that has no stacked form") from error


_RANDOM = {"rand", "randn", "rand_like", "randn_like", "randint", "randint_like", "bernoulli", "bernoulli_"}
_RANDOM |= {"multinomial", "normal", "normal_", "uniform_", "randperm", "rrelu", "gumbel_softmax", "exponential_"}
_RANDOM |= {"alpha_dropout", "feature_alpha_dropout", "fractional_max_pool2d"}


def _module(r: Rewriter, node: fx.Node, module: nn.Module, x: Value) -> Any:
    if any(h for h in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)):
        raise NotStackable(f"{node.target} has hooks")
    if isinstance(module, nn.RReLU | nn.AlphaDropout | nn.FeatureAlphaDropout | nn.FractionalMaxPool2d):
        raise DrawsNumbers(f"its {type(module).__name__} draws random numbers of its own")
    rule = MODULES.get(type(module))
    if rule is None:
        raise NotStackable(f"{type(module).__name__} has no stacked form")
    return rule(r, node, str(node.target), module, x)


def _weight(r: Rewriter, place: str, module: nn.Module, name: str) -> Value | None:
    return None if getattr(module, name, None) is None else r.weight(f"{place}.{name}")


# Convolution and dense layers


def _conv_module(r: Rewriter, node: fx.Node, place: str, m: nn.Conv2d, x: Value) -> Value:
    weight, bias = _weight(r, place, m, "weight"), _weight(r, place, m, "bias")
    padding: Any = m.padding
    if m.padding_mode != "zeros":
        sides = list(m._reversed_padding_repeated_twice)
        shape = (*x.shape[:2], x.shape[2] + sides[2] + sides[3], x.shape[3] + sides[0] + sides[1])
        x = r.emit(x.form, shape, lambda t: F.pad(t, sides, mode=m.padding_mode), r.to(x, _map_form(x)))
        padding = 0
    return _conv2d(r, node, x, weight, bias, m.stride, padding, m.dilation, m.groups)


def _map_form(x: Value) -> Form:
    return Form.SHARED if x.form is Form.SHARED else Form.PACKED


def _conv2d(
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
    _want(input.rank == 4 and isinstance(weight, Value), "a convolution without a batch")
    images = r.is_images(input)
    folds = images and padding in (0, (0, 0), "valid") and groups == 1
    if images:
        r.read_images(folds=folds)
    how = {"stride": stride, "padding": padding, "dilation": dilation}
    layer = layers.Conv(r.width, groups=groups, affine=r.affine if folds else None, **how)
    if input.form is Form.SHARED and groups == 1:
        return r.emit(Form.PACKED, r.shape_of(node), layer.shared, input, weight, bias)
    return r.emit(Form.PACKED, r.shape_of(node), layer.packed, r.to(input, Form.PACKED), weight, bias)


def _linear_module(r: Rewriter, node: fx.Node, place: str, m: nn.Linear, x: Value) -> Value:
    return _linear(r, node, x, r.weight(f"{place}.weight"), _weight(r, place, m, "bias"))


def _linear(r: Rewriter, node: fx.Node, input: Value, weight: Value, bias: Value | None = None) -> Value:  # noqa: A002
    _want(input.rank >= 2 and isinstance(weight, Value) and weight.rank == 2, "a dense layer without a batch")
    folds = r.is_images(input) and input.rank == 2
    if r.is_images(input):
        r.read_images(folds=folds)
    layer = layers.Linear(r.width, r.affine if folds else None)
    if input.form is Form.SHARED:
        return r.emit(Form.STACKED, r.shape_of(node), layer.shared, input, weight, bias)
    return r.emit(Form.STACKED, r.shape_of(node), layer.stacked, r.to(input, Form.STACKED), weight, bias)


# Normalization


def _batch_norm_module(r: Rewriter, node: fx.Node, place: str, m: nn.BatchNorm2d, x: Value) -> Value:
    mean, var = _weight(r, place, m, "running_mean"), _weight(r, place, m, "running_var")
    learns = m.training and mean is not None
    if learns:
        _want(m.momentum is not None, "batch norm with a cumulative average has no stacked form")
        counter = r.weight(f"{place}.num_batches_tracked")
        r.stage.add(lambda t: t.add_(1), counter)
    weight, bias = _weight(r, place, m, "weight"), _weight(r, place, m, "bias")
    # modules are in training mode while they are rewritten; the traced mode is the rewriter's
    return _batch_norm(
        r, node, x, mean, var, weight, bias, m.training or mean is None, m.momentum or 0.0, m.eps
    )


def _batch_norm(
    r: Rewriter,
    node: fx.Node,
    input: Value,  # noqa: A002  (torch's name)
    running_mean: Value | None,
    running_var: Value | None,
    weight: Value | None = None,
    bias: Value | None = None,
    training: bool = False,  # noqa: FBT001, FBT002  (torch's signature)
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    _note_reader(r, input)
    how = (running_mean, running_var, weight, bias, training, momentum, eps)
    if input.rank == 4:
        return r.emit(Form.PACKED, r.shape_of(node), layers.batch_norm, r.to(input, Form.PACKED), *how)
    layer = layers.BatchNormFeatures(r.width)
    return r.emit(Form.STACKED, r.shape_of(node), layer, r.to(input, Form.STACKED), *how)


def _group_norm_module(r: Rewriter, node: fx.Node, place: str, m: nn.GroupNorm, x: Value) -> Value:
    weight, bias = _weight(r, place, m, "weight"), _weight(r, place, m, "bias")
    return _group_norm(r, node, x, m.num_groups, weight, bias, m.eps)


def _group_norm(
    r: Rewriter,
    node: fx.Node,
    input: Value,  # noqa: A002  (torch's name)
    num_groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    _want(input.rank == 4, "group norm of features has no stacked form")
    _note_reader(r, input)
    layer = layers.GroupNorm(r.width, num_groups, eps)
    return r.emit(Form.PACKED, r.shape_of(node), layer, r.to(input, Form.PACKED), weight, bias)


def _layer_norm_module(r: Rewriter, node: fx.Node, place: str, m: nn.LayerNorm, x: Value) -> Value:
    weight, bias = _weight(r, place, m, "weight"), _weight(r, place, m, "bias")
    return _layer_norm(r, node, x, m.normalized_shape, weight, bias, m.eps)


def _layer_norm(
    r: Rewriter,
    node: fx.Node,
    input: Value,  # noqa: A002  (torch's name)
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    _note_reader(r, input)
    x = r.to(input, Form.STACKED)
    return r.emit(Form.STACKED, x.shape, layers.layer_norm, x, tuple(normalized_shape), weight, bias, eps)


def _note_reader(r: Rewriter, *found: Any) -> None:
    """A layer that cannot take the lanes' normalization reads the images, perhaps."""
    if any(isinstance(v, Value) and v.form is not Form.PLAIN and r.is_images(v) for v in found):
        r.read_images(folds=False)


# Maps: layers that treat each channel alone


def _per_channel(function: Callable[..., Any]) -> Rule:
    def rule(r: Rewriter, node: fx.Node, input: Value, *args: Any, **kwargs: Any) -> Value:  # noqa: A002
        _want(input.rank == 4, f"{getattr(function, '__name__', function)} of features has no stacked form")
        _want(not kwargs.get("return_indices"), "pooling with indices has no stacked form")
        _note_reader(r, input)
        form = _map_form(input)
        return r.emit(form, r.shape_of(node), lambda t: function(t, *args, **kwargs), r.to(input, form))

    return rule


def _per_channel_module(r: Rewriter, node: fx.Node, place: str, m: nn.Module, x: Value) -> Value:
    _want(not getattr(m, "return_indices", False), "pooling with indices has no stacked form")
    return _per_channel(m.forward)(r, node, x)


# Element by element


def _elementwise(function: Callable[..., Any]) -> Rule:
    def rule(r: Rewriter, node: fx.Node, input: Value, *args: Any, **kwargs: Any) -> Value:  # noqa: A002
        kwargs.pop("inplace", None)
        _want(not any(isinstance(a, Value) for a in (*args, *kwargs.values())), "values as options")
        _note_reader(r, input)
        return r.emit(input.form, input.shape, lambda t: function(t, *args, **kwargs), input)

    return rule


def _activation(function: Callable[..., Any], *options: str) -> Rule:
    def rule(r: Rewriter, node: fx.Node, place: str, m: nn.Module, x: Value) -> Value:
        kwargs = {name: getattr(m, name) for name in options}
        _note_reader(r, x)
        return r.emit(x.form, x.shape, lambda t: function(t, **kwargs), x)

    return rule


def _inplace_aware(function: Callable[..., Any], plain: int) -> Rule:
    """A functional activation whose argument number `plain` (after the tensor) is `inplace`."""
    inner = _elementwise(function)

    def rule(r: Rewriter, node: fx.Node, input: Value, *args: Any, **kwargs: Any) -> Value:  # noqa: A002
        result: Value = inner(r, node, input, *args[:plain], **kwargs)
        return result

    return rule


def _binary(function: Callable[..., Any]) -> Rule:
    def rule(r: Rewriter, node: fx.Node, input: Any, other: Any, **kwargs: Any) -> Value:  # noqa: A002
        given = [input, other]
        kinds = [v for v in given if isinstance(v, Value)]
        if all(v.form is Form.PLAIN for v in kinds):
            return r.emit(Form.PLAIN, (), function, *given)
        _note_reader(r, *given)
        tensors = [v for v in kinds if v.form is not Form.PLAIN]
        shape = r.shape_of(node)
        ready = [
            _aligned(r, v, tensors, len(shape)) if isinstance(v, Value) and v.form is not Form.PLAIN else v
            for v in given
        ]
        form = next(v.form for v in ready if isinstance(v, Value) and v.form is not Form.PLAIN)
        return r.emit(form, shape, lambda a, b: function(a, b, **kwargs), *ready)

    return rule


def _aligned(r: Rewriter, value: Value, together: list[Value], rank: int) -> Value:
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


# Dropout


def _dropout_module(r: Rewriter, node: fx.Node, place: str, m: Any, x: Value) -> Value:
    if not m.training:
        return x
    return _draw(r, x, m.p, features=isinstance(m, nn.Dropout1d | nn.Dropout2d | nn.Dropout3d), ruled=True)


def _dropout(features: bool) -> Rule:  # noqa: FBT001
    def rule(
        r: Rewriter,
        node: fx.Node,
        input: Value,  # noqa: A002  (torch's name)
        p: float = 0.5,
        training: bool = True,  # noqa: FBT001, FBT002  (torch's signature)
        inplace: bool = False,  # noqa: FBT001, FBT002
    ) -> Value:
        return _draw(r, input, p, features=features, ruled=False) if training else input

    return rule


def _draw(r: Rewriter, x: Value, rate: float, *, features: bool, ruled: bool) -> Value:
    if not r.training:
        raise DrawsNumbers("its forward drops values in evaluation too")
    _want(not features or x.rank == 4, "dropping channels of features has no stacked form")
    _note_reader(r, x)
    r.draws_masks = True
    form = Form.PACKED if x.rank == 4 else Form.STACKED
    layer = layers.Dropout(r.draws, rate, features=features, ruled=ruled, packed=form is Form.PACKED)
    return r.emit(form, x.shape, layer, r.to(x, form))


# Shapes


def _shifted(dim: int, rank: int) -> int:
    """A lane's dimension, among [K, ...]."""
    _want(-rank <= dim < rank, "a dimension that is not there")
    return dim % rank + 1


def _shifted_all(dims: Any, rank: int) -> Any:
    if dims is None:
        return tuple(range(1, rank + 1))
    return _shifted(dims, rank) if isinstance(dims, int) else tuple(_shifted(d, rank) for d in dims)


def _along(function: Callable[..., Any]) -> Rule:
    """A function of a tensor and one dimension, that keeps the shape or not."""

    def rule(r: Rewriter, node: fx.Node, input: Value, dim: int, **kwargs: Any) -> Value:  # noqa: A002
        kwargs.pop("_stacklevel", None)
        _note_reader(r, input)
        if input.form is Form.SHARED:
            return r.emit(Form.SHARED, r.shape_of(node), lambda t: function(t, dim, **kwargs), input)
        _want(isinstance(dim, int), "a dimension that is not settled")
        place, x = _shifted(dim, input.rank), r.to(input, Form.STACKED)
        return r.emit(Form.STACKED, r.shape_of(node), lambda t: function(t, place, **kwargs), x)

    return rule


def _along_module(function: Callable[..., Any]) -> Rule:
    inner = _along(function)

    def rule(r: Rewriter, node: fx.Node, place: str, m: Any, x: Value) -> Value:
        _want(m.dim is not None, "a softmax without its dimension has no stacked form")
        result: Value = inner(r, node, x, m.dim)
        return result

    return rule


def _reduction(function: Callable[..., Any]) -> Rule:
    def rule(
        r: Rewriter,
        node: fx.Node,
        input: Value,  # noqa: A002  (torch's name)
        dim: Any = None,
        keepdim: bool = False,  # noqa: FBT001, FBT002  (torch's signature)
    ) -> Value:
        _note_reader(r, input)
        shape = r.shape_of(node)
        dims = (dim,) if isinstance(dim, int) else None if dim is None else tuple(dim)
        if input.form is Form.SHARED:
            how = {} if dims is None else {"dim": dims, "keepdim": keepdim}
            return r.emit(Form.SHARED, shape, lambda t: function(t, **how), input)
        if input.form is Form.PACKED and dims is not None:
            apart = tuple(_shifted(d, 4) - 1 for d in dims)
            if 1 not in apart and (keepdim or len(apart) <= 2):
                _want(keepdim or 0 not in apart, "a mean over the batch has no stacked form")
                layer = layers.PackedMean(r.width, function, apart, keepdim=keepdim)
                return r.emit(Form.PACKED if keepdim else Form.STACKED, shape, layer, input)
        places = _shifted_all(dims, input.rank)
        x = r.to(input, Form.STACKED)
        return r.emit(Form.STACKED, shape, lambda t: function(t, dim=places, keepdim=keepdim), x)

    return rule


def _flatten_module(r: Rewriter, node: fx.Node, place: str, m: nn.Flatten, x: Value) -> Value:
    return _flatten(r, node, x, m.start_dim, m.end_dim)


def _flatten(r: Rewriter, node: fx.Node, input: Value, start_dim: int = 0, end_dim: int = -1) -> Value:  # noqa: A002
    shape = r.shape_of(node)
    start, end = _shifted(start_dim, input.rank), _shifted(end_dim, input.rank)
    if input.form is Form.SHARED:
        flat = r.emit(Form.SHARED, shape, lambda t: t.flatten(start - 1, end - 1), input)
        return _kept_images(r, input, flat)
    if input.form is Form.PACKED and (start, end) == (2, 4):
        return _kept_images(r, input, r.emit(Form.STACKED, shape, layers.Flatten(r.width), input))
    return r.emit(Form.STACKED, shape, lambda t: t.flatten(start, end), r.to(input, Form.STACKED))


def _kept_images(r: Rewriter, before: Value, after: Value) -> Value:
    """The images are still the images when each is one row of numbers, channel by channel."""
    if r.is_images(before):
        if after.rank == 2 and after.shape[0] == before.shape[0]:
            r.mark_flat_images(after)
        else:
            r.read_images(folds=False)
    return after


def _reshape(r: Rewriter, node: fx.Node, input: Value, *sizes: Any, **kwargs: Any) -> Value:  # noqa: A002
    _want(not kwargs, "a view as another type")
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = tuple(sizes[0])
    elif len(sizes) == 1 and isinstance(sizes[0], Value):
        raise NotStackable("a view with a computed shape has no stacked form")
    _want(not any(isinstance(s, torch.dtype) for s in sizes), "a view as another type")
    shape = r.shape_of(node)
    if input.form is Form.SHARED:
        return _kept_images(r, input, r.emit(Form.SHARED, shape, lambda t, *s: t.reshape(s), input, *sizes))
    if input.form is Form.PACKED and len(shape) == 2 and shape[0] == input.shape[0]:
        return _kept_images(r, input, r.emit(Form.STACKED, shape, layers.Flatten(r.width), input))
    x = r.to(input, Form.STACKED)
    return r.emit(Form.STACKED, shape, lambda t, *s: t.reshape(t.shape[0], *s), x, *sizes)


def _unflatten(r: Rewriter, node: fx.Node, input: Value, dim: int, sizes: Sequence[int]) -> Value:  # noqa: A002
    _note_reader(r, input)
    place, x = _shifted(dim, input.rank), r.to(input, Form.STACKED)
    return r.emit(Form.STACKED, r.shape_of(node), lambda t: t.unflatten(place, tuple(sizes)), x)


def _unflatten_module(r: Rewriter, node: fx.Node, place: str, m: Any, x: Value) -> Value:
    return _unflatten(r, node, x, m.dim, m.unflattened_size)


def _permute(r: Rewriter, node: fx.Node, input: Value, *dims: Any) -> Value:  # noqa: A002
    if len(dims) == 1 and isinstance(dims[0], tuple | list):
        dims = tuple(dims[0])
    _note_reader(r, input)
    places, x = (0, *_shifted_all(dims, input.rank)), r.to(input, Form.STACKED)
    return r.emit(Form.STACKED, r.shape_of(node), lambda t: t.permute(places), x)


def _transpose(r: Rewriter, node: fx.Node, input: Value, dim0: int, dim1: int) -> Value:  # noqa: A002
    _note_reader(r, input)
    first, second = _shifted(dim0, input.rank), _shifted(dim1, input.rank)
    x = r.to(input, Form.STACKED)
    return r.emit(Form.STACKED, r.shape_of(node), lambda t: t.transpose(first, second), x)


def _squeeze(r: Rewriter, node: fx.Node, input: Value, dim: Any = None) -> Value:  # noqa: A002
    _want(dim is not None, "a squeeze of whatever is 1 has no stacked form")
    _note_reader(r, input)
    places, x = _shifted_all(dim, input.rank), r.to(input, Form.STACKED)
    return r.emit(Form.STACKED, r.shape_of(node), lambda t: t.squeeze(places), x)


def _unsqueeze(r: Rewriter, node: fx.Node, input: Value, dim: int) -> Value:  # noqa: A002
    _note_reader(r, input)
    place, x = _shifted(dim, input.rank + 1), r.to(input, Form.STACKED)
    return r.emit(Form.STACKED, r.shape_of(node), lambda t: t.unsqueeze(place), x)


def _cat(r: Rewriter, node: fx.Node, tensors: Sequence[Value], dim: int = 0, axis: int | None = None) -> Value:
    dim = dim if axis is None else axis
    _note_reader(r, *tensors)
    shape = r.shape_of(node)
    if all(t.form is Form.SHARED for t in tensors):
        return r.emit(Form.SHARED, shape, lambda *each: torch.cat(each, dim), *tensors)
    if all(t.rank == 4 for t in tensors):
        layer = layers.PackedCat(r.width, dim % 4)
        return r.emit(Form.PACKED, shape, layer, *[r.to(t, Form.PACKED) for t in tensors])
    place = _shifted(dim, len(shape))
    stacked = [r.to(t, Form.STACKED) for t in tensors]
    return r.emit(Form.STACKED, shape, lambda *each: torch.cat(each, place), *stacked)


def _stack(r: Rewriter, node: fx.Node, tensors: Sequence[Value], dim: int = 0) -> Value:
    _note_reader(r, *tensors)
    place = _shifted(dim, tensors[0].rank + 1)
    stacked = [r.to(t, Form.STACKED) for t in tensors]
    return r.emit(Form.STACKED, r.shape_of(node), lambda *each: torch.stack(each, place), *stacked)


def _chunk(function: Callable[..., Any]) -> Rule:
    def rule(r: Rewriter, node: fx.Node, input: Value, sizes: Any, dim: int = 0) -> list[Value]:  # noqa: A002
        _note_reader(r, input)
        place, x = _shifted(dim, input.rank), r.to(input, Form.STACKED)
        shape = list(x.shape)
        side = shape.pop(dim % input.rank)
        parts = function(torch.empty(side, device="meta"), sizes, 0)
        whole = r.emit(Form.PLAIN, (), lambda t: function(t, sizes, place), x)
        found = []
        for i, part in enumerate(parts):
            own = [*shape[: place - 1], len(part), *shape[place - 1 :]]
            found.append(r.emit(Form.STACKED, tuple(own), operator.itemgetter(i), whole))
        return found

    return rule


def _getitem(r: Rewriter, node: fx.Node, input: Any, index: Any) -> Any:  # noqa: A002
    if isinstance(input, tuple | list):
        return input[index]
    if input.form is Form.PLAIN:
        return r.emit(Form.PLAIN, (), operator.getitem, input, index)
    parts = index if isinstance(index, tuple) else (index,)
    simple = all(isinstance(p, int | slice | None) or p is Ellipsis for p in parts)
    _want(simple and not any(isinstance(p, Value) for p in parts), "an index that is computed")
    for part in parts:
        if isinstance(part, slice):
            _want(not any(isinstance(v, Value) for v in (part.start, part.stop, part.step)), "a computed slice")
    _note_reader(r, input)
    x = r.to(input, Form.STACKED)
    return r.emit(Form.STACKED, r.shape_of(node), lambda t: t[(slice(None), *parts)], x)


def _size(r: Rewriter, node: fx.Node, input: Value, dim: int | None = None) -> Value:  # noqa: A002
    width, form = r.width, input.form

    def size(t: torch.Tensor) -> Any:
        if form is Form.PACKED:
            found: tuple[int, ...] = (t.shape[0], t.shape[1] // width.lanes, *t.shape[2:])
        else:
            found = tuple(t.shape[1:] if form is Form.STACKED else t.shape)
        return found if dim is None else found[dim]

    return r.emit(Form.PLAIN, (), size, input)


def _getattr(r: Rewriter, node: fx.Node, input: Value, name: str) -> Any:  # noqa: A002
    if name == "shape":
        return _size(r, node, input)
    if name == "ndim":
        return input.rank
    raise NotStackable(f"the attribute {name} of a tensor has no stacked form")


def _same(r: Rewriter, node: fx.Node, input: Value, *args: Any, **kwargs: Any) -> Value:  # noqa: A002
    """What changes the memory layout alone."""
    return input


def _identity(r: Rewriter, node: fx.Node, place: str, m: nn.Module, x: Value) -> Value:
    return x


def _matmul(r: Rewriter, node: fx.Node, input: Value, other: Value) -> Value:  # noqa: A002
    _want(input.rank >= 2 and other.rank >= 2, "a product with a vector has no stacked form")
    _note_reader(r, input, other)
    rank = max(input.rank, other.rank)
    stacked = [_aligned(r, v, [Value(0, Form.STACKED, ())], rank) for v in (input, other)]
    return r.emit(Form.STACKED, r.shape_of(node), torch.matmul, *stacked)


def _want(condition: bool, what: str) -> None:  # noqa: FBT001
    if not condition:
        raise NotStackable(what)


# The tables

MODULES: dict[type[nn.Module], Rule] = {
    nn.Conv2d: _conv_module,
    nn.Linear: _linear_module,
    nn.BatchNorm1d: _batch_norm_module,
    nn.BatchNorm2d: _batch_norm_module,
    nn.GroupNorm: _group_norm_module,
    nn.LayerNorm: _layer_norm_module,
    nn.Dropout: _dropout_module,
    nn.Dropout2d: _dropout_module,
    nn.Identity: _identity,
    nn.Flatten: _flatten_module,
    nn.Unflatten: _unflatten_module,
    nn.Softmax: _along_module(F.softmax),
    nn.LogSoftmax: _along_module(F.log_softmax),
    nn.ReLU: _activation(torch.relu),
    nn.ReLU6: _activation(F.relu6),
    nn.LeakyReLU: _activation(F.leaky_relu, "negative_slope"),
    nn.ELU: _activation(F.elu, "alpha"),
    nn.CELU: _activation(F.celu, "alpha"),
    nn.SELU: _activation(F.selu),
    nn.GELU: _activation(F.gelu, "approximate"),
    nn.SiLU: _activation(F.silu),
    nn.Mish: _activation(F.mish),
    nn.Tanh: _activation(torch.tanh),
    nn.Sigmoid: _activation(torch.sigmoid),
    nn.LogSigmoid: _activation(F.logsigmoid),
    nn.Softplus: _activation(F.softplus, "beta", "threshold"),
    nn.Softsign: _activation(F.softsign),
    nn.Hardtanh: _activation(F.hardtanh, "min_val", "max_val"),
    nn.Hardswish: _activation(F.hardswish),
    nn.Hardsigmoid: _activation(F.hardsigmoid),
    nn.MaxPool2d: _per_channel_module,
    nn.AvgPool2d: _per_channel_module,
    nn.LPPool2d: _per_channel_module,
    nn.AdaptiveAvgPool2d: _per_channel_module,
    nn.AdaptiveMaxPool2d: _per_channel_module,
    nn.ZeroPad2d: _per_channel_module,
    nn.ReflectionPad2d: _per_channel_module,
    nn.ReplicationPad2d: _per_channel_module,
    nn.ConstantPad2d: _per_channel_module,
    nn.Upsample: _per_channel_module,
}

_UNARY: tuple[Any, ...] = (
    torch.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, torch.tanh, torch.sigmoid,
    F.tanh, F.sigmoid, F.logsigmoid, F.softplus, F.softsign, F.hardtanh, F.hardswish, F.hardsigmoid, torch.exp,
    torch.log, torch.sqrt, torch.abs, torch.square, torch.sin, torch.cos, torch.neg, torch.rsqrt, operator.neg,
    torch.clamp, operator.abs, torch.erf, torch.log1p,
)  # fmt: skip

FUNCTIONS: dict[Any, Rule] = {
    **{f: _elementwise(f) for f in _UNARY},
    F.relu: _inplace_aware(torch.relu, 0),
    F.relu6: _inplace_aware(F.relu6, 0),
    F.silu: _inplace_aware(F.silu, 0),
    F.mish: _inplace_aware(F.mish, 0),
    F.selu: _inplace_aware(F.selu, 0),
    F.leaky_relu: _inplace_aware(F.leaky_relu, 1),
    F.elu: _inplace_aware(F.elu, 1),
    F.celu: _inplace_aware(F.celu, 1),
    F.hardtanh: _inplace_aware(F.hardtanh, 2),
    F.hardswish: _inplace_aware(F.hardswish, 0),
    F.hardsigmoid: _inplace_aware(F.hardsigmoid, 0),
    torch.conv2d: _conv2d,
    F.conv2d: _conv2d,
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    F.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
    F.dropout: _dropout(features=False),
    F.dropout2d: _dropout(features=True),
    torch.flatten: _flatten,
    torch.reshape: _reshape,
    torch.permute: _permute,
    torch.transpose: _transpose,
    torch.squeeze: _squeeze,
    torch.unsqueeze: _unsqueeze,
    torch.cat: _cat,
    torch.concat: _cat,
    torch.stack: _stack,
    torch.chunk: _chunk(torch.chunk),
    torch.split: _chunk(torch.split),
    torch.mean: _reduction(torch.mean),
    torch.sum: _reduction(torch.sum),
    torch.amax: _reduction(torch.amax),
    torch.amin: _reduction(torch.amin),
    torch.softmax: _along(torch.softmax),
    F.softmax: _along(F.softmax),
    torch.log_softmax: _along(torch.log_softmax),
    F.log_softmax: _along(F.log_softmax),
    torch.matmul: _matmul,
    torch.bmm: _matmul,
    operator.matmul: _matmul,
    operator.getitem: _getitem,
    getattr: _getattr,
    **{f: _per_channel(f) for f in (F.max_pool2d, torch.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d)},
    **{f: _per_channel(f) for f in (F.adaptive_max_pool2d, F.pad, F.interpolate, F.lp_pool2d)},
    **{f: _binary(f) for f in (operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv)},
    **{f: _binary(f) for f in (torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum)},
    **{f: _binary(f) for f in (operator.pow, torch.pow)},
    operator.iadd: _binary(operator.add),
    operator.isub: _binary(operator.sub),
    operator.imul: _binary(operator.mul),
    operator.itruediv: _binary(operator.truediv),
}

METHODS: dict[str, Rule] = {
    **{name: _elementwise(getattr(torch, name)) for name in ("relu", "tanh", "sigmoid", "exp", "log", "sqrt")},
    **{name: _elementwise(getattr(torch, name)) for name in ("abs", "square", "clamp", "neg", "rsqrt")},
    **{f"{name}_": _elementwise(getattr(torch, name)) for name in ("relu", "tanh", "sigmoid", "clamp")},
    **{name: _binary(getattr(torch, name)) for name in ("add", "sub", "mul", "div", "pow", "maximum", "minimum")},
    **{f"{name}_": _binary(getattr(torch, name)) for name in ("add", "sub", "mul", "div")},
    "mean": _reduction(torch.mean),
    "sum": _reduction(torch.sum),
    "amax": _reduction(torch.amax),
    "amin": _reduction(torch.amin),
    "softmax": _along(torch.softmax),
    "log_softmax": _along(torch.log_softmax),
    "flatten": _flatten,
    "view": _reshape,
    "reshape": _reshape,
    "unflatten": _unflatten,
    "permute": _permute,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "chunk": _chunk(torch.chunk),
    "split": _chunk(torch.split),
    "matmul": _matmul,
    "bmm": _matmul,
    "size": _size,
    "contiguous": _same,
    "clone": _same,
}
