"""What the rules of the rewrite write with: instructions, weights, shapes, and notes on who reads the images.

Stands between the rewrite, which goes through a traced graph, and its rules, which append to a compiled one.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gridsearch.training.lanes.compile import lane_values
from gridsearch.training.lanes.compile.compiled_graph import CompiledGraph, Fetch
from gridsearch.training.lanes.compile.lane_values import Form, LaneCount, NotStackable, Value
from gridsearch.training.lanes.compile.tracing import Found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import fx, nn

    from gridsearch.training.lanes.runtime.products import InputAffine
    from gridsearch.training.lanes.runtime.stacked_layers import DropoutState
    from gridsearch.training.lanes.runtime.storage import Storage


class GraphBuilder:
    """Builds the compiled graph of one traced graph.

    Args:
        model: whose graph it is.
        storage: all lanes' weights.
        width: how many lanes there are.
        dropout: the lanes' random numbers and rates.
        affine: the lanes' normalization, where the first layer takes it.
        training: the mode in which the graph was traced.
        compiles: operations may become compiled kernels, which autograd and captured steps cannot run.
        host_streams: each lane has a generator on the host, from which any operation can draw.

    Attributes:
        graph: what was built so far.
        found: what a sample has shown of each node.
        names: of the nodes that values come from, by their slots.
        kernels: how many compiled kernels it has.
        has_dropout: whether it has dropout.
    """

    def __init__(
        self,
        model: nn.Module,
        storage: Storage,
        width: LaneCount,
        dropout: DropoutState,
        affine: InputAffine,
        *,
        training: bool,
        compiles: bool = False,
        host_streams: bool = True,
    ) -> None:
        self.model, self.storage, self.width = model, storage, width
        self.dropout, self.affine = dropout, affine
        self.training, self.compiles, self.host_streams = training, compiles, host_streams
        self.graph = CompiledGraph()
        self.found = Found()
        self.names: dict[int, str] = {}
        self.kernels = 0
        self.has_dropout = False
        self._flat_images: set[int] = set()
        self._weights: dict[str, Value] = {}
        self._readers: list[bool] = []

    def emit(
        self, form: Form, shape: tuple[int, ...], function: Callable[..., Any], *arguments: object
    ) -> Value:
        """Append an instruction and return its value."""
        return Value(self.graph.add(function, *arguments), form, shape)

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
        found = self.found.shapes[node]
        if not isinstance(found, tuple):
            raise NotStackable(f"{node_name(node, self.model)} gives no tensor")
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

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Take back all that was written inside, where it raises that there is no stacked form."""
        before = len(self.graph.instructions), len(self._readers), self.kernels, self.has_dropout
        weights, flat = dict(self._weights), set(self._flat_images)
        try:
            yield
        except NotStackable:
            count, readers, self.kernels, self.has_dropout = before
            self.graph.cut(count)
            del self._readers[readers:]
            self._weights, self._flat_images = weights, flat
            raise

    @property
    def folds(self) -> bool:
        """Whether all that reads the images takes each lane's normalization into its weights."""
        return bool(self._readers) and all(self._readers)


def node_name(node: fx.Node, model: nn.Module) -> str:
    """Return what a node of a model's graph calls, as a user knows it."""
    if node.op == "call_module":
        return type(model.get_submodule(str(node.target))).__name__
    return f"{getattr(node.target, '__name__', node.target)}"
