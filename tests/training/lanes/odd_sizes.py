"""Networks that ask for sizes and types, and act by them; each is an oddity, as those of `odd_networks`."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from tests.training.lanes.odd_networks import ConvNet, Net, oddity


class AsksForSizes(ConvNet):
    """Sizes in conditions, loops and products, none of which depends on the batch; and maxima by their name."""

    def forward(self, x):
        height, width = x.shape[-2:]
        assert x.ndim == len(x.shape) == 4
        if height != width or x.size(1) > 1:
            raise ValueError(f"{height}x{width}")
        x = self.conv(x).relu()
        for row in range(x.shape[2] // 3):
            x = x * (1 + row)
        x = F.avg_pool2d(x, x.shape[-1] - 2).max(3).values
        return self.two(x.max(2)[0])


oddity("stacked")(AsksForSizes)


class ComparesShapes(ConvNet):
    """Whole shapes in conditions, the number of images among them: equal for every batch, or for none."""

    def __init__(self):
        super().__init__()
        self.short = nn.Conv2d(1, 4, 3, bias=False)

    def forward(self, x):
        images, side = x.size(0), x.shape[-1] - 2
        h = self.conv(x)
        assert h.shape == (images, 4, side, side)
        short = x[..., 1:-1, 1:-1]
        if short.shape != h.shape:
            short = self.short(x)
        if h.size() == short.size() and h.numel() == images * 4 * side * side:
            h = h + short
        h = h.relu().flatten(1)
        assert h.shape[0] == images
        return self.two(h.view(images, 4, -1).mean(2))


oddity("stacked")(ComparesShapes)


class AsksForItsTypes(Net):
    """Types in conditions, and a rank as a key."""

    def __init__(self):
        super().__init__()
        self.scales = {2: 0.5, 4: 2.0}

    def forward(self, x):
        x = x * self.scales[x.ndim]
        h = self.hidden(x)
        if h.dtype == torch.float16 or h.dtype not in (torch.float32, torch.float64) or h.is_complex():
            h = h.float()
        return self.two(h * self.scales[h.ndim] if h.device == x.device and not h.is_cuda else h)


oddity("stacked")(AsksForItsTypes)


class MakesItsWeights(nn.Module):
    """A hypernetwork: kernels of a small network and an embedding, put together; and a kernel made of nothing."""

    def __init__(self):
        super().__init__()
        self.codes = nn.Parameter(torch.linspace(-1, 1, 8).view(2, 4))
        self.make, self.two = nn.Linear(4, 18), nn.Linear(4, 3)

    def forward(self, x):
        blocks = [self.make(code).view(2, 1, 3, 3) for code in self.codes]
        x = F.conv2d(x, torch.cat(blocks, 0)).relu()
        x = F.conv2d(x, torch.ones(4, 1, 2, 2, dtype=x.dtype) / 4, groups=4)
        return self.two(x.mean((2, 3)))


oddity("stacked")(MakesItsWeights)


class SlicesByItsSizes(Net):
    """Parts of tables as long as what is there: positions, a causal mask, and one row for each image."""

    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.linspace(0, 1, 12 * 8).view(1, 12, 8))
        self.register_buffer("mask", torch.ones(12, 12).tril().view(1, 12, 12))
        self.register_buffer("rows", torch.ones(40, 1))

    def forward(self, x):
        images, tokens, _ = (x := x.squeeze(1)).size()
        x = x + self.places[:, : x.size(1)]
        weights = x @ x.transpose(1, 2) / x.shape[-1]
        weights = weights.masked_fill(self.mask[:, :tokens, :tokens] == 0, float("-inf")).softmax(-1)
        return super().forward((weights @ x) * self.rows[:images].unsqueeze(2))


oddity("stacked")(SlicesByItsSizes)


class ComparesTheBatch(Net):
    """A shape that is that of a batch of 16, and of no other."""

    def forward(self, x):
        return super().forward(x) * (0.5 if x.shape == (16, 1, 8, 8) else 1)


oddity("vmap", "depends on the batch")(ComparesTheBatch)


class NormsPartsOfTheBatch(Net):
    """A batch norm of eight images at a time; fewer, as in any check of the first steps, are one part."""

    def forward(self, x):
        h = self.one(x.flatten(1))
        return self.two(torch.cat([self.norm(part) for part in h.split(8)]).relu())


oddity("vmap", "for 16 images")(NormsPartsOfTheBatch)


class MixesWithTheSixthNext(Net):
    """Of three images the sixth next is the same one."""

    def forward(self, x):
        h = self.hidden(x)
        return self.two(h * h.roll(6, 0))


oddity("stacked")(MixesWithTheSixthNext)


class TreatsTheFirstOtherwise(ConvNet):
    def forward(self, x):
        h = self.conv(x).relu()
        return self.two(torch.cat([h[:5] * 2, h[5:]]).mean((2, 3)))


oddity("stacked")(TreatsTheFirstOtherwise)


class ActsOnTheRestOfTheBatch(Net):
    def forward(self, x):
        return super().forward(x) * (2 if self.training and x[9:].shape[0] else 1)


oddity("vmap", "does not agree")(ActsOnTheRestOfTheBatch)


class CountsLargeWeights(Net):
    """A size that changes as the weights do."""

    def forward(self, x):
        large = self.one.weight[self.one.weight.abs() > 0.05]
        return super().forward(x) * (large.numel() / 320)


oddity("solo", "decides how long")(CountsLargeWeights)


class TakesWhatAMaskSays(Net):
    """A size that follows from a constant."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.arange(10) % 3 > 0)
        self.two = nn.Linear(6, 3)

    def forward(self, x):
        return self.two(self.hidden(x)[:, self.mask])


oddity("stacked")(TakesWhatAMaskSays)
