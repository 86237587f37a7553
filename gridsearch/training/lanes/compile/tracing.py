"""A model's graph as torch.fx traces it, with the shape of every value.

Stands between a model and the rewrite.  A model is traced twice, for training and for evaluation, since
`F.dropout(x, training=self.training)` and `if self.training` are decided while tracing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from gridsearch.errors import said
from gridsearch.training.lanes.compile.content_sizes import SizeWatch, check_sizes_fixed
from gridsearch.training.lanes.compile.in_place import Place, read_what_was_changed
from gridsearch.training.lanes.compile.lane_values import SAMPLE, NotStackable, TrainsAlone
from gridsearch.training.lanes.compile.module_state import content, generator_states, plain_state
from gridsearch.training.lanes.compile.tracer import Tracer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridsearch.training.lanes.compile.lane_values import Order


_COUNT_NOTHING = frozenset(
    ("add", "iadd", "sub", "isub", "mul", "imul", "truediv", "itruediv", "div", "neg", "pow", "abs", "square",
     "sqrt", "rsqrt", "exp", "log", "log1p", "sin", "cos", "erf", "maximum", "minimum", "clamp", "relu",
     "relu_", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "tanh", "sigmoid",
     "logsigmoid", "softplus", "softsign", "hardtanh", "hardswish", "hardsigmoid", "prelu", "conv2d", "linear",
     "pooled_convolution", "batch_norm", "group_norm", "layer_norm", "dropout", "dropout1d", "dropout2d",
     "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "interpolate", "flatten",
     "permute", "transpose", "squeeze", "unsqueeze", "cat", "concat", "stack", "mean", "sum", "amax", "amin",
     "softmax", "log_softmax", "matmul", "bmm", "contiguous", "clone", "detach",)
)  # fmt: skip
"""Functions and methods that treat all images alike, however many there are."""


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """A model's graph in one mode.

    Attributes:
        graph: as torch.fx has it.
        constants: tensors that the forward makes of nothing, by the names that the graph has for them.
    """

    graph: fx.Graph
    constants: Mapping[str, torch.Tensor]

    @property
    def pattern(self) -> tuple[object, ...]:
        """What two graphs have alike that compute the same."""
        constants = sorted((name, content(t)) for name, t in self.constants.items())
        return self.graph.python_code("self").src, *constants

    @property
    def counts(self) -> bool:
        """Whether the graph may do with many images something else than with few; layers as modules do not."""
        called = (node for node in self.graph.nodes if node.op in ("call_function", "call_method"))
        return any(getattr(node.target, "__name__", node.target) not in _COUNT_NOTHING for node in called)


def trace(model: nn.Module, x_BCHW: torch.Tensor | None = None, *, training: bool) -> Traced:
    """Trace a model in a mode.

    Args:
        model: to trace.
        x_BCHW: sample images, without which a model may ask for no size while it is traced.
        training: the mode.

    Raises:
        NotStackable: torch.fx cannot.
        TrainsAlone: its forward draws numbers or keeps state, which tracing fixes.
    """
    model.train(training)
    before = plain_state(model), generator_states(), torch.get_rng_state()
    own = set(vars(model))
    tracer = Tracer(x_BCHW)
    try:
        with torch.set_grad_enabled(training):  # as it will be
            graph = tracer.trace(model)
    except TrainsAlone:
        raise
    except Exception as error:
        raise NotStackable(f"torch.fx cannot trace it: {_one_line(error)}") from error
    finally:
        constants = {name: vars(model)[name] for name in vars(model).keys() - own}
        for name in constants:  # the tracer leaves tensors that it met
            delattr(model, name)
        model.train()
    if plain_state(model) != before[0]:
        raise TrainsAlone("its forward keeps state of its own")
    if generator_states() != before[1] or not torch.equal(torch.get_rng_state(), before[2]):
        raise TrainsAlone("its forward draws random numbers of its own")
    for node in graph.nodes:
        if node.target is torch.view_as_complex:
            node.target = complex_copy
    read_what_was_changed(graph, model)
    return Traced(graph, {n: t for n, t in constants.items() if isinstance(t, torch.Tensor)})


def complex_copy(pairs: torch.Tensor) -> torch.Tensor:
    """Return pairs of numbers as complex ones, wherever they lie: among the weights of lanes at odd places, too."""
    return torch.view_as_complex(pairs.clone(memory_format=torch.contiguous_format))


def known_code(model: nn.Module) -> bool:
    """Whether a model is made of torch's, torchvision's and our own modules alone."""
    return all(type(m).__module__.startswith(_KNOWN) for m in model.modules())


_KNOWN = ("torch.nn.", "torchvision.", "gridsearch.zoo.")


@dataclass(slots=True)
class Found:
    """What running a graph on a sample has shown, node by node.

    Attributes:
        shapes: one lane's shape of each result, None where it is no tensor.
        results: the results themselves, where they are used.
        draws: nodes that drew from torch's generator.
        changes: nodes that changed an argument in place.
        constants: nodes whose result has no gradient with respect to what they read, as that of a comparison.
        sized: nodes whose result is as long as what a tensor holds says.
        places: where the results lay in memory.
        orders: the order in memory of what is drawn in the likeness of each result that a node reads, by its name.
    """

    shapes: dict[fx.Node, tuple[int, ...] | None] = field(default_factory=dict)
    results: dict[fx.Node, Any] = field(default_factory=dict)
    draws: set[fx.Node] = field(default_factory=set)
    changes: set[fx.Node] = field(default_factory=set)
    constants: set[fx.Node] = field(default_factory=set)
    sized: set[fx.Node] = field(default_factory=set)
    places: dict[fx.Node, tuple[Place, ...]] = field(default_factory=dict)
    orders: dict[str, tuple[Order, ...]] = field(default_factory=dict)


class _Inspector(fx.Interpreter):
    """Runs a graph and notes what it sees."""

    def __init__(self, model: nn.Module, traced: Traced) -> None:
        super().__init__(model, graph=traced.graph)
        self.found = Found()
        self._constants = traced.constants
        self._sizes = SizeWatch()  # type: ignore[no-untyped-call]

    def fetch_attr(self, target: str) -> Any:
        """Return a parameter, a buffer or a constant."""
        return self._constants[target] if target in self._constants else super().fetch_attr(target)

    def run_node(self, n: fx.Node) -> Any:
        """Run a node and note what came of it."""
        given = [self.env[node] for node in n.all_input_nodes]
        tensors = [one for one in given if isinstance(one, torch.Tensor)]
        versions, state = [t._version for t in tensors], torch.get_rng_state()
        with self._sizes as sizes:
            result = super().run_node(n)
        found = self.found
        if sizes.seen:
            found.sized.add(n)
        found.orders[n.name] = tuple(_order(one) for one in given)
        found.shapes[n] = tuple(result.shape) if isinstance(result, torch.Tensor) else None
        found.results[n] = pytree.tree_map_only(torch.Tensor, lambda t: t.detach().to("meta"), result)
        found.places[n] = Place.of_all(result)
        made = [t for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor)]
        if torch.is_grad_enabled() and not any(t.requires_grad for t in made):
            found.constants.add(n)
        if not torch.equal(state, torch.get_rng_state()):
            found.draws.add(n)
        if [t._version for t in tensors] != versions:
            found.changes.add(n)
        return result


def _order(x: Any) -> Order:
    """Return the dimensions of what torch makes in a tensor's likeness, the outermost in memory first."""
    if not isinstance(x, torch.Tensor):
        return ()
    strides = torch.empty_like(x, device="meta").stride()
    return tuple(sorted(range(x.dim()), key=lambda d: -strides[d]))


def orders(model: nn.Module, x_BCHW: torch.Tensor) -> dict[str, tuple[Order, ...]]:
    """Return in which order in memory lies what each node of a model's graph reads in training.

    Args:
        model: in the layout in which it trains.
        x_BCHW: `SAMPLE` images, likewise.

    Raises:
        NotStackable: it has no graph.
    """
    return inspect(model, trace(model, x_BCHW, training=True), x_BCHW).orders


def inspect(model: nn.Module, traced: Traced, x_BCHW: torch.Tensor) -> Found:
    """Run a graph on a sample of `SAMPLE` images.

    Raises:
        NotStackable: the graph does not run.
    """
    assert len(x_BCHW) == SAMPLE
    inspector = _Inspector(model, traced)
    try:
        with torch.set_grad_enabled(model.training):  # which shows the results that have no gradient
            inspector.run(x_BCHW.clone())
    except Exception as error:
        raise NotStackable(f"its graph does not run: {_one_line(error)}") from error
    found = inspector.found
    check_sizes_fixed(model, found.sized, found.draws, found.results, lambda: inspector.run(x_BCHW.clone()))
    return found


def _one_line(error: BaseException) -> str:
    text = " ".join(said(error).split())
    return text if len(text) <= 120 else text[:117] + "..."
