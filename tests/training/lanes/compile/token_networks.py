"""Networks of tokens, which are planned whole: attention, windows of tokens and recurrent layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.zoo import torchvision
from tests.training.lanes.compile.patch_net import Net


class Fixed(Net):
    """Positions that are not trained, of a buffer that is shared by two additions."""

    def more(self):
        self.register_buffer("positions", torch.randn(1, 16, 8))

    def body(self, x):
        x = x.flatten(2).transpose(1, 2) + self.positions
        return x.relu() + self.positions


class AttentionDropout(Net):
    """Dropout of shares, and of what attention gives, whose tokens lie outermost in memory."""

    def more(self):
        self.attend, self.drop = nn.MultiheadAttention(8, 2, batch_first=True), nn.Dropout(0.3)

    def body(self, x):
        x = x.flatten(2).transpose(1, 2)
        q = x.view(x.shape[0], 16, 2, 4).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, q, q, dropout_p=0.2 if self.training else 0.0)
        return x + y.transpose(1, 2).flatten(2) + self.drop(self.attend(x, x, x)[0])


class Encoders(Net):
    def more(self):
        one = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.2, batch_first=True, activation=F.gelu)
        self.encoder = nn.TransformerEncoder(one, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False)

    def body(self, x):
        return self.encoder(x.flatten(2).transpose(1, 2))


class Windows(Net):
    """Windows of shifted maps, as Swin has them."""

    def more(self):
        self.norm, self.dense = nn.LayerNorm(8), nn.Linear(8, 8)

    def body(self, x):
        x = torch.roll(x.permute(0, 2, 3, 1), (-1, -1), (1, 2))
        w = x.view(x.shape[0], 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], 4, 4, 8)
        w = self.dense(self.norm(w)) + w.softmax(-2)
        return w.view(x.shape[0], 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], 4, 4, 8)


class Padded(Net):
    """Maps whose sides are no multiples of a window's, with their channels last."""

    def more(self):
        self.dense = nn.Linear(8, 8)

    def body(self, x):
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 2, 0, 2))
        w = x.view(x.shape[0], 2, 3, 2, 3, 8).transpose(2, 3).reshape(x.shape[0] * 4, 9, 8)
        return self.dense(w.softmax(1)).reshape(x.shape[0], -1)


class Parts(Net):
    """Windows of images as if they were images: each is dropped by itself, and meets parameters by its place."""

    def more(self):
        self.dense, self.biases = nn.Linear(8, 8), nn.Parameter(torch.randn(4, 3, 8))

    def body(self, x):
        w = x.flatten(2).view(x.shape[0], 8, 4, 4).permute(0, 2, 3, 1).reshape(x.shape[0] * 4, 4, 8)
        more = self.dense(w)
        if self.training:
            more = more * w.new_empty((w.shape[0], 1, 1)).bernoulli_(0.7).div_(0.7)
        w = w + more
        places = torch.einsum("btc,tkc->btk", w, self.biases)
        between = torch.einsum("btc,bkc->btk", w, more)
        return torch.cat([w, places, between], 2).reshape(x.shape[0], -1)


class Masks(Net):
    """Masks of attention in all forms, and a bias by the places of two tokens."""

    def more(self):
        self.register_buffer("past", torch.tril(torch.ones(16, 16)))
        self.register_buffer("seen", (torch.arange(16) % 3 != 1)[None])
        self.register_buffer("index", torch.arange(16)[:, None] - torch.arange(16) + 15)
        self.table, self.places = nn.Parameter(torch.randn(31, 2)), nn.Embedding(16, 8)

    def body(self, x):
        x = x.flatten(2).transpose(1, 2) + self.places(torch.arange(16))
        q = x.view(x.shape[0], 16, 2, 4).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, q, q, is_causal=True)
        y = y + F.scaled_dot_product_attention(q, q, y, attn_mask=self.seen)
        scores = torch.einsum("bhid,bhjd->bhij", q, y) + self.table[self.index].permute(2, 0, 1)
        y = scores.masked_fill(self.past == 0, float("-inf")).softmax(-1) @ y
        return x + y.transpose(1, 2).flatten(2)


