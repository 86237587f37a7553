"""A model's graph as torch.fx traces it, with the shape of every value.

Stands between a model and the rewrite.  A model is traced twice, for training and for evaluation, since
`F.dropout(x, training=self.training)` and `if self.training` are decided while tracing.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from gridsearch.errors import said
from gridsearch.training.kernels import MOST_WEIGHTS
from gridsearch.training.lanes.compile import fusion
from gridsearch.training.lanes.compile.lane_values import SAMPLE, NotStackable, TrainsAlone
from gridsearch.training.lanes.compile.module_state import plain_state


class _Tracer(fx.Tracer):
    """Traces into all modules but torch's own layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        """Whether a module stays one node."""
        own = type(m).__module__.startswith("torch.nn.")
        return own and not isinstance(m, nn.Sequential)


def trace(model: nn.Module, *, training: bool) -> fx.Graph:
    """Trace a model in a mode.

    Raises:
        NotStackable: torch.fx cannot.
        TrainsAlone: its forward draws numbers or keeps state, which tracing fixes.
    """
    model.train(training)
    before = plain_state(model), random.getstate(), repr(np.random.get_state()), torch.get_rng_state()
    own = set(vars(model))
    try:
        with torch.set_grad_enabled(training):  # as it will be
            graph = _Tracer().trace(model)
    except Exception as error:
        raise NotStackable(f"torch.fx cannot trace it: {_one_line(error)}") from error
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


class _ShapeFinder(fx.Interpreter):
    """Runs a graph and notes the shape of every tensor."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph=graph)
        self.shapes: dict[fx.Node, tuple[int, ...] | None] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and note the result's shape."""
        result = super().run_node(n)
        self.shapes[n] = tuple(result.shape) if isinstance(result, torch.Tensor) else None
        return result


def lane_shapes(
    model: nn.Module, graph: fx.Graph, x_BCHW: torch.Tensor
) -> dict[fx.Node, tuple[int, ...] | None]:
    """Return one lane's shape of each node's result, None where it gives no tensor.

    Raises:
        NotStackable: the graph does not run.
    """
    assert len(x_BCHW) == SAMPLE
    finder = _ShapeFinder(model, graph)
    try:
        with torch.no_grad():
            finder.run(x_BCHW)
    except Exception as error:
        raise NotStackable(f"its graph does not run: {_one_line(error)}") from error
    return finder.shapes


def _one_line(error: BaseException) -> str:
    text = " ".join(said(error).split())
    return text if len(text) <= 120 else text[:117] + "..."
