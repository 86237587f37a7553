"""A traced network as stages: what compiled operations can be chosen for, whatever a model calls its layers.

Stands between torch.fx and the step plan.  A network with anything that is no stage has no plan, which is no error: it
trains as before.

Shapes: B batch, C/H/W channels, height, width, F features.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import fx, nn

from gridsearch.training.kernels.op import INPUTS
from gridsearch.training.kernels.stages import (
    Activation,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Curve,
    Dropout,
    Flatten,
    Gate,
    GlobalMean,
    LeakyRelu,
    Linear,
    MaxPool,
    Relu,
    shape_after,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.training.kernels.stages import Pair, Shape, Stage


class NoPlan(Exception):
    """A network has no step plan; the message says why."""


@dataclass(frozen=True, slots=True)
class Node:
    """A stage in its place in the network.

    Attributes:
        stage: what it does.
        inputs: the values that it takes: 0 for the images, n for the result of the n-th node.
        shape: of one image of its result.
        params: names of its parameters, in the order that operations take them; None for one that it has not.
        buffers: likewise of its buffers.
        counter: name of its count of batches.
    """

    stage: Stage
    inputs: tuple[int, ...]
    shape: Shape
    params: tuple[str | None, ...] = ()
    buffers: tuple[str, ...] = ()
    counter: str | None = None


@dataclass(frozen=True, slots=True)
class StepGraph:
    """A network as nodes, in the order in which they run; the last one's result are the logits.

    Attributes:
        image: shape of one image [C, H, W].
        nodes: all of them.
    """

    image: Shape
    nodes: tuple[Node, ...]

    def shape(self, value: int) -> Shape:
        """Return one image's shape of a value."""
        return self.nodes[value - 1].shape if value else self.image

    def readers(self, value: int) -> list[int]:
        """Return the numbers of the nodes that take a value."""
        return [n for n, node in enumerate(self.nodes, 1) if value in node.inputs]

    def in_evaluation(self) -> StepGraph:
        """Return the network without dropout."""
        renamed: dict[int, int] = {0: 0}
        kept: list[Node] = []
        for n, node in enumerate(self.nodes, 1):
            if isinstance(node.stage, Dropout):
                renamed[n] = renamed[node.inputs[0]]
                continue
            kept.append(replace(node, inputs=tuple(renamed[i] for i in node.inputs)))
            renamed[n] = len(kept)
        return StepGraph(self.image, tuple(kept))


def step_graph(
    model: nn.Module, traced: fx.Graph, shapes: Mapping[fx.Node, Any], *, training: bool
) -> StepGraph:
    """Return a traced network as stages.

    Args:
        model: the module that was traced.
        traced: its graph in one mode.
        shapes: of each node's result, for some images.
        training: the mode.

    Raises:
        NoPlan: it has what is no stage.
    """
    reader = _Reader(model, shapes, training=training)
    for node in traced.nodes:
        reader.read(node)
    return reader.finish()


