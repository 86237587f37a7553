"""Networks as stages: which are planned whole, whatever they call what they do, and which are not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.nn.utils import parametrizations

from gridsearch.training.lanes.compile.stage_calls import step_graph
from gridsearch.training.lanes.compile.step_graph import NoPlan
from gridsearch.training.lanes.compile.tracing import inspect, trace
from gridsearch.training.lanes.runtime import plan_choice
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.zoo import torchvision
from tests.benchmarks import own_networks
from tests.training.compilers import needs_compiler

pytestmark = needs_compiler


class Net(nn.Module):
    """A patch embedding with eight tokens or maps, what a test makes of them, and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(1, 8, 2, 2)
        self.head = nn.LazyLinear(3)
        self.more()

    def more(self):
        """Make further layers."""

    def forward(self, x):
        return self.head(self.body(self.patches(x)).flatten(1))


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


class Joined(Net):
    """Maps of more values side by side than an operation takes, with zeros behind, and a value times itself."""

    def more(self):
        self.convs = nn.ModuleList(nn.Conv2d(8, 3, 1) for _ in range(5))

    def body(self, x):
        y = torch.cat([f(x) * 2 - 1 for f in self.convs], 1)
        return y * y / 3 - y.mean((2, 3), keepdim=True)


class Windows(Net):
    """Windows of shifted maps, as Swin has them."""

    def more(self):
        self.norm, self.dense = nn.LayerNorm(8), nn.Linear(8, 8)

    def body(self, x):
        x = torch.roll(x.permute(0, 2, 3, 1), (-1, -1), (1, 2))
        w = x.view(x.shape[0], 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], 4, 4, 8)
        w = self.dense(self.norm(w)) + w.softmax(-2)
        return w.view(x.shape[0], 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(x.shape[0], 4, 4, 8)


def own(kind):
    """A factory of a network of ours."""
    return lambda: kind(1, 3, (8, 8), patch=2, dim=12, depth=1)


class Coloured(nn.Module):
    """Takes maps of one channel as those of three."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.expand(-1, 3, -1, -1))


def vit():
    """torchvision's vision transformer, with dropout of what attention gives."""
    small = {"hidden_dim": 12, "mlp_dim": 16, "num_layers": 1, "num_heads": 2, "dropout": 0.1}
    return torchvision.load().models.VisionTransformer(8, 2, num_classes=3, **small)


def convnext():
    """torchvision's ConvNeXt, with stochastic depth."""
    models = torchvision.load().models
    blocks = [models.convnext.CNBlockConfig(8, None, 2)]
    return models.ConvNeXt(blocks, stochastic_depth_prob=0.2, num_classes=3)


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


class Standardized(nn.Conv2d):
    def forward(self, x):
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, w / (w.std((1, 2, 3), keepdim=True) + 1e-5), self.bias, self.stride, self.padding)


class ComputedWeights(Net):
    """Weights that are computed: of layers, of sums and products, turned, shared, of a layer that is called twice."""

    def more(self):
        self.a, self.b = nn.Parameter(torch.randn(8, 1, 1)), nn.Parameter(torch.randn(8, 1, 1))
        self.conv = parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.twice = parametrizations.spectral_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.standard, self.norm = Standardized(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.matrix, self.tied = nn.Parameter(torch.randn(8, 5) / 3), nn.Linear(8, 5)
        self.scale = nn.Parameter(torch.ones(()))

    def body(self, x):
        x = F.relu(self.twice(self.twice(self.conv(x)))) * (self.a + self.b).exp()
        x = self.norm(self.standard(x)).mean((2, 3))
        x = x @ self.matrix + self.tied(x)
        return F.linear(x, self.tied.weight.t() * self.scale) + F.linear(x, self.matrix)


class ByHooks(Net):
    """Weights that torch's older hooks compute."""

    def more(self):
        self.one = nn.utils.weight_norm(nn.Conv2d(8, 6, 3))
        self.two = nn.utils.spectral_norm(nn.Conv2d(6, 6, 3, padding=1))
        self.three = nn.utils.weight_norm(nn.Linear(6, 4), dim=None)

    def body(self, x):
        return self.three(F.relu(self.two(F.relu(self.one(x)))).mean((2, 3)))


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


class OfParameters(Net):
    """Arithmetic of parameters alone: gates, a temperature without dimensions, their softmax and their sum."""

    def more(self):
        self.a, self.b = nn.Parameter(torch.randn(8, 1, 1)), nn.Parameter(torch.randn(8, 1, 1))
        self.gates, self.temperature = nn.Parameter(torch.randn(2)), nn.Parameter(torch.tensor(0.3))

    def body(self, x):
        shares, gate = self.gates.softmax(0), torch.sigmoid(self.gates[0])
        x = x * (self.a + self.b) / (self.a.abs() + 1)
        return (shares[0] * x + shares[1] * x.relu() + (1 - gate) * x.tanh()) * self.temperature.exp().clamp(
            max=9.0
        )


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


def swin():
    """torchvision's Swin, of shifted windows that are images meanwhile."""
    return torchvision.load().models.SwinTransformer(
        [2, 2], 8, [2], [2], [2, 2], num_classes=3, stochastic_depth_prob=0.0
    )


_OWN = (
    *(
        Fixed,
        AttentionDropout,
        Encoders,
        Joined,
        Windows,
        Maxima,
        Resampled,
        Curved,
        Shared,
        Masks,
        Others,
        Rows,
        ByFunction,
        Averages,
        ComputedWeights,
        ByHooks,
        Recurs,
        Begun,
        Grown,
        OfParameters,
        Powers,
        Turned,
        Cells,
    ),
)
PLANNED = {
    **{kind.__name__: kind for kind in _OWN},
    "ViT": own(own_networks.SmallViT),
    "Mixer": own(own_networks.SmallMixer),
    "torchvision's ViT": lambda: Coloured(vit()),
    "torchvision's Swin": lambda: Coloured(swin()),
    "ConvNeXt": lambda: Coloured(convnext()),
}


@pytest.mark.filterwarnings("ignore:.*is deprecated")
@pytest.mark.parametrize("name", PLANNED)
def test_token_networks_and_what_moves_numbers_are_planned_and_agree(
    name, make_settings, make_images, monkeypatch
):
    monkeypatch.setattr(plan_choice, "module_is_faster", lambda *_, **__: False)  # which a clock would say
    settings = make_settings(dtype="float64", batch=16, epochs=1)
    data, precision = (
        ResidentCache(make_images(40), device="cpu")(settings),
        Precision.of("float64", torch.device("cpu")),
    )
    models = [build_network(settings, 0, data, lambda *_: PLANNED[name](), precision) for _ in range(2)]
    pack = PackProgram([Member(settings, 0), Member(settings, 1)], models, data, precision)
    assert pack.planned  # it agrees with the stacked network, which agrees with the modules


class Across(Net):
    """Takes images together."""

    def body(self, x):
        return x + x.flip(0)


class Chosen(Net):
    """Numbers that an activation chooses."""

    def body(self, x):
        return x * (x > 0)


class Counting(Net):
    """How many images there are is a number of its own."""

    def body(self, x):
        return x * x.shape[0]


@pytest.mark.parametrize("kind", [Across, Chosen, Counting])
def test_what_is_no_stage_has_no_plan(kind):
    model, x = kind(), torch.rand(3, 1, 8, 8)
    model(x)
    traced = trace(model, x, training=True)
    with pytest.raises(NoPlan):
        step_graph(model, traced, inspect(model, traced, x), {}, training=True)
