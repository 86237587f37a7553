"""A model's graph in its K-lane form: traced with torch.fx, and rewritten value by value.

Stands between a model and the program that trains K of it.  A model is traced twice, for training and for
evaluation, since `F.dropout(x, training=self.training)` and `if self.training` are settled while tracing.
What no rule knows raises `NotStackable`; the caller then takes vmap, or one lane after the other.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn

from gridsearch.errors import said
from gridsearch.training.kernels import MOST_WEIGHTS
from gridsearch.training.lanes.compile import fusion, lane_values
from gridsearch.training.lanes.compile.compiled_graph import CompiledGraph, Fetch
from gridsearch.training.lanes.compile.dense_chains import fuse_dense
from gridsearch.training.lanes.compile.lane_values import (
    SAMPLE,
    Form,
    LaneCount,
    NotStackable,
    TrainsAlone,
    Value,
)
from gridsearch.training.lanes.compile.module_state import plain_state
from gridsearch.training.lanes.compile.rules import apply_rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridsearch.training.lanes.runtime.products import InputAffine
    from gridsearch.training.lanes.runtime.stacked_layers import DropoutState
    from gridsearch.training.lanes.runtime.storage import Storage


class _Tracer(fx.Tracer):
    """Looks through all modules but torch's own layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        """Whether a module stays one node."""
        own = type(m).__module__.startswith("torch.nn.")
        return own and not isinstance(m, nn.Sequential)


def trace(model: nn.Module, *, training: bool) -> fx.Graph:
    """Trace a model in a mode.

    Raises:
        NotStackable: torch.fx cannot.
        TrainsAlone: its forward draws numbers or keeps state that tracing settles.
    """
    model.train(training)
    before = plain_state(model), random.getstate(), repr(np.random.get_state()), torch.get_rng_state()
    own = set(vars(model))
    try:
        with torch.set_grad_enabled(training):  # as it will be
            graph = _Tracer().trace(model)
    except Exception as error:
        raise NotStackable(f"torch.fx cannot trace it: {_line(error)}") from error
    finally:
        for constant in vars(model).keys() - own:  # the tracer leaves tensors that it met
            delattr(model, constant)
        model.train()
    if plain_state(model) != before[0]:
        raise TrainsAlone("its forward keeps state of its own")
    drawn = random.getstate() != before[1] or repr(np.random.get_state()) != before[2]
    if drawn or not torch.equal(torch.get_rng_state(), before[3]):
        raise TrainsAlone("its forward draws random numbers of its own")
    return graph


def all_torch(model: nn.Module) -> bool:
    """Whether a model is made of torch's own modules alone."""
    return all(type(m).__module__.startswith("torch.nn.") for m in model.modules())


def takes_kernels(model: nn.Module) -> bool:
    """Whether a model has something for which a kernel would be compiled."""
    try:
        graph = trace(model, training=True)
    except NotStackable:
        return False
    fusion.reorder(graph, model)
    fusion.fuse(graph, model)
    fused = (node for node in graph.nodes if node.target is fusion.pooled_convolution)
    return any(model.get_parameter(node.args[1].target).numel() <= MOST_WEIGHTS for node in fused)


def _line(error: BaseException) -> str:
    text = " ".join(said(error).split())
    return text if len(text) <= 120 else text[:117] + "..."


