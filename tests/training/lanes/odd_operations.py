"""Odd networks: randomness, gradients of their own, and kinds of modules."""

# ruff: noqa: ARG004  (signatures of torch)

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from tests.training.lanes.odd_networks import ConvNet, Net, oddity

# Randomness


class DrawsWithPython(Net):
    def forward(self, x):
        return super().forward(x) * (1 if not self.training or random.random() < 0.5 else 0.5)


oddity("solo", "")(DrawsWithPython)


class DrawsWithNumpy(Net):
    def forward(self, x):
        return super().forward(x) * (float(np.random.rand()) if self.training else 1)


oddity("solo", "")(DrawsWithNumpy)


class DrawsWithAGenerator(Net):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x):
        noise = torch.rand(1, generator=self.generator, dtype=x.dtype) if self.training else 1
        return super().forward(x) * noise


oddity("solo", "generator")(DrawsWithAGenerator)


class DropsAChannelOfFeatures(Net):
    def forward(self, x):
        return self.two(F.alpha_dropout(self.hidden(x), 0.3, self.training))


oddity("stacked")(DropsAChannelOfFeatures)


# Activations that are computed again in the backward pass


class Checkpointed(Net):
    """A part with dropout that keeps no activations, which draws the same masks again."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def part(self, x):
        return self.two(self.drop(self.norm_less(x)))

    def norm_less(self, x):
        return self.one(x.flatten(1)).relu()

    def forward(self, x):
        return checkpoint(self.part, x, use_reentrant=False)


oddity("stacked")(Checkpointed)


class CheckpointedByReentry(ConvNet):
    """By the older form, which runs the part without gradients first."""

    def forward(self, x):
        x = self.conv(x)
        return self.two(checkpoint(self.part, x, use_reentrant=True) if self.training else self.part(x))

    def part(self, x):
        return (F.dropout(x, 0.2, self.training).relu() * x.sigmoid()).mean((2, 3))


oddity("stacked")(CheckpointedByReentry)


class CheckpointedInSegments(nn.Module):
    def __init__(self):
        super().__init__()
        layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(4, 4, 3), nn.ReLU()
        self.layers, self.last = nn.Sequential(*layers), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(checkpoint_sequential(self.layers, 2, x, use_reentrant=False).mean((2, 3)))


oddity("stacked")(CheckpointedInSegments)


class CheckpointedNorm(Net):
    """Its running statistics move twice in a step, as torch's own do."""

    def forward(self, x):
        return self.two(checkpoint(self.hidden, x, use_reentrant=False))


oddity("solo", "changes norm.running_mean")(CheckpointedNorm)

# Gradients of their own


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Clip(torch.autograd.Function):
    """Its backward pass acts on large gradients alone, which a check need not meet."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * 1

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clamp(-0.01, 0.01)


class ReversesGradients(Net):
    def forward(self, x):
        return self.two(Reverse.apply(self.hidden(x)))


oddity("solo", "backward")(ReversesGradients)


class ClipsGradients(Net):
    def forward(self, x):
        return self.two(Clip.apply(self.hidden(x)))


oddity("vmap", "backward")(ClipsGradients)


class StopsGradients(Net):
    def forward(self, x):
        h = self.hidden(x)
        with torch.no_grad():
            gate = self.two(h).sigmoid()
        return self.two(h) * gate


oddity("vmap", "gradients switched off")(StopsGradients)


class Detaches(Net):
    def forward(self, x):
        h = self.hidden(x)
        return self.two(h) * self.two(h.detach()).sigmoid()


oddity("stacked")(Detaches)


class AsksForGradients(Net):
    def forward(self, x):
        return super().forward(x) * (1 if torch.is_grad_enabled() else 0.5)


oddity("solo", "is_grad_enabled")(AsksForGradients)


# Kinds of modules


@oddity("solo", "scripted")
def scripted():
    return torch.jit.script(ConvNet())


@oddity("solo", "scripted")
def scripted_in_part():
    net = Net()
    net.two = torch.jit.script(net.two)
    return net


@oddity("solo", "compiled")
def compiled():
    return torch.compile(Net(), backend="eager")


@oddity("solo", "compiled")
def compiled_in_place():
    net = Net()
    net.two.compile(backend="eager")
    return net


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.LazyConv2d(4, 3), nn.LazyLinear(3)

    def forward(self, x):
        return self.two(self.one(x).relu().flatten(1))


oddity("stacked")(Lazy)


class ChangesItsImages(Net):
    def forward(self, x):
        x -= 0.3
        x.mul_(2)
        return super().forward(x)


oddity("any")(ChangesItsImages)


class ReadsWhatItChanged(ConvNet):
    """Maps under their old name, after a ReLU has changed them in place; and features of length 1."""

    def __init__(self):
        super().__init__()
        self.rectify = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.conv(x)
        y = self.rectify(x)
        return self.two(F.normalize((x + 3 * y).mean((2, 3))))


oddity("stacked")(ReadsWhatItChanged)


class AttendsWithDropout(Net):
    """Attention that gives weights besides, which nobody asks for."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)

    def forward(self, x):
        rows = x.squeeze(1)
        found, _ = self.attention(rows, rows, rows, need_weights=False)
        return super().forward(found)


