"""Steps as compiled calls, beside the same lanes step by step: the same numbers, and bytes that depend on nothing else."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from gridsearch.training.context import Stopped
from gridsearch.training.lane_progress import LaneState
from gridsearch.training.lanes.runtime import plan_choice, planned_steps
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.metrics import Diverged
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from tests.training.compilers import needs_compiler

CPU = torch.device("cpu")

pytestmark = needs_compiler


def pooled_net(settings, data):
    """Pooled convolutions, ReLU after and before, dropout and dense layers."""
    del settings
    return nn.Sequential(
        nn.Conv2d(data.channels, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Conv2d(4, 20, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20, 16),
        nn.LeakyReLU(),
        nn.Dropout(0.5),
        nn.Linear(16, data.num_classes),
    )


class Residual(nn.Module):
    """Batch norm, a residual sum, dropped channels, and a mean over the map, as users call them."""

    def __init__(self, channels, classes):
        super().__init__()
        self.first = nn.Conv2d(channels, 6, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.drop = nn.Dropout2d(0.25)
        self.out = nn.Linear(6, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(x + self.second(x))
        x = nn.functional.dropout(self.drop(x), 0.1, training=self.training)
        return self.out(x.mean((2, 3)))


class LogGamma(nn.Module):
    """What torch computes."""

    def forward(self, x):
        return torch.lgamma(1 + x.abs())


class Centered(nn.Module):
    """What no plan has: it takes images together."""

    def forward(self, x):
        return x - x.mean(0)


def residual_net(settings, data):
    """Build `Residual`."""
    del settings
    return Residual(data.channels, data.num_classes)


class Wired(nn.Module):
    """Pooling of the images, a layer's result with its own input, channels side by side and times what their means say."""

    def __init__(self, channels, classes):
        super().__init__()
        self.first = nn.Conv2d(channels, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.down, self.up = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)
        self.pool, self.drop = nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(0.1)
        self.out = nn.Linear(18, classes)

    def forward(self, x):
        x = nn.functional.hardswish(self.first(nn.functional.max_pool2d(x, 2, 1)))
        x = self.pool(self.second(x) + x)
        mean = nn.functional.adaptive_avg_pool2d(x, 1)
        y = x * nn.functional.hardsigmoid(self.up(torch.relu(self.down(mean))))
        z = nn.functional.relu6(torch.cat([y, x + x, y], 1))
        return self.out(self.drop(z.mean((2, 3))))


def wired_net(settings, data):
    """Build `Wired`."""
    del settings
    return Wired(data.channels, data.num_classes)


NETS = {"pooled": pooled_net, "residual": residual_net, "wired": wired_net}


def recipes(make_settings, **changes):
    """Three recipes that differ in all that lanes may differ in."""
    common = {"batch": 10, "epochs": 4, "dtype": "float64", "val": 0.2} | changes
    return [
        make_settings(**common),
        make_settings(
            **common
            | {"norm": "none", "label_smoothing": 0.1, "schedule": "cosine", "ema": 0.9}
            | {"class_weight": "balanced"}
        ),
        make_settings(
            **common
            | {
                "dropout": 0.4,
                "weight_decay": 0.01,
                "warmup": 1.5,
                "lr": 0.003,
                "clip_norm": 0.5,
                "loss": "focal",
            }
        ),
    ]


