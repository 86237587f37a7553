"""What checkpoints promise: a lane that goes on from one ends with the bytes of a lane that was never stopped."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from gridsearch import checkpoints
from gridsearch.checkpoints import checkpoints_in
from gridsearch.records import (
    EpochEnded,
    TrialFinished,
    TrialResumed,
)
from gridsearch.training import loop
from gridsearch.training.lane_optimizer import OPTIMIZERS
from gridsearch.training.own_code import OwnCode
from gridsearch.training.solo_engine import SoloEngine
from tests.training.killed_trials import Counting, Cumulative, Hooked, Killed, Trials, epoch_of, outcome, rows


@pytest.fixture
def trials(tmp_path, make_images, nets):
    """Make trials; those of one name share a folder."""
    made = iter(range(100))

    def make(*settings, build="conv", images=None, **how):
        return Trials(
            tmp_path / f"pack{next(made)}",
            settings,
            images=images or make_images(),
            build=nets.get(build, build),
            **how,
        )

    return make


def mixed(make_settings, **changes):
    """Lanes that end at different epochs, see other images, average their weights, keep their best epoch, diverge."""
    common = {"epochs": 5, "dropout": 0.25} | changes
    return [
        (make_settings(**common | {"select": "best"}), 0),
        (make_settings(**common | {"lr": 0.003, "epochs": 2, "label_smoothing": 0.1}), 1),
        (
            make_settings(
                **common
                | {"ema": 0.9, "schedule": "cosine", "weight_decay": 0.01}
                | {"sampling": "balanced", "loss": "focal", "clip_norm": 0.5}
            ),
            0,
        ),
        (make_settings(**common | {"lr": 1e30, "epochs": 4}), 2),
        (
            make_settings(
                **common
                | {
                    "warmup": 1.0,
                    "dropout": 0.5,
                    "epochs": 7,
                    "select": "best",
                    "ema": 0.5,
                    "class_weight": "balanced",
                }
            ),
            3,
        ),
    ]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("engine", ["lanes", "solo"])
def test_lanes_killed_at_several_epochs_end_with_the_bytes_of_an_unbroken_run(
    trials, make_settings, optimizer, engine, monkeypatch
):
    if engine == "solo":
        monkeypatch.setattr(loop, "ENGINES", (SoloEngine(),))
    recipe = mixed(make_settings, optimizer=optimizer)
    unbroken, broken = trials(*recipe), trials(*recipe)
    whole = unbroken.run()
    parts = [broken.run(kill=epoch_of(*moment)) for moment in ((0, 1), (2, 2), (4, 4), (4, 6))]
    parts.append(broken.run())
    assert outcome(parts[-1]) == outcome(whole)
    assert rows(*parts) == rows(whole)
    assert broken.results() == unbroken.results()
    assert len(broken.results()) == 2 * 4


class Drawing(torch.optim.Optimizer):
    """Keeps a mean in double precision, a count, a number of its own, and draws."""

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.largest = 0.0

    @torch.no_grad()
    def step(self, closure=None):  # noqa: ARG002  (as torch calls it)
        (group,) = self.param_groups
        for p in group["params"]:
            state = self.state[p]
            if not state:
                state.update(mean=torch.zeros_like(p, dtype=torch.float64), seen=(0, "steps"))
            state["seen"] = state["seen"][0] + 1, "steps"
            state["mean"].lerp_(p.grad.double(), 1 / (1 + state["seen"][0]))
            self.largest = max(self.largest, float(p.grad.abs().max()))
            noise = 0.1 * torch.randn(p.shape)
            p.sub_(state["mean"].to(p.dtype) / (1e-3 + self.largest) + noise, alpha=group["lr"])


def speckled(images, generator):
    return images * torch.rand(images.shape, generator=generator, dtype=images.dtype)


@pytest.mark.parametrize("engine", ["lanes", "solo"])
def test_code_of_its_user_s_goes_on_after_a_kill_to_the_bytes_of_an_unbroken_run(
    trials, make_settings, engine, monkeypatch
):
    if engine == "solo":
        monkeypatch.setattr(loop, "ENGINES", (SoloEngine(),))
    recipe = mixed(make_settings, optimizer="my.py:Drawing", augment="my.py:speckled", mixup=0.3)
    how = {"own": OwnCode(speckled, Drawing)}
    unbroken, broken = trials(*recipe, **how), trials(*recipe, **how)
    whole = unbroken.run()
    parts = [broken.run(kill=epoch_of(*moment)) for moment in ((0, 1), (2, 2), (4, 6))]
    parts.append(broken.run())
    assert outcome(parts[-1]) == outcome(whole)
    assert rows(*parts) == rows(whole)
    assert broken.results() == unbroken.results()
    assert len(broken.results()) == 2 * 4


@pytest.mark.parametrize("select", ["last", "best"])
def test_patience_counts_on_after_a_kill(trials, make_settings, make_images, select):
    common = {"optimizer": "sgd", "lr": 0.5, "momentum": 0.9, "epochs": 30, "select": select}
    recipe = [(make_settings(**common, patience=patience), seed) for patience, seed in ((2, 0), (4, 1))]
    images = make_images(learnable=False)
    unbroken, broken = (trials(*recipe, images=images) for _ in range(2))
    whole = unbroken.run()
    ends = {trial: end.epochs for trial, end in outcome(whole).items()}
    assert all(epochs < 30 for epochs in ends.values())
    parts = [broken.run(kill=epoch_of(1, epoch)) for epoch in (2, ends[1] - 1)]
    parts.append(broken.run())
    assert outcome(parts[-1]) == outcome(whole)
    assert rows(*parts) == rows(whole)
    assert broken.results() == unbroken.results()


@pytest.mark.parametrize("net", [Cumulative, Hooked])
def test_vectorized_lanes_and_lanes_that_train_alone_go_on_likewise(trials, make_settings, net):
    recipe = mixed(make_settings)
    recipe = recipe[:4] if net is Cumulative else recipe
    recipe = [(dataclasses.replace(s, dropout=None), seed) for s, seed in recipe]
    unbroken, broken = (trials(*recipe, build=lambda s, d: net()) for _ in range(2))
    whole = unbroken.run()
    parts = [broken.run(kill=epoch_of(*moment)) for moment in ((0, 2), (2, 3))]
    parts.append(broken.run())
    assert rows(*parts) == rows(whole)
    assert outcome(parts[-1]) == outcome(whole)
    assert broken.results() == unbroken.results()


def test_epochs_before_a_checkpoint_are_not_trained_again(trials, make_settings):
    broken = trials(*mixed(make_settings))
    kills = ((0, 2), (2, 3), (4, 6))
    for moment in kills:
        broken.run(kill=epoch_of(*moment))
    last = broken.run()
    again = len(broken.trained) - len(set(broken.trained))
    assert 0 < again <= len(kills) * len(broken.settings)  # the epoch that was under way, of each lane
    resumed = {e.trial: e.epoch for e in last if isinstance(e, TrialResumed)}
    assert resumed == {0: 5, 1: 2, 2: 5, 3: 0, 4: 5}  # lanes that had ended are not trained at all
    assert {e.trial for e in last if isinstance(e, EpochEnded)} == {4}
    assert set(outcome(last)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("damage", ["truncated", "zeroed", "flipped"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_it(trials, make_settings, damage):
    recipe = mixed(make_settings)
    unbroken, broken = trials(*recipe), trials(*recipe)
    whole = unbroken.run()
    first = broken.run(kill=epoch_of(0, 4))
    newest = checkpoints_in(broken.folder / "2" / ".attempt-1")[0]
    content = bytearray(newest.path.read_bytes())
    match damage:
        case "truncated":
            content = content[:-1]
        case "zeroed":
            content = bytearray(len(content))
        case _:
            content[len(content) // 2] ^= 1
    newest.path.write_bytes(bytes(content))
    rest = broken.run()
    resumed = {e.trial: (e.epoch, e.damaged) for e in rest if isinstance(e, TrialResumed)}
    assert newest.epoch == 3
    assert resumed == {0: (2, 0), 1: (2, 0), 2: (2, 1), 3: (0, 0), 4: (2, 0)}  # together, as they trained
    assert rows(first, rest) == rows(whole)
    assert broken.results() == unbroken.results()


def test_a_damaged_checkpoint_takes_a_lane_that_has_just_ended_back_with_it(trials, make_settings):
    recipe = [make_settings(epochs=5), make_settings(epochs=3, lr=0.1)]
    unbroken, broken = trials(*recipe), trials(*recipe)
    whole = unbroken.run()
    first = broken.run(kill=lambda event: isinstance(event, TrialFinished))
    newest = checkpoints_in(broken.folder / "0" / ".attempt-1")[0]
    newest.path.write_bytes(b"damaged")
    rest = broken.run()
    assert newest.epoch == 2
    assert {e.trial: e.epoch for e in rest if isinstance(e, TrialResumed)} == {0: 1, 1: 1}
    assert rows(first, rest) == rows(whole)
    assert broken.results() == unbroken.results()


def test_without_any_whole_checkpoint_lanes_begin_again(trials, make_settings):
    recipe = mixed(make_settings)
    unbroken, broken = trials(*recipe), trials(*recipe)
    whole = unbroken.run()
    first = broken.run(kill=epoch_of(0, 4))
    for file in checkpoints_in(broken.folder / "0" / ".attempt-1"):
        file.path.write_bytes(b"")
    rest = broken.run()
    resumed = [e for e in rest if isinstance(e, TrialResumed)]
    assert {e.epoch for e in resumed} == {0}
    assert [e.damaged for e in resumed] == [2, 0, 0, 0, 0]
    assert rows(first, rest) == rows(whole)
    assert broken.results() == unbroken.results()


def test_a_checkpoint_of_another_trial_is_not_used(trials, make_settings):
    broken, other = trials(make_settings(epochs=4)), trials(make_settings(epochs=4, lr=0.5))
    broken.run(kill=epoch_of(0, 3))
    other.settings = other.settings[:1]
    other.run(kill=epoch_of(0, 3))
    theirs = checkpoints_in(other.folder / "0" / ".attempt-1")[0].path
    for file in checkpoints_in(broken.folder / "0" / ".attempt-1"):
        file.path.unlink()
    theirs.rename(broken.folder / "0" / ".attempt-1" / theirs.name)
    broken.lanes = lambda: tuple(
        dataclasses.replace(lane, trial=dataclasses.replace(lane.trial, key="another"))
        for lane in Trials.lanes(broken)
    )
    resumed = [e for e in broken.run() if isinstance(e, TrialResumed)]
    assert [(e.epoch, e.damaged) for e in resumed] == [(0, 1)]


def test_lanes_that_are_written_only_in_part_go_on_together(trials, make_settings, monkeypatch):
    """A kill between the checkpoints of two lanes: all go on from the last epoch of which each has one."""
    recipe = mixed(make_settings)
    unbroken, broken = trials(*recipe), trials(*recipe)
    whole = unbroken.run()
    write = checkpoints.write_checkpoint
    written = itertools.count()

    def killed(folder, content, **how):
        if next(written) == 14:  # in the middle of a generation
            raise Killed
        return write(folder, content, **how)

    with monkeypatch.context() as patch:
        patch.setattr("gridsearch.training.lane_checkpoints.write_checkpoint", killed)
        first = broken.run()
    newest = {n: checkpoints_in(broken.folder / str(n) / ".attempt-1")[0].epoch for n in (0, 2, 4)}
    assert len(set(newest.values())) == 2, newest
    rest = broken.run()
    together = {e.epoch for e in rest if isinstance(e, TrialResumed) and e.trial in newest}
    assert together == {min(newest.values())}
    assert rows(first, rest) == rows(whole)
    assert broken.results() == unbroken.results()


def test_a_pack_that_breaks_leaves_lanes_that_go_on_alone(trials, make_settings, monkeypatch):
    """Where a program raises, its lanes train one after the other; after a kill they go on so."""
    from gridsearch.training.lanes.runtime.program import PackProgram

    train = PackProgram.train_epoch

    def break_later(self, *args):
        if self.members[0].epoch == 2:
            raise RuntimeError("no more")
        return train(self, *args)

    monkeypatch.setattr(PackProgram, "train_epoch", break_later)
    recipe = [make_settings(epochs=4, lr=lr) for lr in (0.01, 0.02, 0.03)]
    unbroken, broken = trials(*recipe), trials(*recipe)
    whole = unbroken.run()
    parts = [broken.run(kill=epoch_of(*moment)) for moment in ((0, 2), (0, 3), (1, 3))]
    parts.append(broken.run())
    assert {e.trial: e.epoch for e in parts[-1] if isinstance(e, TrialResumed)} == {0: 4, 1: 2, 2: 2}
    assert rows(*parts) == rows(whole)
    assert broken.results() == unbroken.results()


@pytest.mark.parametrize("moment", [(0, 2), (1, 1)])
def test_lanes_that_were_refused_a_program_and_had_not_begun_go_on_alone(
    trials, make_settings, monkeypatch, moment
):
    """Two of three lanes may share a program that the three may not."""
    from gridsearch.training.lanes.runtime import engine

    build, made = engine.build_program, []

    def refuse_three(members, *how):
        made.append(len(members))
        if len(members) == 3:
            raise RuntimeError("not three")
        return build(members, *how)

    monkeypatch.setattr(engine, "build_program", refuse_three)
    recipe = [make_settings(epochs=3, lr=lr) for lr in (0.01, 0.02, 0.03)]
    unbroken, broken = trials(*recipe), trials(*recipe)
    whole = unbroken.run()
    parts = [broken.run(kill=epoch_of(*moment)), broken.run()]
    assert set(made) == {3}
    assert rows(*parts) == rows(whole)
    assert broken.results() == unbroken.results()


def test_lanes_that_trained_alone_share_a_program_again_where_packs_are_not_settled(
    trials, make_settings, monkeypatch
):
    from gridsearch.training.lanes.runtime import engine

    broken = trials(*(make_settings(epochs=4, lr=lr) for lr in (0.01, 0.02)), settled=False)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "ENGINES", (SoloEngine(),))
        broken.run(kill=epoch_of(0, 3))
    groups = []
    build = engine.build_program
    monkeypatch.setattr(
        engine, "build_program", lambda members, *how: groups.append(len(members)) or build(members, *how)
    )
    rest = broken.run()
    assert [e.epoch for e in rest if isinstance(e, TrialResumed)] == [2, 0]
    assert groups == [2]
    assert {n: end.epochs for n, end in outcome(rest).items()} == {0: 4, 1: 4}


def test_a_module_that_keeps_state_beside_its_tensors_begins_again(trials, make_settings, caplog):
    recipe = make_settings(epochs=4)
    unbroken, broken = (trials(recipe, build=lambda s, d: Counting()) for _ in range(2))
    whole = unbroken.run()
    first = broken.run(kill=epoch_of(0, 3))
    assert checkpoints_in(broken.folder / "0" / ".attempt-1") == []
    assert set(caplog.messages) == {"trial 0 has no checkpoint: its model keeps state beside its tensors"}
    rest = broken.run()
    assert [e.epoch for e in rest if isinstance(e, TrialResumed)] == [0]
    assert rows(first, rest) == rows(whole)
    assert broken.results() == unbroken.results()


def test_who_was_paused_cannot_touch_the_checkpoints_of_its_successor(trials, make_settings):
    recipe = mixed(make_settings)
    unbroken, broken = trials(*recipe), trials(*recipe)
    unbroken.run()
    later = []

    def paused(event):
        if epoch_of(0, 3)(event) and not later:
            later.append(broken.run())  # another worker has taken over meanwhile, and comes to its end
        return False

    broken.run(kill=paused)
    assert {e.epoch for e in later[0] if isinstance(e, TrialResumed)} == {0, 2}
    for number in ("0", "1", "2", "4"):
        for name in ("weights.safetensors", "predictions.safetensors"):
            ours = broken.folder / number / ".attempt-2" / name
            assert ours.read_bytes() == unbroken.results()[f"{number}/{name}"]


def test_asked_to_leave_a_pack_is_left_at_the_end_of_its_epoch_with_a_checkpoint(trials, make_settings):
    asked = []
    broken = trials(*mixed(make_settings), interval=3600.0)
    events = broken.run(kill=asked.append, leave=lambda: len(asked) > 7)
    left = {(e.trial, e.epoch) for e in events if isinstance(e, EpochEnded)}
    rest = broken.run()
    resumed = {e.trial: e.epoch for e in rest if isinstance(e, TrialResumed)}
    assert resumed == {n: max((epoch for trial, epoch in left if trial == n), default=0) for n in range(5)}
    assert max(resumed.values()) == 2


def test_without_checkpoints_nothing_is_written(trials, make_settings):
    broken = trials(*mixed(make_settings), interval=None)
    broken.run(kill=epoch_of(0, 4))
    assert list(broken.folder.rglob("checkpoint*")) == []


def test_where_packs_are_not_settled_each_lane_goes_on_from_its_newest(trials, make_settings):
    broken = trials(*mixed(make_settings), settled=False)
    broken.run(kill=epoch_of(0, 4))
    for file in checkpoints_in(broken.folder / "2" / ".attempt-1")[:1]:
        file.path.write_bytes(b"damaged")
    rest = broken.run()
    resumed = {e.trial: e.epoch for e in rest if isinstance(e, TrialResumed)}
    assert resumed == {0: 3, 1: 1, 2: 2, 3: 0, 4: 3}
    ends = outcome(rest)
    assert {n: end.epochs for n, end in ends.items()} == {0: 5, 1: 2, 2: 5, 3: 0, 4: 7}
