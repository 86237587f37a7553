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
from gridsearch.training.lanes.compile.lane_values import SAMPLE
from gridsearch.training.lanes.compile.places import PARAMETERS, Known, only_value, places_of
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.training.lanes.compile.lane_values import Order
    from gridsearch.training.lanes.compile.stage_reader import StageReader


_DIMENSIONS = 3  # of tokens [B, T, D]


def softmax(r: StageReader, x: torch.Tensor, dim: int | None, *, logarithm: bool = False) -> torch.Tensor:
    """Return the codes of softmax over a dimension, or of its logarithm."""
    if dim is not None and stage_numbers.lacks_images(x):
        own = dim % x.dim() + 1
        return stage_numbers.for_all(r, lambda each: softmax(r, each, own, logarithm=logarithm), x)
    first, at = r.images_first(x)
    if dim is None or dim % x.dim() == at.dim:
        raise NoPlan("softmax over images")
    (over,) = at.dims(dim % x.dim())
    value, rows = r.rows(first.movedim(over, -1))
    return at.back(r.of_rows(r.add(Softmax(logarithm), value), rows).movedim(-1, over))


def product(r: StageReader, a: torch.Tensor, b: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Return the codes of products of matrices, [B, ..., M, K] times [B, ..., K, N]."""
    if a.dim() != b.dim() or a.dim() < 3 or a.shape[-1] != b.shape[-2]:
        raise NoPlan("a product of other than an image's own matrices")
    before = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    (rows, depth), columns = a.shape[-2:], b.shape[-1]
    expanded = [x.expand(*before, *x.shape[-2:]) for x in (a, b)]
    _, at = r.images_first(expanded[0])
    if at.dim >= len(before):
        raise NoPlan("a product over images")
    given = [r.one(at.first(x, SAMPLE)) for x in expanded]
    first, second = (_matrices(r, x) for x in given)
    count = given[0].shape[:-2].numel()
    places = torch.cat([first[1], second[1]]).numpy().tobytes()
    sizes = numbers(r.shape(first[0])), numbers(r.shape(second[0]))
    stage = Product(count, rows, columns, depth, scale, sizes, (first[2], second[2]), places)
    value = r.add(stage, first[0], second[0])
    each = torch.arange(rows)[None, :] * count + torch.arange(count)[:, None]
    return at.back(r.of_rows(value, each.view(*given[0].shape[:-1])))


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
    mask: torch.Tensor | None = None,
    scale: float | None = None,
    rate: float = 0.0,
) -> torch.Tensor:
    """Return the codes of scaled dot-product attention, [B, ..., T, D]; a mask is added before softmax."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = product(r, q, k.transpose(-2, -1), scale)
    shares = softmax(r, scores if mask is None else stage_numbers.add(r, scores, mask), -1)
    if rate > 0:
        shares = stage_numbers.dropout(r, shares, rate, from_recipe=False)
    return product(r, shares, v)


def multihead(
    r: StageReader,
    place: str,
    m: nn.MultiheadAttention,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> tuple[Any, None]:
    """Return the codes of attention of several heads; those of its weights are not there.

    Raises:
        NoPlan: it has weights of its own for each of its inputs, or learned tokens.
    """
    plain = m.in_proj_weight is not None and m.bias_k is None and not m.add_zero_attn
    if not plain or query.dim() != _DIMENSIONS or (mask is not None and mask.dim() != _DIMENSIONS - 1):
        raise NoPlan("attention with options")
    given = [x if m.batch_first else x.transpose(0, 1) for x in (query, key, value)]
    bias = None if m.in_proj_bias is None else f"{place}.in_proj_bias"
    known: list[tuple[torch.Tensor, torch.Tensor]] = []

    def projected(x: torch.Tensor) -> torch.Tensor:
        """Return queries, keys and values [3, B, heads, T, D] of tokens: all three of the same ones at once."""
        for other, found in known:
            if torch.equal(x, other):
                return found
        images, tokens, width = x.shape
        all_BTF = stage_numbers.dense(r, x, width, 3 * width, (f"{place}.in_proj_weight", bias))
        found = all_BTF.reshape(images, tokens, 3, m.num_heads, -1).permute(2, 0, 3, 1, 4)
        known.append((x, found))
        return found

    heads = [projected(x)[i] for i, x in enumerate(given)]
    mixed = attention(r, *heads, mask=mask, rate=m.dropout if r.training else 0.0)
    y = r.layer(f"{place}.out_proj", m.out_proj, mixed.transpose(1, 2).flatten(2))
    return (y if m.batch_first else y.transpose(0, 1)), None


def encoder_layer(
    r: StageReader, place: str, m: Any, x: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the codes of torch's encoder layer."""

    def part(name: str, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = r.layer(f"{place}.{name}", getattr(m, name), x)
        return found

    def dropped(name: str, x: torch.Tensor, order: Order = ()) -> torch.Tensor:
        return stage_numbers.dropout(r, x, getattr(m, name).p, order, from_recipe=True)

    def attended(x: torch.Tensor) -> torch.Tensor:
        mixed = multihead(r, f"{place}.self_attn", m.self_attn, x, x, x, mask)[0]
        # as attention leaves its tokens
        return dropped("dropout1", mixed, (1, 0, 2) if m.self_attn.batch_first else ())

    def dense(x: torch.Tensor) -> torch.Tensor:
        hidden = stage_numbers.each(r, part("linear1", x), _activation(m.activation))
        return dropped("dropout2", part("linear2", dropped("dropout", hidden)))

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


def encoder(
    r: StageReader, place: str, m: Any, x: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the codes of torch's encoder."""
    for i, one in enumerate(m.layers):
        x = encoder_layer(r, f"{place}.layers.{i}", one, x, mask)
    return x if m.norm is None else r.layer(f"{place}.norm", m.norm, x)


def module(r: StageReader, place: str, m: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the codes of attention, or of an encoder, given torch's arguments.

    Raises:
        NoPlan: they say which tokens are there, image by image.
    """
    names = {
        nn.MultiheadAttention: ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask"),
        nn.TransformerEncoderLayer: ("src", "src_mask", "src_key_padding_mask"),
        nn.TransformerEncoder: ("src", "mask", "src_key_padding_mask"),
    }[type(m)]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    masks = [given.get(name) for name in ("attn_mask", "src_mask", "mask") if given.get(name) is not None]
    padded = any(given.get(name) is not None for name in names if "padding" in name)
    if padded or len(masks) > 1 or (given.get("is_causal") and not masks):
        raise NoPlan("attention with options")
    mask = _summand(r, masks[0]) if masks else None
    if isinstance(m, nn.MultiheadAttention):
        return multihead(r, place, m, given["query"], given["key"], given["value"], mask)
    own = encoder if isinstance(m, nn.TransformerEncoder) else encoder_layer
    return own(r, place, m, given["src"], mask)


def _summand(r: StageReader, mask: Any) -> torch.Tensor:
    """Return the codes of what is added to the scores: of a mask of truths, which are left out, or of numbers."""
    if not isinstance(mask, Known):
        found: torch.Tensor = mask
        return found
    content = mask.content
    return r.constant(torch.where(content, -math.inf, 0.0) if content.dtype == torch.bool else content)


def is_attention(m: nn.Module) -> bool:
    """Whether a layer is attention, or made of it."""
    return type(m) in (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
