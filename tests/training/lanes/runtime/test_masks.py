"""What masks from a counter promise: a lane's own, whatever its place, fair, and new at each step and layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gridsearch.training.kernels import find_compiler
from gridsearch.training.lanes.compile.lane_values import NotPackable
from gridsearch.training.lanes.runtime.masks import CounterMasks, _mix
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram

CPU = torch.device("cpu")


def masks(seeds, steps=None, rates=None):
    found = CounterMasks(len(seeds), CPU)
    found.set_lanes(seeds, steps or [0] * len(seeds), rates or [None] * len(seeds))
    return found


def draw(counter, shape, rate=0.5, *, from_recipe=True):
    return counter.noise((len(counter.steps), *shape), rate, from_recipe=from_recipe, dtype=torch.float64)


@given(
    seed=st.integers(0, 2**40), step=st.integers(0, 10**7), others=st.lists(st.integers(0, 99), max_size=4)
)
@settings(max_examples=25, deadline=None)
def test_a_lane_s_masks_follow_from_its_seed_and_step_alone(seed, step, others):
    alone, among = masks([seed], [step]), masks([*others, seed], [7] * len(others) + [step])
    for _ in range(2):
        assert torch.equal(draw(alone, (3, 5))[0], draw(among, (3, 5))[-1])


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_as_many_values_are_dropped_as_the_rate_says(rate):
    noise = draw(masks([1, 2]), (200, 500), rate)
    count = noise[0].numel()
    limit = 5 * (rate * (1 - rate) / count) ** 0.5
    for lane in noise:
        assert abs((lane == 0).double().mean().item() - rate) <= limit
    kept = noise[noise != 0]
    assert kept.numel() == 0 if rate == 1 else torch.equal(kept, torch.full_like(kept, 1 / (1 - rate)))


def test_lanes_steps_and_layers_have_masks_that_know_nothing_of_each_other():
    """Any two agree on half of their values, to five standard deviations."""
    counter = masks([0, 1, 2**31], [0, 0, 0])
    drawn = []
    for _ in range(3):
        counter.begin_step()
        for _ in range(2):
            drawn += list(draw(counter, (64, 256)) > 0)
        counter.steps.add_(1)
    assert len(drawn) == 18
    count = drawn[0].numel()
    for i, a in enumerate(drawn):
        for b in drawn[:i]:
            assert abs((a == b).double().mean().item() - 0.5) <= 5 * 0.5 / count**0.5


def test_neighbouring_values_of_a_mask_know_nothing_of_each_other():
    mask = (draw(masks([3]), (1 << 18,)) > 0)[0]
    for distance in (1, 2, 3, 16, 28, 256, 784, 4096):
        agree = (mask[distance:] == mask[:-distance]).double().mean().item()
        assert abs(agree - 0.5) <= 5 * 0.5 / (len(mask) - distance) ** 0.5, distance


def test_numbers_are_spread_evenly_over_their_range():
    numbers = masks([5])._draw((1, 1 << 18))
    assert int(numbers.min()) >= 0
    assert int(numbers.max()) < 2**32
    counts = torch.bincount(numbers[0] >> 24, minlength=256).double()
    expected = numbers.numel() / 256
    chi = ((counts - expected) ** 2 / expected).sum().item()
    assert abs(chi - 255) <= 5 * (2 * 255) ** 0.5


def test_a_step_begins_with_the_same_masks_when_it_is_begun_again():
    counter = masks([4])
    first = draw(counter, (10, 10))
    assert not torch.equal(draw(counter, (10, 10)), first)
    counter.begin_step()
    assert torch.equal(draw(counter, (10, 10)), first)
    counter.begin_step()
    counter.steps.add_(1)
    assert not torch.equal(draw(counter, (10, 10)), first)


def test_each_lane_has_its_own_rate_and_a_layer_without_rule_the_model_s():
    counter = masks([0, 0, 0], rates=[0.25, None, 0.0])
    from_recipe = draw(counter, (400, 400), 0.75)
    shares = [(lane == 0).double().mean().item() for lane in from_recipe]
    assert shares == [pytest.approx(0.25, abs=0.01), pytest.approx(0.75, abs=0.01), 0.0]
    free = draw(counter, (400, 400), 0.75, from_recipe=False)
    assert [(lane == 0).double().mean().item() for lane in free] == [pytest.approx(0.75, abs=0.01)] * 3


def test_the_hash_is_the_published_one():
    """Computed with unsigned 32-bit arithmetic in Python."""

    def triple32(x):
        x = ((x ^ (x >> 17)) * 0xED5AD4BB) & 0xFFFFFFFF
        x = ((x ^ (x >> 11)) * 0xAC4C1B51) & 0xFFFFFFFF
        x = ((x ^ (x >> 15)) * 0x31848BAB) & 0xFFFFFFFF
        return x ^ (x >> 14)

    numbers = [0, 1, 2, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 123456789]
    assert _mix(torch.tensor(numbers)).tolist() == [triple32(x) for x in numbers]


class Tokens(nn.Module):
    """Patches one after the other, which lie otherwise in memory than maps do."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 2, 2), nn.LayerNorm(4)
        self.drop, self.last = nn.Dropout(0.4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.drop(self.conv(x).flatten(2).transpose(1, 2))
        return self.last(self.norm(x).mean(1))


class Rows(Tokens):
    """Maps with their pixels in a row."""

    def forward(self, x):
        return self.last(self.norm(self.drop(self.conv(x).flatten(2)).mean(2)))


class OneChannel(Tokens):
    """Maps of one channel, of which torch cannot tell the layout, nor that of what a 1x1 convolution makes of them."""

    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 4, 1)

    def forward(self, x):
        return self.last(self.norm(self.drop(self.conv(self.first(x).relu())).mean((2, 3))))


