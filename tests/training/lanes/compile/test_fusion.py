"""What of a traced graph becomes one operation, and that it is the same function."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import fx, nn

from gridsearch.training.lanes.compile.fusion import fuse, pooled_convolution


class Functional(nn.Module):
    """A convolution whose pooling and ReLU are calls."""

    def __init__(self, how) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.how = how

    def forward(self, x):
        return self.how(self.conv(x))


FUSED = {
    "modules": nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.ReLU()),
    "no ReLU": nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)),
    "no bias": nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.MaxPool2d((2, 2), 2)),
    "padded": nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(3, stride=(3, 3))),
    "calls": Functional(lambda y: F.relu(F.max_pool2d(y, 2))),
    "calls, all said": Functional(lambda y: torch.max_pool2d(y, kernel_size=[2, 2], stride=2).relu()),
}
KEPT = {
    "windows overlap": nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(3, 2)),
    "no square": nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d((2, 1))),
    "padded windows": nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, padding=1)),
    "half windows count": nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, ceil_mode=True)),
    "strides": nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.MaxPool2d(2)),
    "mirrored borders": nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.MaxPool2d(2)),
    "groups": nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.MaxPool2d(2)),
    "named padding": nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.MaxPool2d(2)),
    "another reader": Functional(lambda y: F.max_pool2d(y, 2).sum() + y.sum()),
    "norm between": nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(2)),
}


@pytest.mark.parametrize("name", [*FUSED, *KEPT])
def test_what_is_fused_is_the_same_function(name):
    model = (FUSED | KEPT)[name]
    graph = fx.Tracer().trace(model)
    fuse(graph, model)
    found = [node for node in graph.nodes if node.target is pooled_convolution]
    assert len(found) == (name in FUSED)
    x = torch.randn(3, 2 if name == "groups" else 1, 8, 8)
    assert torch.equal(fx.Interpreter(model, graph=graph).run(x), model(x))


def test_relu_that_others_read_too_stays():
    model = Functional(lambda y: (p := F.max_pool2d(y, 2)).relu().sum() + p.sum())
    graph = fx.Tracer().trace(model)
    fuse(graph, model)
    (node,) = [n for n in graph.nodes if n.target is pooled_convolution]
    assert node.args[-1] is False
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(fx.Interpreter(model, graph=graph).run(x), model(x))


# Networks with and without
