"""Which compiled operations a network's step is made of.

Stands between the stages of a network and the plan that C runs: covers the stages with operations, and puts conversions
where two of them want other layouts; `arena` gives them memory.

Shapes: B batch, P elements of a lane's trained parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gridsearch.training.kernels import families, small_ops
from gridsearch.training.kernels.op import PARAMS, Layout
from gridsearch.training.kernels.stages import (
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    Linear,
    View,
    numbers,
)
from gridsearch.training.lanes.compile import row_drops
from gridsearch.training.lanes.compile.derived_weights import WeightPrograms, record_weights
from gridsearch.training.lanes.compile.graph_reading import step_graph
from gridsearch.training.lanes.compile.lane_values import NotStackable
from gridsearch.training.lanes.compile.step_graph import NoPlan, chain, same_network
from gridsearch.training.lanes.compile.tracing import inspect, trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import torch
    from torch import nn

    from gridsearch.training.kernels.op import Op
    from gridsearch.training.kernels.stages import Shape, Stage
    from gridsearch.training.lanes.compile.lane_values import Order
    from gridsearch.training.lanes.compile.step_graph import Node, StepGraph
    from gridsearch.training.lanes.runtime.storage import Storage


@dataclass(frozen=True, slots=True)
class Slot:
    """An activation in one layout.

    Attributes:
        shape: of one image.
        layout: in memory.
        trained: a parameter lies before it, so that its gradient is needed.
    """

    shape: Shape
    layout: Layout
    trained: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """An operation and its operands: slots by number, parameters and buffers by name."""

    op: Op
    inputs: tuple[int, ...]
    output: int
    params: tuple[str | None, ...] = ()
    buffers: tuple[str, ...] = ()
    draws: bool = False


@dataclass(slots=True)
class Steps:
    """The operations of a step, in the order of the forward pass.

    Attributes:
        slots: all activations; the first has the images.
        ops: all operations; the last one's output, in rows of features, are the logits.
        counters: names of the counts of batches that batch norms have seen.
        stages: of the network that they compute.
        pinned: buffers by name whose content the operations have.
        weights: how those of layers are computed from parameters; None where none are.
    """

    slots: list[Slot] = field(default_factory=list)
    ops: list[Placed] = field(default_factory=list)
    counters: list[str] = field(default_factory=list)
    stages: tuple[Stage, ...] = ()
    pinned: dict[str, torch.Tensor] = field(default_factory=dict)
    weights: WeightPrograms | None = None

    @property
    def logits(self) -> int:
        """Slot of the logits."""
        return self.ops[-1].output


class _Coverer:
    """Covers a network with operations."""

    def __init__(
        self,
        graph: StepGraph,
        trained: Iterable[str],
        dtype: torch.dtype,
        images: int,
        *,
        bf16: bool,
    ) -> None:
        self.steps = Steps(stages=tuple(node.stage for node in graph.nodes))
        self._graph, self._trained, self._dtype = graph, set(trained), dtype
        self._images, self._bf16 = images, bf16
        self._found: dict[int, dict[Layout, int]] = {}  # slots of each value, by layout
        self._done: set[int] = set()

    def run(self) -> Steps:
        """Return the operations.

        Raises:
            NoPlan: there is none for a stage.
        """
        runs = []
        covered: set[int] = set()
        for n in range(1, len(self._graph.nodes) + 1):
            if n not in covered:
                op, members = self._choose(n)
                covered |= set(members)
                runs.append((members, op))
        # an operation may need another input than its first stage's: it runs where its last stage does
        for members, op in sorted(runs, key=lambda run: run[0][-1]):
            self._place([self._graph.nodes[n - 1] for n in members], members, op)
        logits = len(self._graph.nodes)
        last = self._slot(logits, Layout.FEATURES)
        if last != self.steps.logits or len(self.steps.slots[last].shape) != 1:
            raise NoPlan("logits that no operation writes")
        return self.steps

    def _choose(self, first: int) -> tuple[Op | None, list[int]]:
        members = list(chain(self._graph, first))
        stages = [self._graph.nodes[n - 1].stage for n in members]
        if isinstance(stages[0], Flatten | View | Dropout):
            return None, members[:1]
        node = self._graph.nodes[first - 1]
        found = families.cover(
            stages,
            self._graph.shape(node.inputs[0]) if node.inputs else (),
            self._dtype,
            images=self._images,
            input_grad=node.inputs[:1] != (0,),
            bf16=self._bf16,
        )
        if found is None:
            raise NoPlan(f"{type(stages[0]).__name__} has no operation")
        return found[0], members[: found[1]]

    def _place(self, nodes: Sequence[Node], members: Sequence[int], op: Op | None) -> None:
        first, result = nodes[0], members[-1]
        if isinstance(first.stage, Flatten):
            self._flatten(first, result)
            return
        if isinstance(first.stage, View):
            inner = Layout.BATCH_INNER
            self._found[result] = {inner: self._slot(first.inputs[0], inner)}
            return
        if isinstance(first.stage, Dropout):
            self._dropout(first, result)
            return
        assert op is not None
        values = [*first.inputs[:1], *(value for node in nodes for value in node.inputs[1:])]
        if not values and not self.steps.slots:
            self._slot(0, Layout.BATCH_INNER)  # the images come first
        params = tuple(p for node in nodes for p in node.params)
        buffers = tuple(b for node in nodes for b in node.buffers)
        self.steps.counters += [node.counter for node in nodes if node.counter is not None]
        if len(params) > PARAMS:
            raise NoPlan("an operation with too many parameters")
        inputs = tuple(self._slot(v, layout) for v, layout in zip(values, op.inputs, strict=True))
        self._emit(op, inputs, result, nodes[-1].shape, params, buffers)

    def _emit(
        self,
        op: Op,
        inputs: tuple[int, ...],
        result: int,
        shape: Shape,
        params: tuple[str | None, ...] = (),
        buffers: tuple[str, ...] = (),
        *,
        draws: bool = False,
    ) -> None:
        slots = self.steps.slots
        trained = any(slots[i].trained for i in inputs) or any(p in self._trained for p in params)
        slots.append(Slot(shape, op.output, trained))
        self.steps.ops.append(Placed(op, inputs, len(slots) - 1, params, buffers, draws))
        self._found.setdefault(result, {})[op.output] = len(slots) - 1

    def _slot(self, value: int, layout: Layout) -> int:
        """Return the slot of a value in a layout; an operation converts it, if need be."""
        shape, slots = self._graph.shape(value), self.steps.slots
        if value == 0 and not slots:
            slots.append(Slot(shape, layout, trained=False))
            self._found[0] = {layout: 0}
        found = self._found[value]
        if layout in found:
            return found[layout]
        for known, slot in found.items():
            if small_ops.same_memory(known, layout, shape):
                found[layout] = slot
                return slot
        known, slot = next(iter(found.items()))
        self._convert(slot, known, layout, shape, value)
        return found[layout]

    def _convert(self, slot: int, known: Layout, layout: Layout, shape: Shape, result: int) -> None:
        op = small_ops.conversion(known, layout, shape, self._dtype)
        if op is None:
            raise NoPlan("no compiler")
        self._emit(op, (slot,), result, self._graph.shape(result))

    def _flatten(self, node: Node, result: int) -> None:
        value = node.inputs[0]
        if value == 0:
            self._found[result] = {Layout.FEATURES: self._slot(0, Layout.FEATURES)}
            return
        known, slot = next(iter(self._found[value].items()))
        shape = self._graph.shape(value)
        if known is Layout.BATCH_INNER and numbers(shape[1:]) == 1:
            self._found[result] = {known: slot}
        elif small_ops.same_memory(known, Layout.FEATURES, shape):
            self._found[result] = {Layout.FEATURES: slot}
        else:
            self._convert(slot, known, Layout.FEATURES, shape, result)

    def _dropout(self, node: Node, result: int) -> None:
        assert isinstance(node.stage, Dropout)
        value = node.inputs[0]
        if value == 0:
            self._slot(0, Layout.FEATURES)
        layout, slot = next(iter(self._found[value].items()))
        op = small_ops.dropout(node.stage, layout, node.shape, self._dtype)
        if op is None:
            raise NoPlan("no compiler")
        self._emit(op, (slot,), result, node.shape, draws=True)


def cover_steps(
    graph: StepGraph,
    trained: Iterable[str],
    dtype: torch.dtype,
    *,
    images: int,
    bf16: bool,
) -> Steps:
    """Return the operations of a network's step.

    Args:
        graph: the network in training.
        trained: names of the parameters that are trained, all that each has.
        dtype: of the weights.
        images: of a batch.
        bf16: convolutions multiply bfloat16.

    Raises:
        NoPlan: there is no operation for a stage.
    """
    if images == 1 and any(isinstance(n.stage, BatchNorm) and numbers(n.shape[1:]) == 1 for n in graph.nodes):
        raise NoPlan("a batch norm of one value")  # which torch refuses in words
    return _Coverer(graph, trained, dtype, images, bf16=bf16).run()


def plan_network(
    model: nn.Module,
    x_BCHW: torch.Tensor,
    storage: Storage,
    *,
    images: int,
    orders: Mapping[str, Sequence[Order]],
    bf16: bool = False,
) -> Steps:
    """Return the operations of a model's step.

    Args:
        model: a lane's, which has been used up.
        x_BCHW: `SAMPLE` images.
        storage: the lanes' weights.
        images: of a batch.
        orders: in which order in memory lies what each node reads where a lane trains alone, by the node's name.
        bf16: convolutions multiply bfloat16.

    Raises:
        NoPlan: there is no operation for a part of it.
    """
    dtype = storage.flat.dtype
    trained = [name for name in storage.tensors if storage.trained(name) is not None]
    graphs, programs = [], []
    try:
        for training in (True, False):
            traced = trace(model, x_BCHW, training=training)
            model.train(training)
            found = inspect(model, traced, x_BCHW)
            row_drops.fold(traced.graph, found)
            graph = step_graph(model, traced, found, orders, training=training)
            graphs.append(graph)
            if graph.derived:
                how = (graph.derived, trained, dtype)
                programs.append(record_weights(model, traced, found, *how, training=training))
    except NotStackable as error:
        raise NoPlan(str(error)) from error
    finally:
        model.train()
    if not same_network(*graphs):
        raise NoPlan("evaluation runs other layers than training")
    stages = [node.stage for node in graphs[0].nodes]
    if bf16 and not any(_convolves(stage) for stage in stages) and any(_is_wide(stage) for stage in stages):
        raise NoPlan("dense layers that torch multiplies faster in bfloat16")
    weights = WeightPrograms(*programs) if programs else None
    if weights is not None:
        trained += weights.training.trained
        moved = {name for node in graphs[0].nodes for name in (*node.buffers, node.counter)}
        if moved & (weights.training.buffers | weights.evaluation.buffers):
            raise NoPlan("weights that are computed from what a layer moves")
    steps = cover_steps(graphs[0], trained, dtype, images=images, bf16=bf16)
    steps.weights = weights
    steps.pinned = {name: storage.tensors[name][0].clone() for name in graphs[0].pinned}
    return steps


_WIDE = 2**19
"""Weights of a dense layer from which on torch's product in bfloat16 is faster than a compiled one in float32: at batch
64 a step of three layers of 512, 1024 and 2048 takes 1.12, .85 and .66 times as long (Zen 5)."""


def _convolves(stage: Stage) -> bool:
    """Whether a stage multiplies bfloat16 in a plan."""
    return isinstance(stage, Conv) and stage.channels > stage.groups


def _is_wide(stage: Stage) -> bool:
    return isinstance(stage, Linear) and stage.inputs * stage.outputs >= _WIDE
