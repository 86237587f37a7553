"""Networks as people publish them, each in a few lines and narrow, written from what their papers say."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn


class LeNet5(nn.Module):
    """LeCun et al. 1998: trainable subsampling, tanh, a scaled activation."""

    def __init__(self, channels, classes):
        super().__init__()
        self.c1, self.c3 = nn.Conv2d(channels, 6, 5, padding=2), nn.Conv2d(6, 8, 5)
        self.gain = nn.ParameterList([nn.Parameter(torch.ones(1, c, 1, 1)) for c in (6, 8)])
        self.f6, self.out = nn.Linear(8, 12), nn.Linear(12, classes)

    def forward(self, x):
        x = 1.7159 * torch.tanh(2 / 3 * self.gain[0] * F.avg_pool2d(self.c1(x), 2))
        x = 1.7159 * torch.tanh(2 / 3 * self.gain[1] * F.avg_pool2d(self.c3(x), 2))
        return self.out(torch.tanh(self.f6(x.view(x.size(0), -1))))


def network_in_network(channels, classes):
    """Lin et al. 2014: perceptrons of 1x1 convolutions, and an average over the last maps."""

    def block(given, width, kernel, stride):
        return nn.Sequential(
            nn.Conv2d(given, width, kernel, stride, kernel // 2), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1), nn.ReLU(inplace=True),
        )  # fmt: skip

    return nn.Sequential(
        block(channels, 6, 5, 1), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(0.5), block(6, 8, 3, 1),
        nn.AvgPool2d(3, 2, 1), nn.Dropout(0.5), block(8, classes, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class PreActivation(nn.Module):
    """He et al. 2016: norm and activation before the convolution; the shortcut leaves after them."""

    def __init__(self, given, width, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(given), nn.Conv2d(given, width, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        if stride != 1 or given != width:
            self.shortcut = nn.Conv2d(given, width, 1, stride, bias=False)

    def forward(self, x):
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        return self.conv2(F.relu(self.bn2(self.conv1(out)))) + shortcut


class WideResNet(nn.Module):
    """Zagoruyko & Komodakis 2016, with its initialization."""

    def __init__(self, channels, classes, block=PreActivation):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList([block(4, 8, 1), block(8, 8, 1), block(8, 12, 2)])
        self.bn, self.fc = nn.BatchNorm2d(12), nn.Linear(12, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(m, nn.BatchNorm2d):
                m.weight.data.fill_(1)
                m.bias.data.zero_()

    def forward(self, x):
        out = self.conv(x)
        for block in self.blocks:
            out = block(out)
        out = F.avg_pool2d(F.relu(self.bn(out)), out.shape[-1])
        return self.fc(out.view(-1, 12))


class SqueezeExcite(PreActivation):
    """Hu et al. 2018."""

    def __init__(self, given, width, stride):
        super().__init__(given, width, stride)
        self.fc1, self.fc2 = nn.Conv2d(width, 2, 1), nn.Conv2d(2, width, 1)

    def forward(self, x):
        out = super().forward(x)
        w = F.adaptive_avg_pool2d(out, 1)
        w = torch.sigmoid(self.fc2(F.relu(self.fc1(w))))
        return out * w.expand_as(out)


class ConvolutionalAttention(PreActivation):
    """Woo et al. 2018: attention to channels, then to places."""

    def __init__(self, given, width, stride):
        super().__init__(given, width, stride)
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(width, 2), nn.ReLU(), nn.Linear(2, width))
        self.where = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x):
        out = super().forward(x)
        scale = self.mlp(F.adaptive_avg_pool2d(out, 1)) + self.mlp(F.adaptive_max_pool2d(out, 1))
        out = out * torch.sigmoid(scale).unsqueeze(2).unsqueeze(3)
        places = torch.cat((torch.max(out, 1)[0].unsqueeze(1), torch.mean(out, 1).unsqueeze(1)), dim=1)
        return out * torch.sigmoid(self.where(places))


class DenseNet(nn.Module):
    """Huang et al. 2017: each layer sees all before it."""

    def __init__(self, channels, classes):
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 3, padding=1, bias=False)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(6 + 3 * i), nn.ReLU(True), nn.Conv2d(6 + 3 * i, 3, 3, 1, 1, bias=False)
            )
            for i in range(3)
        )
        self.transition = nn.Sequential(nn.BatchNorm2d(15), nn.ReLU(), nn.Conv2d(15, 7, 1), nn.AvgPool2d(2))
        self.fc = nn.Linear(7, classes)

    def forward(self, x):
        found = [self.conv(x)]
        for layer in self.layers:
            found.append(layer(torch.cat(found, 1)))
        x = self.transition(torch.cat(found, 1))
        return self.fc(F.relu(x).mean([2, 3]))


class Mixer(nn.Module):
    """Tolstikhin et al. 2021: dense layers over tokens, then over channels."""

    def __init__(self, channels, classes, tokens=16, width=8):
        super().__init__()
        self.patches = nn.Conv2d(channels, width, 3, 3)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.over_tokens = nn.Sequential(nn.Linear(tokens, 10), nn.GELU(), nn.Linear(10, tokens))
        self.over_channels = nn.Sequential(nn.Linear(width, 10), nn.GELU(), nn.Linear(10, width))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.over_tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        x = x + self.over_channels(self.norms[1](x))
        return self.head(self.norms[2](x).mean(dim=1))


class Transformer(nn.Module):
    """Dosovitskiy et al. 2021: a class token, learned places, torch's own encoder."""

    def __init__(self, channels, classes, width=8):
        super().__init__()
        self.patches = nn.Conv2d(channels, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 10, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.encoder(x)[:, 0])


