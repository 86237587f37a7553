"""What no activation is part of: sizes, and tensors whose content is the same for all images.

Stands between `stage_calls`, which takes in the rest, and the codes of numbers.

Shapes: B batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from gridsearch.training.lanes.compile.lane_values import SAMPLE
from gridsearch.training.lanes.compile.places import Known, is_known
from gridsearch.training.lanes.compile.stage_functions import MOVES, MOVING_METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import fx

    from gridsearch.training.lanes.compile.stage_reader import StageReader

_MOST_KNOWN = 2**22  # numbers of a tensor that is computed before anything runs

TYPES = {"to", "type_as", "float"}
"""Methods that give a tensor of another type, or on another device."""

SHAPING = {
    *MOVING_METHODS,
    *(getattr(move, "__name__", "") for move in MOVES),
    *("sdpa", "scaled_dot_product_attention"),
}
"""What may be given how many images there are, as a size."""

_FILLED = {torch.zeros, torch.ones, torch.empty}


def _content(value: Any) -> Any:
    return value.content if isinstance(value, Known) else value


def counts_images(r: StageReader, node: fx.Node) -> bool:
    """Whether a size may be how many images there are, or be made of that."""
    if not is_of_sizes(r, node) or (node.target is getattr and node.args[1] in _OF_NUMBERS):
        return False
    asked = [one for one in node.all_input_nodes if not is_of_sizes(r, one)]
    taken = getattr(node.target, "__name__", node.target) == "getitem"
    if not asked and not taken:
        return any(counts_images(r, one) for one in node.all_input_nodes)
    known = taken or node.target == "size" or (node.target is getattr and node.args[1] == "shape")
    return not known or SAMPLE in pytree.tree_leaves(r.found.results[node])


_OF_NUMBERS = ("device", "dtype", "layout")
"""Attributes of a tensor that tell of its numbers."""


def is_of_sizes(r: StageReader, node: fx.Node) -> bool:
    """Whether a node gives no tensor: a shape, or what is made of one."""
    leaves = pytree.tree_leaves(r.found.results[node])
    return not any(isinstance(leaf, torch.Tensor) for leaf in leaves)


def is_repeated(r: StageReader, node: fx.Node, name: str, args: Sequence[Any]) -> bool:
    """Whether what is known becomes a tensor of as many images as there are."""
    if (
        name not in MOVING_METHODS
        or not isinstance(args[0], Known)
        or not args[0].content.is_floating_point()
    ):
        return False
    return any(counts_images(r, one) for one in node.all_input_nodes)


def learn(r: StageReader, node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Compute what no activation is part of, if it is always the same."""
    tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor | Known)]
    counts = any(counts_images(r, one) for one in node.all_input_nodes)
    if node in r.found.draws or node in r.found.changes or (counts and node.target not in _FILLED):
        return
    if not all(isinstance(t, Known) and not t.content.is_meta for t in tensors):
        return
    args, kwargs = pytree.tree_map(_content, (tuple(args), dict(kwargs)))
    called: Any = getattr(args[0], node.target) if isinstance(node.target, str) else node.target
    with torch.no_grad():
        result = called(*args[1:] if isinstance(node.target, str) else args, **kwargs)
    if isinstance(result, torch.Tensor) and result.numel() <= _MOST_KNOWN:
        r.known[node] = result


def keeps_numbers(r: StageReader, node: fx.Node, given: Any) -> bool:
    """Whether a tensor of another type, or on another device, has the same numbers."""
    before: Any = node.args[0]
    if isinstance(given, Known) or r.found.results[node].dtype == r.found.results[before].dtype:
        return True
    # images and parameters are of one type; what is known has numbers of its own
    known = isinstance(given, torch.Tensor) and bool(is_known(given).all())
    return known and r.found.results[node].dtype in (torch.float32, torch.float64)
