"""A model's graph in its K-lane form: traced with torch.fx, and rewritten value by value.

Stands between a model and the program that trains K of it.  What no rule knows raises `NotStackable`; the caller then
takes vmap, or trains one lane after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx, nn

from gridsearch.training.lanes.compile import fusion
from gridsearch.training.lanes.compile.dense_chains import fuse_dense
from gridsearch.training.lanes.compile.in_place import check_in_place
from gridsearch.training.lanes.compile.lane_values import Form, NotStackable, Value
from gridsearch.training.lanes.compile.rule_any import any_rule
from gridsearch.training.lanes.compile.rule_layers import any_values
from gridsearch.training.lanes.compile.rules import apply_rule
from gridsearch.training.lanes.compile.tracing import inspect

if TYPE_CHECKING:
    import torch

    from gridsearch.training.lanes.compile.compiled_graph import CompiledGraph
    from gridsearch.training.lanes.compile.graph_builder import GraphBuilder
    from gridsearch.training.lanes.compile.tracing import Found, Traced


def prepare(
    model: nn.Module, traced: Traced, x_BCHW: torch.Tensor, *, training: bool, compiles: bool
) -> Found:
    """Make a traced graph simpler, and return what a sample shows of it: once for all forms of the images.

    Args:
        model: whose graph it is.
        traced: the model in a mode; its graph is changed.
        x_BCHW: `SAMPLE` images.
        training: the mode.
        compiles: operations may become compiled kernels.

    Raises:
        NotStackable: the graph does not run.
    """
    fusion.reorder(traced.graph, model)
    if compiles:
        fusion.fuse(traced.graph, model)
    model.train(training)
    try:
        return inspect(model, traced, x_BCHW)
    finally:
        model.train()


def rewrite(g: GraphBuilder, traced: Traced, found: Found, x_BCHW: torch.Tensor, form: Form) -> CompiledGraph:
    """Rewrite a traced graph for images in a form, shared or packed.

    Args:
        g: what the rules write with.
        traced: the model in the builder's mode, prepared.
        found: what a sample has shown of it.
        x_BCHW: a sample of `SAMPLE` images.
        form: how the images come.

    Raises:
        NotStackable: there is an operation without a rule.
    """
    g.found = found
    g.model.train(g.training)  # rules ask each module for its mode
    values: dict[fx.Node, Any] = {}
    try:
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                values[node] = _input_value(node, x_BCHW, form, first=not values)
            elif node.op == "output":
                _close(g, _resolve(node.args[0], values))
            elif node.op == "get_attr":
                values[node] = _tensor(g, str(node.target), traced)
            else:
                values[node] = _result(g, node, values)
            if isinstance(value := values.get(node), Value):
                g.names[value.slot] = node.name
                if node in found.constants:
                    g.graph.mark_constant(value)
    finally:
        g.model.train()
    return g.graph


def _input_value(node: fx.Node, x_BCHW: torch.Tensor, form: Form, *, first: bool) -> Any:
    """Return the value of an argument of the forward: the images, or a later argument's default."""
    if first:
        return Value(0, form, tuple(x_BCHW.shape))
    if not node.args:
        raise NotStackable("its forward takes more than the images")
    return node.args[0]


def _tensor(g: GraphBuilder, name: str, traced: Traced) -> Value:
    """Return a parameter or buffer of the lanes, or a constant that they share."""
    if name not in traced.constants:
        return g.weight(name)
    constant = traced.constants[name].detach()
    return g.emit(Form.SHARED, tuple(constant.shape), lambda: constant)


def _close(g: GraphBuilder, result: Any) -> None:
    if not isinstance(result, Value) or result.form not in (Form.PACKED, Form.STACKED):
        raise NotStackable("its logits do not come from its weights")
    logits = g.to(result, Form.STACKED)
    if g.compiles:
        fuse_dense(g.graph, logits, g.storage.flat.dtype)
    g.graph.close(logits)


def _result(g: GraphBuilder, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args, kwargs = _resolve(node.args, values), _resolve(node.kwargs, values)
    if counts(node, g.model):
        return g.emit(Form.STACKED, args[0].shape, lambda t: t.add_(args[1]), args[0])
    check_in_place(node, g.model, g.found.places)
    if not any_values((args, kwargs)):
        return any_rule(g, node, args, kwargs)
    return apply_rule(g, node, args, kwargs)


def _resolve(content: Any, values: dict[fx.Node, Any]) -> Any:
    return fx.node.map_arg(content, lambda node: values[node])


def counts(node: fx.Node, model: nn.Module) -> bool:
    """Whether a node adds a number to a buffer that nothing else reads, as norms count their batches."""
    if node.op != "call_method" or node.target != "add_" or node.users or node.kwargs or len(node.args) != 2:
        return False
    counter, number = node.args
    if not isinstance(counter, fx.Node) or counter.op != "get_attr" or type(number) not in (int, float):
        return False
    if counter.target not in dict(model.named_buffers()):
        return False
    same = [n for n in node.graph.nodes if n.op == "get_attr" and n.target == counter.target]
    return same == [counter] and list(counter.users) == [node]
