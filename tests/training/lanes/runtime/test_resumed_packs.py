"""A pack that ends at an epoch's end and is made again from its lanes' states goes on to the bit, on a CPU in float32.

Every optimizer, network and way to take a step occurs; pairs of them suffice, since an optimizer sees of a network
nothing but gradients.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gridsearch.training.lane_optimizer import OPTIMIZERS
from gridsearch.training.lanes.runtime.engine import PackLaneView
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram

pytestmark = pytest.mark.thorough

EPOCHS = 3


class Stacked(nn.Sequential):
    """Has a compiled kernel for its convolution and one for its dense layers, batch norm, and dropout."""

    def __init__(self, data):
        side = data.image_size[0] // 2
        super().__init__(
            nn.Conv2d(data.channels, 4, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.BatchNorm2d(4),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(4 * side * side, 20),
            nn.ReLU(),
            nn.Linear(20, data.num_classes),
        )


class Vectorized(nn.Module):
    """Asks how many images there are, which no trace can answer; vmap can."""

    def __init__(self, data):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(64), nn.Linear(64, data.num_classes)

    def forward(self, x):
        return self.layer(torch.cumsum(self.norm(x.flatten(1)), 1) / (8 if len(x) else 1))


LANES = (
    {
        "lr": 0.01,
        "schedule": "cosine",
        "weight_decay": 0.01,
        "label_smoothing": 0.1,
        "norm": "none",
        "ema": 0.9,
    },
    {"lr": 0.002, "warmup": 1.0, "momentum": 0.8, "nesterov": True, "dropout": 0.4, "loss": "focal"},
    {"lr": 0.02, "momentum": 0.5, "schedule": "onecycle", "weight_decay": 0.1, "ema": 0.99}
    | {"sampling": "balanced", "class_weight": "balanced", "clip_norm": 0.5},
)


class Packs:
    """Makes the same pack again and again."""

    def __init__(self, make_settings, images, build, optimizer, seeds, **how):
        self.recipes = [
            make_settings(
                **{"optimizer": optimizer, "batch": 7, "epochs": EPOCHS + 1, "augment": "flip+shift"} | lane
            )
            for lane in (LANES if build is Stacked else [lane | {"dropout": None} for lane in LANES])
        ]
        self.data = ResidentCache(images, device="cpu")(self.recipes[0])
        self.precision = Precision.of("float32", torch.device("cpu"))
        self.build, self.seeds, self.how = (lambda _, data: build(data)), seeds, how

    def new(self, states=None):
        """Return the pack at its start, or from its lanes' states."""
        pairs = list(zip(self.recipes, self.seeds, strict=True))
        nets = [build_network(r, seed, self.data, self.build, self.precision) for r, seed in pairs]
        members = [Member(r, seed) for r, seed in pairs]
        pack = PackProgram(members, nets, self.data, self.precision, **self.how)
        for slot, state in enumerate(states or ()):
            pack.load_lane_state(slot, members[slot], state)
        return pack


def states_of(pack):
    return [pack.lane_state(slot) for slot in range(pack.lanes)]


def trained(pack):
    """Train an epoch and return all that anybody sees of it."""
    totals = pack.train_epoch()
    scores = [(found.loss, found.accuracy, found.logits) for found in pack.evaluate()]
    selected = [dict(PackLaneView(pack, slot).state_dict()) for slot in range(pack.lanes)]
    clones = [{n: t.clone() for n, t in state.items()} for state in selected]
    return totals, scores, clones, [pack.lr(slot) for slot in range(pack.lanes)]


