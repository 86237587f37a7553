"""Networks with one oddity each, by name: what they have in common, and where their modules note them.

Each oddity could be lost by a rewrite or a copy, most of them from some step on and not at the first.
"""

from __future__ import annotations

from torch import nn

LATE = 7
"""Calls after which something changes: later than any check of the first steps."""

ODDITIES = {}

SHARED = {}
"""What networks of other modules change."""


def oddity(method, reason=""):
    """Note a network by its name, the method it may train by ("stacked", "vmap", "solo"), and a word of the reason."""

    def note(make):
        ODDITIES[make.__name__] = (make, method, reason)
        return make

    return note


class Net(nn.Module):
    """Two dense layers and a batch norm."""

    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(64, 10), nn.BatchNorm1d(10), nn.Linear(10, 3)

    def hidden(self, x):
        return self.norm(self.one(x.flatten(1))).relu()

    def forward(self, x):
        return self.two(self.hidden(x))


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.two = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.two(self.conv(x).relu().mean((2, 3)))
