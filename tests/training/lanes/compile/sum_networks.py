"""Networks of products and sums in every notation, which are planned whole: decoders, einsum, powers, folded patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from tests.training.lanes.compile.patch_net import Net


class Decoders(Net):
    """Learned queries that read the patches by torch's decoders, with masks; `len` says how many images there are."""

    def more(self):
        layer = nn.TransformerDecoderLayer(8, 2, 12, 0.2, F.gelu, batch_first=True, norm_first=True)
        self.decoder, self.queries = nn.TransformerDecoder(layer, 2, nn.LayerNorm(8)), nn.Embedding(3, 8)
        self.other = nn.TransformerDecoderLayer(8, 2, 12, 0.2)

    def body(self, x):
        memory = x.flatten(2).mT
        past = nn.Transformer.generate_square_subsequent_mask(3)
        y = self.decoder(self.queries.weight.expand(len(x), -1, -1), memory, tgt_mask=past)
        return self.other(y.transpose(0, 1), memory.transpose(0, 1))[0]


class Transformers(Net):
    def more(self):
        self.whole = nn.Transformer(8, 2, 1, 1, 12, 0.2, batch_first=True)
        self.queries = nn.Parameter(torch.randn(1, 2, 8))

    def body(self, x):
        past = torch.ones(2, 2, dtype=torch.bool).triu(1)
        return self.whole(x.flatten(2).mT, self.queries.expand(x.size(0), -1, -1), tgt_mask=past)


class Attended(Net):
    """Attention to tokens of another width, and its shares; what is computed beside them nobody reads."""

    def more(self):
        self.narrow = nn.Linear(8, 6)
        self.attend = nn.MultiheadAttention(8, 2, dropout=0.2, kdim=6, vdim=6, batch_first=True)

    def body(self, x):
        x = x.flatten(2).mT
        other = self.narrow(x)
        y, shares = self.attend(x, other, other)
        self.narrow(x).relu()
        return (y * shares.sum(1).unsqueeze(-1)).mean(1)


class Einsums(Net):
    """Sums of products with parameters: of groups, of the left, of all letters, of three, with dots, and by tensordot."""

    def more(self):
        self.into, self.out = nn.Parameter(torch.randn(8, 2, 4)), nn.Parameter(torch.randn(2, 4, 8))
        self.heads, self.tokens = nn.Parameter(torch.randn(2, 4, 5)), nn.Parameter(torch.randn(16, 3))
        self.form, self.scale = nn.Parameter(torch.randn(8, 8, 3)), nn.Parameter(torch.randn(8))
        self.pair = nn.Bilinear(8, 8, 5)

    def body(self, x):
        x = x.flatten(2).mT
        q = torch.einsum("btd,dhk->bhtk", x, self.into)
        grouped = torch.einsum("bhtk,hkc->bthc", q, self.heads.tanh()).sum((1, 2))
        joined = torch.einsum("...htk,hkd->...td", q @ self.heads @ self.heads.mT, self.out)
        mixed = (
            torch.einsum("bs d,st->btd", joined, self.tokens)
            * torch.einsum("btd,d->bd", x, self.scale)[:, None]
        )
        three = torch.einsum("bd,dey,be->yb", x[:, 0], self.form, x[:, 1]).t()
        dotted = torch.tensordot(x, self.form, ([2], [1]))[:, 0].flatten(1)
        left = (self.tokens.t() @ x).mean(1)
        return torch.cat([grouped, mixed.flatten(1), three, dotted, left, self.pair(x[:, 2], x[:, 3])], 1)


class Learned(Net):
    """Pooling by a power that is learned, powers of what is positive by its form, and of a number."""

    def more(self):
        self.p, self.powers = nn.Parameter(torch.tensor([2.5])), nn.Parameter(torch.rand(8, 1, 1) + 1)

    def body(self, x):
        pooled = F.avg_pool2d(x.clamp(min=1e-6).pow(self.p), x.size(-1)).pow(1.0 / self.p)
        return torch.cat(
            [pooled.flatten(1), ((x.relu() + 0.1) ** self.powers).amax((2, 3)), 2.0 ** x.mean((2, 3))], 1
        )


class Waves(Net):
    """Sines, coordinates of pixels, rounding with a gradient past it, and signs without one."""

    def more(self):
        self.waves = nn.Conv2d(9, 6, 1)

    def body(self, x):
        batch, _, height, width = x.shape
        across = torch.linspace(-1, 1, width).expand(height, -1).repeat(batch, 1, 1, 1).type_as(x)
        x = torch.cat([x, across], 1)
        y = self.waves(torch.sin(3 * x) + x.cos())
        y = y + (torch.round(4 * y) / 4 - y).detach() + 0.1 * y.sign() * y.detach().floor()
        return torch.sign(y) * torch.sqrt(y.abs() + 0.1) + y.ceil()


class Patched(Net):
    """Patches that overlap and are folded again, running sums, products of a few, and distances to what is learned."""

    def more(self):
        self.fold, self.points = nn.Fold(4, 2, stride=1), nn.Parameter(torch.randn(3, 8))
        self.places = nn.Embedding(17, 8, padding_idx=0)

    def body(self, x):
        x = self.fold(F.unfold(x, 2).tanh())
        tokens = x.flatten(2).mT + self.places(torch.arange(1, 17))
        products = tokens.sigmoid().view(-1, 16, 2, 4).prod(3)
        apart = torch.cdist(tokens, self.points.expand(x.shape[0], -1, -1))
        return torch.cat([tokens.cumsum(1)[:, 3], products.flatten(1), apart.flatten(1)], 1)


NETWORKS = (Decoders, Transformers, Attended, Einsums, Learned, Waves, Patched)