def pack(settings, data, build, *, seeds=None, planned=True):
    """Return a program of lanes, whose steps are planned or not, or as may be (None)."""
    resident = ResidentCache(data, device="cpu")(settings[0])
    precision = Precision.of(settings[0].dtype, CPU)
    seeds = list(range(len(settings))) if seeds is None else seeds
    members = [Member(s, seed) for s, seed in zip(settings, seeds, strict=True)]
    models = [
        build_network(s, seed, resident, build, precision) for s, seed in zip(settings, seeds, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        if planned is False:
            patch.setattr(plan_choice, "PLANNED", ())
        found = PackProgram(members, models, resident, precision)
    assert planned is None or found.planned is planned
    return found


def state_of(found, slot):
    """All tensors of a lane."""
    state = found.lane_state(slot)
    return [
        *state.weights.values(),
        *state.averages.values(),
        *state.optimizer_state.get("mean", {}).values(),
    ]


def same_bits(ours, theirs):
    """Whether lanes' tensors are the same to the bit."""
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("net", "how"), [
    ("pooled", {"optimizer": "adam", "augment": "flip+shift"}),
    ("pooled", {"optimizer": "nadam", "augment": "erase"}),
    ("residual", {"optimizer": "sgd", "momentum": 0.9, "nesterov": True}),
    ("residual", {"optimizer": "rmsprop"}),
    ("residual", {"optimizer": "adamw", "augment": "flip", "drop_last": True}),
    ("wired", {"optimizer": "sgd", "momentum": 0.9}),
])  # fmt: skip
def test_planned_steps_give_what_the_steps_give_one_by_one(make_settings, make_images, net, how):
    settings, data = recipes(make_settings, **how), make_images(58, channels=1 if net == "pooled" else 2)
    ours, theirs = (pack(settings, data, NETS[net], planned=planned) for planned in (True, False))
    for _ in range(2):
        for mine, other in zip(ours.train_epoch(), theirs.train_epoch(), strict=True):
            assert (mine.accuracy, mine.images) == (other.accuracy, other.images)
            assert mine.loss == pytest.approx(other.loss, rel=1e-10)
        for mine, other in zip(ours.evaluate(), theirs.evaluate(), strict=True):
            torch.testing.assert_close(mine.logits, other.logits, rtol=1e-9, atol=1e-9)
    for slot in range(3):
        assert ours.lr(slot) == theirs.lr(slot)
        assert ours.members[slot].step == theirs.members[slot].step
        for mine, other in zip(state_of(ours, slot), state_of(theirs, slot), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


def test_a_lane_is_the_same_to_the_bit_alone_and_among_others_that_break(make_settings, make_images):
    settings, data = recipes(make_settings, dtype="float32"), make_images(58)
    ours = pack(settings, data, pooled_net)
    with torch.no_grad():
        ours.storage.flat[1] = math.nan
    results = [ours.train_epoch() for _ in range(2)]
    assert isinstance(results[0][1], Diverged)
    for slot in (0, 2):
        alone = pack([settings[slot]], data, pooled_net, seeds=[slot])
        assert [alone.train_epoch()[0] for _ in range(2)] == [r[slot] for r in results]
        assert same_bits(state_of(alone, 0), state_of(ours, slot))


def test_a_lane_is_the_same_to_the_bit_wherever_its_weights_lie(make_settings, make_images):
    def few_inputs(settings, data):
        del settings
        return nn.Sequential(
            nn.Conv2d(data.channels, 3, 3), nn.Flatten(), nn.Dropout(), nn.Linear(108, 1), nn.Linear(1, 67), nn.ReLU(),
            nn.Linear(67, 5), nn.Linear(5, 3)
        )  # fmt: skip

    settings, data = recipes(make_settings, dtype="float32"), make_images(58)
    ours = pack(settings, data, few_inputs)
    ours.train_epoch()
    for slot in range(3):
        alone = pack([settings[slot]], data, few_inputs, seeds=[slot])
        alone.train_epoch()
        assert same_bits(state_of(alone, 0), state_of(ours, slot))


def test_how_many_steps_a_call_takes_changes_no_bit(make_settings, make_images, monkeypatch):
    settings, data = recipes(make_settings, dtype="float32"), make_images(58)
    found = []
    for seconds in (0.0, 1e9):
        monkeypatch.setattr(planned_steps, "_SLICE", seconds)
        ours = pack(settings, data, residual_net)
        calls = []
        ours.train_epoch()
        ours.train_epoch(lambda calls=calls: calls.append(None))
        found.append((len(calls), [state_of(ours, slot) for slot in range(3)]))
    assert [calls for calls, _ in found] == [5, 1]
    assert all(same_bits(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_a_lane_stopped_in_its_epoch_goes_on_from_where_it_began(make_settings, make_images, monkeypatch):
    monkeypatch.setattr(planned_steps, "_SLICE", 0.0)
    settings, data = recipes(make_settings, dtype="float32"), make_images(58)
    ours, other = (pack(settings, data, pooled_net) for _ in range(2))
    ours.train_epoch()
    kept = [ours.lane_state(slot) for slot in range(3)]
    left = iter(range(2))

    def stop():
        if next(left, None) is None:
            raise Stopped

    with pytest.raises(Stopped):
        ours.train_epoch(stop)
    for slot, state in enumerate(kept):
        other.load_lane_state(slot, Member(settings[slot], slot), state)
    fresh = pack(settings, data, pooled_net)
    for _ in range(2):
        fresh.train_epoch()
    other.train_epoch()
    assert all(same_bits(state_of(other, slot), state_of(fresh, slot)) for slot in range(3))


def test_a_lane_that_diverges_ends_at_its_step_and_a_pack_at_its_last_lane_s(make_settings, make_images):
    changes = {"optimizer": "sgd", "momentum": 0.0, "dropout": 0.0}
    settings, data = recipes(make_settings, **changes), make_images(58)
    settings = [
        make_settings(**changes, batch=10, epochs=4, dtype="float64", val=0.2, lr=lr) for lr in (0.01, 1e40)
    ]
    ours, theirs = (pack(settings, data, pooled_net, planned=planned) for planned in (True, False))
    mine, other = ours.train_epoch(), theirs.train_epoch()
    assert isinstance(mine[1], Diverged)
    assert str(mine[1]) == str(other[1])
    assert mine[0].loss == pytest.approx(other[0].loss, rel=1e-10)
    calls = []
    broken = pack(settings[1:], data, pooled_net)
    broken.train_epoch(lambda: calls.append(None))
    assert len(calls) < broken.plan.steps


def test_lanes_that_end_and_are_replaced_go_on_as_they_would_alone(make_settings, make_images):
    settings, data = recipes(make_settings, dtype="float32"), make_images(58)
    ours = pack(settings, data, residual_net)
    ours.train_epoch()
    model = build_network(settings[2], 7, ours.data, residual_net, Precision.of("float32", CPU))
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    ours.load_lane_state(0, Member(settings[2], 7), LaneState(weights=tensors))
    ours.train_epoch()
    ours.compact([0, 1])
    ours.train_epoch()
    for slot, (recipe, seed, epochs) in enumerate(((2, 7, 2), (1, 1, 3))):
        alone = pack([settings[recipe]], data, residual_net, seeds=[seed])
        for _ in range(epochs):
            alone.train_epoch()
        assert same_bits(state_of(alone, 0), state_of(ours, slot))


def test_a_label_of_no_class_is_an_error_and_a_network_that_mixes_images_has_no_plan(
    make_settings, make_images
):
    settings, data = recipes(make_settings), make_images(58)
    ours = pack(settings, data, pooled_net)
    ours.data.labels[int(ours.data.train[0])] = 9
    with pytest.raises(IndexError, match="a label is 9, where there are 3 classes"):
        ours.train_epoch()
    model = nn.Sequential(Centered(), pooled_net(settings[0], ours.data)).double()
    precision = Precision.of("float64", CPU)
    assert not PackProgram([Member(settings[0], 0)], [model], ours.data, precision).planned


def test_an_error_in_a_part_that_torch_computes_ends_the_epoch_and_the_evaluation(
    make_settings, make_images, monkeypatch
):
    settings, data = recipes(make_settings), make_images(58)
    monkeypatch.setattr(plan_choice, "module_is_faster", lambda *_, **__: False)  # which a clock would say
    ours = pack(settings, data, lambda *given: nn.Sequential(LogGamma(), pooled_net(*given)))
    ours.train_epoch()
    (op,) = ours._planned._torch
    left = iter(range(3))

    def fails(*given):
        if next(left, None) is None:
            raise ZeroDivisionError("of a batch")
        return given[0]

    monkeypatch.setattr(op, "_part", dataclasses.replace(op._part, compute=fails))
    for does in (ours.train_epoch, ours.evaluate):
        with pytest.raises(ZeroDivisionError, match="of a batch"):
            does()


@pytest.mark.parametrize("frozen", ["0", "4", "8", "11.bias"])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_layer_that_is_not_trained_stays_as_it_is(make_settings, make_images, frozen, order):
    settings, data = recipes(make_settings), make_images(58, channels=3)

    def partly_frozen(settings, data):
        model = pooled_net(settings, data).to(memory_format=order)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
        return model

    ours = pack(settings, data, partly_frozen)
    before = {name: tensor.clone() for name, tensor in ours.lane_state(0).weights.items()}
    ours.train_epoch()
    after = ours.lane_state(0).weights
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if not name.startswith(frozen)}


def test_a_batch_norm_of_one_value_is_refused_as_torch_refuses_it(make_settings, make_images):
    def one_value(settings, data):
        del settings
        return nn.Sequential(
            nn.Conv2d(data.channels, 4, data.image_size), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3)
        )

    settings, data = recipes(make_settings, batch=1), make_images(58)
    ours = pack(settings[:1], data, one_value, planned=None)
    assert not ours.planned
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ours.train_epoch()


class Chosen(nn.Module):
    """Features of which a buffer says which are read."""

    def __init__(self, features, classes):
        super().__init__()
        self.register_buffer("places", 3 * torch.arange(features // 4))
        self.out = nn.Linear(features // 4, classes)

    def forward(self, x):
        return self.out(x.flatten(1)[:, self.places])


def test_a_lane_whose_indices_are_others_ends_a_plan_that_has_them(make_settings, make_images):
    def chosen_net(settings, data):
        del settings
        return Chosen(data.channels * data.image_size[0] * data.image_size[1], data.num_classes)

    settings, data = recipes(make_settings)[:2], make_images(58)
    ours = pack(settings, data, chosen_net)
    state = ours.lane_state(0)
    state.weights["places"] += 5
    ours.load_lane_state(0, Member(settings[0], 0), state)
    assert not ours.planned
    theirs = pack(settings, data, chosen_net, planned=False)
    theirs.load_lane_state(0, Member(settings[0], 0), state)
    for mine, other in zip(ours.train_epoch(), theirs.train_epoch(), strict=True):
        assert mine.loss == pytest.approx(other.loss, rel=1e-10)
