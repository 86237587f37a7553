"""Changes to a traced graph before it is rewritten: the same function in another order, or as fewer operations.

Stands between torch.fx and the rewrite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import fx, nn

if TYPE_CHECKING:
    from collections.abc import Mapping


def reorder(graph: fx.Graph, model: nn.Module) -> None:
    """Put max pooling before ReLU where it comes right after: the same function on a quarter of the values.

    The gradient is the same too: where the largest value of a window is not positive it is zero either way.
    """
    modules = dict(model.named_modules())
    for pool in list(graph.nodes):
        if not _is_max_pool(pool, modules) or len(pool.all_input_nodes) != 1:
            continue
        relu = pool.all_input_nodes[0]
        if not _is_relu(relu, modules) or len(relu.users) != 1:
            continue
        before = relu.args[0]
        if not isinstance(before, fx.Node) or len(before.users) != 1:
            continue
        pool.replace_all_uses_with(relu)
        pool.replace_input_with(relu, before)
        relu.replace_input_with(before, pool)
        pool.append(relu)


def _is_max_pool(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        module = modules[str(node.target)]
        return type(module) is nn.MaxPool2d and not module.return_indices
    # torch.nn.functional.max_pool2d is a dispatcher on return_indices, which its default leaves off
    plain = node.target in (torch.nn.functional.max_pool2d, torch.max_pool2d)
    return (
        node.op == "call_function" and plain and not node.kwargs.get("return_indices") and len(node.args) < 7
    )


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(modules[str(node.target)]) is nn.ReLU
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in (torch.nn.functional.relu, torch.relu)


def pooled_convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    padding: tuple[int, int],
    pool: int,
    relu: bool,
) -> torch.Tensor:
    """Return the largest values of a convolution's windows, after ReLU if wanted: what `fuse` puts into a graph.

    Args:
        x: maps [B, C, H, W].
        weight: [O, C, h, w].
        bias: [O].
        padding: zeros above and below, left and right.
        pool: side of a window and step to the next.
        relu: whether ReLU comes after.
    """
    y = F.max_pool2d(F.conv2d(x, weight, bias, padding=padding), pool)
    return torch.relu(y) if relu else y


def fuse(graph: fx.Graph, model: nn.Module) -> None:
    """Make one operation of a convolution, the max pooling that alone reads it, and ReLU where it alone reads that.

    It takes plain convolutions (no stride, groups or dilation, padded by zeros) and windows that lie side by side.
    """
    modules = dict(model.named_modules())
    for conv in list(graph.nodes):
        if not _is_plain_conv(conv, modules) or len(conv.users) != 1:
            continue
        pool = next(iter(conv.users))
        side = _pool_side(pool, modules)
        if side is None or pool.args[:1] != (conv,):
            continue
        after = next(iter(pool.users)) if len(pool.users) == 1 else None
        relu = after if after is not None and _is_relu(after, modules) else None
        last = relu or pool
        module = modules[str(conv.target)]
        with graph.inserting_before(conv):
            weight = graph.get_attr(f"{conv.target}.weight")
            bias = None if module.bias is None else graph.get_attr(f"{conv.target}.bias")
            arguments = (conv.args[0], weight, bias, module.padding, side, relu is not None)
            fused = graph.call_function(pooled_convolution, arguments)
        last.replace_all_uses_with(fused)
        for node in (relu, pool, conv):
            if node is not None:
                graph.erase_node(node)


def _is_plain_conv(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    return (
        type(module) is nn.Conv2d
        and module.stride == module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and len(node.args) == 1
    )


def _pool_side(node: fx.Node, modules: dict[str, nn.Module]) -> int | None:
    """Return the side of a max pooling's windows where they are square and lie side by side, whole ones alone."""
    if not _is_max_pool(node, modules):
        return None
    if node.op == "call_module":
        m: Any = modules[str(node.target)]
        how: tuple[object, ...] = (m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode)
    else:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
        how = tuple(given.get(n, d) for n, d in zip(names, (None, None, 0, 1, False), strict=True))
    kernel, stride, padding, dilation, ceil_mode = how
    side = _square(kernel)
    beside = stride in (None, [], ()) or _square(stride) == side
    plain = beside and _square(padding) == 0 and _square(dilation) == 1 and ceil_mode is False
    return side if plain else None


def _square(sides: object) -> int | None:
    """Return the one number of a square; None where it is not one, or is known only when the graph runs."""
    if isinstance(sides, int):
        return sides
    if isinstance(sides, tuple | list) and len(sides) in (1, 2) and isinstance(sides[0], int):
        return sides[0] if sides[0] == sides[-1] else None
    return None