class _Reader:
    """Goes through a traced graph and collects its stages."""

    def __init__(self, model: nn.Module, shapes: Mapping[fx.Node, Any], *, training: bool) -> None:
        self._model, self._shapes, self._training = model, shapes, training
        self._nodes: list[Node] = []
        self._values: dict[fx.Node, int] = {}  # of the nodes that are activations
        self._one_pixel: set[int] = set()  # values [C] that torch has as maps [C, 1, 1]
        self._image: Shape = ()
        self._dropouts = 0

    def read(self, node: fx.Node) -> None:
        """Take in the next node.

        Raises:
            NoPlan: it is no stage.
        """
        match node.op:
            case "placeholder":
                if self._values:
                    raise NoPlan("a forward of several arguments")
                self._image = tuple(self._shapes[node][1:])
                self._values[node] = 0
            case "output":
                if self._values.get(node.args[0]) != len(self._nodes) or not self._nodes:  # type: ignore[arg-type]
                    raise NoPlan("a result that is not the last layer's")
            case "call_module":
                self._module(node, self._model.get_submodule(str(node.target)))
            case "call_function" | "call_method":
                self._call(node)
            case _:
                raise NoPlan(f"{node.target}")

    def finish(self) -> StepGraph:
        """Return the network.

        Raises:
            NoPlan: a result has another shape than its stage says.
        """
        graph = StepGraph(self._image, tuple(self._nodes))
        if not all(graph.readers(n) for n in range(1, len(self._nodes))):
            raise NoPlan("a result that nothing reads")
        return graph

    def _shape(self, value: int) -> Shape:
        return self._nodes[value - 1].shape if value else self._image

    def _add(self, node: fx.Node, stage: Stage, *inputs: int, **rest: Any) -> None:
        shape = shape_after(stage, self._shape(inputs[0]))
        found = tuple(self._shapes[node][1:])
        one_pixel = isinstance(stage, GlobalMean) or inputs[0] in self._one_pixel
        if found != shape and not (one_pixel and found == (*shape, 1, 1)):
            raise NoPlan(f"{node.target} gives {found}")
        self._nodes.append(Node(stage, inputs, shape, **rest))
        self._values[node] = len(self._nodes)
        if found != shape:
            self._one_pixel.add(len(self._nodes))

    def _same(self, node: fx.Node, value: int) -> None:
        self._values[node] = value

    def _input(self, node: fx.Node) -> int:
        first = node.args[0] if node.args else node.kwargs.get("input")
        if not isinstance(first, fx.Node) or first not in self._values:
            raise NoPlan(f"{node.target} of what is no activation")
        return self._values[first]

    def _module(self, node: fx.Node, m: Any) -> None:
        """Take in a layer."""
        x = self._input(node)
        match type(m):
            case nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.BatchNorm1d:
                self._weighted(node, x, m)
            case nn.ReLU:
                self._add(node, Relu(), x)
            case nn.LeakyReLU:
                self._leaky(node, x, m.negative_slope)
            case nn.ReLU6 | nn.Hardsigmoid | nn.Hardswish:
                self._add(node, Activation(Curve(type(m).__name__.lower())), x)
            case nn.MaxPool2d | nn.AvgPool2d:
                self._add(node, _pool(m), x)
            case nn.AdaptiveAvgPool2d:
                self._global_mean(node, x, m.output_size)
            case nn.Flatten if (m.start_dim, m.end_dim) in ((1, -1), (1, 3)):
                self._flatten(node, x)
            case nn.Dropout | nn.Dropout2d:
                self._dropout(node, x, m.p, features=isinstance(m, nn.Dropout2d), from_recipe=True)
            case nn.Identity:
                self._same(node, x)
            case kind:
                raise NoPlan(kind.__name__)

    def _weighted(self, node: fx.Node, x: int, m: Any) -> None:
        """Take in a layer with parameters."""
        place, shape = str(node.target), self._shape(x)
        params = tuple(None if getattr(m, n) is None else f"{place}.{n}" for n in ("weight", "bias"))
        if isinstance(m, nn.Conv2d):
            self._add(node, _pointwise(m) if x in self._one_pixel else _conv(m, shape), x, params=params)
        elif isinstance(m, nn.Linear):
            if len(shape) != 1:
                raise NoPlan("a dense layer over maps")
            self._add(node, Linear(m.in_features, m.out_features, m.bias is not None), x, params=params)
        else:
            if m.momentum is None or m.running_mean is None or len(shape) == 2:
                raise NoPlan("a batch norm without moving averages")
            norm = BatchNorm(m.num_features, m.eps, m.momentum, affine=m.weight is not None)
            buffers = (f"{place}.running_mean", f"{place}.running_var")
            counter = f"{place}.num_batches_tracked"
            self._add(node, norm, x, params=params, buffers=buffers, counter=counter)

    def _call(self, node: fx.Node) -> None:
        """Take in a function or a method."""
        target = node.target
        if target in _CONCATS:
            self._concat(node)
            return
        given = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, fx.Node)]
        known = any(a in self._values for a in given)
        if not known or (target in _SIZES and self._shapes[node] is None):
            return  # a shape, or what is made of one: where it is used, the result's own shape says as much
        if target in _ADDS and len(node.args) == 2 and not node.kwargs:
            self._sum(node)
            return
        if target in _PRODUCTS and len(node.args) == 2 and not node.kwargs:
            self._gate(node)
            return
        x = self._input(node)
        name = getattr(target, "__name__", str(target))
        read = _CALLS.get(target)
        if read is None:
            raise NoPlan(name)
        read(self, node, x)

    def _options(self, node: fx.Node, *names: str) -> dict[str, Any]:
        """Return a call's arguments after the first by their names."""
        if len(node.args) > 1 + len(names):
            raise NoPlan(f"{node.target} with options")
        return dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)

    def _relu(self, node: fx.Node, x: int) -> None:
        self._add(node, Relu(), x)

    def _curve(self, node: fx.Node, x: int) -> None:
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        self._add(node, Activation(Curve(name)), x)

    def _leaky_call(self, node: fx.Node, x: int) -> None:
        self._leaky(node, x, self._options(node, "negative_slope", "inplace").get("negative_slope", 0.01))

    def _adaptive_call(self, node: fx.Node, x: int) -> None:
        self._global_mean(node, x, self._options(node, "output_size").get("output_size"))

    def _mean_call(self, node: fx.Node, x: int) -> None:
        dims = self._options(node, "dim", "keepdim").get("dim")
        if len(self._shape(x)) != 3 or dims not in _MAP_DIMENSIONS:
            raise NoPlan("a mean that is not over maps")
        self._global_mean(node, x, 1)

    def _flatten_call(self, node: fx.Node, x: int) -> None:
        if len(self._shapes[node]) != 2:
            raise NoPlan("a view of other shape than rows")
        self._flatten(node, x)

    def _dropout_call(self, node: fx.Node, x: int) -> None:
        how = self._options(node, "p", "training", "inplace")
        if how.get("training", True):
            self._dropout(node, x, how.get("p", 0.5), features=node.target is F.dropout2d, from_recipe=False)
        else:
            self._same(node, x)

    def _leaky(self, node: fx.Node, x: int, slope: float) -> None:
        if slope <= 0:
            raise NoPlan("leaky ReLU that falls")
        self._add(node, LeakyRelu(slope), x)

    def _sum(self, node: fx.Node) -> None:
        values = [self._values.get(a) if isinstance(a, fx.Node) else None for a in node.args]
        a, b = values
        if a is None or b is None or self._shape(a) != self._shape(b) or 0 in values:
            raise NoPlan("a sum that broadcasts")
        self._add(node, Add(), a, b)

    def _concat(self, node: fx.Node) -> None:
        """Take in maps whose channels come side by side."""
        how: dict[str, Any] = dict(zip(("tensors", "dim"), node.args, strict=False)) | dict(node.kwargs)
        tensors = how.get("tensors")
        given = list(tensors) if isinstance(tensors, tuple | list) else []
        values = [self._values.get(a, 0) for a in given]
        if not 1 < len(values) <= INPUTS or 0 in values or how.get("dim") not in (1, -3):
            raise NoPlan("a concatenation of other than a few layers' results")
        shapes = [self._shape(value) for value in values]
        if any(len(shape) != 3 or shape[1:] != shapes[0][1:] for shape in shapes):
            raise NoPlan("a concatenation of other than maps")
        self._add(node, Concat(tuple(shape[0] for shape in shapes)), *values)

    def _gate(self, node: fx.Node) -> None:
        """Take in the product of maps [C, H, W] with [C, 1, 1]."""
        given = [a for a in node.args if isinstance(a, fx.Node) and a in self._values]
        given.sort(key=lambda a: len(self._shape(self._values[a])), reverse=True)
        if len(given) != 2 or len(self._shape(self._values[given[0]])) != 3:
            raise NoPlan("a product")
        maps, gate = given
        if tuple(self._shapes[gate][1:]) != (self._shapes[maps][1], 1, 1) or self._values[maps] == 0:
            raise NoPlan("a product that broadcasts")
        if self._values[gate] not in self._one_pixel:
            raise NoPlan("a product of maps")
        self._add(node, Gate(), self._values[maps], self._values[gate])

    def _flatten(self, node: fx.Node, x: int) -> None:
        if len(self._shape(x)) == 1:
            self._same(node, x)
        else:
            self._add(node, Flatten(), x)

    def _global_mean(self, node: fx.Node, x: int, size: Any) -> None:
        if size not in (1, (1, 1), [1, 1]):
            raise NoPlan("adaptive pooling to more than one number")
        self._add(node, GlobalMean(), x)

    def _functional_pool(self, node: fx.Node, x: int) -> None:
        names = ("kernel_size", "stride", "padding")
        how: dict[str, Any] = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
        maximum = node.target is not F.avg_pool2d
        if len(node.args) > 4 or set(how) - {*names, "ceil_mode", "dilation", "return_indices"}:
            raise NoPlan("pooling with options")
        how.pop("return_indices", None)
        self._add(node, _pool(nn.MaxPool2d(**how) if maximum else nn.AvgPool2d(**how)), x)

    def _dropout(self, node: fx.Node, x: int, rate: float, *, features: bool, from_recipe: bool) -> None:
        if not self._training:
            self._same(node, x)
            return
        if features and len(self._shape(x)) != 3:
            raise NoPlan("channels of features dropped")
        self._dropouts += 1
        self._add(node, Dropout(rate, features, from_recipe, self._dropouts), x)