class Rewriter:
    """Rewrites one traced graph.

    Attributes:
        width: how many lanes there are.
        dropout: the lanes' random numbers.
        affine: the lanes' normalization, where the first layer takes it.
        compiles: operations may become compiled kernels, which autograd and recordings do not know.
        kernels: how many it has.
        folds: whether the layer that reads the images has taken it.
        has_dropout: whether it has dropout.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: fx.Graph,
        storage: Storage,
        width: LaneCount,
        dropout: DropoutState,
        affine: InputAffine,
        *,
        compiles: bool = False,
    ) -> None:
        self.model = model
        self.graph = graph
        self.storage = storage
        self.width = width
        self.dropout = dropout
        self.affine = affine
        self.compiles = compiles
        self.kernels = 0
        self.has_dropout = False
        self.compiled = CompiledGraph()
        self.training = True
        self.shapes: dict[fx.Node, tuple[int, ...] | None] = {}
        self._flat_images: set[int] = set()
        self._known: dict[fx.Node, Any] = {}
        self._weights: dict[str, Value] = {}
        self._readers: list[bool] = []

    def run(self, x_BCHW: torch.Tensor, form: Form, *, training: bool) -> CompiledGraph:
        """Rewrite the graph for images in a form, shared or packed.

        Args:
            x_BCHW: a sample of `SAMPLE` images, to find shapes with.
            form: how the images come.
            training: the mode in which the graph was traced.

        Raises:
            NotStackable: there is an operation without a rule.
        """
        self.training = training
        fusion.reorder(self.graph, self.model)
        if self.compiles:
            fusion.fuse(self.graph, self.model)
        self.model.train(training)  # rules ask each module for its mode
        try:
            self.shapes = _shapes(self.model, self.graph, x_BCHW)
            for node in self.graph.nodes:
                self._rewrite(node, x_BCHW, form)
        finally:
            self.model.train()
        return self.compiled

    def _rewrite(self, node: fx.Node, x_BCHW: torch.Tensor, form: Form) -> None:
        if node.op == "placeholder":
            if self._known:
                if not node.args:
                    raise NotStackable("its forward takes more than the images")
                self._known[node] = node.args[0]
            else:
                self._known[node] = Value(0, form, tuple(x_BCHW.shape))
        elif node.op == "output":
            result = self._resolve(node.args[0])
            if not isinstance(result, Value) or result.form not in (Form.PACKED, Form.STACKED):
                raise NotStackable("its logits do not come from its weights")
            logits = self.to(result, Form.STACKED)
            if self.compiles:
                fuse_dense(self.compiled, logits, self.storage.flat.dtype)
            self.compiled.close(logits)
        elif node.op == "get_attr":
            self._known[node] = self.weight(str(node.target))
        else:
            args, kwargs = self._resolve(node.args), self._resolve(node.kwargs)
            if not _touches(args) and not _touches(kwargs):
                raise NotStackable(f"{_named(node)} takes no image and no weight")
            _check_in_place(node, self.model)
            self._known[node] = apply_rule(self, node, args, kwargs)

    def _resolve(self, content: Any) -> Any:
        return fx.node.map_arg(content, lambda node: self._known[node])

    def emit(
        self, form: Form, shape: tuple[int, ...], function: Callable[..., Any], *arguments: object
    ) -> Value:
        """Append an instruction and return its value."""
        return Value(self.compiled.add(function, *arguments), form, shape)

    def weight(self, name: str) -> Value:
        """Return a parameter or buffer as a stacked value.

        Raises:
            NotStackable: there is none of that name.
        """
        if name not in self._weights:
            if name not in self.storage.tensors:
                raise NotStackable(f"{name} is neither a parameter nor a buffer")
            tensors = self.storage.tensors
            shape = tuple(tensors[name].shape[1:])
            self._weights[name] = self.emit(
                Form.STACKED, shape, Fetch(tensors, name, self.storage.trained(name))
            )
        return self._weights[name]

    def to(self, value: Value, form: Form) -> Value:
        """Return a value in another form."""
        if form is Form.PACKED and value.rank != 4:
            raise NotStackable("a layer for maps comes after features")
        turn = lane_values.converter(self.width, value, form)
        return value if turn is None else self.emit(form, value.shape, turn, value)

    def shape_of(self, node: fx.Node) -> tuple[int, ...]:
        """Return one lane's shape of a node's result."""
        found = self.shapes[node]
        if not isinstance(found, tuple):
            raise NotStackable(f"{_named(node)} gives no tensor")
        return found

    def is_images(self, value: Value) -> bool:
        """Whether a value is the images, or the images flattened."""
        return value.slot == 0 or value.slot in self._flat_images

    def mark_flat_images(self, value: Value) -> None:
        """Note that a value is the images, flattened channel by channel."""
        self._flat_images.add(value.slot)

    def read_images(self, *, folds: bool) -> None:
        """Note that a layer reads the images, and whether it takes the lanes' normalization into itself."""
        self._readers.append(folds)

    @property
    def folds(self) -> bool:
        """Whether all that reads the images takes each lane's normalization into its weights."""
        return bool(self._readers) and all(self._readers)


class _ShapeFinder(fx.Interpreter):
    """Runs a graph and notes the shape of every tensor."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph=graph)
        self.shapes: dict[fx.Node, tuple[int, ...] | None] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and note what comes."""
        result = super().run_node(n)
        self.shapes[n] = tuple(result.shape) if isinstance(result, torch.Tensor) else None
        return result


def _shapes(model: nn.Module, graph: fx.Graph, x_BCHW: torch.Tensor) -> dict[fx.Node, tuple[int, ...] | None]:
    assert len(x_BCHW) == SAMPLE
    finder = _ShapeFinder(model, graph)
    try:
        with torch.no_grad():
            finder.run(x_BCHW)
    except Exception as error:
        raise NotStackable(f"its graph does not run: {_line(error)}") from error
    return finder.shapes


def _touches(content: Any) -> bool:
    if isinstance(content, Value):
        return True
    if isinstance(content, dict):
        return any(_touches(v) for v in content.values())
    if isinstance(content, slice):
        return any(_touches(v) for v in (content.start, content.stop, content.step))
    return isinstance(content, tuple | list) and any(_touches(v) for v in content)


_VIEWS = {"view", "reshape", "flatten", "transpose", "permute", "squeeze", "unsqueeze", "contiguous", "chunk"}
_VIEWS |= {"getitem", "split", "t", "expand", "unflatten", "swapaxes", "to", "float"}


def _check_in_place(node: fx.Node, model: nn.Module) -> None:
    """Refuse a change in place of what is used elsewhere too; rules compute out of place.

    Raises:
        NotStackable: there is such a change.
    """
    if not _in_place(node, model):
        return
    changed = node.args[0] if node.args else None
    while isinstance(changed, fx.Node):
        if len(changed.users) != 1 or changed.op == "get_attr":
            raise NotStackable(f"{_named(node)} changes in place what is used elsewhere")
        name = getattr(changed.target, "__name__", str(changed.target))
        module = model.get_submodule(str(changed.target)) if changed.op == "call_module" else None
        shows = name in _VIEWS or isinstance(module, nn.Flatten | nn.Identity | nn.Unflatten | nn.Dropout)
        changed = changed.args[0] if (shows or _in_place(changed, model)) and changed.args else None


def _in_place(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    name = getattr(node.target, "__name__", str(node.target))
    if node.kwargs.get("inplace") or (
        node.op == "call_function" and name in ("iadd", "isub", "imul", "itruediv")
    ):
        return True
    if node.op == "call_function" and name in ("relu", "leaky_relu", "dropout", "elu", "silu", "hardtanh"):
        place = {"relu": 1, "leaky_relu": 2, "elu": 2, "silu": 1, "hardtanh": 3, "dropout": 3}[name]
        return len(node.args) > place and node.args[place] is True
    return name.endswith("_") and not name.endswith("__")


def _named(node: fx.Node) -> str:
    return f"{getattr(node.target, '__name__', node.target)}"
