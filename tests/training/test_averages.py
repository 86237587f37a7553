"""What `ema` promises: the moving average of the weights is evaluated, selected and written, and training does not notice.

float64 on the CPU, to 1e-9, against a plain loop that keeps the weights of every step and sums them up at the end.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gridsearch.training.lanes.runtime.engine import PackLaneView
from gridsearch.training.weight_average import WeightAverage, weight_of

from . import tape as tapes
from .averaging import CLOSE, EPOCHS, RECIPES, Bench, assert_same_bits, trained


@pytest.fixture
def bench(make_settings, make_images):
    return lambda **how: Bench(make_settings, make_images, **how)


# Against plain loops


@pytest.mark.parametrize("lane", range(4))
def test_a_lane_alone_is_evaluated_by_its_average(bench, lane):
    bench = bench()
    solo = bench.solo(lane)
    for epoch in range(1, EPOCHS + 1):
        totals = solo.train_epoch(epoch)
        bench.check(lane, solo, solo.evaluate(epoch), totals, epoch)


@pytest.mark.parametrize("lanes", [(1,), (0, 1), (2, 3), (1, 0, 2), (3, 1, 0, 2, 1, 0, 3, 2)], ids=len)
def test_lanes_are_evaluated_by_their_averages_and_those_without_one_by_their_weights(bench, lanes):
    bench = bench()
    pack = bench.pack(*lanes)
    assert pack.network.method == "stacked"
    for epoch in range(1, EPOCHS + 1):
        bench.check_pack(pack, lanes, pack.train_epoch(), epoch)


class Cumulative(nn.Module):
    """`torch.cumsum` has no stacked form; vmap knows it."""

    def __init__(self, data):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(64), nn.Linear(64, data.num_classes)

    def forward(self, x):
        return self.layer(torch.cumsum(self.norm(x.flatten(1)), 1) / (8 if len(x) else 1))


def test_lanes_under_vmap_likewise(bench):
    bench = bench(build=lambda _, data: Cumulative(data))
    pack = bench.pack(1, 0, 2)
    assert pack.network.method == "vmap"
    for epoch in range(1, EPOCHS + 1):
        for slot, (lane, found) in enumerate(zip((1, 0, 2), trained(pack)[1], strict=True)):
            row = bench.oracle(lane).rows[epoch - 1]
            torch.testing.assert_close(found.logits, row.logits, **CLOSE)
            state = PackLaneView(pack, slot).state_dict()
            for name, tensor in row.state.items():
                torch.testing.assert_close(state[name], tensor, **CLOSE)


@pytest.mark.parametrize("lane", [1, 2, 3])
def test_the_average_is_torch_s_but_for_where_it_begins(bench, lane):
    """Torch begins at the first step's weights: ema^n of them is what is too much."""
    oracle = bench().oracle(lane)
    n, ema = len(oracle.steps), oracle.ema
    for name, theirs in oracle.theirs.module.named_parameters():
        ours = (theirs - ema**n * oracle.steps[0][name]) / (1 - ema**n)
        torch.testing.assert_close(ours.detach(), oracle.average()[name], **CLOSE)


@pytest.mark.parametrize("ema", [0.3, 0.999, 1 - 1e-12])
def test_the_average_of_weights_that_stay_is_those_weights_from_the_first_step_on(ema):
    model = nn.Linear(3, 2).double()
    weights = model.weight.detach().clone()
    average = WeightAverage(ema, model)
    for n in range(1, 8):
        average.step()
        with average.swapped_in(n):
            torch.testing.assert_close(model.weight.detach(), weights, rtol=1e-14, atol=0)
    assert weight_of(ema, 1) == pytest.approx(1 - ema, rel=1e-14)


# Training does not notice


