"""Attention as stages: products of an image's own matrices, softmax, and torch's layers that are made of them.

Stands beside `stage_reader`, for `stage_layers` and `stage_calls`.

Shapes: B batch, T tokens, D channels of a token, M/K/N rows, depth and columns of a product.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.training.kernels.stages import Product, Softmax, numbers
from gridsearch.training.lanes.compile import stage_numbers
from gridsearch.training.lanes.compile.lane_values import SAMPLE
from gridsearch.training.lanes.compile.places import PARAMETERS, Known, only_value, places_of
from gridsearch.training.lanes.compile.step_graph import NoPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
    before = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
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
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the codes of scaled dot-product attention [B, ..., T, D], and of its shares; a mask is added before."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = product(r, q, k.transpose(-2, -1), scale)
    shares = softmax(r, scores if mask is None else stage_numbers.add(r, scores, mask), -1)
    if rate > 0:
        shares = stage_numbers.dropout(r, shares, rate, from_recipe=False)
    return product(r, shares, v), shares


def multihead(
    r: StageReader,
    place: str,
    m: nn.MultiheadAttention,
    tokens: Sequence[torch.Tensor],
    *,
    mask: torch.Tensor | None = None,
    needs: bool = False,
    averages: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the codes of attention of several heads, and those of its shares [B, T, T] where they are needed.

    Args:
        r: what the network is read by.
        place: of the layer in the model.
        m: the layer.
        tokens: codes of queries, keys and values.
        mask: is added to the scores.
        needs: the shares are asked for.
        averages: over the heads; else [B, heads, T, T].

    Raises:
        NoPlan: it has learned tokens, or something else that is no stage.
    """
    if m.bias_k is not None or m.add_zero_attn or tokens[0].dim() != _DIMENSIONS:
        raise NoPlan("attention with options")
    if mask is not None and mask.dim() != _DIMENSIONS - 1:
        raise NoPlan("attention with options")
    given = [x if m.batch_first else x.transpose(0, 1) for x in tokens]
    heads = _heads(r, place, m, given)
    mixed, shares = attention(r, *heads, mask=mask, rate=m.dropout if r.training else 0.0)
    y = r.layer(f"{place}.out_proj", m.out_proj, mixed.transpose(1, 2).flatten(2))
    y = y if m.batch_first else y.transpose(0, 1)
    if not needs:
        return y, None
    return y, stage_numbers.mean(r, shares, (1,), keeps=False) if averages else shares