_ADDS = (operator.add, operator.iadd, torch.add, "add", "add_")
_CONCATS = (torch.cat, torch.concat)
_PRODUCTS = (operator.mul, torch.mul, "mul")
_SIZES = ("size", getattr, operator.getitem)
_MAP_DIMENSIONS = ((2, 3), [2, 3], (-2, -1), [-2, -1], (-1, -2), (3, 2))


_CALLS: dict[Any, Callable[[_Reader, fx.Node, int], None]] = {
    **dict.fromkeys((F.relu, torch.relu, "relu", "relu_"), _Reader._relu),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d, F.avg_pool2d), _Reader._functional_pool),
    **dict.fromkeys(("mean", torch.mean), _Reader._mean_call),
    **dict.fromkeys(("flatten", "view", "reshape", torch.flatten, torch.reshape), _Reader._flatten_call),
    **dict.fromkeys((F.dropout, F.dropout2d), _Reader._dropout_call),
    **dict.fromkeys(("contiguous", "clone"), _Reader._same),
    **dict.fromkeys((F.relu6, F.hardsigmoid, F.hardswish), _Reader._curve),
    F.leaky_relu: _Reader._leaky_call,
    F.adaptive_avg_pool2d: _Reader._adaptive_call,
}
"""What takes in a function or a method."""


