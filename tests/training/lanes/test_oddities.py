"""Whatever a module carries: its lanes give what a plain loop gives, stacked, vmapped or one after the other.

Each network has one oddity that a rewrite or a copy could lose, most of them from some step on and not at the first.
The loop shares nothing with the product but the names of the streams and the split.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gridsearch.records import TrialFailed
from gridsearch.training import method_of
from gridsearch.training.resident_data import ResidentCache
from tests.training.lanes import (  # noqa: F401  (they note their networks among the oddities, as the others do)
    odd_hooks,
    odd_places,
    odd_sizes,
    odd_states,
)
from tests.training.lanes.odd_networks import ODDITIES, Net
from tests.training.lanes.odd_operations import Spectrum
from tests.training.lanes.odd_weights import Unfreezes
from tests.training.plain_loop import train_plainly

pytestmark = pytest.mark.thorough


@pytest.mark.filterwarnings("ignore:.*is deprecated")
@pytest.mark.parametrize("name", ODDITIES)
def test_a_network_with_an_oddity_gives_in_a_pack_what_a_plain_loop_gives(
    name, train, make_settings, make_images
):
    make, method, reason = ODDITIES[name]
    images = make_images()
    common = {"dtype": "float64", "epochs": 3, "batch": 16}
    trials = [
        (make_settings(**common, optimizer="sgd", lr=0.05, momentum=0.9), 0),
        (make_settings(**common, optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01, norm="none"), 1),
    ]
    told = method_of(
        trials[0][0], data=ResidentCache(images, device="cpu"), build=lambda *_: make(), device="cpu"
    )
    run = train(*trials, build=lambda *_: make(), data=images)
    for lane, (settings, seed) in enumerate(trials):
        plain = train_plainly(make, settings, seed, images)
        end = run.end(lane)
        assert not isinstance(end, TrialFailed), end.traceback
        found = run.epochs(lane)
        assert [e.train_loss for e in found] == pytest.approx(plain.losses, rel=1e-9), told
        assert [e.val_loss for e in found] == pytest.approx(plain.val_losses, rel=1e-9), told
        weights = run.weights(lane)
        for key in weights.keys() & plain.state.keys():
            if weights[key].is_floating_point() and key not in ("one.bias", "norm.running_mean"):
                torch.testing.assert_close(
                    weights[key].double(), plain.state[key].double(), rtol=1e-7, atol=1e-8, msg=key
                )
    assert method in (told[0], "any"), told
    assert reason in told[1], told


def test_complex_weights_stay_complex_and_train_with_every_optimizer(train, make_settings, make_images):
    images = make_images()
    for optimizer in ("adam", "rmsprop"):
        settings = make_settings(dtype="float64", epochs=2, optimizer=optimizer)
        run = train(settings, build=lambda *_: Spectrum(), data=images)
        plain = train_plainly(Spectrum, settings, 0, images)
        assert [e.train_loss for e in run.epochs()] == pytest.approx(plain.losses, rel=1e-9)
        assert run.weights()["filter"].dtype is torch.complex64


def test_parameters_that_thaw_late_train_from_then_on_and_are_averaged(train, make_settings, make_images):
    images = make_images()
    settings = make_settings(dtype="float64", epochs=3, optimizer="adam", ema=0.9)
    run = train(settings, build=lambda *_: Unfreezes(), data=images)
    plain = train_plainly(Unfreezes, settings, 0, images)
    assert [e.train_loss for e in run.epochs()] == pytest.approx(plain.losses, rel=1e-9)
    start = run.weights()["one.weight"], plain.state["one.weight"]
    assert 0 < (start[0] - start[1]).abs().max() < 0.2  # an average is near, and not the same


def test_a_factory_that_gives_one_network_twice_is_refused_since_the_second_trial_would_go_on_from_the_first(
    train, make_settings
):
    net = Net()
    run = train(make_settings(), make_settings(lr=0.02), build=lambda *_: net)
    assert "gives a network that it gave before" in run.end(1).message


def test_frozen_weights_may_be_shared_by_all_networks(train, make_settings):
    base = nn.Linear(64, 10).requires_grad_(False)

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.head = base, nn.Linear(10, 3)

        def forward(self, x):
            return self.head(self.base(x.flatten(1)).relu())

    run = train(make_settings(), make_settings(lr=0.02), build=lambda *_: Head())
    assert run.finished(0).metrics != run.finished(1).metrics


def test_a_hook_on_all_modules_is_told_and_its_lanes_train_alone(make_settings, make_images):
    handle = nn.modules.module.register_module_forward_hook(lambda m, i, o: None)
    try:
        data = ResidentCache(make_images(), device="cpu")
        told = method_of(make_settings(), data=data, build=lambda *_: Net(), device="cpu")
    finally:
        handle.remove()
    assert told[0] == "solo"
    assert told[1].startswith("there are hooks on all modules. To change that: remove what ")
