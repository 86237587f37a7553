"""What no image reaches as weights: parameters that are moved, and those that are computed from others.

Stands beside `graph_reading`, which walks through a network.
"""

from __future__ import annotations

import operator
import types
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import fx, nn

from gridsearch.training.lanes.compile import stage_numbers
from gridsearch.training.lanes.compile.stage_functions import MOVES, MOVING_METHODS, OF_KNOWN
from gridsearch.training.lanes.compile.stage_norms import PARAMETRIC
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gridsearch.training.lanes.compile.stage_reader import StageReader


def derive(
    r: StageReader,
    node: fx.Node,
    take: Callable[[], None],
    refusals: tuple[type[Exception], ...],
    *,
    read: bool,
) -> None:
    """Take in a node that no image reaches: what only moves parameters by their codes, all else as a weight.

    Args:
        r: what the network is read by.
        node: of tensors.
        take: takes it in as any other.
        refusals: what that may raise beside `NoPlan`.
        read: whether what images reach reads it, as real numbers.
    """
    if _may_move(r, node):
        r.reached_by_none = True
        with suppress(NoPlan, *refusals):
            take()
        r.reached_by_none = False
    if read and node not in r.values and node not in r.known:
        r.values[node] = r.derive(node)


def _may_move(r: StageReader, node: fx.Node) -> bool:
    """Whether a node may do no more than move numbers."""
    if node.op == "call_module":
        return type(r.model.get_submodule(str(node.target))) is nn.Embedding
    name = getattr(node.target, "__name__", str(node.target))
    if node.target in MOVES or name in MOVING_METHODS or (name in OF_KNOWN and name != _ATTENTION):
        return True
    is_function = isinstance(node.target, types.FunctionType)
    return is_function and node.target.__module__.partition(".")[0] not in ("torch", "gridsearch")


def read_weights(r: StageReader, node: fx.Node, of_no_image: Mapping[fx.Node, bool]) -> None:
    """Take what a function reads as its weights for weights that are computed, unless they are parameters as they are.

    A product of an activation and a matrix of parameters is a dense layer.
    """
    if node.target in _OF_WEIGHTS:
        for one in node.all_input_nodes:
            codes = r.values.get(one)
            if one in of_no_image and one.op != "get_attr" and isinstance(codes, torch.Tensor):
                try:
                    r.parameter(codes)
                except NoPlan:
                    r.values[one] = r.derive(one)


def product(r: StageReader, node: fx.Node, of_no_image: Mapping[fx.Node, bool]) -> torch.Tensor | None:
    """Return the codes of a product of an activation and a matrix of parameters; None where it is none."""
    if node.target not in _PRODUCTS or len(node.args) != 2 or node.kwargs:
        return None
    x, weight = node.args
    if weight not in of_no_image or x in of_no_image or not isinstance(weight, fx.Node):
        return None
    shape, codes = r.found.shapes[weight], r.values.get(x) if isinstance(x, fx.Node) else None
    if shape is None or len(shape) != 2 or not isinstance(codes, torch.Tensor):
        return None
    name = r.parameter(r.derive(weight, turned=True))
    return stage_numbers.dense(r, codes, *shape, (name, None))


_ATTENTION = "scaled_dot_product_attention"
_OF_WEIGHTS = {
    *(F.conv1d, torch.conv1d, F.conv2d, torch.conv2d, *PARAMETRIC),
    *(torch.einsum, torch.tensordot, F.bilinear, torch.bilinear, operator.matmul, torch.matmul, "matmul"),
}
"""Functions that are given weights of layers."""

_PRODUCTS = {operator.matmul, torch.matmul, torch.mm, "matmul", "mm"}
