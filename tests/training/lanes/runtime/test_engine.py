"""What packs promise: lanes that do not touch each other, places that are taken again, and never an error."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from gridsearch.records import EpochEnded, Lane, TrialFailed, TrialFinished, TrialState
from gridsearch.training import loop
from gridsearch.training.context import TrainContext
from gridsearch.training.lane_optimizer import OPTIMIZERS
from gridsearch.training.lane_progress import LaneState
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.zoo import models as zoo
from tests.training.lanes.runtime.compared_runs import UserNet, assert_same


def mixed(make_settings, **changes):
    """Recipes that differ in all that may differ inside a pack."""
    common = {"dtype": "float64", "epochs": 3} | changes
    return [
        (make_settings(**common), 0),
        (
            make_settings(
                **common
                | {"lr": 0.003, "norm": "none", "label_smoothing": 0.1, "epochs": 2, "clip_norm": 0.4}
            ),
            1,
        ),
        (
            make_settings(
                **common | {"dropout": 0.5, "schedule": "cosine", "weight_decay": 0.01, "loss": "focal"}
            ),
            0,
        ),
        (
            make_settings(
                **common
                | {"dropout": 0.0, "warmup": 1.0, "select": "best", "epochs": 5}
                | {"class_weight": "balanced"}
            ),
            2,
        ),
    ]


def test_lanes_with_recipes_of_their_own_give_what_each_gives_alone(train, alone, make_settings):
    trials = mixed(make_settings)
    ours, theirs = train(*trials), alone(*trials)
    for lane in range(4):
        assert_same(ours, theirs, lane)


def test_events_of_a_pack_come_epoch_by_epoch_and_its_seconds_are_shared(train, make_settings):
    run = train(make_settings(epochs=2), make_settings(epochs=1, lr=0.1))
    kinds = [(type(e).__name__, e.trial) for e in run.events]
    assert kinds == [
        ("EpochEnded", 0),
        ("EpochEnded", 1),
        ("TrialFinished", 1),
        ("EpochEnded", 0),
        ("TrialFinished", 0),
    ]
    first, second = run.events[:2]
    assert first.seconds == second.seconds > 0


def test_the_same_pack_twice_gives_the_same_bytes(train, make_settings):
    trials = mixed(make_settings, dtype="float32", augment="flip")
    first, second = train(*trials), train(*trials)
    for lane in range(4):
        assert first.bytes_of(lane) == second.bytes_of(lane)


@pytest.mark.parametrize("build", ["conv", "user"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_poisoned_lane_changes_no_bit_of_its_neighbours(train, make_settings, nets, seed, build):
    make = nets["conv"] if build == "conv" else lambda s, d: UserNet()
    good = [(make_settings(optimizer="sgd", lr=lr), s) for lr, s in ((0.01, 0), (0.05, seed), (0.02, 0))]
    bad = list(good)
    bad[1] = (make_settings(optimizer="sgd", lr=1e30), seed)
    clean, poisoned = train(*good, build=make), train(*bad, build=make)
    end = poisoned.finished(1)
    assert end.state is TrialState.DIVERGED
    assert end.metrics == {}
    assert "at step" in end.message
    assert not poisoned.scratch[1].exists()
    for lane in (0, 2):
        early = clean.epochs(lane)[0], poisoned.epochs(lane)[0]
        assert early[0].val_loss == early[1].val_loss


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["mlp", "lenet", "cnn3", "resnet9"])  # every kind of layer that the zoo has
def test_a_poisoned_lane_s_neighbours_keep_every_bit_of_their_weights(
    name, make_settings, make_images, zoo_net
):
    """In one program, where the number of lanes stays, over an epoch; of one seed and of several."""
    net = zoo_net(name)
    images = make_images(18, size=net.side)
    for turn, (optimizer, poison) in enumerate(zip(OPTIMIZERS, (0, 1, 2, 0, 1), strict=True)):

        def settings(optimizer=optimizer, **changes):
            return make_settings(optimizer=optimizer, batch=8, **changes)

        seeds = [0, turn % 2, 0]
        packs = [
            program(net.build, settings, lambda: images, [0.01, 0.02, 0.03], seeds=seeds) for _ in range(2)
        ]
        packs[1].storage.flat[poison].fill_(float("nan"))
        results = [pack.train_epoch() for pack in packs]
        assert str(results[1][poison]) == "loss nan at step 1 (epoch 1)"
        scores = [pack.evaluate() for pack in packs]
        for slot in {0, 1, 2} - {poison}:
            assert results[0][slot] == results[1][slot]
            assert torch.equal(scores[0][slot].logits, scores[1][slot].logits)
            for tensor_name, tensor in packs[0].storage.lane_tensors(slot).items():
                assert torch.equal(tensor, packs[1].storage.lane_tensors(slot)[tensor_name]), (
                    optimizer,
                    tensor_name,
                )


@pytest.mark.thorough
@pytest.mark.parametrize("name", zoo.__all__)
def test_the_same_program_twice_has_the_same_bits(name, make_settings, make_images, zoo_net):
    net = zoo_net(name)
    flats = []
    for _ in range(2):
        images = make_images(18, size=net.side)
        pack = program(net.build, make_settings, lambda images=images: images, [0.01, 0.02], seeds=[0, 1])
        pack.train_epoch()
        flats.append(pack.storage.flat)
    assert torch.equal(*flats)


def test_a_lane_names_the_step_at_which_it_diverged_as_alone(train, alone, make_settings, nets):
    trials = [make_settings(optimizer="sgd", dtype="float64", lr=lr) for lr in (0.01, 1e200)]
    ours, theirs = train(*trials, build=nets["dense"]), alone(*trials, build=nets["dense"])
    assert ours.finished(1).message == theirs.finished(1).message
    assert_same(ours, theirs, 0)


def program(build, make_settings, make_images, rates, *, seeds=None, dtype="float32"):
    cache = ResidentCache(make_images(), device="cpu")
    recipes = [make_settings(lr=lr, dtype=dtype, epochs=9, schedule="cosine") for lr in rates]
    data, precision = cache(recipes[0]), Precision.of(dtype, torch.device("cpu"))
    seeds = seeds or [0] * len(rates)
    models = [build_network(r, s, data, build, precision) for r, s in zip(recipes, seeds, strict=True)]
    return PackProgram([Member(r, s) for r, s in zip(recipes, seeds, strict=True)], models, data, precision)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "nadam", "rmsprop"])
def test_a_lane_s_state_goes_on_in_another_pack_to_the_bit(make_settings, make_images, nets, optimizer):
    def settings(**changes):
        return make_settings(optimizer=optimizer, momentum=0.9 * (optimizer == "sgd"), **changes)

    stays = program(nets["conv"], settings, make_images, [0.01, 0.02], seeds=[0, 1])
    stays.train_epoch()
    states = [stays.lane_state(slot) for slot in (0, 1)]
    others = program(nets["conv"], settings, make_images, [0.5, 0.6], seeds=[7, 8])
    others.train_epoch()
    for slot in (0, 1):
        member = stays.members[slot]
        others.load_lane_state(slot, Member(member.settings, member.seed), states[slot])
    expected, found = stays.train_epoch(), others.train_epoch()
    assert expected == found
    assert torch.equal(stays.storage.flat, others.storage.flat)


def test_a_lane_goes_on_the_same_when_its_neighbours_are_taken_away(make_settings, make_images, nets):
    stays, shrinks = (
        program(
            nets["conv"], make_settings, make_images, [0.01, 0.02, 0.03], seeds=[0, 1, 2], dtype="float64"
        )
        for _ in range(2)
    )
    for pack in (stays, shrinks):
        pack.train_epoch()
    shrinks.compact([2])
    expected, found = stays.train_epoch()[2], shrinks.train_epoch()[0]
    assert found.loss == pytest.approx(expected.loss, rel=1e-9)
    assert shrinks.lr(0) == stays.lr(2)


def lanes_after(run_scratch, trials, first, tmp_path):
    """Lanes with ledger ids from `first` on, for a free place."""
    made = []
    for number, (settings, seed) in enumerate(trials, first):
        trial = dataclasses.replace(run_scratch, id=number, number=number, settings=settings, seed=seed)
        made.append(Lane(trial, str(tmp_path / "more" / str(number))))
    return made


def test_a_free_place_is_taken_by_the_next_trial_which_gives_what_it_gives_alone(
    make_settings, alone, nets, make_images, tmp_path
):
    common = {"dtype": "float64"}
    first = [(make_settings(epochs=1, **common), 0), (make_settings(epochs=4, **common), 1)]
    later = [
        (make_settings(epochs=2, lr=0.002, **common), 0),
        (make_settings(epochs=3, norm="none", **common), 5),
    ]
    run, asked = with_more(first, later, nets["dense"], make_images, tmp_path)
    theirs = alone(*first, *later, build=nets["dense"])
    for lane in range(4):
        assert_same(run, theirs, lane, to=1e-9)
    assert asked[0] == 1
    order = [e.trial for e in run.events if isinstance(e, EpochEnded)]
    assert order.index(2) < max(i for i, t in enumerate(order) if t == 1)  # side by side


def test_a_trial_that_loses_its_patience_is_complete_and_leaves_its_place(
    make_settings, alone, nets, make_images, tmp_path
):
    common = {"dtype": "float64", "optimizer": "sgd", "lr": 0.3, "momentum": 0.5, "epochs": 15}
    first = [(make_settings(**common, patience=1), 0), (make_settings(**common), 1)]
    later = [(make_settings(**common, patience=3, select="best"), 2)]
    images = make_images(learnable=False)
    run, _ = with_more(first, later, nets["dense"], lambda: images, tmp_path)
    theirs = alone(*first, *later, build=nets["dense"], data=images)
    for lane in range(3):
        assert_same(run, theirs, lane)
    for lane, patience in ((0, 1), (2, 3)):
        end, rows = run.finished(lane), run.epochs(lane)
        best = max(rows, key=lambda row: (row.val_accuracy, -row.val_loss))
        assert end.state is TrialState.COMPLETE
        assert end.epochs == len(rows) == best.epoch + patience < 15
        counts = best if lane == 2 else rows[-1]
        assert end.metrics["val_loss"] == counts.val_loss
    order = [e.trial for e in run.events if isinstance(e, EpochEnded)]
    assert order.index(2) < max(i for i, t in enumerate(order) if t == 1)  # side by side
    stops = run.finished(0).epochs
    for when, state in ((stops - 1, TrialState.PRUNED), (stops, TrialState.COMPLETE)):
        epochs = itertools.count(1)
        drop = lambda epochs=epochs, when=when: {0} if next(epochs) >= when else set()  # noqa: E731
        run, _ = with_more(first, [], nets["dense"], lambda: images, tmp_path / str(state), drop=drop)
        assert (run.finished(0).state, run.finished(0).epochs) == (state, when)


def with_more(first, later, build, make_images, tmp_path, **how):
    from gridsearch.records import Pack, Trial

    trial = Trial(id=0, number=0, key="", seed=0, settings=first[0][0], params={}, state=TrialState.RUNNING)
    lanes = lanes_after(trial, first, 0, tmp_path)
    waiting = lanes_after(trial, later, len(first), tmp_path)
    asked = []

    def more(count):
        asked.append(count)
        given = waiting[:count]
        del waiting[:count]
        return given

    scratch = {lane.trial.id: lane.scratch for lane in (*lanes, *waiting)}
    events = []
    context = TrainContext(
        data=ResidentCache(make_images(), device="cpu"),
        build=build,
        device="cpu",
        more=more,
        **how,
    )
    loop.train_pack(Pack("pack", tuple(lanes)), context, emit=events.append)
    return as_run(events, scratch), asked


def as_run(events, scratch):
    import safetensors.torch

    class Run:
        def epochs(self, lane):
            return [e for e in events if isinstance(e, EpochEnded) and e.trial == lane]

        def finished(self, lane):
            (end,) = [e for e in events if isinstance(e, TrialFinished) and e.trial == lane]
            return end

        def weights(self, lane):
            return safetensors.torch.load_file(f"{scratch[lane]}/weights.safetensors")

    run = Run()
    run.events = events
    return run


def test_a_trial_of_another_group_that_is_sent_for_a_place_trains_all_the_same(
    make_settings, nets, make_images, tmp_path
):
    first = [(make_settings(epochs=1), 0), (make_settings(epochs=2), 1)]
    run, _ = with_more(first, [(make_settings(batch=7), 0)], nets["conv"], make_images, tmp_path)
    assert [run.finished(lane).state for lane in range(3)] == [TrialState.COMPLETE] * 3


def test_a_trial_that_shall_end_is_pruned_at_the_epoch_s_end_and_its_place_is_free(
    make_settings, nets, make_images, tmp_path
):
    first = [(make_settings(epochs=3), 0), (make_settings(epochs=3), 1)]
    later = [(make_settings(epochs=1), 2)]
    run, _ = with_more(first, later, nets["conv"], make_images, tmp_path, drop=lambda: {1})
    assert [run.finished(lane).state for lane in range(3)] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.COMPLETE,
    ]
    assert run.finished(1).epochs == 1
    assert run.finished(1).metrics["val_accuracy"] == run.epochs(1)[0].val_accuracy


def test_memory_that_runs_out_splits_the_pack_and_it_goes_on_from_its_last_epoch(
    train, alone, make_settings, nets, monkeypatch
):
    trials = [(make_settings(dtype="float64", lr=0.001 * k, epochs=3), 0) for k in range(1, 6)]
    real, sizes = PackProgram.train_epoch, []

    def scarce(self, *how):
        sizes.append(self.lanes)
        if self.lanes > 2 and self.members[0].epoch == 1:
            raise torch.OutOfMemoryError("no room")
        return real(self, *how)

    with monkeypatch.context() as patch:
        patch.setattr(PackProgram, "train_epoch", scarce)
        ours = train(*trials, build=nets["dense"])
    assert sizes[:4] == [5, 5, 3, 2]
    theirs = alone(*trials, build=nets["dense"])
    for lane in range(5):
        assert_same(ours, theirs, lane, to=1e-9)


def test_a_model_that_raises_in_a_pack_fails_its_own_lane_alone(train, alone, make_settings, nets):
    class Moody(nn.Module):
        def __init__(self, limit):
            super().__init__()
            self.layer, self.limit = nn.Linear(64, 3), limit

        def forward(self, x):
            if self.training and float(self.layer.weight.sum()) > self.limit:
                raise KeyError("my own mistake")
            return self.layer(x.flatten(1))

    def build(settings, data):
        return Moody(-1e9 if settings.lr == 0.5 else 1e9)

    run = train(make_settings(), make_settings(lr=0.5), make_settings(lr=0.02), build=build)
    assert isinstance(run.end(1), TrialFailed)
    assert run.end(1).message.startswith("KeyError: 'my own mistake'")
    assert run.finished(0).state is run.finished(2).state is TrialState.COMPLETE


def test_a_fresh_state_is_an_empty_one():
    assert LaneState().weights == {}
    assert LaneState().epoch == 0


@pytest.mark.parametrize("rates", [(0.6, 0.6, None), (None, None, 0.6), (0.6, None, None), (None, 0.6, None)])
def test_the_models_own_dropout_rate_and_the_recipes_train_each_lane_as_alone(
    make_settings, alone, nets, make_images, tmp_path, rates
):
    own, other, third = (make_settings(dropout=rate, dtype="float64") for rate in rates)
    first = [(dataclasses.replace(own, epochs=4), 0), (dataclasses.replace(other, epochs=1), 1)]
    later = [(dataclasses.replace(third, epochs=2), 2)]
    run, _ = with_more(first, later, nets["conv"], make_images, tmp_path)
    theirs = alone(*first, *later, build=nets["conv"])
    for lane in range(3):
        losses = [[row.train_loss for row in each.epochs(lane)] for each in (run, theirs)]
        assert losses[0]
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_a_model_that_draws_its_dropout_rate_trains_each_lane_at_its_own(
    make_settings, alone, make_images, tmp_path
):
    def build(settings, data):
        dense = nn.Linear(64, data.num_classes)
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.8 * torch.rand(()).item()), dense)

    common = {"norm": "none", "dtype": "float64"}
    # the second begins as one of seed 0 does, so that both begin in one pack; the third draws another rate
    first = [(make_settings(epochs=epochs, lr=lr, **common), 0) for epochs, lr in ((3, 0.01), (1, 0.03))]
    later = [(make_settings(epochs=2, **common), 2)]
    run, _ = with_more(first, later, build, make_images, tmp_path)
    theirs = alone(*first, *later, build=build)
    for lane in range(3):
        losses = [[row.train_loss for row in each.epochs(lane)] for each in (run, theirs)]
        assert losses[0]
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)
