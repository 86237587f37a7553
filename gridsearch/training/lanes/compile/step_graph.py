"""A network as stages: what compiled operations can be chosen for, whatever a model calls its layers.

Stands between what reads a traced network (`stage_reader`) and the step plan.  A network with anything that is no stage
has no plan, which is no error: its steps are then not compiled.

Shapes: C/H/W channels, height, width.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gridsearch.training.kernels.stages import Add, Dropout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

    from gridsearch.training.kernels.stages import Shape, Stage


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
class Derived:
    """A weight of a layer that is computed from parameters.

    Attributes:
        name: by which stages have it as a parameter.
        source: the node of the traced graph that computes it; of a parameter in another order its name.
        order: of the source's dimensions; () for its own.
    """

    name: str
    source: fx.Node | str
    order: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepGraph:
    """A network as nodes, in the order in which they run; the last one's result are the logits.

    Attributes:
        image: shape of one image [C, H, W].
        nodes: all of them.
        pinned: names of buffers whose content its stages have, so that it must stay as it is.
        derived: the weights among the parameters that are computed from others.
    """

    image: Shape
    nodes: tuple[Node, ...]
    pinned: tuple[str, ...] = ()
    derived: tuple[Derived, ...] = field(default=(), compare=False)

    def shape(self, value: int) -> Shape:
        """Return one image's shape of a value."""
        return self.nodes[value - 1].shape if value else self.image

    def readers(self, value: int) -> list[int]:
        """Return the numbers of the nodes that take a value."""
        return [n for n, node in enumerate(self.nodes, 1) if value in node.inputs]

    def in_evaluation(self) -> StepGraph:
        """Return the network without dropout, and without what counts batches."""
        renamed: dict[int, int] = {0: 0}
        kept: list[Node] = []
        for n, node in enumerate(self.nodes, 1):
            if isinstance(node.stage, Dropout):
                renamed[n] = renamed[node.inputs[0]]
                continue
            inputs = tuple(
                renamed[i] for i in node.inputs
            )  # of a sum by their numbers, which dropout changes
            inputs = tuple(sorted(inputs)) if isinstance(node.stage, Add) else inputs
            kept.append(replace(node, inputs=inputs, counter=None))
            renamed[n] = len(kept)
        return StepGraph(self.image, tuple(kept), self.pinned)


def same_network(training: StepGraph, evaluation: StepGraph) -> bool:
    """Whether evaluation runs what training does, without dropout."""
    return training.in_evaluation() == evaluation.in_evaluation()


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
