"""Transposed convolutions as compiled operations, each called alone: torch's results and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels import families
from gridsearch.training.kernels.stages import Conv, Transposed
from tests.training.compilers import needs_compiler
from tests.training.kernels.op_calls import drawn, hold_against

pytestmark = needs_compiler

IMAGES = 19


def pair(side):
    return side if isinstance(side, tuple) else (side, side)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "stride", "padding", "dilation", "groups", "more"),
    [
        (5, 3, 2, 2, 0, 1, 1, 0),
        (3, 20, 3, 2, 1, 1, 1, 1),
        (4, 6, 4, 2, 1, 1, 2, 0),
        (6, 6, 3, 1, 0, 2, 6, 0),
        (8, 1, (1, 3), (1, 2), (0, 1), 1, 1, (0, 1)),
        (2, 3, 2, 3, 0, 1, 1, 2),  # of some pixels the bias is all
        (17, 16, 3, 1, 1, 1, 1, 0),
    ],
)
def test_a_transposed_convolution_is_torchs(  # noqa: PLR0917  (a case, each by its name)
    channels, outputs, kernel, stride, padding, dilation, groups, more, dtype
):
    how = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation), "groups": groups}
    x, w = (
        drawn(IMAGES, channels, 4, 3, dtype=dtype),
        drawn(channels, outputs // groups, *pair(kernel), dtype=dtype),
    )

    def layer(x, w, bias=None):
        return F.conv_transpose2d(x, w, bias, output_padding=pair(more), **how)

    near = 1e-10 if dtype == torch.float64 else 2e-5
    for params in ([w, drawn(outputs, dtype=dtype)], [w]):
        conv = Conv(outputs, channels, pair(kernel), **how, bias=len(params) > 1)
        stage = Transposed(conv, tuple(layer(x, w).shape[2:]))
        op, covered = families.cover(
            [stage], tuple(x.shape[1:]), dtype, images=IMAGES, input_grad=True, bf16=False
        )
        assert covered == 1
        for adds in (False, True):
            hold_against(op, [x], layer, params, adds=adds, near=near)