def _heads(
    r: StageReader, place: str, m: nn.MultiheadAttention, given: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Return the codes [B, heads, T, D] of queries, keys and values: all three of the same tokens at once."""
    known: list[tuple[torch.Tensor, torch.Tensor]] = []
    bias = None if m.in_proj_bias is None else f"{place}.in_proj_bias"

    def projected(x: torch.Tensor) -> torch.Tensor:
        for other, found in known:
            if torch.equal(x, other):
                return found
        images, tokens, width = x.shape
        all_BTF = stage_numbers.dense(r, x, width, 3 * m.embed_dim, (f"{place}.in_proj_weight", bias))
        found = all_BTF.reshape(images, tokens, 3, m.num_heads, -1).permute(2, 0, 3, 1, 4)
        known.append((x, found))
        return found

    def own(x: torch.Tensor, which: int) -> torch.Tensor:
        """Return a projection by a weight of its own, as torch has them where keys are of another width."""
        weight = f"{place}.{'qkv'[which]}_proj_weight"
        y = stage_numbers.dense(r, x, x.shape[-1], m.embed_dim, (weight, None))
        if bias is not None:
            y = stage_numbers.add(r, y, r.tensor(bias).chunk(3)[which])
        return y.reshape(*y.shape[:2], m.num_heads, -1).transpose(1, 2)

    if m._qkv_same_embed_dim:
        return [projected(x)[which] for which, x in enumerate(given)]
    return [own(x, which) for which, x in enumerate(given)]


class _Layer:
    """What torch's encoder and decoder layers are made of.

    Args:
        r: what the network is read by.
        place: of the layer in the model.
        m: the layer.
    """

    def __init__(self, r: StageReader, place: str, m: Any) -> None:
        self._r, self._place, self._m = r, place, m

    def part(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Return the codes of what a layer within gives."""
        found: torch.Tensor = self._r.layer(f"{self._place}.{name}", getattr(self._m, name), x)
        return found

    def dropped(self, name: str, x: torch.Tensor, order: Order = ()) -> torch.Tensor:
        """Return the codes of what a dropout within leaves."""
        return stage_numbers.dropout(self._r, x, getattr(self._m, name).p, order, from_recipe=True)

    def attended(
        self, name: str, drop: str, x: torch.Tensor, others: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the codes of attention to other tokens, after dropout."""
        m = getattr(self._m, name)
        mixed = multihead(self._r, f"{self._place}.{name}", m, (x, others, others), mask=mask)[0]
        # as attention leaves its tokens
        return self.dropped(drop, mixed, (1, 0, 2) if m.batch_first else ())

    def dense(self, x: torch.Tensor, drop: str) -> torch.Tensor:
        """Return the codes of the two dense layers, after dropout."""
        hidden = stage_numbers.each(self._r, self.part("linear1", x), _activation(self._m.activation))
        return self.dropped(drop, self.part("linear2", self.dropped("dropout", hidden)))

    def around(
        self, x: torch.Tensor, norm: str, call: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Return the codes of tokens plus what is made of them, with a norm before that or after the sum."""
        if self._m.norm_first:
            return stage_numbers.add(self._r, x, call(self.part(norm, x)))
        return self.part(norm, stage_numbers.add(self._r, x, call(x)))


def encoder_layer(
    r: StageReader, place: str, m: Any, x: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the codes of torch's encoder layer."""
    own = _Layer(r, place, m)
    x = own.around(x, "norm1", lambda x: own.attended("self_attn", "dropout1", x, x, mask))
    return own.around(x, "norm2", lambda x: own.dense(x, "dropout2"))


def decoder_layer(
    r: StageReader,
    place: str,
    m: Any,
    x: torch.Tensor,
    memory: torch.Tensor,
    masks: Sequence[torch.Tensor | None] = (None, None),
) -> torch.Tensor:
    """Return the codes of torch's decoder layer; masks are those of its own tokens and of the memory."""
    own = _Layer(r, place, m)
    x = own.around(x, "norm1", lambda x: own.attended("self_attn", "dropout1", x, x, masks[0]))
    x = own.around(x, "norm2", lambda x: own.attended("multihead_attn", "dropout2", x, memory, masks[1]))
    return own.around(x, "norm3", lambda x: own.dense(x, "dropout3"))


def _activation(function: Any) -> Any:
    functions = {F.gelu: nn.GELU(), F.relu: nn.ReLU()}
    found = stage_numbers.activation(functions.get(function, function))
    if found is None:
        raise NoPlan("an activation of its own")
    return found


def _in_turn(
    r: StageReader, place: str, m: Any, x: torch.Tensor, layer: Callable[..., torch.Tensor], *given: Any
) -> torch.Tensor:
    """Return the codes of the layers of torch's encoder or decoder, and of the norm behind them."""
    for i, one in enumerate(m.layers):
        if type(one) not in (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer):
            raise NoPlan("a transformer with layers of its own")
        x = layer(r, f"{place}.layers.{i}", one, x, *given)
    return x if m.norm is None else r.layer(f"{place}.norm", m.norm, x)


_ATTENTION = "query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights"
_DECODER = "tgt", "memory", "tgt_mask", "memory_mask", "tgt_key_padding_mask", "memory_key_padding_mask"
_NAMES: dict[Any, tuple[str, ...]] = {
    nn.MultiheadAttention: _ATTENTION,
    nn.TransformerEncoderLayer: ("src", "src_mask", "src_key_padding_mask"),
    nn.TransformerEncoder: ("src", "mask", "src_key_padding_mask"),
    nn.TransformerDecoderLayer: _DECODER,
    nn.TransformerDecoder: _DECODER,
    nn.Transformer: ("src", "tgt", "src_mask", "tgt_mask", "memory_mask"),
}
_CAUSAL = {
    "is_causal": ("attn_mask", "src_mask", "mask"),
    **{f"{n}_is_causal": (f"{n}_mask",) for n in _DECODER[:2]},
}
"""Arguments that say of masks that they are causal: torch wants these all the same."""


def module(r: StageReader, place: str, m: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the codes of attention, or of torch's layers and networks that are made of it, given torch's arguments.

    Raises:
        NoPlan: they say which tokens are there, image by image.
    """
    given = {**dict(zip(_NAMES[type(m)], args, strict=False)), **kwargs}
    if any(each is not None for name, each in given.items() if "padding" in name):
        raise NoPlan("attention with options")
    masks = {name: _summand(r, each) for name, each in given.items() if "mask" in name and each is not None}
    if any(given.get(name) and not any(mask in masks for mask in named) for name, named in _CAUSAL.items()):
        raise NoPlan("attention with options")
    of_own = next((masks[name] for name in ("attn_mask", "src_mask", "mask") if name in masks), None)
    of_decoder = masks.get("tgt_mask"), masks.get("memory_mask")
    if isinstance(m, nn.MultiheadAttention):
        tokens = given["query"], given["key"], given["value"]
        needs, averages = (given.get(name, True) for name in ("need_weights", "average_attn_weights"))
        return multihead(r, place, m, tokens, mask=of_own, needs=needs, averages=averages)
    if isinstance(m, nn.Transformer):
        if (type(m.encoder), type(m.decoder)) != (nn.TransformerEncoder, nn.TransformerDecoder):
            raise NoPlan("a transformer with an encoder of its own")
        memory = module(r, f"{place}.encoder", m.encoder, (given["src"], given.get("src_mask")), {})
        rest = {"tgt_mask": given.get("tgt_mask"), "memory_mask": given.get("memory_mask")}
        return module(r, f"{place}.decoder", m.decoder, (given["tgt"], memory), rest)
    if isinstance(m, nn.TransformerDecoder):
        return _in_turn(r, place, m, given["tgt"], decoder_layer, given["memory"], of_decoder)
    if isinstance(m, nn.TransformerDecoderLayer):
        return decoder_layer(r, place, m, given["tgt"], given["memory"], of_decoder)
    if isinstance(m, nn.TransformerEncoder):
        return _in_turn(r, place, m, given["src"], encoder_layer, of_own)
    return encoder_layer(r, place, m, given["src"], of_own)


def _summand(r: StageReader, mask: Any) -> torch.Tensor:
    """Return the codes of what is added to the scores: of a mask of truths, which are left out, or of numbers."""
    if not isinstance(mask, Known):
        found: torch.Tensor = mask
        return found
    content = mask.content
    return r.constant(torch.where(content, -math.inf, 0.0) if content.dtype == torch.bool else content)


def is_attention(m: nn.Module) -> bool:
    """Whether a layer is attention, or made of it."""
    return type(m) in _NAMES