class OwnAttention(nn.Module):
    """A transformer as blogs write it, with heads by reshaping."""

    def __init__(self, channels, classes, width=8, heads=2):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.patches, self.qkv = nn.Conv2d(channels, width, 4, 4), nn.Linear(width, width * 3, bias=False)
        self.proj, self.norm, self.head = (
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.Linear(width, classes),
        )

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        b, n, c = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attention = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        x = x + self.proj((attention @ v).transpose(1, 2).reshape(b, n, c))
        return self.head(x.mean(1))


class _Around(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x) + x


def conv_mixer(channels, classes, width=8):
    """Trockman & Kolter 2022: a sum around a deep convolution with an even padding."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 2, 2), nn.GELU(), nn.BatchNorm2d(width),
        _Around(nn.Sequential(nn.Conv2d(width, width, 5, groups=width, padding="same"), nn.GELU(), nn.BatchNorm2d(width))),
        nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width),
        nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(width, classes),
    )  # fmt: skip


class Inception(nn.Module):
    """Szegedy et al. 2015: four ways side by side."""

    def __init__(self, channels, classes):
        super().__init__()
        self.a = nn.Conv2d(channels, 3, 1)
        self.b = nn.Sequential(nn.Conv2d(channels, 3, 1), nn.ReLU(True), nn.Conv2d(3, 4, 3, padding=1))
        self.c = nn.Sequential(nn.Conv2d(channels, 2, 1), nn.ReLU(True), nn.Conv2d(2, 3, 5, padding=2))
        self.d = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), nn.Conv2d(channels, 2, 1))
        self.fc = nn.Linear(12 * 9, classes)

    def forward(self, x):
        ways = [way(x) for way in (self.a, self.b, self.c, self.d)]
        x = F.local_response_norm(torch.relu(torch.cat(ways, 1)), 3)
        return self.fc(torch.flatten(F.max_pool2d(x, 4), 1))


class Highway(nn.Module):
    """Srivastava et al. 2015, dense."""

    def __init__(self, channels, classes):
        super().__init__()
        self.start = nn.Linear(channels * 144, 10)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"h": nn.Linear(10, 10), "t": nn.Linear(10, 10)}) for _ in range(3)
        )
        for layer in self.layers:
            nn.init.constant_(layer["t"].bias, -1.0)
        self.out = nn.Linear(10, classes)

    def forward(self, x):
        x = self.start(x.flatten(start_dim=1))
        for layer in self.layers:
            t = torch.sigmoid(layer["t"](x))
            x = F.relu(layer["h"](x)) * t + x * (1 - t)
        return self.out(x)


class Maxout(nn.Module):
    """Goodfellow et al. 2013."""

    def __init__(self, channels, classes):
        super().__init__()
        self.conv, self.out = nn.Conv2d(channels, 12, 3), nn.Linear(4 * 25, classes)

    def forward(self, x):
        x = F.max_pool2d(self.conv(x), 2)
        b, c, h, w = x.size()
        x = x.view(b, c // 3, 3, h, w).max(dim=2).values
        return self.out(F.dropout(x.flatten(1), 0.3, training=self.training))


class BlurPool(nn.Module):
    """Zhang 2019: a fixed filter before each reduction."""

    def __init__(self, channels, classes):
        super().__init__()
        self.conv, self.out = nn.Conv2d(channels, 6, 3, padding=1), nn.Linear(6, classes)
        line = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("filt", (line[:, None] * line[None] / 16)[None, None].repeat(6, 1, 1, 1))

    def forward(self, x):
        x = F.pad(torch.relu(self.conv(x)), (1, 1, 1, 1), mode="reflect")
        return self.out(F.conv2d(x, self.filt, stride=2, groups=6).mean((-2, -1)))


class Coordinates(nn.Module):
    """Liu et al. 2018: the places as two more channels."""

    def __init__(self, channels, classes):
        super().__init__()
        self.conv, self.out = nn.Conv2d(channels + 2, 6, 3), nn.Linear(6, classes)

    def forward(self, x):
        b, _, h, w = x.shape
        line = torch.linspace(-1, 1, w, dtype=x.dtype, device=x.device)
        xs, ys = line.view(1, 1, 1, w).expand(b, 1, h, w), line.view(1, 1, h, 1).expand(b, 1, h, w)
        return self.out(F.relu(self.conv(torch.cat([x, xs, ys], 1))).amax((2, 3)))


class Recurrent(nn.Module):
    """Rows as a sequence."""

    def __init__(self, channels, classes):
        super().__init__()
        self.lstm, self.out = nn.LSTM(channels * 12, 7, batch_first=True), nn.Linear(7, classes)

    def forward(self, x):
        rows, _ = self.lstm(x.permute(0, 2, 1, 3).flatten(2))
        return self.out(rows[:, -1])


class DropPath(nn.Module):
    """Huang et al. 2016: whole branches are dropped, image by image."""

    def __init__(self, channels, classes):
        super().__init__()
        self.conv, self.more, self.out = (
            nn.Conv2d(channels, 6, 3),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.Linear(6, classes),
        )

    def forward(self, x):
        x = F.relu(self.conv(x))
        y = self.more(x)
        if self.training:
            keep = 0.8
            y = y.div(keep) * torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype).bernoulli_(keep)
        return self.out((x + y).mean((2, 3)))


PUBLISHED = {
    "lenet 5": LeNet5,
    "network in network": network_in_network,
    "wide residual": WideResNet,
    "squeeze and excite": lambda c, y: WideResNet(c, y, SqueezeExcite),
    "convolutional attention": lambda c, y: WideResNet(c, y, ConvolutionalAttention),
    "densely connected": DenseNet,
    "mlp mixer": Mixer,
    "vision transformer": Transformer,
    "own attention": OwnAttention,
    "conv mixer": conv_mixer,
    "inception": Inception,
    "highway": Highway,
    "maxout": Maxout,
    "blur pool": BlurPool,
    "coordinates": Coordinates,
    "recurrent": Recurrent,
    "drop path": DropPath,
}
"""By name, called with channels and classes, for images of 12x12."""
