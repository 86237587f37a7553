"""Why a network has no ONNX graph is told in words about the network."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from gridsearch.training.export import _translate
from gridsearch.training.onnx_errors import why_no_graph


class NoSuchOperation(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x.flatten(1)[:, :2])


class Raises(nn.Module):
    def forward(self, x):
        if torch.compiler.is_exporting() or type(x) is not torch.Tensor:
            raise RuntimeError("not for export")
        return x.flatten(1)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (NoSuchOperation, "ONNX has nothing for its operation prims.bessel_j0"),
        (Raises, "RuntimeError: not for export (test_untranslatable.py, line "),
    ],
)
def test_the_reason_is_about_the_network_and_not_about_the_exporters_steps(network, words, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Exception, match="Failed to") as caught:
            _translate(network(), torch.rand(2, 1, 4, 4))
    why = why_no_graph(caught.value)
    assert why.startswith(words)
    assert "step" not in why
    assert "\x1b" not in why


def test_of_a_chain_of_errors_the_innermost_tells_once():
    inner = ValueError("too  long\nand more")
    outer = RuntimeError("outer")
    outer.__cause__ = inner
    inner.__cause__ = outer  # a ring, which ends all the same
    assert why_no_graph(outer) == "ValueError: too long"
    assert why_no_graph(ValueError("")) == "ValueError: no reason was given"