class Others(Net):
    """Attention from other tokens, with the images in another dimension, within windows that are images meanwhile."""

    def more(self):
        self.attend, self.asked = (
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Parameter(torch.randn(1, 4, 8)),
        )
        one = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0)
        self.encoder = nn.TransformerEncoder(one, 1, enable_nested_tensor=False)

    def body(self, x):
        x = x.flatten(2).transpose(1, 2)
        few = self.attend(self.asked.expand(x.shape[0], -1, -1), x, x)[0]
        windows = x.reshape(-1, 4, 8)
        x = F.scaled_dot_product_attention(windows, windows, windows).view(x.shape)
        return torch.cat([self.encoder(x.permute(1, 0, 2)).permute(1, 0, 2), few], 1)


class Recurs(Net):
    """Recurrent layers over tokens: with dropout between them, both directions, other outputs, states of zeros."""

    def more(self):
        self.first = nn.LSTM(8, 5, 2, batch_first=True, dropout=0.3, bidirectional=True)
        self.second, self.third = nn.GRU(10, 4, bias=False), nn.RNN(10, 3, nonlinearity="relu")

    def body(self, x):
        x = x.flatten(2).transpose(1, 2)
        zeros = torch.zeros(4, x.size(0), 5).to(x)
        x, (states, _) = self.first(x, (zeros, zeros))
        own, last = self.second(x.transpose(0, 1))
        return torch.cat([self.third(x.transpose(0, 1))[0][-1], own[0], last[0], states[2]], 1)


class Begun(Net):
    """Recurrent layers that begin with learned, known and other layers' states, and whose last cells are read."""

    def more(self):
        self.one, self.two = nn.LSTM(8, 5, 2, batch_first=True), nn.LSTM(8, 5, 2, batch_first=True)
        self.three, self.four = nn.GRU(5, 4, bidirectional=True), nn.RNN(8, 4, batch_first=True)
        self.begin = nn.Parameter(torch.randn(2, 1, 4))

    def body(self, x):
        x = x.flatten(2).transpose(1, 2)
        out, (last, cells) = self.two(x, self.one(x)[1])
        rows = out.transpose(0, 1)
        turned, own = self.three(rows, self.begin.expand(-1, x.size(0), -1).contiguous())
        ones = torch.ones(1, x.shape[0], 4).to(x)
        return torch.cat([last[-1], cells[0], turned[-1], own[1], self.four(x, ones)[1][0]], 1)


class Cells(Net):
    """Recurrent cells, step by step."""

    def more(self):
        self.cells = nn.ModuleList([nn.LSTMCell(8, 4), nn.GRUCell(8, 4), nn.RNNCell(8, 4)])

    def body(self, x):
        x = x.flatten(2)
        one = two = None
        three = x.new_zeros(x.shape[0], 4)
        for step in range(3):
            one = self.cells[0](x[:, :, step], one)
            two, three = self.cells[1](x[:, :, step], two), self.cells[2](x[:, :, step], three)
        return torch.cat([one[0], two, three], 1)


def vit():
    """torchvision's vision transformer, with dropout of what attention gives."""
    small = {"hidden_dim": 12, "mlp_dim": 16, "num_layers": 1, "num_heads": 2, "dropout": 0.1}
    return torchvision.load().models.VisionTransformer(8, 2, num_classes=3, **small)


def swin():
    """torchvision's Swin, of shifted windows that are images meanwhile."""
    return torchvision.load().models.SwinTransformer(
        [2, 2], 8, [2], [2], [2, 2], num_classes=3, stochastic_depth_prob=0.0
    )


NETWORKS = (Fixed, AttentionDropout, Encoders, Windows, Padded, Parts, Masks, Others, Recurs, Begun, Cells)
