"""Two networks as a user's own file has them: a small vision transformer, and a small MLP-Mixer.

Shapes: B batch, T patches, C channels of a patch, D of an attention head.
"""

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn


class Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_BTC):
        batch, patches, dim = x_BTC.shape
        qkv = self.qkv(x_BTC).reshape(batch, patches, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y_BHTD = F.scaled_dot_product_attention(q, k, v)
        return self.out(y_BHTD.transpose(1, 2).reshape(batch, patches, dim))


class Encoder(nn.Module):
    """Attention and a dense part, each with its norm before it and a sum after it."""

    def __init__(self, dim, heads, hidden, drop):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.dense = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.drop = nn.Dropout(drop)

    def forward(self, x):
        x = x + self.drop(self.attention(self.norm1(x)))
        return x + self.drop(self.dense(self.norm2(x)))


class SmallViT(nn.Module):
    """Dosovitskiy et al. 2021 for small images: a class token, learned positions, a few encoders."""

    def __init__(self, in_channels, num_classes, image_size, *, patch=4, dim=96, depth=4, heads=3, drop=0.1):
        super().__init__()
        height, width = image_size
        self.patches = nn.Conv2d(in_channels, dim, patch, stride=patch)
        count = (height // patch) * (width // patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, count + 1, dim))
        self.blocks = nn.Sequential(*[Encoder(dim, heads, 2 * dim, drop) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class MixerBlock(nn.Module):
    """A dense part across the patches, then one across the channels."""

    def __init__(self, patches, dim):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.across = nn.Sequential(nn.Linear(patches, dim // 2), nn.GELU(), nn.Linear(dim // 2, patches))
        self.within = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x):
        x = x + self.across(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.within(self.norm2(x))


class SmallMixer(nn.Module):
    """Tolstikhin et al. 2021 for small images."""

    def __init__(self, in_channels, num_classes, image_size, *, patch=4, dim=96, depth=4):
        super().__init__()
        height, width = image_size
        self.patches = nn.Conv2d(in_channels, dim, patch, stride=patch)
        count = (height // patch) * (width // patch)
        self.blocks = nn.Sequential(*[MixerBlock(count, dim) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(dim=1))
