"""Weights in the order in which products read them, and tiles with the pixels of two blocks, against torch."""

from __future__ import annotations

import pytest
import torch

from gridsearch.training.kernels.batch_inner import cover
from gridsearch.training.kernels.op import vector_numbers
from tests.training.compilers import needs_compiler
from tests.training.kernels.maps_by_torch import HALVES, check, conv, drawn, errors
from tests.training.kernels.op_calls import call

pytestmark = needs_compiler

PACKED = {
    "many taps": ([conv(11, 13, 5, padding=2)], (11, 6, 5)),
    "some taps of many": ([conv(12, 25, 7, padding=3)], (12, 2, 3)),
    "one tap of many": ([conv(21, 31, 3, padding=1)], (21, 1, 1)),
    "in groups": ([conv(36, 27, 3, groups=3)], (36, 4, 4)),
    "pointwise": ([conv(51, 50, 1)], (51, 2, 2)),
    "pointwise, of full vectors": ([conv(64, 48, 1)], (64, 2, 2)),
    "of full vectors": ([conv(32, 48, 3, padding=1)], (32, 2, 2)),
    "of a few": ([conv(3, 5, 3), HALVES], (3, 6, 6)),
}


@pytest.mark.parametrize("form", PACKED)
def test_weights_are_packed_in_vectors_as_torch_reads_them(form):
    stages, shape = PACKED[form]
    check(stages, shape, 2 * vector_numbers(torch.float32) + 3, torch.float32, 1e-5, adds=True)


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("form", PACKED)
def test_weights_are_packed_in_pairs_for_products_of_bfloat16(form):
    (stage, *_), shape = PACKED[form]
    found = errors(stage, shape, 2 * vector_numbers(torch.float32) + 3, filtered=(), bf16=True)
    assert all(error < 2**-8 for error in found)


@pytest.mark.parametrize(
    ("form", "paired"), [("one tap of many", True), ("many taps", True), ("of a few", False)]
)
def test_an_image_is_the_same_whether_its_block_has_another_beside_it(form, paired):
    stages, shape = PACKED[form]
    op, _ = cover(stages, shape, torch.float32)
    assert bool(op._shapes.sums.pairs) == paired
    v = vector_numbers(torch.float32)
    xs, params, _, result = drawn(stages, shape, 3 * v, torch.float32)
    gy = torch.randn(3 * v, *result)
    whole = call(op, xs, result, params, gy=gy)
    for block in torch.arange(3 * v).split(v):
        alone = call(op, [x[block] for x in xs], result, params, gy=gy[block])
        assert torch.equal(alone.y, whole.y[block]) and torch.equal(alone.gx[0], whole.gx[0][block])
