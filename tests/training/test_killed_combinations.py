"""Trials of random settings, killed at random moments, end with the bytes of trials that were never stopped."""

from __future__ import annotations

import random

import pytest
import torch

from gridsearch.records import EpochEnded, TrialFailed
from gridsearch.training import loop
from gridsearch.training.lane_optimizer import OPTIMIZERS
from gridsearch.training.own_code import OwnCode
from gridsearch.training.solo_engine import SoloEngine
from tests.training.conftest import conv_net, dense_net
from tests.training.killed_trials import Cumulative, Hooked, Killed, Trials, outcome, rows

EPOCHS = 4
BUILT_IN = (
    *("none", "flip", "shift", "flip+shift", "erase"),
    *("randaugment", "flip+randaugment", "flip+shift+randaugment"),
)
FUSIBLE = {
    "lr": (0.003, 0.01, 0.05),
    "epochs": (1, 3, EPOCHS),
    "norm": ("none", "standard"),
    "momentum": (0.0, 0.9),
    "nesterov": (False, True),
    "weight_decay": (0.0, 0.05),
    "clip_norm": (None, 0.5),
    "clip_value": (None, 0.02),
    "schedule": ("constant", "step", "cosine", "onecycle"),
    "warmup": (0.0, 0.5, 1.5),
    "operations": (1, 3),
    "magnitude": (3, 20),
    "mixup": (0.0, 0.0, 0.4),
    "cutmix": (0.0, 0.0, 1.0),
    "loss": ("cross_entropy", "focal"),
    "class_weight": ("none", "balanced"),
    "sampling": ("none", "balanced"),
    "label_smoothing": (0.0, 0.1),
    "dropout": (None, 0.0, 0.4),
    "ema": (0.0, 0.0, 0.9),
    "select": ("last", "best"),
    "patience": (None, None, 1, 2),
}


class Noisy(torch.optim.Optimizer):
    """Draws, and keeps a step count of its own beside each parameter's mean."""

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.taken = 0

    @torch.no_grad()
    def step(self, closure=None):  # noqa: ARG002 - as torch calls it
        self.taken += 1
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 / self.taken)
                p.sub_(mean + 0.01 * torch.randn(p.shape).to(p.dtype), alpha=group["lr"])


def speckled(images, generator):
    return images * torch.rand(images.shape, generator=generator, dtype=images.dtype)


def draw(chance, make_settings, *, dropout, lanes=None, dtype=None):
    """Return a pack's settings with their seeds: what shapes it is common, all else is each lane's own."""
    own = chance.random() < 0.25
    common = {
        "optimizer": "my.py:Noisy" if own else chance.choice(OPTIMIZERS),
        "augment": "my.py:speckled" if chance.random() < 0.15 else chance.choice(BUILT_IN),
        "batch": chance.choice((7, 16)),
        "drop_last": chance.random() < 0.3,
        "dtype": dtype or chance.choice(("float32", "float32", "float64")),
        "val": chance.choice((1 / 6, 0.0)),
    }
    folds = chance.choice((None, None, 3)) if common["val"] else None
    recipe = []
    for _ in range(lanes or chance.randint(1, 4)):
        one = {name: chance.choice(values) for name, values in FUSIBLE.items()}
        seed = chance.randrange(4)
        if one["mixup"] and one["cutmix"]:
            one["cutmix"] = 0.0
        if common["optimizer"] != "sgd":
            one["momentum"] = 0.0
        one["nesterov"] = bool(one["nesterov"] and one["momentum"])
        if not dropout:
            one["dropout"] = None
        if folds:
            one |= {"folds": folds, "fold": chance.randint(1, folds), "partition": seed}
        recipe.append((make_settings(**common | one), seed))
    return recipe


def killer(chance):
    """Return what ends the worker: in an epoch, between the events of two lanes, or right after one."""
    left = chance.randint(1, 12)

    def kill(event):
        nonlocal left
        left -= isinstance(event, EpochEnded)
        return left <= 0

    return kill


@pytest.mark.parametrize("number", range(6))
def test_a_pack_of_any_settings_that_is_killed_ends_with_the_bytes_of_an_unbroken_run(
    tmp_path, make_settings, make_images, monkeypatch, number
):
    chance = random.Random(number)
    if chance.random() < 0.3:
        monkeypatch.setattr(loop, "ENGINES", (SoloEngine(),))
    name, build = chance.choice(
        [
            ("conv", conv_net),
            ("conv", conv_net),
            ("dense", dense_net),
            ("vmap", lambda s, d: Cumulative()),
            ("solo", lambda s, d: Hooked()),
        ]
    )
    recipe = draw(chance, make_settings, dropout=name in ("conv", "solo"))
    one = recipe[0][0]
    own = OwnCode(speckled if ":" in one.augment else None, Noisy if ":" in one.optimizer else None)
    how = {"build": build, "own": own, "images": make_images(learnable=chance.random() < 0.5)}
    unbroken, broken = (Trials(tmp_path / place, recipe, **how) for place in ("unbroken", "broken"))
    whole = unbroken.run()
    assert not any(isinstance(event, TrialFailed) for event in whole)
    parts = []
    for _ in range(chance.randint(1, 4)):
        if chance.random() < 0.5:
            parts.append(broken.run(kill=killer(chance)))
        else:  # in the middle of an epoch, at a step's end
            left = [chance.randint(1, 40)]

            def stop(left=left):
                left[0] -= 1
                if left[0] <= 0:
                    raise Killed
                return False

            parts.append(broken.run(stop=stop))
    parts.append(broken.run())
    assert outcome(parts[-1]) == outcome(whole), recipe
    assert rows(*parts) == rows(whole), recipe
    assert broken.results() == unbroken.results(), recipe
