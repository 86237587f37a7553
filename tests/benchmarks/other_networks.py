"""Networks as many people write them, each made from (channels, classes, (height, width)): what `networks` times, too.

Shapes: B batch, T tokens.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from tests.benchmarks import other_convolutions as convolutional


class CompactTransformer(nn.Module):
    """Hassani et al. 2021: convolutions make the tokens, torch's encoder reads them, learned weights pool them."""

    def __init__(self, channels, classes, size, *, dim=64, depth=2, heads=2):
        super().__init__()
        self.tokens = nn.Sequential(
            nn.Conv2d(channels, dim, 3, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        count = math.prod((n + 1) // 2 for n in size)
        self.positions = nn.Parameter(0.02 * torch.randn(1, count, dim))
        layer = nn.TransformerEncoderLayer(
            dim, heads, 2 * dim, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.pool, self.fc = nn.LayerNorm(dim), nn.Linear(dim, 1), nn.Linear(dim, classes)

    def forward(self, x):
        x_BTC = self.tokens(x).flatten(2).transpose(1, 2) + self.positions
        x_BTC = self.norm(self.encoder(x_BTC))
        share_B1T = F.softmax(self.pool(x_BTC), dim=1).transpose(-1, -2)
        return self.fc(torch.matmul(share_B1T, x_BTC).squeeze(-2))


class GatedMlp(nn.Module):
    """Liu et al. 2021: dense layers and gates across the tokens."""

    class Block(nn.Module):
        def __init__(self, tokens, dim):
            super().__init__()
            self.norm, self.inner = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.into, self.out = nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
            self.across = nn.Conv1d(tokens, tokens, 1)
            nn.init.constant_(self.across.bias, 1)

        def forward(self, x):
            u, v = F.gelu(self.into(self.norm(x))).chunk(2, dim=-1)
            return x + self.out(u * self.across(self.inner(v)))

    def __init__(self, channels, classes, size, *, dim=64, depth=3, patch=4):
        super().__init__()
        self.patch = nn.Conv2d(channels, dim, patch, patch)
        tokens = math.prod(n // patch for n in size)
        self.blocks = nn.Sequential(*[self.Block(tokens, dim) for _ in range(depth)])
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        return self.head(self.blocks(self.patch(x).flatten(2).mT).mean(1))


class Rows(nn.Module):
    """A recurrent layer that reads an image's rows."""

    def __init__(self, channels, classes, size, *, kind=nn.LSTM, hidden=64):
        super().__init__()
        self.rnn = kind(channels * size[1], hidden, batch_first=True)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x):
        out, _ = self.rnn(x.permute(0, 2, 1, 3).flatten(2))
        return self.fc(out[:, -1])


class ProjectedRows(Rows):
    """An LSTM whose states are projected to half their size (Sak et al. 2014)."""

    def __init__(self, channels, classes, size, *, hidden=64):
        super().__init__(channels, classes, size, kind=partial(nn.LSTM, proj_size=hidden // 2), hidden=hidden)
        self.fc = nn.Linear(hidden // 2, classes)


class Maxout(nn.Module):
    """Goodfellow et al. 2013: each unit is the largest of a few dense ones."""

    def __init__(self, channels, classes, size, *, hidden=128, pieces=4):
        super().__init__()
        self.pieces = pieces
        self.fc1 = nn.Linear(channels * math.prod(size), hidden * pieces)
        self.fc2 = nn.Linear(hidden, hidden * pieces)
        self.fc3 = nn.Linear(hidden, classes)

    def forward(self, x):
        x = x.reshape(x.shape[0], -1)
        for layer in (self.fc1, self.fc2):
            x = layer(x).unflatten(1, (-1, self.pieces)).amax(dim=2)
        return self.fc3(x)


class Experts(nn.Module):
    """A mixture whose gate weighs all of a few dense experts (Jacobs et al. 1991)."""

    def __init__(self, channels, classes, size, *, experts=4, hidden=64):
        super().__init__()
        pixels = channels * math.prod(size)
        self.gate = nn.Linear(pixels, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, classes))
            for _ in range(experts)
        )

    def forward(self, x):
        x = x.flatten(1)
        shares = self.gate(x).softmax(dim=1)
        return (torch.stack([expert(x) for expert in self.experts], dim=1) * shares.unsqueeze(-1)).sum(dim=1)


class Sparse(nn.Module):
    """A mixture of which each image takes the two best experts (Shazeer et al. 2017)."""

    def __init__(self, channels, classes, size, *, experts=4, hidden=64):
        super().__init__()
        pixels = channels * math.prod(size)
        self.gate = nn.Linear(pixels, experts)
        self.into = nn.Parameter(torch.randn(experts, pixels, hidden) / math.sqrt(pixels))
        self.out = nn.Parameter(torch.randn(experts, hidden, classes) / math.sqrt(hidden))

    def forward(self, x):
        x = x.flatten(1)
        best, chosen = self.gate(x).topk(2, dim=1)
        shares = torch.zeros(len(x), self.into.shape[0]).scatter(1, chosen, best.softmax(dim=1))
        each = torch.einsum("bi,eih->beh", x, self.into).relu()
        return torch.einsum("beh,ehy,be->by", each, self.out, shares)


class FourierNet(nn.Module):
    """Lee-Thorp et al. 2021: a Fourier transform mixes the tokens."""

    def __init__(self, channels, classes, size, *, dim=64, depth=3, patch=4):
        super().__init__()
        del size
        self.patch = nn.Conv2d(channels, dim, patch, patch)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2 * depth))
        self.dense = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)) for _ in range(depth)
        )
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        for i, dense in enumerate(self.dense):
            x = self.norms[2 * i](x + torch.fft.fft2(x).real)
            x = self.norms[2 * i + 1](x + dense(x))
        return self.head(x.mean(dim=1))


