"""A study whose winner tests refit, and the files that it leaves."""

from __future__ import annotations

RUN = ("run", "--dataset", "digits", "--model", "mlp", "--epochs", "1", "--executor", "inline", "--no-report")
BEST = ("best", "--study", "digits", "--executor", "inline")
FILES = {"model.safetensors", "model.json", "model.onnx", "card.md"}

NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes, hidden=16):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
    def forward(self, x):
        return self.layers(x)
"""


def files_of(home, study="digits"):
    return sorted(str(p.relative_to(home)) for p in (home / study).rglob("*") if "tensorboard" not in p.parts)
