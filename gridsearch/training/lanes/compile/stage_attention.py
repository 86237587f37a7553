"""Attention as stages: products of an image's own matrices, softmax, and torch's layers that are made of them.

Stands beside `stage_reader`, for `stage_layers` and `stage_calls`.

Shapes: B batch, T tokens, D channels of a token, M/K/N rows, depth and columns of a product.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.training.kernels.stages import Product, Softmax, numbers
from gridsearch.training.lanes.compile import stage_numbers
from gridsearch.training.lanes.compile.places import PARAMETERS, only_value, places_of
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from gridsearch.training.lanes.compile.lane_values import Order
    from gridsearch.training.lanes.compile.stage_reader import StageReader


_INPUTS = 3  # of attention: query, key and value
_DIMENSIONS = 3  # of tokens [B, T, D]


def softmax(r: StageReader, x: torch.Tensor, dim: int | None) -> torch.Tensor:
    """Return the codes of softmax over a dimension."""
    if dim is None or dim % x.dim() == 0:
        raise NoPlan("softmax over images")
    last = x.movedim(dim, -1)
    value, rows = r.rows(last)
    return r.of_rows(r.add(Softmax(), value), rows).movedim(-1, dim)


def product(r: StageReader, a: torch.Tensor, b: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Return the codes of products of matrices, [B, ..., M, K] times [B, ..., K, N]."""
    if a.dim() != b.dim() or a.dim() < 3 or a.shape[-1] != b.shape[-2]:
        raise NoPlan("a product of other than an image's own matrices")
    before = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    (rows, depth), columns = a.shape[-2:], b.shape[-1]
    given = [r.one(x.expand(*before, *x.shape[-2:])) for x in (a, b)]
    first, second = (_matrices(r, x) for x in given)
    count = given[0].shape[:-2].numel()
    places = torch.cat([first[1], second[1]]).numpy().tobytes()
    sizes = numbers(r.shape(first[0])), numbers(r.shape(second[0]))
    stage = Product(count, rows, columns, depth, scale, sizes, (first[2], second[2]), places)
    value = r.add(stage, first[0], second[0])
    each = torch.arange(rows)[None, :] * count + torch.arange(count)[:, None]
    return r.of_rows(value, each.view(*given[0].shape[:-1]))


def _matrices(r: StageReader, first: torch.Tensor) -> tuple[int, torch.Tensor, tuple[int, int]]:
    """Return a value, where in it each of an image's matrices begins, and the steps between rows and columns."""
    value, places = only_value(first), places_of(first)
    if value is None or value >= PARAMETERS or (found := _steps(places)) is None:
        shape = (first.shape[-1], 1, first.shape[:-1].numel())
        value = r.value(first, shape)
        found = _steps(torch.arange(first.numel()).view(first.shape))
        assert found is not None
    return value, *found


def _steps(places: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]] | None:
    """Return where matrices begin and their steps; None where places are not as regular as that."""
    begins = places[..., :1, :1]
    relative = (places - begins).flatten(0, -3) if places.dim() > 2 else places[None] - begins
    rows, columns = relative.shape[1:]
    down = int(relative[0, 1, 0]) if rows > 1 else 0
    across = int(relative[0, 0, 1]) if columns > 1 else 0
    expected = torch.arange(rows)[:, None] * down + torch.arange(columns) * across
    if not bool((relative == expected).all()):
        return None
    return begins.flatten().to(torch.int64).contiguous(), (down, across)


def attention(
    r: StageReader,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | None = None,
    rate: float = 0.0,
) -> torch.Tensor:
    """Return the codes of scaled dot-product attention, [B, ..., T, D]."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    shares = softmax(r, product(r, q, k.transpose(-2, -1), scale), -1)
    if rate > 0:
        shares = stage_numbers.dropout(r, shares, rate, from_recipe=False)
    return product(r, shares, v)


def multihead(r: StageReader, place: str, m: nn.MultiheadAttention, *given: Any) -> tuple[Any, None]:
    """Return the codes of attention of several heads; those of its weights are not there.

    Raises:
        NoPlan: it is no plain self-attention.
    """
    plain = m.in_proj_weight is not None and m.bias_k is None and not m.add_zero_attn
    x = given[0]
    if (
        not plain
        or len(given) != _INPUTS
        or x.dim() != _DIMENSIONS
        or any(not torch.equal(x, y) for y in given)
    ):
        raise NoPlan("attention to other than the tokens themselves")
    x = x if m.batch_first else x.transpose(0, 1)
    images, tokens, width = x.shape
    bias = None if m.in_proj_bias is None else f"{place}.in_proj_bias"
    all_BTF = stage_numbers.dense(r, x, width, 3 * width, (f"{place}.in_proj_weight", bias))
    heads = all_BTF.reshape(images, tokens, 3, m.num_heads, -1).permute(2, 0, 3, 1, 4)
    mixed = attention(r, *heads, rate=m.dropout if r.training else 0.0)
    joined = mixed.transpose(1, 2).reshape(images, tokens, width)
    y = r.layer(f"{place}.out_proj", m.out_proj, joined)
    return (y if m.batch_first else y.transpose(0, 1)), None


def encoder_layer(r: StageReader, place: str, m: Any, x: torch.Tensor) -> torch.Tensor:
    """Return the codes of torch's encoder layer."""

    def part(name: str, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = r.layer(f"{place}.{name}", getattr(m, name), x)
        return found

    def dropped(name: str, x: torch.Tensor, order: Order = ()) -> torch.Tensor:
        return stage_numbers.dropout(r, x, getattr(m, name).p, order, from_recipe=True)

    def attended(x: torch.Tensor) -> torch.Tensor:
        mixed = multihead(r, f"{place}.self_attn", m.self_attn, x, x, x)[0]
        return dropped("dropout1", mixed, (1, 0, 2))  # as attention leaves its tokens

    def dense(x: torch.Tensor) -> torch.Tensor:
        hidden = stage_numbers.each(r, part("linear1", x), _activation(m.activation))
        return dropped("dropout2", part("linear2", dropped("dropout", hidden)))

    if not m.self_attn.batch_first:
        raise NoPlan("an encoder whose first dimension is not that of images")
    if m.norm_first:
        x = stage_numbers.add(r, x, attended(part("norm1", x)))
        return stage_numbers.add(r, x, dense(part("norm2", x)))
    x = part("norm1", stage_numbers.add(r, x, attended(x)))
    return part("norm2", stage_numbers.add(r, x, dense(x)))


def _activation(function: Any) -> Any:
    functions = {F.gelu: nn.GELU(), F.relu: nn.ReLU()}
    found = stage_numbers.activation(functions.get(function, function))
    if found is None:
        raise NoPlan("an activation of its own")
    return found


def encoder(r: StageReader, place: str, m: Any, x: torch.Tensor) -> torch.Tensor:
    """Return the codes of torch's encoder."""
    for i, one in enumerate(m.layers):
        x = r.layer(f"{place}.layers.{i}", one, x)
    return x if m.norm is None else r.layer(f"{place}.norm", m.norm, x)
