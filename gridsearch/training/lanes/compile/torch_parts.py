"""Parts of a network that torch itself computes, within a plan: what is no stage, and what must go with it.

A part takes activations of images and parameters, and gives activations.  What lies between, complex numbers or
indices say, has no stage either, and is part of it; and so is all on a way out of the part and back into it.

Stands beside `graph_reading`, which walks through a network.

Shapes: B batch, F features.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from gridsearch.training.lanes.compile.lane_values import SAMPLE
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gridsearch.training.lanes.compile.tracing import Found


Part = frozenset[fx.Node]

_NONE: Part = frozenset()


class Unread(NoPlan):
    """A node of a graph is no stage.

    Attributes:
        node: which.
        part: what takes its result, and cannot take it for a stage's; empty where it was to be a stage itself.
    """

    def __init__(self, node: fx.Node, words: str, part: Part = _NONE) -> None:
        super().__init__(f"{node.name}: {words}")
        self.node, self.part = node, part


class TorchParts:
    """The parts of a graph.

    Args:
        graph: of a network.
        found: what a sample has shown of it.
    """

    def __init__(self, graph: fx.Graph, found: Found) -> None:
        self._graph, self._found = graph, found
        self._position = {node: i for i, node in enumerate(graph.nodes)}
        self._parts: list[Part] = []

    def take(self, node: fx.Node, part: Part = _NONE) -> bool:
        """Let torch compute a node, and what must go with it.

        Args:
            node: becomes part of a part.
            part: the one that needs it, if it is there already.

        Returns:
            Whether torch may compute all that.
        """
        self._parts = [each for each in self._parts if each != part]
        grown = self._closed(part | {node})
        while grown is not None:
            other = next((each for each in self._parts if self._belong_together(grown, each)), None)
            if other is None:
                self._parts.append(grown)
                return True
            self._parts.remove(other)
            grown = self._closed(grown | other)
        return False

    def units(self) -> Iterator[fx.Node | Part]:
        """Yield nodes and parts, each after all that it takes, and else in the order of the graph."""
        unit_of: dict[fx.Node, fx.Node | Part] = {node: part for part in self._parts for node in part}
        waits: dict[fx.Node | Part, set[fx.Node | Part]] = {}
        readers: dict[fx.Node | Part, list[fx.Node | Part]] = {}
        for node in self._graph.nodes:
            unit = unit_of.setdefault(node, node)
            before = {unit_of[one] for one in node.all_input_nodes} - {unit}
            waits.setdefault(unit, set()).update(before)
            for one in before:
                readers.setdefault(one, []).append(unit)
        places = {self._first(unit): unit for unit in waits}
        ready = [place for place, unit in places.items() if not waits[unit]]
        heapq.heapify(ready)
        while ready:
            unit = places[heapq.heappop(ready)]
            yield unit
            for reader in readers.get(unit, ()):
                if unit in waits[reader]:
                    waits[reader].remove(unit)
                    if not waits[reader]:
                        heapq.heappush(ready, self._first(reader))

    def in_order(self, part: Part) -> list[fx.Node]:
        """Return a part's nodes in the order of the graph."""
        return sorted(part, key=self._position.__getitem__)

    def _first(self, unit: fx.Node | Part) -> int:
        return self._position[unit if isinstance(unit, fx.Node) else self.in_order(unit)[0]]

    def _belong_together(self, one: Part, other: Part) -> bool:
        """Whether two parts have to be one, or may be one with nothing else in it."""
        touch = any(node in other for each in one for node in (*each.users, *each.all_input_nodes))
        return bool(one & other) or (touch and self._closed(one | other) == one | other)

    def _closed(self, nodes: Iterable[fx.Node]) -> Part | None:
        """Return nodes with all that must go with them; None where torch shall not compute one of these."""
        part = set(nodes)
        while True:
            more = {user for node in part if not self._leaves(node) for user in node.users}
            more |= _reached(part, lambda node: node.users) & _reached(
                part, lambda node: node.all_input_nodes
            )
            if more <= part:
                break
            part |= more
        return frozenset(part) if all(map(self._may_be_called, part)) else None

    def _leaves(self, node: fx.Node) -> bool:
        """Whether what a node gives may leave a part: an activation of images, or what only sizes are asked of."""
        result = self._found.results[node]
        if all(_gives_none(self._found.results[user]) for user in node.users):
            return True
        if not isinstance(result, torch.Tensor) or not result.dim() or len(result) != SAMPLE:
            return False
        return result.dtype is self._real

    @property
    def _real(self) -> torch.dtype:
        """The type of the images."""
        images = next(node for node in self._graph.nodes if node.op == "placeholder")
        dtype: torch.dtype = self._found.results[images].dtype
        return dtype

    def _may_be_called(self, node: fx.Node) -> bool:
        """Whether a node only computes: it draws nothing, changes nothing, and gives as much for all images."""
        found = self._found
        if node.op in ("placeholder", "output") or node in found.draws | found.changes | found.sized:
            return False
        name = getattr(node.target, "__name__", str(node.target))
        return not (node.op != "call_module" and name.endswith("_") and not name.endswith("__"))


def _reached(nodes: Iterable[fx.Node], following: Any) -> set[fx.Node]:
    """Return what lies beyond nodes in a direction, those themselves only where they are met again."""
    waiting, found = list(nodes), set[fx.Node]()
    while waiting:
        for one in following(waiting.pop()):
            if one not in found:
                found.add(one)
                waiting.append(one)
    return found


def _gives_none(result: Any) -> bool:
    return not any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(result))
