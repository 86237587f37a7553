"""Operations of a traced graph that change an argument in place, which rules of the rewrite compute out of place.

Stands between the tracing of a model and its rewrite.  Computed out of place, an operation gives the changed tensor as
a new one, and whatever reads the old one later is made to read the new one.  That is right as long as nothing else
reads the memory that was changed: a view that was made before the change, say.
"""

from __future__ import annotations

import inspect
import operator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree

from gridsearch.training.lanes.compile.lane_values import NotStackable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

IN_PLACE_OPERATORS = {
    f"__{name}__": getattr(operator, name)
    for name in (
        *("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul"),
        *("iand", "ior", "ixor", "ilshift", "irshift"),
    )
}
"""What `x += y` and the like call, by the names of their methods."""


def assigned(x: torch.Tensor, index: Any, value: Any) -> torch.Tensor:
    """Set a part of a tensor, and return the tensor: what `x[index] = value` is in a traced graph."""
    x[index] = value
    return x


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a tensor lies in memory, known also after the memory was freed.

    Attributes:
        storage: its memory; the reference keeps the number of the memory from being given again.
        strides: and sizes and offset, in elements.
    """

    storage: StorageWeakRef
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @classmethod
    def of_all(cls, content: Any) -> tuple[Place, ...]:
        """Return where the tensors among a result lie."""
        tensors = [t for t in pytree.tree_leaves(content) if isinstance(t, torch.Tensor)]
        return tuple(
            cls(_weak(t.untyped_storage()), tuple(t.shape), t.stride(), int(t.storage_offset()))
            for t in tensors
            if t.layout is torch.strided
        )

    def overlaps(self, other: Place) -> bool:
        """Whether two tensors have memory in common."""
        if self.storage.cdata != other.storage.cdata or 0 in self.sizes or 0 in other.sizes:
            return False
        if (self.sizes, self.strides, self.offset) == (other.sizes, other.strides, other.offset):
            return True
        cells = torch.zeros(max(self._end(), other._end()), dtype=torch.bool)
        cells.as_strided(self.sizes, self.strides, self.offset).fill_(True)
        return bool(cells.as_strided(other.sizes, other.strides, other.offset).any())

    def _end(self) -> int:
        return self.offset + 1 + sum((n - 1) * s for n, s in zip(self.sizes, self.strides, strict=True))


def _weak(memory: torch.UntypedStorage) -> StorageWeakRef:
    return StorageWeakRef(memory)  # type: ignore[no-untyped-call]


def read_what_was_changed(graph: fx.Graph, model: nn.Module) -> None:
    """Let what comes after a change in place read its result, which is the tensor that it has changed."""
    place = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        changed = node.args[0] if changes_first(node, model) and node.args else None
        if isinstance(changed, fx.Node) and changed.op != "get_attr":
            for later in [user for user in changed.users if place[user] > place[node]]:
                later.replace_input_with(changed, node)


def check_in_place(node: fx.Node, model: nn.Module, places: Mapping[fx.Node, Sequence[Place]]) -> None:
    """Refuse a change in place of what is read elsewhere too; rules compute out of place.

    Args:
        node: any.
        model: whose graph it is of.
        places: where each node's results lie when the graph runs.

    Raises:
        NotStackable: there is such a change.
    """
    if not changes_first(node, model):
        return
    changed = node.args[0] if node.args else None
    if not isinstance(changed, fx.Node):
        return
    memory = places.get(changed, ())
    for other, read_later in _earlier(node):
        same = other is changed or any(a.overlaps(b) for a in memory for b in places.get(other, ()))
        if same and (read_later or other.op == "get_attr"):
            raise NotStackable(
                f"{getattr(node.target, '__name__', node.target)} changes in place what is used elsewhere"
            )


def _earlier(node: fx.Node) -> Iterator[tuple[fx.Node, bool]]:
    """Yield each node before a node, and whether one after that node reads it."""
    nodes = list(node.graph.nodes)
    at = nodes.index(node)
    later = set(nodes[at + 1 :])
    for other in nodes[:at]:
        yield other, any(user in later for user in other.users)


def changes_first(node: fx.Node, model: nn.Module) -> bool:
    """Whether a node changes its first argument in place."""
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    if node.op not in ("call_function", "call_method"):
        return False
    name = getattr(node.target, "__name__", str(node.target))
    if node.kwargs.get("inplace") or node.target is assigned:
        return True
    if node.op == "call_function":
        if node.target in IN_PLACE_OPERATORS.values():
            return True
        place = _inplace_argument(node.target)
        if place is not None:
            return len(node.args) > place and node.args[place] is True
        if getattr(node.target, "__module__", "") == operator.and_.__module__:
            return False  # `and_` and `or_` end so because Python's own words are theirs
    return name.endswith("_") and not name.endswith("__")


@cache
def _inplace_argument(function: Any) -> int | None:
    """Return which argument of a function says whether it works in place; None where there is none."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # torch's built-in functions have no signature, and no such argument
        return None
    return names.index("inplace") if "inplace" in names else None


__all__ = [
    "IN_PLACE_OPERATORS",
    "Place",
    "assigned",
    "changes_first",
    "check_in_place",
    "read_what_was_changed",
]