@pytest.mark.parametrize("kind", ["pack", "solo"])
def test_a_trial_trains_the_same_with_and_without(bench, kind):
    plain = bench(recipes=[recipe | {"ema": 0.0} for recipe in RECIPES])
    for lane in (1, 2, 3):
        ours, theirs = (getattr(each, kind)(lane) for each in (bench(), plain))
        for epoch in (1, 2):
            how = (epoch,) if kind == "solo" else ()
            assert ours.train_epoch(*how) == theirs.train_epoch(*how)
            ours.evaluate(*how)
        taken, expected = (p.lane_state() if kind == "solo" else p.lane_state(0) for p in (ours, theirs))
        assert_same_bits(taken.weights, expected.weights)
        for name in expected.optimizer_state:
            assert_same_bits(taken.optimizer_state[name], expected.optimizer_state[name])
        assert taken.averages
        assert not expected.averages


@pytest.mark.parametrize("counted", [False, True], ids=["host", "counted"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_lane_without_an_average_has_the_bits_it_has_without_such_neighbours(bench, dtype, counted):
    emas = (0.0, 0.9, 0.0, 0.5)
    ours, theirs = (
        bench(recipes=[r | {"ema": e} for r, e in zip(RECIPES, given, strict=True)], dtype=dtype).pack(
            0, 1, 2, 3, counted=counted
        )
        for given in (emas, (0.0,) * 4)
    )
    for pack in (ours, theirs):
        pack.storage.flat[:, :2] = -0.0  # which arithmetic would turn into 0.0
        pack.storage.flat[0, 2] = 1e-45  # and what it would flush, or lose beside an average
    for _ in range(3):
        assert ours.train_epoch() == theirs.train_epoch()
        found, expected = ours.evaluate(), theirs.evaluate()
        for slot in range(4):
            assert_same_bits(ours.lane_state(slot).weights, theirs.lane_state(slot).weights)
        for slot in (0, 2):
            assert torch.equal(found[slot].logits, expected[slot].logits)
            holders = [PackLaneView(pack, slot).state_dict() for pack in (ours, theirs)]
            assert_same_bits(*holders)
        assert not torch.equal(found[1].logits, expected[1].logits)


def test_a_pack_without_averages_does_nothing_for_them(bench, monkeypatch):
    bench = bench(recipes=[recipe | {"ema": 0.0} for recipe in RECIPES])
    pack, solo = bench.pack(0, 1), bench.solo(0)
    assert pack.averages.state == []
    with tapes.Tape() as ours:
        pack.averages.step()
        with pack.averages.swapped_in([1, 1]):
            pass
    assert ours.calls == []
    monkeypatch.setattr(WeightAverage, "__init__", None)
    assert solo.train_epoch(1).images == 40
    state = solo.state_dict()
    assert all(state[n].data_ptr() == p.data_ptr() for n, p in solo.model.named_parameters())


@pytest.mark.parametrize("poison", [0, 1])
def test_a_poisoned_lane_changes_no_bit_of_its_neighbours(bench, poison):
    packs = [bench(dtype="float32").pack(1, 3, 0, 2) for _ in range(2)]
    packs[1].storage.flat[poison].fill_(float("nan"))
    for _ in range(2):
        results = [trained(pack) for pack in packs]
        for slot in {0, 1, 2, 3} - {poison}:
            assert results[0][0][slot] == results[1][0][slot]
            assert torch.equal(*(r[1][slot].logits for r in results))
            ours, theirs = (pack.lane_state(slot) for pack in packs)
            assert_same_bits(ours.weights, theirs.weights)
            assert_same_bits(ours.averages, theirs.averages)
    fresh = bench(dtype="float32").fresh(1)
    for pack in packs:  # nothing is left of it in its place
        pack.load_lane_state(poison, bench(dtype="float32").member(1), fresh)
        pack.train_epoch()
    assert_same_bits(*(PackLaneView(pack, poison).state_dict() for pack in packs))


@pytest.mark.parametrize("kind", ["pack", "solo"])
def test_the_weights_come_back_to_the_bit_whatever_ends_an_evaluation(bench, kind):
    bench = bench(dtype="float32")
    program = bench.pack(1, 0) if kind == "pack" else bench.solo(1)
    how = () if kind == "pack" else (1,)
    program.train_epoch(*how)
    flat = program.storage.flat if kind == "pack" else program.model[5].weight.detach()
    flat[:, 0], flat[:, 1], flat[:, 2] = -0.0, 1e-45, float("inf")
    lane_state = (lambda: program.lane_state(0)) if kind == "pack" else program.lane_state
    before = lane_state()
    program.evaluate(*how)
    assert_same_bits(lane_state().weights, before.weights)

    def leave():
        raise KeyError

    with pytest.raises(KeyError):
        program.evaluate(*how, leave)
    assert_same_bits(lane_state().weights, before.weights)
    assert_same_bits(lane_state().averages, before.averages)


# Lanes that come, leave and move


def test_a_free_place_begins_a_new_average(bench):
    """Taken first by a lane with an average among such lanes, then where no lane had one, and given up again."""
    bench = bench()
    pack = bench.pack(3, 1)
    trained(pack)
    pack.load_lane_state(0, bench.member(2), bench.fresh(2))
    totals = [pack.train_epoch() for _ in range(EPOCHS - 1)][-1]
    found = pack.evaluate()
    bench.check(2, PackLaneView(pack, 0), found[0], totals[0], EPOCHS - 1)
    bench.check(1, PackLaneView(pack, 1), found[1], totals[1])
    pack.load_lane_state(0, bench.member(0), bench.fresh(0))
    pack.load_lane_state(1, bench.member(0), bench.fresh(0))
    assert pack.averages.state == []
    totals = pack.train_epoch()
    bench.check_pack(pack, (0, 0), totals, 1)
    pack.load_lane_state(0, bench.member(1), bench.fresh(1))
    totals = [pack.train_epoch() for _ in range(2)][-1]
    found = pack.evaluate()
    bench.check(1, PackLaneView(pack, 0), found[0], totals[0], 2)
    bench.check(0, PackLaneView(pack, 1), found[1], totals[1], 3)


def test_a_lane_goes_on_the_same_in_another_pack_alone_and_when_others_leave(bench):
    bench = bench()
    first, second, plain, solo = bench.pack(1, 0, 3), bench.pack(0, 2), bench.pack(0, 0), bench.solo(1)
    for pack in (first, second, plain):
        trained(pack)
    taken = first.lane_state(0)
    assert_shapes(taken, bench.model(1))
    assert first.lane_state(1).averages == {}
    trained(first)  # what was taken does not move
    second.load_lane_state(0, bench.member(1), taken)
    solo.load_lane_state(taken)
    plain.load_lane_state(1, bench.member(1), taken)  # where nobody had one
    totals = plain.train_epoch()
    bench.check(1, PackLaneView(plain, 1), plain.evaluate()[1], totals[1], 2)
    totals = second.train_epoch(), solo.train_epoch(2)
    bench.check(1, PackLaneView(second, 0), second.evaluate()[0], totals[0][0], 2)
    bench.check(1, solo, solo.evaluate(2), totals[1], 2)
    first.compact([2, 0])
    bench.check_pack(first, (3, 1), first.train_epoch(), 3)
    back = solo.lane_state()
    back.epoch = 2  # as its progress would say
    solo.train_epoch(3)
    first.load_lane_state(0, bench.member(1), back)
    first.compact([0])
    bench.check_pack(first, (1,), first.train_epoch(), 3)


def assert_shapes(state, model):
    expected = dict(model.named_parameters()) | {
        n: b for n, b in model.named_buffers() if b.is_floating_point()
    }
    assert {n: t.shape for n, t in state.averages.items()} == {n: t.shape for n, t in expected.items()}


def test_a_state_of_another_pack_goes_on_to_the_bit(bench):
    bench = bench(dtype="float32")
    stays, other = bench.pack(1, 3), bench.pack(2, 0)
    trained(stays)
    trained(other)
    for slot, lane in enumerate((1, 3)):
        other.load_lane_state(slot, bench.member(lane), stays.lane_state(slot))
    assert trained(stays)[0] == trained(other)[0]
    for slot in (0, 1):
        assert_same_bits(*(PackLaneView(pack, slot).state_dict() for pack in (stays, other)))
