"""Networks of maps and rows, which are planned whole: windows, sums, norms, powers and what moves numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.zoo import torchvision
from tests.training.lanes.compile.patch_net import Net


class Joined(Net):
    """Maps of more values side by side than an operation takes, with zeros behind, and a value times itself."""

    def more(self):
        self.convs = nn.ModuleList(nn.Conv2d(8, 3, 1) for _ in range(5))

    def body(self, x):
        y = torch.cat([f(x) * 2 - 1 for f in self.convs], 1)
        return y * y / 3 - y.mean((2, 3), keepdim=True)


class Maxima(Net):
    """Maxima over maps and channels, of pairs, and of pooling whose windows leave the map or differ in size."""

    def more(self):
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.own = nn.AdaptiveMaxPool2d(3)
        self.apart = nn.MaxPool2d(2, 1, dilation=2)

    def body(self, x):
        x = torch.cat([x.max(1, keepdim=True).values, x[:, :7]], 1) - x.amin(1, keepdim=True)
        x = self.apart(torch.maximum(x, -x)) + x.amax((2, 3), keepdim=True)
        return torch.cat([self.pool(F.pad(x, (1, 0, 0, 1))).flatten(1), self.own(x).flatten(1)], 1)


class Resampled(Net):
    """Means of windows of several sizes, maps of another size, and what lies around maps."""

    def more(self):
        self.mirrored = nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect")
        self.mean, self.up = nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Upsample(scale_factor=2)
        self.uneven, self.around = nn.AdaptiveAvgPool2d((3, 5)), nn.CircularPad2d(1)

    def body(self, x):
        x = self.mirrored(x)
        y = F.interpolate(x, size=(5, 4), mode="bilinear", align_corners=False)
        parts = (
            self.uneven(self.up(x)),
            self.mean(self.around(x)),
            F.avg_pool2d(y, 2, ceil_mode=True),
            F.unfold(x, 2),
        )
        return torch.cat([part.flatten(1) for part in parts], 1)


class Curved(Net):
    """Activations, functions that are made of others, and buffers that normalize."""

    def more(self):
        self.prelu, self.gates = nn.PReLU(8), nn.Conv2d(8, 16, 1)
        self.register_buffer("scale", torch.linspace(1, 2, 8).view(1, 8, 1, 1))
        self.norm = nn.LocalResponseNorm(3)

    def body(self, x):
        x = self.prelu(x / self.scale - self.scale) + F.glu(self.gates(x), 1)
        x = F.normalize(x) + (x - x.mean((2, 3), keepdim=True)) / (1 + x.std((2, 3), keepdim=True))
        x = torch.rsqrt(1 + x**2) + F.softplus(x) * x.clamp(-0.5, 0.5) + x.abs().sum(1, keepdim=True)
        return self.norm(x) + torch.norm(x, p=2, dim=(2, 3), keepdim=True) - torch.exp(-x.square())


class Shared(Net):
    """Layers that are used twice, weights of two layers that are one, and a layer that is not trained."""

    def more(self):
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.one, self.two, self.frozen = (
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 8).requires_grad_(False),
        )
        self.two.weight = self.one.weight

    def body(self, x):
        for _ in range(3):
            x = F.relu(self.norm(self.conv(x)))
        x = x.mean((2, 3))
        return self.two(F.relu(self.one(self.frozen(self.two(x)))))


class Rows(Net):
    """Layers over rows, and the logarithm of the shares of classes."""

    def more(self):
        self.conv, self.norm, self.pool = (
            nn.Conv1d(8, 6, 3, 2, 1, groups=2),
            nn.BatchNorm1d(6),
            nn.MaxPool1d(3, 2, 1),
        )
        self.means, self.last = nn.AdaptiveAvgPool1d(3), nn.AdaptiveMaxPool1d(1)

    def body(self, x):
        x = self.pool(F.relu(self.norm(self.conv(x.flatten(2)))))
        return torch.cat([self.means(x), self.last(x)], 2)

    def forward(self, x):
        return F.log_softmax(super().forward(x), dim=1)


class ByFunction(Net):
    """Layers' own parameters, given to functions; one norm counts its batches, as timm's do, one does not."""

    def more(self):
        self.conv, self.row = nn.Conv2d(8, 6, 3, groups=2, padding="same"), nn.Conv1d(6, 4, 3, bias=False)
        self.norm, self.other = nn.BatchNorm2d(6), nn.BatchNorm1d(4, momentum=0.3)

    def batch_norm(self, x, norm, *, counts):
        if self.training and counts:
            norm.num_batches_tracked.add_(1)
        how = norm.weight, norm.bias, self.training, norm.momentum, norm.eps
        return F.batch_norm(x, norm.running_mean, norm.running_var, *how)

    def body(self, x):
        x = F.conv2d(x, self.conv.weight, self.conv.bias, padding="same", groups=2)
        x = self.batch_norm(x, self.norm, counts=True).relu().flatten(2)
        return self.batch_norm(F.conv1d(x, self.row.weight, stride=2), self.other, counts=False)


class Averages(Net):
    """Batch norms whose running statistics are means of all batches', alone and after a convolution."""

    def more(self):
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8, momentum=None)
        self.other = nn.BatchNorm1d(8, momentum=None)

    def body(self, x):
        return self.other(F.relu(self.norm(self.conv(x))).mean((2, 3)))


