"""What tracing costs: code that asks for sizes, and for parameters, does not make it go through the whole model again."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.training.lanes.compile.kept_buffers import KeptBuffers
from gridsearch.training.lanes.compile.tracing import trace


class Norm(nn.BatchNorm2d):
    """As timm's, whose code asks for the rank and gives its parameters to a function."""

    def forward(self, x):
        if x.ndim != 4:
            raise ValueError
        how = self.weight, self.bias, self.training, self.momentum, self.eps
        return F.batch_norm(x, self.running_mean, self.running_var, *how)


def times_asked(layers, monkeypatch):
    """Trace a model, and return how often somebody asks for its tensors."""
    model, asked = nn.Sequential(*(Norm(2) for _ in range(layers))), []
    for norm in model:
        norm.running_mean.fill_(3)
    with monkeypatch.context() as patch:
        for name in ("named_parameters", "named_buffers"):
            own = getattr(nn.Module, name)
            patch.setattr(nn.Module, name, lambda *a, own=own, **k: asked.append(None) or own(*a, **k))
        traced = trace(model, torch.rand(3, 2, 4, 4), training=True)
    named = {node.target for node in traced.graph.nodes if node.op == "get_attr"}
    assert named == {name for name in model.state_dict() if "tracked" not in name}
    assert all((norm.running_mean == 3).all() for norm in model)  # the samples that were run have moved none
    return len(asked)


def test_tracing_goes_through_the_tensors_of_a_model_as_often_whatever_its_layers(monkeypatch):
    assert times_asked(3, monkeypatch) == times_asked(12, monkeypatch)


def test_buffers_are_copied_once_and_given_back_after_each_change():
    model = nn.BatchNorm1d(3)
    kept, x = KeptBuffers(model), torch.rand(4, 3)
    for turn in range(3):
        before = torch.clone(model.running_mean), model.num_batches_tracked.item()
        with kept.kept():
            copies = [id(copy) for copy in kept._copies]
            model(x)
        assert torch.equal(model.running_mean, before[0]), turn
        assert model.num_batches_tracked == before[1]
        if turn == 1:
            model.running_mean.fill_(2)  # by code that is traced, and to be kept
            continue
        with kept.kept():
            assert [id(copy) for copy in kept._copies] == copies
    assert (model.running_mean == 2).all()
