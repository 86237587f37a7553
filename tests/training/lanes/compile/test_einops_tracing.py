"""Networks that use einops train as one program: by the library where it is there, else by what stands in for it."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from gridsearch.training import method_of
from gridsearch.training.resident_data import ResidentCache
from tests.training.plain_loop import train_plainly

STAND_IN = """
class TorchBackend:
    def shape(self, x):
        return x.shape

    def reshape(self, x, shape):
        return x.reshape(shape)

    def transpose(self, x, axes):
        return x.permute(axes)


_type2backend = {}


def get_backend(tensor):
    import torch

    kind = type(tensor)
    if kind not in _type2backend:
        if not isinstance(tensor, torch.Tensor):
            raise RuntimeError(f"Tensor type unknown to einops {kind}")
        _type2backend[kind] = TorchBackend()
    return _type2backend[kind]


def patches(x, side):
    backend = get_backend(x)
    b, c, h, w = backend.shape(x)
    assert isinstance(h, int) and h % side == 0
    x = backend.reshape(x, (b, c, h // side, side, w // side, side))
    return backend.reshape(backend.transpose(x, (0, 2, 4, 3, 5, 1)), (b, h // side * w // side, side * side * c))
"""
"""What of einops is asked for: a table of kinds, what knows one, and a function that goes through both."""


@pytest.fixture
def patches(monkeypatch):
    try:
        from einops import rearrange
    except ImportError:
        made = ModuleType("einops._backends")
        exec(compile(STAND_IN, __file__, "exec"), vars(made))
        monkeypatch.setitem(sys.modules, "einops._backends", made)
        return made.patches
    return lambda x, side: rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=side, q=side)


def test_a_network_that_uses_einops_trains_as_one_stacked_network_and_leaves_no_trace(
    patches, train, make_settings, make_images
):
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Linear(16, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.embed(patches(x, 4)).tanh().mean(1))

    images = make_images()
    settings = make_settings(dtype="float64", epochs=2, optimizer="sgd", lr=0.05)
    data = ResidentCache(images, device="cpu")
    told = method_of(settings, data=data, build=lambda *_: Patches(), device="cpu")
    assert told == ("stacked", "")
    kinds = sys.modules["einops._backends"]._type2backend
    assert all(issubclass(kind, torch.Tensor) for kind in kinds)
    run = train((settings, 0), (settings, 1), build=lambda *_: Patches(), data=images)
    for lane in range(2):
        plain = train_plainly(Patches, settings, lane, images)
        assert [e.train_loss for e in run.epochs(lane)] == pytest.approx(plain.losses, rel=1e-9)
