"""The winner is tested and exported as it was trained, with what its state_dict lacks: against a plain loop's network."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from torch import nn

from gridsearch.records import Lane, Trial, TrialState
from gridsearch.training import export as exporting
from gridsearch.training.model_outputs import ModelRefused
from gridsearch.training.resident_data import ResidentCache
from tests.training.plain_loop import train_plainly


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(64, 12), nn.Linear(12, 3)

    def forward(self, x):
        return self.two(self.middle(self.one(x.flatten(1)).relu()))

    def middle(self, h):
        return h


class HiddenMean(Net):
    """A running mean that is no part of the state_dict."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(12), persistent=False)

    def middle(self, h):
        if self.training:
            self.mean.mul_(0.5).add_(0.5 * h.detach().mean(0))
        return 3 * (h - self.mean)


class PlainMean(Net):
    """Likewise, as a plain attribute, a new tensor at each step."""

    def __init__(self):
        super().__init__()
        self.mean = None

    def middle(self, h):
        if self.training:
            self.mean = (
                h.detach().mean(0) if self.mean is None else 0.5 * self.mean + 0.5 * h.detach().mean(0)
            )
        return 3 * (h - (0 if self.mean is None else self.mean))


class Anneals(Net):
    """A temperature that falls with each step."""

    temperature = 5.0

    def middle(self, h):
        if self.training:
            self.temperature *= 0.8
        return torch.tanh(h / self.temperature)


class SavesItsHead(Net):
    """Its state_dict is a part of it."""

    def state_dict(self, *args, **kwargs):
        return {name: t for name, t in super().state_dict(*args, **kwargs).items() if name.startswith("two")}


class KeepsActivations(Net):
    """An attribute that nothing is computed from, as people keep attention maps."""

    def middle(self, h):
        self.seen = h
        return h


class CountsInAList(Net):
    """State where no file has it."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def middle(self, h):
        if self.training:
            self.steps.append(1)
        return h * (1 + len(self.steps))


@pytest.fixture
def exported(train, make_settings, make_images, tmp_path, monkeypatch):
    """Train a network on all images, export it, and return the test's logits, the facts, and a plain loop's logits."""

    monkeypatch.setattr(exporting, "_graph", lambda *_: (None, {"error": "left out: it takes seconds"}))

    def run(kind, lanes=1, **changes):
        settings = make_settings(val=0.0, dtype="float64", norm="none", optimizer="sgd", **changes)
        images = make_images()
        trials = [(settings, seed) for seed in range(lanes)]
        run = train(*trials, data=images, build=lambda *_: kind())
        for number in range(lanes):
            run.finished(number)
        held = [
            Lane(
                Trial(
                    id=n, number=n, key="", seed=n, settings=settings, params={}, state=TrialState.COMPLETE
                ),
                str(folder),
            )
            for n, folder in run.scratch.items()
        ]
        cache = ResidentCache(images, device="cpu")
        _, facts = exporting.export(held, data=cache, build=lambda *_: kind(), folder=tmp_path / "out")
        found = safetensors.torch.load_file(tmp_path / "out" / "test.safetensors")["logits"]
        wanted = []
        for seed in range(lanes):
            nets = []
            train_plainly(lambda nets=nets: nets.append(kind()) or nets[0], settings, seed, images)
            with torch.no_grad():
                wanted.append(nets[0].eval()(torch.from_numpy(images.test_images).double() / 255))
        return found, facts, torch.stack(wanted).float()

    return run


@pytest.mark.parametrize(
    ("kind", "lanes", "beside"),
    [
        (HiddenMean, 1, ["mean"]),
        (HiddenMean, 2, ["mean"]),
        (PlainMean, 1, ["mean"]),
        (Anneals, 1, ["temperature"]),
        (SavesItsHead, 1, ["one.bias", "one.weight"]),
        (KeepsActivations, 1, []),
        (Net, 2, []),
    ],
)
def test_what_training_changes_beside_the_state_dict_is_tested_too(exported, kind, lanes, beside):
    found, facts, wanted = exported(kind, lanes)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert facts["beside"] == beside


def test_an_average_of_a_hidden_buffer_is_tested(exported):
    """Of the weights' average, which is what counts, the plain loop has none: both engines must agree."""
    first, facts, _ = exported(HiddenMean, 1, ema=0.5)
    second, _, _ = exported(HiddenMean, 2, ema=0.5)
    torch.testing.assert_close(first[0], second[0], rtol=1e-5, atol=1e-6)
    assert facts["beside"] == ["mean"]


def test_state_that_no_file_has_is_refused(exported):
    with pytest.raises(ModelRefused, match=r"keeps what training changes where no file has it"):
        exported(CountsInAList)


def test_lanes_with_held_out_images_write_no_more(train, make_settings):
    run = train(make_settings(), build=lambda *_: HiddenMean())
    assert set(run.bytes_of()) == {"predictions.safetensors", "weights.safetensors"}
