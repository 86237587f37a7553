"""Networks drawn at random: layers, wirings and oddities, as recipes of plain words that build the same network again."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

ACTIVATIONS = {
    "relu": nn.ReLU, "relu in place": lambda: nn.ReLU(inplace=True), "relu6": nn.ReLU6, "elu": nn.ELU,
    "leaky": lambda: nn.LeakyReLU(0.2), "gelu": nn.GELU, "silu": lambda: nn.SiLU(inplace=True), "mish": nn.Mish,
    "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "hardswish": nn.Hardswish, "softplus": nn.Softplus, "celu": nn.CELU,
    "selu": nn.SELU, "softsign": nn.Softsign, "hardtanh": nn.Hardtanh, "logsigmoid": nn.LogSigmoid,
    "tanh gelu": lambda: nn.GELU("tanh"), "prelu": nn.PReLU, "glu": lambda: nn.GLU(1), "softshrink": nn.Softshrink,
    "threshold": lambda: nn.Threshold(0.1, 0.2),
}  # fmt: skip
FUNCTIONS = {
    "relu": F.relu, "torch relu": torch.relu, "tanh": torch.tanh, "square": torch.square, "sin": torch.sin,
    "abs": torch.abs, "sqrt": lambda x: torch.sqrt(x.abs() + 0.1), "clamp": lambda x: x.clamp(-1, 1),
    "method": lambda x: x.sigmoid(), "in place": lambda x: F.relu(x * 1.5, inplace=True),
    "added in place": lambda x: (x * 2).add_(0.5), "scaled": lambda x: x * 0.5 + 1, "turned": lambda x: 1 - x,
    "divided": lambda x: x / (1 + x.abs()), "power": lambda x: x**2, "cast": lambda x: x.double() * 1.0,
    "maximum": lambda x: torch.maximum(x, x * 0.5), "where": lambda x: torch.where(x > 0, x, x * 0.1),
    "cumsum": lambda x: torch.cumsum(x, 1) * 0.3, "detached": lambda x: x + 0.1 * x.detach(),
    "normalized": lambda x: x / (1 + x.mean(1, keepdim=True).abs()), "centered": lambda x: x - x.mean(0, keepdim=True),
    "log": lambda x: torch.log1p(x.abs()), "rolled": lambda x: x.roll(1, 1), "flipped": lambda x: x.flip(1),
    "softmax": lambda x: torch.softmax(x, 1) * 3, "l2": lambda x: F.normalize(x, dim=1),
}  # fmt: skip


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, x):
        return FUNCTIONS[self.name](x)


class Residual(nn.Module):
    """The sum of what comes and what layers make of it, brought to one size."""

    def __init__(self, *layers, how):
        super().__init__()
        self.body, self.how = nn.Sequential(*layers), how
        self.scale = nn.Parameter(torch.full((1,), 0.7)) if how == "scaled" else None

    def forward(self, x):
        y = self.body(x)
        if y.shape != x.shape:
            return y
        if self.how == "joined":
            return torch.cat([x, y], 1)[:, : x.shape[1]]
        if self.how == "in place":
            y = y * 1
            y += x
            return y
        return x + (y if self.scale is None else self.scale * y)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels, how):
        super().__init__()
        self.down, self.up, self.how = nn.Linear(channels, 3), nn.Linear(3, channels), how

    def forward(self, x):
        if self.how == "mean":
            s = x.mean((2, 3))
        elif self.how == "pool":
            s = F.adaptive_avg_pool2d(x, 1).flatten(1)
        else:
            s = x.amax(dim=(2, 3))
        return x * torch.sigmoid(self.up(F.relu(self.down(s))))[:, :, None, None]


class Shuffle(nn.Module):
    """Channel shuffle in two groups."""

    def forward(self, x):
        b, c, h, w = x.shape
        if c % 2:
            return x
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class Halves(nn.Module):
    """The halves of the channels multiplied, and both kept."""

    def forward(self, x):
        if x.shape[1] % 2:
            return x
        a, b = x.chunk(2, 1)
        return torch.cat([a * b.tanh(), b], dim=1)


class Again(nn.Module):
    """A layer that is called several times."""

    def __init__(self, layer, times):
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, x):
        for _ in range(self.times):
            x = self.layer(x)
        return x


class Affine(nn.Module):
    """A scale and a shift for each channel."""

    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.register_buffer("shift", torch.linspace(0, 1, channels)[:, None, None])

    def forward(self, x):
        return x * self.scale + self.shift


class Attention(nn.Module):
    """One head over the places of a map."""

    def __init__(self, channels):
        super().__init__()
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x):
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).chunk(3, -1)
        mixed = torch.softmax(q @ k.transpose(-2, -1) * c**-0.5, -1) @ v
        return x + self.out(mixed).transpose(1, 2).reshape(b, c, h, w)


class Late(nn.Module):
    """Halves what comes from its fourth call in training on."""

    calls = 0

    def forward(self, x):
        self.calls += self.training
        return x if self.calls < 4 else x * 0.5


class Pooled(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        return {
            "flat": lambda: x.flatten(1),
            "view": lambda: x.reshape(x.size(0), -1),
            "mean": lambda: x.mean(dim=(2, 3)),
            "mean of mean": lambda: x.mean(-1).mean(-1),
            "sum": lambda: x.sum((2, 3)) * 0.1,
            "max": lambda: x.amax((-2, -1)),
            "pool": lambda: F.adaptive_avg_pool2d(x, (1, 1)).squeeze(-1).squeeze(-1),
            "both": lambda: torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1),
            "tokens": lambda: x.flatten(2).transpose(1, 2).mean(1),
            "std": lambda: x.std((2, 3)),
        }[self.how]()


class Network(nn.Module):
    """Maps, a way to features, features, logits; built by trying, so that sizes follow."""

    def __init__(self, recipe, channels, size, classes):
        super().__init__()
        x = torch.rand(2, channels, size, size)
        layers = []
        for make in recipe["maps"]:
            layers.append(layer_of(make, x.shape[1]))
            x = layers[-1].eval()(x)
        layers.append(Pooled(recipe["pooled"]))
        x = layers[-1](x)
        for make in recipe["features"]:
            layers.append(feature_layer_of(make, x.shape[1]))
            x = layers[-1].eval()(x)
        self.layers = nn.Sequential(*layers).train()
        self.out = nn.Linear(x.shape[1], classes)
        self.odd = recipe["odd"]
        if self.odd == "frozen":
            next(iter(self.parameters())).requires_grad_(False)
        elif self.odd == "hook":
            self.out.weight.register_hook(lambda g: g.clamp(-0.01, 0.01))
        elif self.odd == "weight norm":
            parametrizations.weight_norm(self.out)
        elif self.odd == "tied":
            self.second = nn.Linear(x.shape[1], classes)
            self.second.weight = self.out.weight
        elif self.odd == "counts":
            self.layers.append(Late())

    def forward(self, x):
        x = self.layers(x)
        if self.odd == "tied":
            return self.out(x) + 0.3 * self.second(x.tanh())
        if self.odd == "functional":
            return F.linear(F.dropout(x, 0.2, self.training), self.out.weight, self.out.bias)
        return self.out(x)


def layer_of(make, channels):  # noqa: C901, PLR0911, PLR0912  (a table)
    """Return a layer for maps of so many channels."""
    kind, *how = make
    match kind:
        case "conv":
            out, kernel, stride, padding, groups, bias, mode = how
            groups = groups if channels % groups == 0 and out % groups == 0 else 1
            return nn.Conv2d(
                channels, out, kernel, stride, padding, groups=groups, bias=bias, padding_mode=mode
            )
        case "dilated":
            return nn.Conv2d(channels, how[0], 3, padding=2, dilation=2)
        case "deep":
            return nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels)
        case "batch norm":
            return nn.BatchNorm2d(channels, momentum=how[0], affine=how[1], track_running_stats=how[2])
        case "group norm":
            return nn.GroupNorm(2 if channels % 2 == 0 else 1, channels, affine=how[0])
        case "instance norm":
            return nn.InstanceNorm2d(channels, affine=how[0])
        case "activation":
            return nn.Identity() if how[0] == "glu" and channels % 2 else ACTIVATIONS[how[0]]()
        case "function":
            return Apply(how[0])
        case "max pool":
            return nn.MaxPool2d(how[0], how[1], how[2], ceil_mode=how[3])
        case "average pool":
            return nn.AvgPool2d(2, how[0], 1, ceil_mode=how[1], count_include_pad=how[2])
        case "adaptive":
            return nn.AdaptiveAvgPool2d(how[0]) if how[1] else nn.AdaptiveMaxPool2d(how[0])
        case "drop":
            return nn.Dropout2d(how[0]) if how[1] else nn.Dropout(how[0])
        case "residual":
            conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            return Residual(conv, nn.BatchNorm2d(channels), nn.ReLU(), how=how[0])
        case "gate":
            return Gate(channels, how[0])
        case "shuffle":
            return Shuffle()
        case "halves":
            return Halves()
        case "again":
            conv = nn.Conv2d(channels, channels, 3, padding=1)
            return Again(nn.Sequential(conv, nn.BatchNorm2d(channels)) if how[0] else conv, 2)
        case "affine":
            return Affine(channels)
        case "attention":
            return Attention(channels)
        case "pad":
            return [nn.ZeroPad2d(1), nn.ReflectionPad2d((1, 0, 0, 1)), nn.ReplicationPad2d(1)][how[0]]
        case "upsample":
            return nn.Upsample(scale_factor=2, mode=how[0])
        case "transposed":
            return nn.ConvTranspose2d(channels, how[0], 2, stride=1)
        case "shuffled pixels":
            return nn.Sequential(nn.Conv2d(channels, 8, 1), nn.PixelShuffle(2), nn.AvgPool2d(2))
    raise AssertionError(kind)


def feature_layer_of(make, width):  # noqa: PLR0911  (a table)
    """Return a layer for so many features."""
    kind, *how = make
    match kind:
        case "linear":
            return nn.Linear(width, how[0], bias=how[1])
        case "batch norm":
            return nn.BatchNorm1d(width, momentum=how[0], affine=how[1], track_running_stats=how[2])
        case "layer norm":
            return nn.LayerNorm(width, elementwise_affine=how[0])
        case "activation":
            return nn.Identity() if how[0] == "glu" and width % 2 else ACTIVATIONS[how[0]]()
        case "function":
            return Apply(how[0])
        case "drop":
            return nn.Dropout(how[0])
        case "residual":
            return Residual(nn.Linear(width, width), nn.ReLU(), how=how[0])
        case "again":
            return Again(nn.Linear(width, width), 2)
        case "softmax":
            return nn.Softmax(1)
    raise AssertionError(kind)


booleans = st.booleans()
rates = st.sampled_from([0.0, 0.2, 0.5])
norms = st.tuples(st.just("batch norm"), st.sampled_from([0.1, 0.5]), booleans, booleans)
activations = st.tuples(st.just("activation"), st.sampled_from(sorted(ACTIVATIONS)))
functions = st.tuples(st.just("function"), st.sampled_from(sorted(FUNCTIONS)))
wirings = st.sampled_from(["plain", "scaled", "joined", "in place"])
convolutions = st.tuples(
    st.just("conv"),
    st.sampled_from([2, 4, 6]),
    st.sampled_from([1, 2, 3, (3, 1)]),
    st.sampled_from([1, 1, 2]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 1, 2]),
    booleans,
    st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]),
)
maps = st.one_of(
    convolutions,
    convolutions,
    convolutions,
    activations,
    activations,
    functions,
    norms,
    st.tuples(st.just("dilated"), st.sampled_from([3, 4])),
    st.just(("deep",)),
    st.tuples(st.just("group norm"), booleans),
    st.tuples(st.just("instance norm"), booleans),
    st.tuples(st.just("max pool"), st.just(3), st.sampled_from([1, 2]), st.sampled_from([0, 1]), booleans),
    st.tuples(st.just("average pool"), st.sampled_from([1, 2]), booleans, booleans),
    st.tuples(st.just("adaptive"), st.sampled_from([2, 3, (2, 4)]), booleans),
    st.tuples(st.just("drop"), rates, booleans),
    st.tuples(st.just("residual"), wirings),
    st.tuples(st.just("gate"), st.sampled_from(["mean", "pool", "max"])),
    st.just(("shuffle",)),
    st.just(("halves",)),
    st.tuples(st.just("again"), booleans),
    st.just(("affine",)),
    st.just(("attention",)),
    st.tuples(st.just("pad"), st.sampled_from([0, 1, 2])),
    st.tuples(st.just("upsample"), st.sampled_from(["nearest", "bilinear"])),
    st.tuples(st.just("transposed"), st.sampled_from([2, 3])),
    st.just(("shuffled pixels",)),
)
features = st.one_of(
    st.tuples(st.just("linear"), st.sampled_from([4, 7]), booleans),
    norms,
    activations,
    functions,
    st.tuples(st.just("layer norm"), booleans),
    st.tuples(st.just("drop"), rates),
    st.tuples(st.just("residual"), wirings),
    st.just(("again",)),
    st.just(("softmax",)),
)
recipes = st.fixed_dictionaries(
    {
        "maps": st.lists(maps, max_size=6),
        "pooled": st.sampled_from(
            ["flat", "flat", "view", "mean", "mean of mean", "sum", "max", "pool", "both", "tokens", "std"]
        ),
        "features": st.lists(features, max_size=4),
        "odd": st.sampled_from(
            ["none"] * 6 + ["frozen", "hook", "weight norm", "tied", "counts", "functional"]
        ),
    }
)
