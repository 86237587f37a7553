"""One lane gives what an independent, plain PyTorch loop with torch.optim gives, in float64 to 1e-9.

The loop below shares nothing with the product but the names of the streams and the indices of the split.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.optim import lr_scheduler

from gridsearch.training.seeds import stream
from gridsearch.training.splits import split
from gridsearch.zoo import models as zoo
from tests.training.objectives import Objective

TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}

OPTIMIZERS = {
    "sgd": lambda p, s: torch.optim.SGD(p, lr=s.lr, weight_decay=s.weight_decay, foreach=False),
    "momentum": lambda p, s: torch.optim.SGD(
        p, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay, foreach=False
    ),
    "nesterov": lambda p, s: torch.optim.SGD(
        p, lr=s.lr, momentum=s.momentum, nesterov=True, weight_decay=s.weight_decay, foreach=False
    ),
    "adam": lambda p, s: torch.optim.Adam(p, lr=s.lr, weight_decay=s.weight_decay, foreach=False),
    "adamw": lambda p, s: torch.optim.AdamW(p, lr=s.lr, weight_decay=s.weight_decay, foreach=False),
    "nadam": lambda p, s: torch.optim.NAdam(p, lr=s.lr, weight_decay=s.weight_decay, foreach=False),
    "rmsprop": lambda p, s: torch.optim.RMSprop(p, lr=s.lr, weight_decay=s.weight_decay, foreach=False),
}


class Shape:
    """What a build function is told of the data."""

    def __init__(self, images: np.ndarray, classes: int) -> None:
        self.channels, self.image_size, self.num_classes = images.shape[1], images.shape[2:], classes


def plain_loop(settings, seed, data, build, make_optimizer, make_scheduler=None, norm=None):
    parts = split(
        data.train_labels,
        val=settings.val,
        split_seed=settings.split_seed,
        subset=settings.subset,
        hold_out_test=data.test_images is None,
    )
    pixels = data.train_images.astype(np.float64) / 255
    if settings.norm == "standard":
        of_train = pixels[parts.train]
        pixels = (pixels - of_train.mean((0, 2, 3), keepdims=True)) / of_train.std((0, 2, 3), keepdims=True)
    x, y = torch.from_numpy(pixels), torch.from_numpy(data.train_labels)
    torch.default_generator.manual_seed(stream(seed, "weights"))
    model = build(settings, Shape(data.train_images, len(data.class_names))).double()
    if settings.dropout is not None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = settings.dropout
    optimizer = make_optimizer(model.parameters(), settings)
    objective = Objective(settings, data.train_labels[parts.train])
    n = len(parts.train)
    steps_per_epoch = n // settings.batch if settings.drop_last else math.ceil(n / settings.batch)
    scheduler = make_scheduler(optimizer, settings.epochs * steps_per_epoch) if make_scheduler else None
    rows, step = [], 0
    for epoch in range(1, settings.epochs + 1):
        order = objective.order(torch.Generator().manual_seed(stream(seed, "order", epoch)))
        model.train()
        loss_sum = hits = seen = 0
        for i in range(steps_per_epoch):
            chosen = torch.from_numpy(parts.train)[order[i * settings.batch : (i + 1) * settings.batch]]
            torch.default_generator.manual_seed(stream(seed, "step", step))
            optimizer.zero_grad()
            logits = model(x[chosen])
            loss = objective.loss(logits, y[chosen])
            loss.backward()
            objective.clip(model)
            lr = optimizer.param_groups[0]["lr"]
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            loss_sum += loss.item() * len(chosen)
            hits += (logits.argmax(1) == y[chosen]).sum().item()
            seen += len(chosen)
            step += 1
        model.eval()
        with torch.no_grad():
            val_logits = model(x[parts.val])
        rows.append(
            {
                "train_loss": loss_sum / seen,
                "train_accuracy": hits / seen,
                "val_loss": F.cross_entropy(val_logits, y[parts.val]).item(),
                "val_accuracy": (val_logits.argmax(1) == y[parts.val]).double().mean().item(),
                "lr": lr,
            }
        )
    return model, val_logits, rows, parts


def assert_same(run, oracle):
    model, val_logits, rows, parts = oracle
    run.finished()
    assert len(run.epochs()) == len(rows)
    for ended, row in zip(run.epochs(), rows, strict=True):
        for name, value in row.items():
            assert getattr(ended, name) == pytest.approx(value, rel=1e-9, abs=1e-9), (name, ended.epoch)
    state = model.state_dict()
    assert run.weights().keys() == state.keys()
    # a bias that feeds a batch norm has no gradient but rounding, which Adam turns into steps; the mean absorbs it
    absorbed = {"0.bias", "1.running_mean"} if "1.running_mean" in state else set()
    for name, tensor in run.weights().items():
        if name in absorbed:
            continue
        torch.testing.assert_close(tensor, state[name], **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")
    predictions = run.predictions()
    assert predictions["indices"].tolist() == parts.val.tolist()
    torch.testing.assert_close(predictions["logits"], val_logits.half(), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_lane_equals_a_plain_loop_with_every_optimizer(name, train, make_images, make_settings, nets):
    kind = "sgd" if name in ("momentum", "nesterov") else name
    settings = make_settings(
        dtype="float64",
        optimizer=kind,
        momentum=0.9 if name in ("momentum", "nesterov") else 0.0,
        nesterov=name == "nesterov",
        weight_decay=0.01,
        epochs=25,  # 100 steps
        lr=0.003,
    )
    data = make_images()
    oracle = plain_loop(settings, 3, data, nets["conv"], OPTIMIZERS[name])
    assert_same(train((settings, 3), data=data), oracle)


@pytest.mark.parametrize("name", [name for name in zoo.__all__ if name != "vgg16"])
def test_a_lane_equals_a_plain_loop_with_every_model_of_the_zoo(name, train, make_images, make_settings):
    """As they are by default; VGG16 is too large for that, see test_lanes_oracle for it with few channels."""
    factory = getattr(zoo, name)

    def build(settings, data):
        return factory(data.channels, data.num_classes, tuple(data.image_size))

    settings = make_settings(dtype="float64", epochs=2, batch=10, lr=0.001)
    side = max(16, *getattr(factory, "smallest_input", (16, 16)))
    data = make_images(36, size=side)
    oracle = plain_loop(settings, 1, data, build, OPTIMIZERS["adam"])
    assert_same(train((settings, 1), data=data, build=build), oracle)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "none"},
        {"label_smoothing": 0.1},
        {"dropout": 0.6},
        {"dropout": 0.0},
        {"drop_last": True, "batch": 7},
        {"subset": 21, "val": 0.3},
        {"batch": 1000},
        {"split_seed": 5},
        {"loss": "focal", "class_weight": "balanced", "label_smoothing": 0.1},
        {"loss": "focal", "focal_gamma": 0.5},
        {"class_weight": "balanced", "label_smoothing": 0.2, "subset": 23},
        {"sampling": "balanced", "subset": 23},
        {"sampling": "balanced", "drop_last": True, "batch": 7, "class_weight": "balanced"},
        {"clip_norm": 0.5},
        {"clip_value": 0.02, "clip_norm": 0.3},
    ],
    ids=str,
)
def test_a_lane_equals_a_plain_loop_with_every_setting(changes, train, make_images, make_settings, nets):
    settings = make_settings(dtype="float64", **changes)
    data = make_images(channels=3, test=False)
    oracle = plain_loop(settings, 0, data, nets["conv"], OPTIMIZERS["adam"])
    assert_same(train(settings, data=data), oracle)


def _warm_then(optimizer, warm, then):
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / warm, total_iters=warm - 1)
    return lr_scheduler.SequentialLR(optimizer, [rise, then], milestones=[warm])


SCHEDULES = {
    "step": lambda o, n: lr_scheduler.MultiStepLR(o, [n // 2, 3 * n // 4]),
    "cosine": lr_scheduler.CosineAnnealingLR,
    "onecycle": lambda o, n: lr_scheduler.OneCycleLR(o, max_lr=0.01, total_steps=n, cycle_momentum=False),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_lane_equals_a_plain_loop_with_torch_s_own_scheduler(name, train, make_images, make_settings, nets):
    settings = make_settings(dtype="float64", schedule=name, epochs=4)
    data = make_images()
    oracle = plain_loop(settings, 0, data, nets["conv"], OPTIMIZERS["adam"], SCHEDULES[name])
    assert_same(train(settings, data=data), oracle)


def test_a_lane_equals_a_plain_loop_that_warms_up(train, make_images, make_settings, nets):
    settings = make_settings(dtype="float64", schedule="cosine", warmup=1.5, epochs=4)
    data = make_images()  # 50 to train on: 4 steps an epoch
    oracle = plain_loop(
        settings,
        0,
        data,
        nets["conv"],
        OPTIMIZERS["adam"],
        lambda o, n: _warm_then(o, 6, lr_scheduler.CosineAnnealingLR(o, n - 6)),
    )
    assert_same(train(settings, data=data), oracle)


class NoisyNet(nn.Module):
    """DropoutState its own noise, in training mode, as a user's custom dropout does."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(features, classes)

    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            x = x * (torch.rand_like(x) > 0.3)
        return self.layer(x)


def test_random_numbers_that_a_user_s_model_draws_come_from_the_trial_s_stream(
    train, make_images, make_settings
):
    def build(settings, data):
        return NoisyNet(data.image_size[0] * data.image_size[1], data.num_classes)

    settings = make_settings(dtype="float64")
    oracle = plain_loop(settings, 2, make_images(), build, OPTIMIZERS["adam"])
    torch.manual_seed(12345)  # whatever was drawn before does not matter
    torch.rand(17)
    assert_same(train((settings, 2), build=build), oracle)