def assert_same_bytes(one, other):
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same_bytes(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same_bytes(a, b)
    else:
        assert one == other


def assert_same_states(one, other):
    for a, b in zip(one, other, strict=True):
        assert (a.epoch, a.step) == (b.epoch, b.step)
        assert_same_bytes(
            [a.weights, a.optimizer_state, a.averages], [b.weights, b.optimizer_state, b.averages]
        )


SEEDS = {"one seed": (0, 0, 0), "two seeds": (0, 1, 0)}
CASES = [
    *((Stacked, optimizer, "kernels", "one seed") for optimizer in OPTIMIZERS),
    *((Stacked, optimizer, "no kernels", "two seeds") for optimizer in OPTIMIZERS),
    *((Stacked, optimizer, "counted", "two seeds") for optimizer in OPTIMIZERS),
    (Vectorized, "nadam", "kernels", "two seeds"),
    (Vectorized, "sgd", "no kernels", "one seed"),
]


@pytest.mark.parametrize(("build", "optimizer", "how", "seeds"), CASES)
def test_a_pack_made_again_at_any_epochs_end_goes_on_to_the_bit(
    build, optimizer, how, seeds, make_settings, make_images, monkeypatch
):
    if how != "kernels":
        monkeypatch.setenv("GRIDSEARCH_KERNELS", "off")
    packs = Packs(make_settings, make_images(40), build, optimizer, SEEDS[seeds], counted=how == "counted")
    unbroken = packs.new()
    assert unbroken.network.method == ("stacked" if build is Stacked else "vmap")
    resumed = []
    for _ in range(EPOCHS):
        resumed.append(packs.new(states_of(unbroken)))
        expected = trained(unbroken)
        for pack in resumed:
            assert_same_bytes(trained(pack), expected)
            assert_same_states(states_of(pack), states_of(unbroken))


@pytest.mark.parametrize("build", [Stacked, Vectorized])
@pytest.mark.parametrize("optimizer", ["adam", "nadam"])
def test_a_pack_whose_lanes_are_at_different_epochs_goes_on_to_the_bit(
    build, optimizer, make_settings, make_images
):
    packs = Packs(make_settings, make_images(40), build, optimizer, (0, 1, 0))
    unbroken, fresh = packs.new(), packs.new().lane_state(1)
    trained(unbroken)
    unbroken.load_lane_state(1, Member(packs.recipes[1], 1), fresh)  # a trial that came later
    trained(unbroken)
    assert [member.epoch for member in unbroken.members] == [2, 1, 2]
    resumed = packs.new(states_of(unbroken))
    assert_same_bytes(trained(resumed), trained(unbroken))
    assert_same_states(states_of(resumed), states_of(unbroken))


def test_a_pack_that_lost_lanes_is_made_again_as_it_was_and_loses_them_again(make_settings, make_images):
    """Which kernels a pack has may depend on how many lanes it began with."""
    packs = Packs(make_settings, make_images(40), Stacked, "adam", (0, 1, 0))
    unbroken = packs.new()
    trained(unbroken)
    unbroken.compact([0, 2])
    trained(unbroken)
    first, second = states_of(unbroken)
    resumed = packs.new([first, packs.new().lane_state(1), second])
    resumed.compact([0, 2])
    assert_same_bytes(trained(resumed), trained(unbroken))
    assert_same_states(states_of(resumed), states_of(unbroken))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("lane", [0, 1])
def test_a_lone_lane_made_again_at_any_epochs_end_goes_on_to_the_bit(
    optimizer, lane, make_settings, make_images
):
    packs = Packs(make_settings, make_images(40), Stacked, optimizer, (0, 1, 0))

    def new():
        return SoloProgram(packs.recipes[lane], packs.seeds[lane], packs.data, packs.build, packs.precision)

    unbroken, resumed = new(), []
    for epoch in range(1, EPOCHS + 1):
        resumed.append(new())
        resumed[-1].load_lane_state(unbroken.lane_state())
        totals, found = unbroken.train_epoch(epoch), unbroken.evaluate(epoch)
        for program in resumed:
            assert program.train_epoch(epoch) == totals
            assert_same_bytes(program.evaluate(epoch).logits, found.logits)
            assert_same_states([program.lane_state()], [unbroken.lane_state()])
            assert program.lr == unbroken.lr
