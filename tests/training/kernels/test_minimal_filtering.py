"""Convolutions by minimal filtering, pass by pass, against torch."""

from __future__ import annotations

import pytest
import torch

from gridsearch.training.kernels.batch_inner import cover
from gridsearch.training.kernels.minimal_filtering import PASSES
from gridsearch.training.kernels.op import vector_numbers
from gridsearch.training.kernels.stages import Add, BatchNorm, Conv, Relu
from tests.training.compilers import needs_compiler
from tests.training.kernels.maps_by_torch import HALVES, check, conv, drawn, errors
from tests.training.kernels.op_calls import call

pytestmark = needs_compiler

FILTERED = {
    "odd sides": ([conv(5, 7, 3, padding=1), Relu()], (5, 7, 5)),
    "even sides": ([conv(17, 33, 3), HALVES, Relu()], (17, 8, 6)),
    "one patch": ([conv(3, 4, 3)], (3, 3, 3)),
    "padded by two": ([Conv(2, 35, (3, 3), padding=(2, 0))], (2, 3, 9)),
    "many patches": ([conv(16, 16, 3, 1, 1), BatchNorm(16), Add(), Relu()], (16, 15, 16)),
}


@pytest.mark.parametrize("form", FILTERED)
def test_minimal_filtering_gives_what_torch_gives(form):
    v = vector_numbers(torch.float64)
    stages, shape = FILTERED[form]
    for images, adds in ((v - 1, False), (2 * v + 3, True)):
        check(stages, shape, images, tolerance=1e-12, adds=adds, filtered=PASSES)


@pytest.mark.parametrize("alone", PASSES)
def test_each_pass_of_a_convolution_may_be_filtered_alone(alone):
    stages, shape = FILTERED["odd sides"]
    check(stages, shape, 11, tolerance=1e-12, filtered={alone})


def test_minimal_filtering_is_exact_to_a_millionth_in_single_precision():
    case = conv(32, 32, 3, 1, 1), (32, 10, 10), 32
    taps, filtered = (errors(*case, filtered=each) for each in ((), PASSES))
    for by_taps, minimal in zip(taps, filtered, strict=True):
        assert minimal < 6 * by_taps and minimal < 1e-6


AMPLIFIED = 5.14
"""By what F(4x4, 3x3) amplifies independent relative errors at its points: with the rows a of A', b of B' and g of G the
root of the mean of sum(a^2 |b|^2 |g|^2) / 3, for each of two dimensions; the same for all three passes."""


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize(("channels", "outputs"), [(32, 32), (33, 19), (5, 40)])
def test_filtering_in_bfloat16_amplifies_its_rounding_as_derived(channels, outputs):
    case = conv(channels, outputs, 3, 1, 1), (channels, 9, 12), 33
    taps, filtered = (errors(*case, filtered=each, bf16=True)[:3] for each in ((), PASSES))  # not the bias
    for by_taps, minimal in zip(taps, filtered, strict=True):
        assert 1e-3 < by_taps < 2**-8  # two numbers, each rounded by 2^-9 at most
        assert 0.8 * AMPLIFIED < minimal / by_taps < 1.2 * AMPLIFIED


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("form", FILTERED)
def test_each_form_is_filtered_in_bfloat16_pass_by_pass(form):
    stage, shape = FILTERED[form][0][0], FILTERED[form][1]
    for alone, own in zip(PASSES, (0, 1, 2), strict=True):
        found = errors(stage, shape, 21, filtered={alone}, bf16=True)[:3]
        assert all(error < 2**-8 for i, error in enumerate(found) if i != own)
        assert 2**-8 < found[own] < 2 * AMPLIFIED * 2**-8


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("bf16", [False, True])
def test_a_filtered_image_is_the_same_whatever_lies_beside_it(bf16):
    stages, shape = FILTERED["odd sides"]
    op, _ = cover(stages, shape, torch.float32, bf16=bf16, filtered=PASSES)
    xs, params, _, result = drawn(stages, shape, 20, torch.float32)
    gy = torch.randn(20, *result)
    first = call(op, xs, result, params, gy=gy)
    xs[0][3], gy[3] = float("nan"), float("inf")
    second = call(op, xs, result, params, gy=gy)
    others = [i for i in range(20) if i != 3]
    assert torch.equal(first.y[others], second.y[others])
    assert torch.equal(first.gx[0][others], second.gx[0][others])
    assert second.y[3].isnan().any()
