"""Where compiled steps may be slower than the module, both are timed, and the faster one trains."""

from __future__ import annotations

from torch import nn

from gridsearch.training.lanes.runtime import plan_choice
from tests.training.lanes.runtime.test_planned_steps import pack, recipes, residual_net, same_bits, state_of


def test_a_network_that_trains_faster_as_it_is_has_no_plan_where_batches_leave_vectors_empty(
    make_settings, make_images, monkeypatch
):
    asked = []

    def choice(key, forms):
        asked.append(key)
        for call in (*forms().values(), *forms().values()):
            call()
        return plan_choice.MODULE

    monkeypatch.setattr(plan_choice, "kept_choice", choice)
    settings, data = recipes(make_settings, batch=9), make_images(58)
    theirs = pack(settings, data, residual_net, planned=False)
    assert not asked
    ours = pack(settings, data, residual_net, planned=None)
    assert not ours.planned
    (key,) = asked
    assert "9 images, float64" in key
    for _ in range(2):  # what was measured has left nothing
        assert all(same_bits(state_of(ours, slot), state_of(theirs, slot)) for slot in range(3))
        assert ours.train_epoch() == theirs.train_epoch()
    assert pack(recipes(make_settings, batch=16), data, residual_net).planned
    assert len(asked) == 1


def wide_net(width):
    """Return what builds a network whose wide layer sees four pixels."""

    def build(settings, data):
        del settings
        layers = (
            nn.Conv2d(data.channels, width, 3, padding=1),
            nn.AdaptiveMaxPool2d(2),
            nn.Conv2d(width, width, 1),
        )
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width, data.num_classes))

    return build


def test_a_network_of_wide_layers_on_few_pixels_has_no_plan_where_it_trains_faster_as_it_is(
    make_settings, make_images, monkeypatch
):
    asked = []

    def choice(key, forms):
        del forms
        asked.append(key)
        return plan_choice.MODULE

    monkeypatch.setattr(plan_choice, "kept_choice", choice)
    settings, data = recipes(make_settings, batch=16)[:1], make_images(58)
    assert pack(settings, data, wide_net(64), planned=None).planned
    assert not asked
    assert not pack(settings, data, wide_net(1024), planned=None).planned
    (key,) = asked
    assert "16 images, float64" in key
    many = recipes(make_settings, batch=128)[:1]
    assert pack(many, make_images(300), wide_net(1024), planned=None).planned
    assert len(asked) == 1