class Viewed(nn.Module):
    """Maps that a `view` keeps from lying in channels_last."""

    def __init__(self):
        super().__init__()
        self.conv, self.drop, self.last = nn.Conv2d(1, 4, 3), nn.Dropout(0.4), nn.Linear(144, 3)

    def forward(self, x):
        return self.last(self.drop(self.conv(x)).tanh().view(-1, 144))


class ViewedNoise(Viewed):
    def forward(self, x):
        x = self.conv(x)
        return self.last((x + torch.rand_like(x) if self.training else x).view(-1, 144))


@pytest.mark.parametrize("net", [Tokens, Rows, OneChannel, Viewed, ViewedNoise])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lanes_draw_as_the_module_alone_does_however_its_maps_lie_in_memory(
    net, dtype, make_settings, make_images
):
    settings = [make_settings(lr=lr, dtype=dtype, epochs=1) for lr in (0.01, 0.02)]
    data, precision = ResidentCache(make_images(40), device="cpu")(settings[0]), Precision.of(dtype, CPU)
    models = [build_network(s, 0, data, lambda *_: net(), precision) for s in settings]
    pack = PackProgram([Member(s, 0) for s in settings], models, data, precision)
    assert pack.network.method == "stacked"
    alone = [SoloProgram(s, 0, data, lambda *_: net(), precision).train_epoch(1).loss for s in settings]
    assert [lane.loss for lane in pack.train_epoch()] == pytest.approx(alone, rel=1e-5)


class Dropped(Viewed):
    """Every layer whose rate a recipe sets, over maps, rows and features."""

    def __init__(self):
        super().__init__()
        self.maps, self.rows = nn.FeatureAlphaDropout(0.4), nn.Dropout1d(0.4)
        self.scaled, self.drop = nn.AlphaDropout(0.4), nn.Dropout2d(0.4)

    def forward(self, x):
        x = self.drop(F.selu(self.maps(self.conv(x))))
        return self.last(self.scaled(self.rows(x.flatten(2)).flatten(1)))


class DroppedVolumes(Viewed):
    """A layer that drops channels of volumes, which has no form for lanes of several rates."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout3d(0.4)

    def forward(self, x):
        return self.last(self.drop(self.conv(x).unsqueeze(2)).flatten(1))


@pytest.mark.parametrize(("net", "method"), [(Dropped, "stacked"), (DroppedVolumes, None)])
def test_lanes_drop_at_the_rates_of_their_recipes(net, method, make_settings, make_images):
    settings = [make_settings(dropout=rate, dtype="float64", epochs=1) for rate in (0.1, 0.6)]
    data, precision = ResidentCache(make_images(40), device="cpu")(settings[0]), Precision.of("float64", CPU)
    models = [build_network(s, 0, data, lambda *_: net(), precision) for s in settings]
    if method is None:
        with pytest.raises(NotPackable):
            PackProgram([Member(s, 0) for s in settings], models, data, precision)
        return
    pack = PackProgram([Member(s, 0) for s in settings], models, data, precision)
    assert pack.network.method == method
    assert pack.planned or find_compiler() is None
    alone = [SoloProgram(s, 0, data, lambda *_: net(), precision).train_epoch(1).loss for s in settings]
    assert [lane.loss for lane in pack.train_epoch()] == pytest.approx(alone, rel=1e-9)
