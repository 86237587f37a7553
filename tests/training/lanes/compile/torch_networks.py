"""Networks with parts that torch computes within a plan: there is no compiled operation for them."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from tests.training.lanes.compile import weight_networks
from tests.training.lanes.compile.patch_net import Net


class Turned(Net):
    """A spatial transformer: maps read where an image says."""

    def more(self):
        self.where = nn.LazyLinear(6)

    def body(self, x):
        theta = self.where(x.flatten(1)).view(-1, 2, 3)
        return F.grid_sample(
            x, F.affine_grid(theta, x.size(), align_corners=False), align_corners=False
        ).relu()


class Frequencies(Net):
    """Weights of frequencies, complex numbers between two transforms, after norms and before dense layers."""

    def more(self):
        self.weight = nn.Parameter(torch.randn(4, 3, 8, 2) * 0.1)
        self.norm, self.mix = nn.LayerNorm(8), nn.Linear(8, 8)

    def body(self, x):
        x = self.norm(x.permute(0, 2, 3, 1))
        found = torch.fft.rfft2(x, dim=(1, 2), norm="ortho") * torch.view_as_complex(self.weight)
        return self.mix(torch.fft.irfft2(found, s=(4, 4), dim=(1, 2), norm="ortho")).relu() + x


class Ranked(Net):
    """The largest numbers, those in their order, the one in the middle, and those at the places of others."""

    def body(self, x):
        x = self.patches.weight.mean() * x.flatten(2)
        values, places = x.topk(5, dim=2)
        chosen = x.flip(2).gather(2, places)
        return torch.cat([values, chosen, x.sort(2).values, x.median(2, keepdim=True)[0]], 2)


class Projected(Net):
    """Recurrent layers with narrower states, in both directions, of patches in a row."""

    def more(self):
        self.read = nn.LSTM(8, 6, num_layers=2, proj_size=3, bidirectional=True)

    def body(self, x):
        states, (last, _) = self.read(x.flatten(2).permute(2, 0, 1))
        return torch.cat([states.mean(0), last[-1]], 1)


class Chosen(Net):
    """Numbers that an activation chooses."""

    def body(self, x):
        return x.flatten(2).gather(2, x.flatten(2).detach().argmax(2, keepdim=True))


class SumOfMasks(Net):
    """The sum of two masks, which torch adds as truth."""

    def body(self, x):
        return x * ((x > 0) + (x < 1))


class WholeMask(Net):
    """A mask as whole numbers, whose quotient torch rounds."""

    def body(self, x):
        return x * (x > 0).to(torch.int64).div(2, rounding_mode="floor") + x


class UnsurePower(Net):
    """A power of what may be zero, where its gradient is that of no logarithm."""

    def more(self):
        self.p = nn.Parameter(torch.tensor(2.0))

    def body(self, x):
        return x.relu() ** self.p


class ManyParameters(Net):
    """Arithmetic of so many parameters, within a function, that each image would compute them anew."""

    def more(self):
        self.gates = nn.Parameter(torch.randn(17, 16, 16))

    def body(self, x):
        return weight_networks.first_gate(x, self.gates)


class Several(Net):
    """Parts that nothing joins, one of many inputs, one between layers that have stages, and one that nobody reads."""

    def more(self):
        self.between, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def body(self, x):
        a, b, c, d, e = (x * i for i in range(1, 6))
        y = torch.stack([a.lgamma(), b.cos(), c, d, e.square()]).logcumsumexp(0)[-1]
        y = self.last(self.between(y).relu())
        torch.special.i0(y)
        return torch.special.erfcx(y / 4) + torch.special.i0e(x)


class Tabled(Net):
    """A table that is the same for all lanes, and sizes that depend on how many images there are."""

    def more(self):
        self.register_buffer("table", torch.linspace(-1, 1, 16))

    def body(self, x):
        at = torch.bucketize(x.detach(), self.table).clamp(max=15)
        y = self.table[at] * x
        return torch.take_along_dim(y.reshape(x.shape[0], -1), y.flatten(1).argsort(1), 1)


class Halved(Net):
    """Half precision in the midst of it."""

    def body(self, x):
        return x + (x.bfloat16() * 2).to(x.dtype).detach()


NETWORKS = (
    *(Turned, Frequencies, Ranked, Projected, Chosen, SumOfMasks, WholeMask, UnsurePower, ManyParameters),
    *(Several, Tabled, Halved),
)
