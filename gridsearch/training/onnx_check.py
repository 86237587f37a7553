"""What an exported graph may hold: checked when it is made, and again when a file that says it is one is read.

Beside `export`; needs onnx alone, no torch.  torch's exporter gives standard operators, of which those that loop are
refused: the time of all others is bounded by the sizes of their tensors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOOPS: Final = frozenset({"Loop", "Scan", "SequenceMap"})
_STANDARD: Final = ("", "ai.onnx")
_VALUES: Final = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_MOST_IN_A_BYTE: Final = 8
_MOST_NODES: Final = 100_000
"""A deep network has some thousands; millions take gigabytes before the first one runs."""


def problem_of(proto: Any) -> str | None:
    """Return in one line why a graph is refused, None where it is one that this program exports.

    Args:
        proto: an onnx `ModelProto`.
    """
    import onnx

    if proto.functions:
        return "it defines operators of its own"
    if len(proto.graph.input) != 1 or len(proto.graph.output) != 1:
        return "it has other inputs and outputs than images and logits"
    graphs = list(_graphs(proto.graph))
    if (nodes := sum(len(graph.node) for graph in graphs)) > _MOST_NODES:
        return f"it has {nodes:,} operators, and at most {_MOST_NODES:,} are taken"
    for graph in graphs:
        for node in graph.node:
            if node.domain not in _STANDARD or not onnx.defs.has(node.op_type, ""):
                return f"it has the operator {node.op_type!r}, which is none of the standard ones"
            if node.op_type in _LOOPS:
                return f"it has a loop (operator {node.op_type})"
        if graph.sparse_initializer:
            return "it has sparse weights"
    return next(filter(None, map(_problem_of_tensor, _tensors(proto.graph))), None)


def _graphs(graph: Any) -> Iterator[Any]:
    """Yield a graph and those of its branches."""
    waiting = [graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def _tensors(graph: Any) -> Iterator[Any]:
    for each in _graphs(graph):
        yield from each.initializer
        for node in each.node:
            for attribute in node.attribute:
                yield from [attribute.t] if attribute.HasField("t") else []
                yield from attribute.tensors


def _problem_of_tensor(tensor: Any) -> str | None:
    """Compare the size that a tensor says with what is there, before anybody allocates memory for it."""
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        return "it keeps its weights in another file"
    stored = len(tensor.raw_data) + sum(len(getattr(tensor, name)) for name in _VALUES)
    if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > _MOST_IN_A_BYTE * stored:
        return "it has a tensor with less in it than it says"
    return None
