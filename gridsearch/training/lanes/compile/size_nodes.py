"""Which nodes of a graph that torch.fx is tracing are sizes: shapes and numbers made of them; or ask for types.

Stands below `sample_values`, which knows their values.
"""

from __future__ import annotations

import builtins
import math
import operator
from typing import Any

from torch import fx

_SHAPES = ("shape", "ndim", "size", "dim", "ndimension", "numel")
"""Attributes and methods of a tensor that tell of its shape."""


_KINDS = ("dtype", "device", "layout", "is_cuda", "is_floating_point", "is_complex")
"""Those that tell of what its numbers are, which no batch decides."""


def give_number(user: fx.Node, node: fx.Node, number: int) -> None:
    """Let a node take a number in the place of another node's result."""
    user.args = fx.node.map_arg(user.args, lambda one: number if one is node else one)
    user.kwargs = fx.node.map_arg(user.kwargs, lambda one: number if one is node else one)


def asks_shape(node: fx.Node) -> bool:
    """Whether a node asks a tensor for its shape, or for a number of it."""
    if node.op == "call_method":
        return node.target in _SHAPES
    return node.target is getattr and node.args[1] in _SHAPES


def asks_kind(node: fx.Node) -> bool:
    """Whether a node asks what a tensor's numbers are, and where."""
    if node.op == "call_method":
        return node.target in _KINDS
    return node.target is getattr and node.args[1] in _KINDS


def is_size(node: fx.Node) -> bool:
    """Whether a node is a number or a shape, as its name and those of what it is made of say."""
    if asks_shape(node) or (node.op == "call_method" and node.target in ("item", "tolist")):
        return True
    made = node.op == "call_function" and is_arithmetic(node.target) and node.all_input_nodes
    return bool(made) and all(is_size(one) for one in node.all_input_nodes)


def asks_batch(node: fx.Node) -> bool:
    """Whether a node asks for the first side of a shape, which nearly always is how many images there are."""
    if node.op == "call_method":
        return node.target == "size" and node.args[1:] == (0,)
    return bool(node.target is operator.getitem and node.args[1] == 0)


def is_arithmetic(function: Any) -> bool:
    """Whether a function computes a number from numbers."""
    return getattr(function, "__module__", "") in ("_operator", "math") or function in (
        builtins.min,
        builtins.max,
        builtins.abs,
        builtins.round,
        math.prod,
    )
