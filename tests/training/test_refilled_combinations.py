"""Trials of random settings that take the places of others in a pack get the numbers that they get alone."""

from __future__ import annotations

import random

import pytest

from gridsearch.records import EpochEnded, Lane, Pack, Trial, TrialFailed, TrialState
from gridsearch.training import loop
from gridsearch.training.context import TrainContext
from gridsearch.training.own_code import OwnCode
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo_engine import SoloEngine
from tests.training.conftest import conv_net, dense_net
from tests.training.killed_trials import Cumulative
from tests.training.test_killed_combinations import Noisy, draw, speckled

NETS = (("conv", conv_net), ("conv", conv_net), ("dense", dense_net), ("vmap", lambda s, d: Cumulative()))


def trained(recipe, places, *, images, build, own, folder):
    """Train trials in so many places of a pack, the others where one is left; return each one's rows."""
    waiting = [
        Lane(
            Trial(id=i, number=i, key=f"key{i}", seed=seed, settings=s, params={}, state=TrialState.RUNNING),
            str(folder / str(i)),
        )
        for i, (s, seed) in enumerate(recipe)
    ]
    for lane in waiting:
        (folder / str(lane.trial.id)).mkdir(parents=True)
    first, waiting = waiting[:places], waiting[places:]
    rows = {i: [] for i in range(len(recipe))}
    ended = []

    def take(event):
        if isinstance(event, EpochEnded):
            found = (event.train_loss, event.val_loss, event.train_accuracy, event.val_accuracy)
            rows[event.trial].append([value for value in found if value is not None])
        ended.extend([event] * isinstance(event, TrialFailed))

    def more(count):
        given = waiting[:count]
        del waiting[:count]
        return given

    data = ResidentCache(images, device="cpu")
    while first:
        context = TrainContext(
            data=data,
            build=build,
            device="cpu",
            more=more,
            own=lambda _: own,
        )
        loop.train_pack(Pack("pack", tuple(first)), context, emit=take)
        first = more(places)  # a pack that falls apart asks for no more
    assert not ended
    return rows


# 34 caught a rate of dropout that was another lane's.
@pytest.mark.parametrize("number", [*range(7), 34])
def test_a_trial_that_takes_the_place_of_another_gets_its_own_numbers(
    tmp_path, make_settings, make_images, monkeypatch, number
):
    chance = random.Random(f"refilled {number}")
    name, build = chance.choice(NETS)
    recipe = draw(chance, make_settings, dropout=name == "conv", lanes=6, dtype="float64")
    own = OwnCode(
        speckled if ":" in recipe[0][0].augment else None, Noisy if ":" in recipe[0][0].optimizer else None
    )
    how = {"build": build, "own": own, "images": make_images(learnable=True)}
    together = trained(recipe, chance.randint(2, 4), folder=tmp_path / "together", **how)
    monkeypatch.setattr(loop, "ENGINES", (SoloEngine(),))
    alone = trained(recipe, 1, folder=tmp_path / "alone", **how)
    for i, (settings, _) in enumerate(recipe):
        assert len(together[i]) == len(alone[i]), settings
        for ours, theirs in zip(together[i], alone[i], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-6, nan_ok=True), settings
