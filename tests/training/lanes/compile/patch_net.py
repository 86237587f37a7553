"""What networks that are read as stages have in common: a patch embedding, and a head."""

from __future__ import annotations

import torch
from torch import nn


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
