"""The optimizer of a lane is torch.optim's, to 1e-12 over 100 steps, without importing torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from gridsearch.training.lane_optimizer import OPTIMIZERS, LaneOptimizer
from gridsearch.training.model_outputs import ModelRefused

REFERENCES = {
    "sgd": lambda p, s: torch.optim.SGD(
        p, s.lr, momentum=s.momentum, nesterov=s.nesterov, weight_decay=s.weight_decay
    ),
    "adam": lambda p, s: torch.optim.Adam(p, s.lr, weight_decay=s.weight_decay),
    "adamw": lambda p, s: torch.optim.AdamW(p, s.lr, weight_decay=s.weight_decay),
    "nadam": lambda p, s: torch.optim.NAdam(p, s.lr, weight_decay=s.weight_decay),
    "rmsprop": lambda p, s: torch.optim.RMSprop(p, s.lr, weight_decay=s.weight_decay),
}


def parameters(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 3), (5,), (2, 3, 3, 3))
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in shapes]


@pytest.mark.parametrize("decay", [0.0, 0.02])
@pytest.mark.parametrize("name", [*OPTIMIZERS, "momentum", "nesterov"])
def test_it_moves_as_torch_optim_does(name, decay, make_settings):
    settings = make_settings(
        optimizer="sgd" if name in ("momentum", "nesterov") else name,
        momentum=0.9 if name in ("momentum", "nesterov") else 0.0,
        nesterov=name == "nesterov",
        weight_decay=decay,
        lr=0.01,
    )
    ours, theirs = parameters(), parameters()
    optimizer, reference = LaneOptimizer(settings, ours), REFERENCES[settings.optimizer](theirs, settings)
    generator = torch.Generator().manual_seed(1)
    for step in range(100):
        optimizer.lr = reference.param_groups[0]["lr"] = 0.01 * (1 + step % 3)
        for place, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            missing = place == 1 and step % 4 == 0  # as where a branch of a model was not taken
            p.grad = None if missing else gradient.clone()
            q.grad = None if missing else gradient.clone()
        optimizer.step()
        reference.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sparse_gradients_are_refused(name, make_settings):
    layer = nn.Embedding(4, 2, sparse=True)
    optimizer = LaneOptimizer(make_settings(optimizer=name), list(layer.parameters()))
    layer(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ModelRefused, match=f"sparse, which {name} does not take: leave sparse=True out"):
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_complex_parameters_move_as_torch_optim_does(name, make_settings):
    settings = make_settings(optimizer=name)
    ours, theirs = parameters(torch.complex128), parameters(torch.complex128)
    optimizer, reference = LaneOptimizer(settings, ours), REFERENCES[name](theirs, settings)
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad, q.grad = p.detach() * (1 + 2j), q.detach() * (1 + 2j)
        optimizer.step()
        reference.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_gradient_at_all_moves_nothing(name, make_settings):
    ours = parameters()
    LaneOptimizer(make_settings(optimizer=name), ours).step()
    assert all(torch.equal(p, q) for p, q in zip(ours, parameters(), strict=True))


def test_training_imports_neither_torch_s_compiler_nor_sympy(tmp_path):
    """They take as long to import as torch itself and a third of that, in every worker."""
    program = """
import sys
import numpy as np
from torch import nn
from gridsearch.plugins import ImageData
from gridsearch.records import Lane, Pack, ImageSettings, Trial, TrialFinished, TrialState
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.context import TrainContext
from gridsearch.training.loop import train_pack
images, labels = np.zeros((12, 1, 4, 4), np.uint8), np.arange(12) % 2
data = ImageData(
    train_images=images, train_labels=labels, test_images=None, test_labels=None, class_names=("a", "b")
)
settings = ImageSettings(dataset="d", epochs=1)
trial = Trial(id=0, number=0, key="", seed=0, settings=settings, params={}, state=TrialState.RUNNING)
events = []

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.more, self.norm = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.out = nn.Sequential(nn.MaxPool2d(2, 1), nn.AvgPool2d(1), nn.Dropout(), nn.Flatten(), nn.Linear(2, 2))

    def forward(self, x):
        x = self.norm(self.conv(x))
        return self.out(x + self.more(x))

build = lambda *_: Net()
pack = Pack("p", (Lane(trial, sys.argv[1]),))
train_pack(pack, TrainContext(data=ResidentCache(data, device="cpu"), build=build, device="cpu"), emit=events.append)
print(type(events[-1]).__name__, [name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert ran.stdout.strip() == "TrialFinished []"
