"""Mixup, CutMix and RandAugment: lanes alone, in packs and in counted steps beside a plain loop in float64.

The loop shares nothing with the product but the names of the streams, the indices of the split and the order of draws.
It writes the mixed labels as probabilities, as torch's own cross-entropy takes them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training import mixing
from gridsearch.training.batches import batch_plan
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.seeds import stream
from gridsearch.training.solo import SoloProgram
from gridsearch.training.splits import split
from tests.training import tape as tapes
from tests.training.objectives import Objective

CLOSE = {"rel": 1e-9, "abs": 1e-9}
BATCH, EPOCHS = 7, 2
LANES = (
    ({"mixup": 0.2, "lr": 0.03}, 5),
    ({"cutmix": 1.0, "label_smoothing": 0.1, "norm": "none"}, 5),
    ({"mixup": 0.4, "cutmix": 2.0, "ema": 0.9, "schedule": "cosine"}, 6),
    ({}, 5),
    ({"mixup": 0.5, "loss": "focal", "focal_gamma": 1.5, "clip_norm": 0.3}, 6),
)
WEIGHTED = (
    ({"mixup": 0.3, "class_weight": "balanced", "label_smoothing": 0.1, "loss": "focal"}, 5),
    ({"cutmix": 1.0, "class_weight": "balanced", "sampling": "balanced", "clip_value": 0.05}, 6),
    ({"mixup": 0.4, "cutmix": 1.0, "loss": "focal", "focal_gamma": 0.5, "label_smoothing": 0.2}, 7),
    ({"class_weight": "balanced"}, 5),
    ({"mixup": 1e-3, "sampling": "balanced"}, 6),
)
"""Of two classes of unlike size, and with a last batch of two images."""


def mixed_batch(x, own, box):
    """Return a batch's images, and the share of their own labels."""
    other = torch.roll(x, 1, 0)
    if box is None:
        return own * x + (1 - own) * other, own
    top, bottom, left, right = box
    x = x.clone()
    x[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
    return x, 1 - (bottom - top) * (right - left) / (x.shape[2] * x.shape[3])


def loss_of(settings, objective, logits, labels, targets, share):
    """Return the loss of mixed labels: as probabilities, or with class weights as the same mixture of two losses."""
    if settings.class_weight == "balanced":
        own, other = (objective.loss(logits, each) for each in (labels, labels.roll(1, 0)))
        return share * own + (1 - share) * other
    if settings.loss == "focal":
        logp, even = logits.log_softmax(1), settings.label_smoothing
        smoothed = (1 - even) * targets + even / logits.shape[1]
        return -(smoothed * (1 - logp.exp()) ** settings.focal_gamma * logp).sum(1).mean()
    return F.cross_entropy(logits, targets, label_smoothing=settings.label_smoothing)


def mixtures(settings, seed, epoch, steps, size):
    """Return each step's share and box as the papers draw them."""
    draws = np.random.default_rng(stream(seed, "mix", epoch))
    both = settings.mixup > 0 and settings.cutmix > 0
    cuts = draws.random(steps) < 0.5 if both else [settings.cutmix > 0] * steps
    own = draws.beta(*2 * [[settings.cutmix if cut else settings.mixup for cut in cuts]])
    places = draws.random((steps, 2))
    found = []
    for cut, share, (down, along) in zip(cuts, own, places, strict=True):
        y, x = int(down * size), int(along * size)
        half = int(0.5 * np.sqrt(1 - share) * size)
        box = (max(y - half, 0), min(y + half, size), max(x - half, 0), min(x + half, size))
        found.append((share, box if cut else None))
    return found


def plainly(settings, seed, images, model):
    """Train as one would without this program; returns the epochs' losses and accuracies."""
    parts = split(images.train_labels, val=settings.val, split_seed=settings.split_seed)
    pixels = images.train_images.astype(np.float64) / 255
    if settings.norm == "standard":
        pixels = (pixels - pixels[parts.train].mean()) / pixels[parts.train].std()
    x, y, train = (
        torch.from_numpy(pixels),
        torch.from_numpy(images.train_labels),
        torch.from_numpy(parts.train),
    )
    optimizer = torch.optim.Adam(model.parameters(), settings.lr, foreach=False)
    objective, classes = Objective(settings, images.train_labels[parts.train]), len(images.class_names)
    steps, found = -(-len(train) // settings.batch), []
    for epoch in range(1, EPOCHS + 1):
        order = objective.order(torch.Generator().manual_seed(stream(seed, "order", epoch)))
        mixed = settings.mixup or settings.cutmix
        mixes = mixtures(settings, seed, epoch, steps, x.shape[3]) if mixed else []
        loss_sum = hits = 0
        for i, chosen in enumerate(train[order].split(settings.batch)):
            if settings.schedule == "cosine":
                at = (epoch - 1) * steps + i
                rate = 0.5 * (1 + np.cos(np.pi * at / (settings.epochs * steps)))
                optimizer.param_groups[0]["lr"] = settings.lr * rate
            images_, share = mixed_batch(x[chosen], *mixes[i]) if mixed else (x[chosen], 1.0)
            targets = F.one_hot(y[chosen], classes).double()
            targets = share * targets + (1 - share) * targets.roll(1, 0)
            logits = model(images_)
            loss = loss_of(settings, objective, logits, y[chosen], targets, share)
            optimizer.zero_grad()
            loss.backward()
            objective.clip(model)
            optimizer.step()
            loss_sum += loss.item() * len(chosen)
            hits += int((logits.argmax(1) == targets.argmax(1)).sum())
        found.append((loss_sum / len(train), hits / len(train)))
    return found


def uneven(make_images):
    """Return 60 images, 50 of them to train on, two thirds of them of the first of two classes."""
    images = make_images(60, size=8)
    return replace(images, train_labels=(np.arange(60) % 3 == 0).astype(np.int64), class_names=("a", "b"))


@pytest.fixture
def bench(make_settings, make_images, nets):
    class Bench:
        build = staticmethod(nets["dense"])

        def __init__(self, lanes, *, images=None, **common):
            self.images = make_images(50, size=8) if images is None else images  # 42 to train on: six steps
            self.lanes = [
                (make_settings(**{"batch": BATCH, "dtype": "float64", "epochs": 4} | common | changes), seed)
                for changes, seed in lanes
            ]
            self.data = ResidentCache(self.images, device="cpu")(self.lanes[0][0])
            self.precision = Precision.of(self.lanes[0][0].dtype, torch.device("cpu"))

        def model(self, k):
            return build_network(*self.lanes[k], self.data, self.build, self.precision)

        def solo(self, k):
            return SoloProgram(*self.lanes[k], self.data, self.build, self.precision)

        def pack(self, *chosen, **how):
            members = [Member(*self.lanes[k]) for k in chosen]
            return PackProgram(members, [self.model(k) for k in chosen], self.data, self.precision, **how)

    return Bench


def same(totals, loss, accuracy):
    assert totals.loss == pytest.approx(loss, **CLOSE)
    assert totals.accuracy == accuracy


@pytest.mark.parametrize("weighted", [False, True])
def test_mixed_lanes_train_as_a_plain_loop_does_alone_in_packs_and_in_counted_steps(
    bench, make_images, weighted
):
    if weighted:
        bench = bench(WEIGHTED, images=uneven(make_images), batch=8)
    else:
        bench = bench(LANES)
    recorder = tapes.TapeRecorder()
    together = [
        bench.pack(*range(5)),
        bench.pack(0, 3),
        bench.pack(*range(5), counted=True, recorder=recorder),
    ]
    slots = [range(5), (0, 3), range(5)]
    totals = [[pack.train_epoch() for _ in range(EPOCHS)] for pack in together]
    assert any(recording.plays for recording in recorder.recordings)
    for k, (settings, seed) in enumerate(bench.lanes):
        model, solo = bench.model(k), bench.solo(k)
        expected = plainly(settings, seed, bench.images, model)
        for epoch, own in enumerate(expected, start=1):
            same(solo.train_epoch(epoch), *own)
            for found, chosen in zip(totals, slots, strict=True):
                if k in chosen:
                    same(found[epoch - 1][list(chosen).index(k)], *own)
        for name, tensor in model.state_dict().items():
            for pack, chosen in zip(together, slots, strict=True):
                if k in chosen:
                    own = pack.lane_state(list(chosen).index(k)).weights[name]
                    assert torch.allclose(own, tensor, rtol=1e-9, atol=1e-9), (k, name)


def test_lanes_of_one_recipe_share_mixed_images_and_train_as_alone(bench):
    bench = bench([({"mixup": 0.3, "lr": lr, "dtype": "float32"}, 4) for lr in (0.01, 0.02)])
    pack = bench.pack(0, 1)
    assert pack._epochs.images(pack.members).shared
    alone = [bench.solo(k) for k in range(2)]
    for epoch in range(1, 3):
        for totals, lane in zip(pack.train_epoch(), alone, strict=True):
            assert totals.loss == pytest.approx(lane.train_epoch(epoch).loss, rel=1e-5), epoch


@pytest.mark.parametrize("counted", [False, True])
def test_a_lane_that_mixes_takes_the_place_of_one_that_did_not(bench, counted):
    """The others' images stay their own, and so does a step plan's optimizer state."""
    bench = bench([({}, 1), ({"lr": 0.02}, 2), ({"mixup": 1.0}, 3)], optimizer="nadam")
    pack = bench.pack(0, 1, counted=counted)
    assert pack.planned is not counted
    pack.train_epoch()
    fresh = bench.model(2)
    state = type(pack.lane_state(1))(weights=dict(fresh.named_parameters()))
    pack.load_lane_state(1, Member(*bench.lanes[2]), state)
    assert not pack.planned
    stays, new = bench.solo(0), bench.solo(2)
    stays.train_epoch(1)
    ours, theirs = pack.train_epoch(), (stays.train_epoch(2), new.train_epoch(1))
    assert [t.loss for t in ours] == pytest.approx([t.loss for t in theirs], rel=1e-9)


def test_lanes_with_other_operations_and_strengths_of_randaugment_train_as_alone(bench):
    lanes = [({"operations": n, "magnitude": m}, seed) for n, m, seed in ((2, 9, 1), (1, 30, 1), (3, 5, 2))]
    bench = bench(lanes, augment="flip+randaugment", mixup=0.2)
    packs = [bench.pack(0, 1, 2), bench.pack(0, 1, 2, counted=True)]
    assert not any(pack.planned for pack in packs)
    solos = [bench.solo(k) for k in range(3)]
    for epoch in range(1, 3):
        expected = [solo.train_epoch(epoch).loss for solo in solos]
        for pack in packs:
            assert [t.loss for t in pack.train_epoch()] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_arithmetic_trains_on_the_same_mixtures(bench, dtype):
    bench = bench([({"mixup": 0.2}, 1), ({"cutmix": 1.0}, 1)], dtype=dtype)
    close = {"float32": 1e-5, "bfloat16": 0.05}[dtype]
    for k, totals in enumerate(bench.pack(0, 1).train_epoch()):
        assert totals.loss == pytest.approx(bench.solo(k).train_epoch(1).loss, rel=close)


def test_a_batch_of_one_image_is_what_it_was():
    plan = batch_plan(7, 3, drop_last=False, drop_single=False)
    assert mixing.partners(plan).tolist() == [2, 0, 1, 5, 3, 4, 6]


def test_the_share_of_a_label_is_that_of_its_pixels(make_settings):
    settings = make_settings(cutmix=0.7)
    plan = batch_plan(400, 2, drop_last=False, drop_single=False)
    where = {"image_size": (9, 5), "device": torch.device("cpu"), "dtype": torch.float64}
    mix = mixing.draw([(settings, 3, 1)], plan, **where)
    assert mixing.draw([(make_settings(), 3, 1)], plan, **where) is None
    top, bottom, left, right = mix.boxes[:, 0].unbind(1)
    assert (top >= 0).all() and (bottom <= 9).all() and (left >= 0).all() and (right <= 5).all()
    assert torch.allclose(
        mix.shares[:, 0], 1 - ((bottom - top) * (right - left)).double() / 45, rtol=0, atol=1e-12
    )
    black_and_white = torch.zeros(2, 1, 9, 5, dtype=torch.float64)
    black_and_white[0] = 1
    for start in range(0, 400, 2):
        part = slice(start, start + 2)
        first, second = mix.images(black_and_white.clone(), part)
        assert first.mean() == pytest.approx(mix.shares_of(part)[0]) and second.mean() == pytest.approx(
            1 - first.mean()
        )
