"""Stochastic depth in a traced graph, as timm and users write it, as one operation.

Stands between tracing and the step plan.  A mask of one number for each image is drawn, made larger and multiplied
with what it drops: several operations that no compiled step has, and one that it has.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import torch
from torch import fx

from gridsearch.training.lanes.compile.lane_values import SAMPLE

if TYPE_CHECKING:
    from gridsearch.training.lanes.compile.tracing import Found

_DIVISIONS = ("div", "div_", torch.div, operator.truediv, operator.itruediv)
_PRODUCTS = ("mul", "mul_", torch.mul, operator.mul, operator.imul)
_EMPTY = ("new_empty", torch.empty)


def row_drop(x: torch.Tensor, keep: float) -> torch.Tensor:
    """Drop whole images, or parts of them that lie beside them, with a probability of 1 - `keep`; what `fold` puts in.

    What is left is divided by `keep`.
    """
    return x * x.new_empty((len(x), *(1,) * (x.dim() - 1))).bernoulli_(keep).div_(keep)


def fold(graph: fx.Graph, found: Found) -> None:
    """Make one operation of each stochastic depth.

    Args:
        graph: in training; it is changed.
        found: what a sample has shown of it.
    """
    for product in list(graph.nodes):
        if product.target not in _PRODUCTS or len(product.args) != 2 or product.kwargs:
            continue
        for x, mask in (product.args, product.args[::-1]):
            if isinstance(x, fx.Node) and isinstance(mask, fx.Node) and _fold(graph, found, product, x, mask):
                break


def _fold(graph: fx.Graph, found: Found, product: fx.Node, x: fx.Node, mask: fx.Node) -> bool:
    """Make one operation of a product with a mask, if that is what it is; return whether it is."""
    (drawn, by_mask), (whole, by_x) = _divided(mask), _divided(x)
    if drawn.target != "bernoulli_" or len(drawn.args) != 2 or drawn.kwargs or len(drawn.users) != 1:
        return False
    empty, keep = drawn.args
    if not isinstance(empty, fx.Node) or empty.target not in _EMPTY or len(empty.users) != 1:
        return False
    if not isinstance(keep, float) or not 0 < keep < 1:
        return False
    if by_mask == keep and by_x is None:
        whole = x
    elif by_mask is not None or by_x != keep:
        return False
    shape, like = found.shapes[whole], found.results[whole]
    if not shape or shape[0] % SAMPLE or found.shapes[drawn] != (shape[0], *(1,) * (len(shape) - 1)):
        return False
    if found.results[drawn].dtype != like.dtype or _draws_between(drawn, product, found):
        return False
    spare = [node for node in (mask, x, drawn, empty) if node is not whole]
    product.op, product.target, product.args = "call_function", row_drop, (whole, keep)
    for node in dict.fromkeys(spare):
        if not node.users:
            graph.erase_node(node)
    return True


def _divided(node: fx.Node) -> tuple[fx.Node, float | None]:
    """Return what is divided by a number in a node that one other reads, and the number; else the node itself."""
    if node.target in _DIVISIONS and len(node.args) == 2 and not node.kwargs and len(node.users) == 1:
        one, number = node.args
        if isinstance(one, fx.Node) and isinstance(number, float):
            return one, number
    return node, None


def _draws_between(first: fx.Node, last: fx.Node, found: Found) -> bool:
    """Whether anything draws between two nodes: it would come before the mask then."""
    node = first.next
    while node is not last:
        if node in found.draws:
            return True
        node = node.next
    return False
