"""Networks that nobody wrote: whatever is drawn, a pack gives what a plain loop gives.

float64, to 1e-9 in losses and logits, relative to the largest.  The loop is `plain_loop`'s and shares nothing with
the product but the names of the streams.  `GRIDSEARCH_NETWORKS=2000 pytest tests/training/lanes/test_random_networks.py` draws
so many, those aside that make any rounding large; every run draws two dozens, always the same ones.
"""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from gridsearch.training.lanes.compile.lane_values import NotPackable
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram
from tests.training.conftest import images_of, settings_of
from tests.training.plain_loop import train_plainly
from tests.training.random_networks import Network, recipes

pytestmark = pytest.mark.thorough

COUNT = int(os.environ.get("GRIDSEARCH_NETWORKS", "24"))
EPOCHS = 2
CPU = torch.device("cpu")
COMMON = {"dtype": "float64", "optimizer": "sgd", "batch": 6, "epochs": EPOCHS}
LANES = (
    settings_of(**COMMON, lr=0.05, momentum=0.9),
    settings_of(**COMMON, lr=0.02, weight_decay=0.01, norm="none", label_smoothing=0.1),
)
SIZE, CHANNELS = 7, 2
IMAGES = images_of(22, size=SIZE, channels=CHANNELS)  # 18 to train on
DATA = ResidentCache(IMAGES, device="cpu")(LANES[0])


def trained(build, seeds):
    """Train both lanes, as a pack if they can be one; return the method, their losses, logits and val losses."""
    precision = Precision.of("float64", CPU)
    models = [build_network(s, seed, DATA, build, precision) for s, seed in zip(LANES, seeds, strict=True)]
    try:
        pack = PackProgram(
            [Member(s, seed) for s, seed in zip(LANES, seeds, strict=True)], models, DATA, precision
        )
    except NotPackable:
        found = []
        for s, seed in zip(LANES, seeds, strict=True):
            solo = SoloProgram(s, seed, DATA, build, precision)
            epochs = [(solo.train_epoch(e).loss, solo.evaluate(e)) for e in range(1, EPOCHS + 1)]
            found.append(([loss for loss, _ in epochs], epochs[-1][1].logits))
        return "solo", found
    epochs = [([t.loss for t in pack.train_epoch()], pack.evaluate()) for _ in range(EPOCHS)]
    lanes = [([losses[k] for losses, _ in epochs], epochs[-1][1][k].logits) for k in range(2)]
    return pack.network.method, lanes


def hold(recipe, seeds):
    """Compare a network's lanes with plain loops."""

    def make():
        return Network(recipe, CHANNELS, SIZE, 3)

    try:
        plain = [train_plainly(make, s, seed, IMAGES) for s, seed in zip(LANES, seeds, strict=True)]
    except (RuntimeError, ValueError):  # sizes that do not go together, a norm over one value
        assume(False)
    assume(all(torch.isfinite(p.logits).all() and p.logits.abs().max() < 1e3 for p in plain))
    method, lanes = trained(lambda *_: make(), seeds)
    event(method)
    for k, (losses, logits) in enumerate(lanes):
        gap = distance(losses, logits, plain[k])
        if gap >= 1e-9:  # a norm of what is nearly nothing makes any rounding large, whoever computes
            nudged = train_plainly(make, LANES[k], seeds[k], IMAGES, nudge=torch.finfo(torch.float64).eps)
            assume(distance(nudged.losses, nudged.logits, plain[k]) < gap / 30)
        assert gap < 1e-9, method


def distance(losses, logits, plain):
    """How far losses and logits are from a plain loop's, as a share of the largest."""
    apart = max(abs(a - b) / (1 + abs(b)) for a, b in zip(losses, plain.losses, strict=True))
    largest = max(1, plain.logits.abs().max().item())
    return max(apart, (logits - plain.logits).abs().max().item() / largest)


@pytest.mark.timeout(0 if COUNT > 100 else 600)
@settings(
    max_examples=COUNT,
    deadline=None,
    derandomize=COUNT < 100,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(recipe=recipes, seeds=st.sampled_from([(0, 0), (0, 1)]))
def test_a_pack_of_a_network_drawn_at_random_gives_what_a_plain_loop_gives(recipe, seeds):
    hold(recipe, seeds)
