"""The peers of the benchmark do the same work: one split, every image once an epoch, equally many steps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from gridsearch.training.splits import split
from tests.benchmarks.arithmetic import training_flops
from tests.benchmarks.peer_loops import Point, Work, loader_epochs, points, resident_epochs, train

LOOPS = [loader_epochs, resident_epochs]


@pytest.fixture
def work() -> Work:
    """60 images that can be told apart: two pixels hold the image's number."""
    images = np.zeros((60, 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(60)
    images[:, 14, 14] = np.arange(60)
    return Work.of(images, np.arange(60) % 10, epochs=2, subset=31)


@pytest.fixture
def seen():
    """How often each image came to a network, (in training, in evaluation), by its number."""
    counts = (Counter(), Counter())

    def note(module, inputs):
        if isinstance(module, torch.nn.Sequential):
            numbers = inputs[0][:, 0, 0, 0].mul(255).round().int().tolist()
            counts[0 if module.training else 1].update(numbers)

    handle = register_module_forward_pre_hook(note)
    yield counts
    handle.remove()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_trains_on_every_training_image_once_an_epoch_and_ranks_on_the_held_out_ones(loop, work, seen):
    outcome = train(loop, work, Point(batch=10, lr=0.01, norm="none"))
    expected = split(work.labels, val=1 / 6, split_seed=0, subset=31)
    assert seen[0] == dict.fromkeys(expected.train.tolist(), 2)
    assert seen[1] == dict.fromkeys(expected.val.tolist(), 2)
    assert outcome.steps == work.steps(outcome.point) == 2 * 4
    assert outcome.validated == 2 * len(expected.val)


@pytest.mark.parametrize("norm", ["none", "standard"])
def test_the_loops_feed_their_networks_the_same_numbers(norm, work):
    inputs = []

    def note(module, given):
        if isinstance(module, torch.nn.Sequential) and not module.training:
            inputs.append(given[0].clone())

    handle = register_module_forward_pre_hook(note)
    try:
        for loop in LOOPS:
            train(loop, work, Point(batch=50, lr=0.001, norm=norm))
    finally:
        handle.remove()
    torch.testing.assert_close(inputs[0], inputs[2])


def test_skorch_makes_as_many_steps_on_the_same_images(work, seen, tmp_path, monkeypatch):
    pytest.importorskip("skorch")
    from tests.benchmarks import peer_programs
    from tests.benchmarks.peer_loops import Outcome

    monkeypatch.setattr(peer_programs.Work, "load", lambda **_: work)
    monkeypatch.setattr(peer_programs, "PROCESSES", 1)
    monkeypatch.setattr(peer_programs, "NORMS", ("none",))
    monkeypatch.setattr(peer_programs, "GRID", {"batch": [10], "lr": [0.01]})
    peer_programs.skorch_search(tmp_path, epochs=2, subset=31)
    (outcome,) = Outcome.read_all(tmp_path)
    assert outcome.steps == work.steps(outcome.point)
    assert seen[0] == dict.fromkeys(work.split.train.tolist(), 2)
    assert seen[1] == dict.fromkeys(work.split.val.tolist(), 1)


def test_the_grid_has_its_sixteen_points_the_longest_first():
    batches = [point.batch for point in points()]
    assert len(set(points())) == 16
    assert batches == sorted(batches)


def test_a_lenets_training_flops_are_those_of_its_shapes():
    first = 2 * 6 * 25 * 24 * 24  # forward and the gradient of its weights, none for the images
    rest = 2 * 12 * 6 * 25 * 8 * 8 + 2 * (192 * 120 + 120 * 60 + 60 * 10)
    assert training_flops(10) == 2 * first + 3 * rest
