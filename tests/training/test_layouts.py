"""In which layout in memory a model trains: not in one in which torch's library writes outside of its memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gridsearch.training.model_setup import pays_channels_last
from gridsearch.training.precision import Precision

FLOAT32 = Precision.of("float32", torch.device("cpu"))


@pytest.mark.parametrize(
    ("layer", "pays"),
    [
        (nn.Conv2d(3, 8, 1, stride=2), False),
        (nn.Conv2d(30, 8, 1, stride=(1, 2), groups=2), False),
        (nn.Conv2d(3, 8, 1), True),
        (nn.Conv2d(16, 8, 1, stride=2), True),
        (nn.Conv2d(3, 8, 3, stride=2), True),
        (nn.Linear(3, 8), False),
    ],
    ids=str,
)
def test_no_model_is_laid_out_so_that_a_backward_pass_overruns_its_memory(layer, pays):
    assert pays_channels_last(nn.Sequential(layer, nn.ReLU()), FLOAT32) is pays