oddity("stacked")(AttendsWithDropout)


class MixedDtypes(Net):
    """A part in float32 inside of a network in float64, an integer buffer, a mask."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.arange(10) % 3 > 0)
        self.register_buffer("times", torch.tensor(2))

    def forward(self, x):
        h = self.hidden(x)
        h = (h.float() * 1.5).to(h.dtype) * self.times
        return self.two(h.masked_fill(self.mask, 0))


oddity("any")(MixedDtypes)


class BranchesOnData(Net):
    def forward(self, x):
        return super().forward(x) * (0.5 if self.two.bias[0].item() > 0 else 1)


oddity("solo")(BranchesOnData)


class BranchesOnTheBatch(Net):
    def forward(self, x):
        return super().forward(x) * (0.5 if x.shape[0] == 16 else 1)


oddity("any")(BranchesOnTheBatch)


class TrainsMoreOnWholeBatches(Net):
    """Trains a layer on some numbers of images alone, as a loss beside the logits may be there in training alone."""

    def __init__(self):
        super().__init__()
        self.more = nn.Linear(10, 3)

    def forward(self, x):
        h = self.hidden(x)
        return self.two(h) + self.more(h) if len(x) == 16 else self.two(h)


oddity("solo", "the number of images")(TrainsMoreOnWholeBatches)


class RemembersASize(Net):
    def forward(self, x):
        self.batch = len(x)
        return super().forward(x)


oddity("solo", "batch")(RemembersASize)


class Spectrum(nn.Module):
    """A filter of complex weights on the spectrum."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(8, 5, dtype=torch.cfloat) * 0.3 + 1)
        self.two = nn.Linear(64, 3)

    def forward(self, x):
        return self.two(torch.fft.irfft2(torch.fft.rfft2(x) * self.filter, s=(8, 8)).flatten(1))


oddity("solo")(Spectrum)


class FiltersByPairs(nn.Module):
    """The same by pairs of real weights, as a global filter network has them, and products of complex maps."""

    def __init__(self):
        super().__init__()
        self.filter, self.two = nn.Parameter(torch.randn(8, 5, 2) * 0.3 + 1), nn.Linear(64, 3)

    def forward(self, x):
        maps = torch.fft.rfft2(x) * torch.view_as_complex(self.filter)
        return self.two(torch.fft.irfft2(maps + maps * maps.conj() / 8, s=(8, 8)).flatten(1))


oddity("stacked")(FiltersByPairs)


class Recurs(nn.Module):
    """Rows of an image as steps: two layers with dropout between them, and what projections leave of a third."""

    def __init__(self):
        super().__init__()
        self.rows = nn.LSTM(8, 6, 2, batch_first=True, dropout=0.3, bidirectional=True)
        self.last, self.two = nn.LSTM(12, 5, proj_size=4, batch_first=True), nn.Linear(9, 3)

    def forward(self, x):
        x, (state, _) = self.rows(x.squeeze(1))
        x, (_, cell) = self.last(x)
        return self.two(torch.cat([x[:, -1], cell[0]], 1)) + state[0, :, :3]


oddity("stacked")(Recurs)