def _pair(sides: Any) -> Pair:
    return (sides, sides) if isinstance(sides, int) else (int(sides[0]), int(sides[-1]))


def _conv(m: nn.Conv2d, shape: Shape) -> Conv:
    if isinstance(m.padding, str) or m.padding_mode != "zeros" or len(shape) != 3:
        raise NoPlan("a convolution padded by other than zeros")
    kernel, stride, padding, dilation = (_pair(s) for s in (m.kernel_size, m.stride, m.padding, m.dilation))
    bias = m.bias is not None
    return Conv(m.in_channels, m.out_channels, kernel, stride, padding, dilation, m.groups, bias)


def _pointwise(m: nn.Conv2d) -> Linear:
    """Return a convolution of maps of one pixel as the dense layer that it is."""
    if _pair(m.kernel_size) != (1, 1) or m.groups != 1 or m.padding not in (0, (0, 0), "valid"):
        raise NoPlan("a convolution of one pixel with others")
    return Linear(m.in_channels, m.out_channels, m.bias is not None)


def _pool(m: Any) -> MaxPool | AvgPool:
    # with ceil_mode too: windows that are not whole are more than the stage says, which the shape then shows
    stride = m.kernel_size if m.stride in (None, [], ()) else m.stride
    pairs = _pair(m.kernel_size), _pair(stride), _pair(m.padding)
    if isinstance(m, nn.MaxPool2d):
        if _pair(m.dilation) != (1, 1) or m.return_indices:
            raise NoPlan("pooling with options")
        return MaxPool(*pairs)
    if m.divisor_override is not None or not m.count_include_pad:
        raise NoPlan("pooling with options")
    return AvgPool(*pairs)


def same_network(training: StepGraph, evaluation: StepGraph) -> bool:
    """Whether evaluation runs what training does, without dropout."""
    return training.in_evaluation() == evaluation


def chain(graph: StepGraph, first: int) -> Sequence[int]:
    """Return the numbers of the nodes from one on of which each alone reads the one before, as its first input."""
    found = [first]
    while True:
        readers = graph.readers(found[-1])
        if len(readers) != 1 or graph.nodes[readers[0] - 1].inputs[0] != found[-1]:
            return found
        if graph.nodes[readers[0] - 1].inputs.count(found[-1]) != 1:
            return found
        found.append(readers[0])