class Decoder(nn.Module):
    """A learned query that reads the patches by torch's decoder layer."""

    def __init__(self, channels, classes, size, *, dim=64, patch=4):
        super().__init__()
        self.patch = nn.Conv2d(channels, dim, patch, patch)
        count = math.prod(n // patch for n in size)
        self.positions = nn.Parameter(0.02 * torch.randn(count, dim))
        self.query = nn.Parameter(torch.randn(1, 1, dim))
        self.decoder = nn.TransformerDecoderLayer(dim, 4, 2 * dim, batch_first=True)
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.decoder(self.query.expand(len(x), -1, -1), x)[:, 0])


class Orthogonal(nn.Module):
    """Dense layers whose weights stay orthogonal."""

    def __init__(self, channels, classes, size, *, hidden=128):
        super().__init__()
        pixels = channels * math.prod(size)
        self.fc1 = nn.Linear(pixels, hidden)
        self.fc2 = nn.utils.parametrizations.orthogonal(nn.Linear(hidden, hidden))
        self.fc3 = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


def normed_mlp(channels, classes, size, hidden=256):
    """Return a perceptron with batch norms and dropout."""
    layers, before = [nn.Flatten()], channels * math.prod(size)
    for _ in range(2):
        layers += [nn.Linear(before, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.3)]
        before = hidden
    return nn.Sequential(*layers, nn.Linear(before, classes))


def self_normalizing_mlp(channels, classes, size, hidden=256):
    """Return a perceptron of Klambauer et al. 2017."""
    layers, before = [nn.Flatten()], channels * math.prod(size)
    for _ in range(3):
        layers += [nn.Linear(before, hidden), nn.SELU(), nn.AlphaDropout(0.05)]
        before = hidden
    return nn.Sequential(*layers, nn.Linear(before, classes))


NETWORKS = {
    "PyTorch's MNIST example": convolutional.MnistExample,
    "LeNet with tanh": convolutional.OldLeNet,
    "Keras's CIFAR example": convolutional.keras_cnn,
    "all convolutional": convolutional.all_convolutional,
    "pre-activation ResNet": convolutional.Residual,
    "wide ResNet": partial(convolutional.Residual, width=32, drop=0.3),
    "ResNeXt": partial(convolutional.Residual, width=32, groups=8),
    "squeeze and excitation": partial(convolutional.Residual, squeeze=4),
    "DenseNet": convolutional.Dense,
    "small MobileNetV2": convolutional.small_mobilenet,
    "Inception": convolutional.Inception,
    "ConvNeXt": convolutional.ConvNext,
    "ConvMixer": convolutional.conv_mixer,
    "compact transformer": CompactTransformer,
    "gated MLP": GatedMlp,
    "LSTM over rows": Rows,
    "GRU over rows": partial(Rows, kind=nn.GRU),
    "LSTM with a projection": ProjectedRows,
    "spatial transformer": convolutional.SpatialTransformer,
    "maxout": Maxout,
    "mixture of experts": Experts,
    "two of four experts": Sparse,
    "blurred pooling": convolutional.Blurred,
    "Fourier mixing": FourierNet,
    "transformer decoder": Decoder,
    "orthogonal weights": Orthogonal,
    "transposed convolution": convolutional.Encoded,
    "MLP with batch norm": normed_mlp,
    "self-normalizing MLP": self_normalizing_mlp,
}
"""By name."""
