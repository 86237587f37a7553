"""A plain loop that averages weights, and packs to hold against it: for the tests of `ema`.

The loop keeps the weights of every step and sums them up at the end.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gridsearch.training.lane_progress import LaneState
from gridsearch.training.lanes.runtime.engine import PackLaneView
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.seeds import stream
from gridsearch.training.solo import SoloProgram
from gridsearch.training.splits import split

CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
EPOCHS = 4  # of five steps

RECIPES = (
    {"lr": 0.004, "ema": 0.0, "norm": "none"},
    {"lr": 0.006, "ema": 0.9, "schedule": "cosine", "weight_decay": 0.01},
    {"lr": 0.003, "ema": 0.5, "label_smoothing": 0.1},
    {"lr": 0.005, "ema": 0.999, "norm": "none"},
)
SEEDS = (5, 5, 6, 7)


def net(_settings, data):
    """Batch norm behind a convolution without a bias, which it would absorb."""
    side = data.image_size[0] // 2
    return nn.Sequential(
        nn.Conv2d(data.channels, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * side * side, data.num_classes),
    )


class Oracle:
    """A trial as one would write it without this program.

    Attributes:
        steps: the state_dict after each step.
        rows: of each epoch: training loss, validation loss and accuracy, validation logits, averaged state_dict.
        theirs: torch's own moving average, which begins at the weights of the first step.
    """

    def __init__(self, settings, seed, images, build=net):
        parts = split(images.train_labels, val=settings.val, split_seed=settings.split_seed)
        pixels = images.train_images.astype(np.float64) / 255
        if settings.norm == "standard":
            of_train, axes = pixels[parts.train], (0, 2, 3)
            pixels = (pixels - of_train.mean(axes, keepdims=True)) / of_train.std(axes, keepdims=True)
        x, y = torch.from_numpy(pixels), torch.from_numpy(images.train_labels)
        train = torch.from_numpy(parts.train)
        shape = SimpleNamespace(channels=1, image_size=images.train_images.shape[2:], num_classes=3)
        torch.default_generator.manual_seed(stream(seed, "weights"))
        model = build(settings, shape).double()
        self.theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
        optimizer = torch.optim.Adam(
            model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, foreach=False
        )
        total = settings.epochs * math.ceil(len(train) / settings.batch)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
        self.ema, self.steps, self.rows = settings.ema, [], []
        for epoch in range(1, min(settings.epochs, EPOCHS) + 1):
            order = torch.randperm(
                len(train), generator=torch.Generator().manual_seed(stream(seed, "order", epoch))
            )
            loss_sum = 0.0
            model.train()
            for chosen in train[order].split(settings.batch):
                torch.default_generator.manual_seed(stream(seed, "step", len(self.steps)))
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x[chosen]), y[chosen], label_smoothing=settings.label_smoothing)
                loss.backward()
                optimizer.step()
                if settings.schedule == "cosine":
                    cosine.step()
                self.theirs.update_parameters(model)
                self.steps.append({n: t.clone() for n, t in model.state_dict().items()})
                loss_sum += loss.item() * len(chosen)
            averaged = self.average()
            model.load_state_dict(averaged)
            model.eval()
            with torch.no_grad():
                logits = model(x[parts.val])
            model.load_state_dict(self.steps[-1])
            self.rows.append(
                SimpleNamespace(
                    train_loss=loss_sum / len(train),
                    val_loss=F.cross_entropy(logits, y[parts.val]).item(),
                    val_accuracy=(logits.argmax(1) == y[parts.val]).double().mean().item(),
                    logits=logits,
                    state=averaged,
                )
            )

    def average(self):
        """The weights of all steps, each weighted by (1 - ema) ema^(steps since), over the sum of these weights."""
        if not self.ema:
            return dict(self.steps[-1])
        shares = [(1 - self.ema) * self.ema ** (len(self.steps) - i) for i in range(1, len(self.steps) + 1)]
        found = {}
        for name, last in self.steps[-1].items():
            if last.is_floating_point():
                parts = [share * state[name] for share, state in zip(shares, self.steps, strict=True)]
                found[name] = torch.stack(parts).sum(0) / math.fsum(shares)
            else:
                found[name] = last
        return found


class Bench:
    """Lanes, given by their numbers, in programs; and what a plain loop makes of each."""

    def __init__(self, make_settings, make_images, *, build=net, recipes=RECIPES, seeds=SEEDS, **common):
        common = {"dtype": "float64", "batch": 8, "epochs": EPOCHS} | common
        self.recipes = [make_settings(**common | recipe) for recipe in recipes]
        self.seeds, self.build = seeds, build
        self.images = make_images(48)  # 40 to train on
        self.data = ResidentCache(self.images, device="cpu")(self.recipes[0])
        self.precision = Precision.of(self.recipes[0].dtype, CPU)
        self._oracles = {}

    def oracle(self, lane):
        if lane not in self._oracles:
            self._oracles[lane] = Oracle(self.recipes[lane], self.seeds[lane], self.images, self.build)
        return self._oracles[lane]

    def member(self, lane):
        return Member(self.recipes[lane], self.seeds[lane])

    def model(self, lane):
        return build_network(self.recipes[lane], self.seeds[lane], self.data, self.build, self.precision)

    def fresh(self, lane):
        model = self.model(lane)
        return LaneState(weights=dict(model.named_parameters()) | dict(model.named_buffers()))

    def pack(self, *lanes, **how):
        members = [self.member(lane) for lane in lanes]
        return PackProgram(members, [self.model(lane) for lane in lanes], self.data, self.precision, **how)

    def solo(self, lane):
        return SoloProgram(self.recipes[lane], self.seeds[lane], self.data, self.build, self.precision)

    def check(self, lane, holder, found, totals, epoch=EPOCHS):
        """Compare a lane after an epoch with its oracle."""
        row = self.oracle(lane).rows[epoch - 1]
        assert totals.loss == pytest.approx(row.train_loss, rel=1e-9)
        assert found.loss == pytest.approx(row.val_loss, rel=1e-9)
        torch.testing.assert_close(found.logits, row.logits, **CLOSE)
        state = holder.state_dict()
        assert state.keys() == row.state.keys()
        for name, tensor in row.state.items():
            torch.testing.assert_close(state[name], tensor, **CLOSE, msg=lambda m, n=name: f"{lane} {n}: {m}")
        own = [p for n, p in row.state.items() if not n.startswith("1.") or "running" not in n]
        own = [p for p in own if p.is_floating_point()]
        for ours, theirs in zip(holder.parameters(), own, strict=True):
            torch.testing.assert_close(ours, theirs, **CLOSE)

    def check_pack(self, pack, lanes, totals, epoch=EPOCHS):
        for slot, (lane, found) in enumerate(zip(lanes, pack.evaluate(), strict=True)):
            self.check(lane, PackLaneView(pack, slot), found, totals[slot], epoch)


def trained(pack):
    return pack.train_epoch(), pack.evaluate()


def bits(tensor):
    """As whole numbers: -0.0 is not 0.0, and NaN is itself."""
    return (
        tensor.detach().contiguous().view(torch.uint8)
        if tensor.dim()
        else tensor.reshape(1).view(torch.uint8)
    )


def assert_same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(bits(ours[name]), bits(theirs[name])), name