class Grown(Net):
    """Maps made larger by transposed convolutions, as layers and as functions, and padded by a number."""

    def more(self):
        self.up, self.rows = nn.ConvTranspose2d(8, 6, 2, 2), nn.ConvTranspose1d(6, 4, 3, 2, 1, bias=False)
        self.same, self.norm = nn.ConvTranspose2d(6, 8, 4, 2, 1, groups=2), nn.BatchNorm2d(6)

    def body(self, x):
        y = self.norm(self.up(x)).relu()
        y = F.conv_transpose2d(y, self.same.weight, self.same.bias, 2, 1, groups=2)
        y = F.pad(self.up(y, output_size=(33, 32)), (1, 0, 0, 1), value=0.5)
        return torch.cat([y.mean((2, 3)), self.rows(y.flatten(2)[..., :9]).flatten(1)], 1)


class Powers(Net):
    """Functions that are made of sums, powers and logarithms: pooling of powers, cosines, a smooth maximum."""

    def more(self):
        self.pool, self.rooted = nn.LPPool2d(2, 2), nn.LPPool2d(3, 2, 1)
        self.cosine, self.prototypes = nn.CosineSimilarity(-1), nn.Parameter(torch.randn(5, 8))

    def body(self, x):
        close = torch.lerp(x, torch.addcmul(x, x, x, value=0.5), 0.3)
        pooled = [self.pool(x).flatten(1), self.rooted(x.sigmoid()).flatten(1)]
        means = x.mean((2, 3))
        likeness = F.cosine_similarity(means.unsqueeze(1), self.prototypes.unsqueeze(0), dim=-1)
        more = [likeness, self.cosine(x[..., :2], x[..., 2:]).flatten(1), x.logsumexp((2, 3)), means**5]
        return torch.cat(
            [*pooled, *more, close.logsumexp(1, keepdim=True).flatten(1), (means**2 + 1) ** -2], 1
        )


class Turned(Net):
    """Numbers that move in further ways, and dense layers of some rows of a weight."""

    def more(self):
        self.qkv, self.bias = nn.Linear(8, 12), nn.Parameter(torch.randn(12))

    def body(self, x):
        y = torch.hstack([torch.rot90(x, 1, (2, 3)), x.tril(), x.triu().fliplr()]).repeat_interleave(2, 3)
        tokens = x.flatten(2).transpose(1, 2)
        q = F.linear(tokens, self.qkv.weight[:4], self.qkv.bias[:4])
        v = F.linear(tokens, self.qkv.weight[8:], self.bias[8:])
        return torch.cat([y.flatten(1), x.diagonal(0, 2, 3).flatten(1), (q * v).flatten(1)], 1)


class OnDevice(Net):
    """Code that asks for the name of the device, as what turns autocast off does."""

    def body(self, x):
        if x.device.type == "meta":
            return x
        with torch.autocast(device_type=x.device.type, enabled=False):
            return x * torch.linspace(1, 2, 8, device=x.device).to(x.dtype).view(8, 1, 1)


class DroppedLast(Net):
    """Stochastic depth of a branch after the other branch is computed, as Xception has it."""

    def more(self):
        self.one, self.two = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def body(self, x):
        more, x = self.one(x), self.two(x)
        if self.training:
            more = more * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(0.7).div_(0.7)
        return more + x


class Coloured(nn.Module):
    """Takes maps of one channel as those of three."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.expand(-1, 3, -1, -1))


def convnext():
    """torchvision's ConvNeXt, with stochastic depth."""
    models = torchvision.load().models
    blocks = [models.convnext.CNBlockConfig(8, None, 2)]
    return models.ConvNeXt(blocks, stochastic_depth_prob=0.2, num_classes=3)


NETWORKS = (
    Joined,
    Maxima,
    Resampled,
    Curved,
    Shared,
    Rows,
    ByFunction,
    Averages,
    Grown,
    Powers,
    Turned,
    OnDevice,
    DroppedLast,
)
