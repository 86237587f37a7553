"""Each schedule equals torch's own scheduler at every step, and keeps within its bounds at any length."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from gridsearch.training.schedules import SCHEDULES, Schedule


def torch_factors(make, total: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    factors = []
    for _ in range(total):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


def factors(kind: str, total: int, warm: int = 0) -> list[float]:
    schedule = Schedule(kind=kind, total=total, warm=warm)
    return [schedule.factor(step) for step in range(total)]


@pytest.mark.parametrize("total", [4, 10, 97])
def test_step_is_torch_s_multi_step_at_half_and_three_quarters(total):
    milestones = [-(-total // 2), -(-3 * total // 4)]
    expected = torch_factors(lambda o: lr_scheduler.MultiStepLR(o, milestones), total)
    assert factors("step", total) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("total", [1, 4, 97])
def test_cosine_is_torch_s_cosine_annealing(total):
    expected = torch_factors(lambda o: lr_scheduler.CosineAnnealingLR(o, total), total)
    assert factors("cosine", total) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("total", [4, 10, 97])
def test_onecycle_is_torch_s_one_cycle(total):
    expected = torch_factors(
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=total, cycle_momentum=False), total
    )
    assert factors("onecycle", total) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_onecycle_with_warm_up_rises_for_that_long():
    expected = torch_factors(
        lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=50, pct_start=0.1, cycle_momentum=False), 50
    )
    assert factors("onecycle", 50, warm=5) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "then"),
    [
        ("constant", lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        ("cosine", lambda o: lr_scheduler.CosineAnnealingLR(o, 40)),
    ],
)
def test_warm_up_is_torch_s_linear_rise_before_the_schedule(kind, then):
    def chained(optimizer):
        rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / 10, total_iters=9)
        return lr_scheduler.SequentialLR(optimizer, [rise, then(optimizer)], milestones=[10])

    assert factors(kind, 50, warm=10) == pytest.approx(torch_factors(chained, 50), rel=1e-9, abs=1e-12)


@given(kind=st.sampled_from(SCHEDULES), total=st.integers(1, 500), data=st.data())
def test_a_factor_is_within_0_and_1_at_any_length(kind, total, data):
    warm = data.draw(st.integers(0, total))
    found = factors(kind, total, warm)
    assert all(0 <= factor <= 1 + 1e-12 for factor in found)
    assert found[0] > 0
    if kind == "constant":
        assert found == sorted(found)


@given(epochs=st.integers(1, 20), steps=st.integers(1, 50), warmup=st.floats(0, 40))
def test_warm_up_counts_in_epochs_and_never_exceeds_the_run(epochs, steps, warmup):
    schedule = Schedule.of("constant", epochs=epochs, steps_per_epoch=steps, warmup=warmup)
    assert schedule.total == epochs * steps
    assert schedule.warm == min(schedule.total, round(warmup * steps))
    assert schedule.moves == (schedule.warm > 0)


def test_a_constant_schedule_without_warm_up_never_moves():
    assert not Schedule(kind="constant", total=9).moves
    assert factors("constant", 9) == [1.0] * 9
