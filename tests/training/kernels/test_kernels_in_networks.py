"""Where a pack's network gets compiled kernels: with a compiler alone, and with one that computes the same."""

from __future__ import annotations

import copy
import logging
import shutil

import pytest
import torch
from torch import nn

from gridsearch.training.kernels import compiler, describe
from gridsearch.training.lanes.compile.lane_values import SAMPLE, Form
from gridsearch.training.lanes.compile.network import StackedNetwork
from gridsearch.training.lanes.compile.network_choice import choose
from gridsearch.training.lanes.runtime.products import PooledConv
from gridsearch.training.precision import Precision
from gridsearch.zoo import models
from tests.training.compilers import needs_compiler, wrapped


def lenets(lanes=2):
    torch.manual_seed(0)
    return [models.lenet(1, 10, (28, 28)) for _ in range(lanes)]


def kernels_of(network):
    assert isinstance(network, StackedNetwork)
    steps = [step[0] for stage in network._graphs.values() for step in stage.instructions]
    return sum(isinstance(step, PooledConv) for step in steps)


def chosen(**how):
    precision = Precision.of("float32", torch.device("cpu"))
    return choose(lenets(), torch.rand(SAMPLE, 1, 28, 28), precision, **how)[0]


@needs_compiler
def test_a_pack_of_lenets_has_two_kernels_in_each_form_and_mode():
    assert kernels_of(chosen(compiles=True)) == 8
    assert kernels_of(chosen()) == 0  # recordings would not see them


def test_without_a_compiler_the_network_is_torchs(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    assert describe() == "no C compiler: torch computes everything"
    assert kernels_of(chosen(compiles=True)) == 0


def test_kernels_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_KERNELS", "off")
    assert describe() == "off: torch computes everything"
    assert kernels_of(chosen(compiles=True)) == 0


@needs_compiler
def test_with_and_without_are_the_same_numbers(monkeypatch):
    x = torch.rand(7, 1, 28, 28)
    ours = chosen(compiles=True)(x, Form.SHARED, training=False)
    theirs = chosen()(x, Form.SHARED, training=False)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_a_kernel_that_computes_something_else_is_found_out(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CC", wrapped(tmp_path, "-URELU", "-DRELU=0"))
    with caplog.at_level(logging.WARNING):
        assert kernels_of(chosen(compiles=True)) == 0
    assert "does not agree with the model itself" in caplog.text


@needs_compiler
def test_what_was_found_out_leaves_no_trace(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", wrapped(tmp_path, "-URELU", "-DRELU=0"))
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 4, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(36, 10),
    )
    built = [copy.deepcopy(nn.Sequential(*layers)) for _ in range(2)]
    precision = Precision.of("float32", torch.device("cpu"))
    network, storage = choose(built, torch.rand(SAMPLE, 1, 8, 8), precision, compiles=True)
    assert (network.method, network.reason) == ("stacked", "")
    assert kernels_of(network) == 0
    assert torch.equal(storage.tensors["3.running_mean"], torch.zeros(2, 4))


@pytest.mark.parametrize("cc", [" ", "gcc '", "/nowhere/cc", "-O2"])
def test_whatever_cc_says_is_no_error(cc, monkeypatch, tmp_path):
    """Blanks alone are no wish; of the others none is a compiler."""
    monkeypatch.setenv("CC", cc)
    found = compiler.find_compiler()
    assert (found is None) == bool(cc.strip()) or not any(map(shutil.which, ("cc", "gcc", "clang")))
    assert ("compiled by" in describe()) == (found is not None)


@needs_compiler
def test_a_compiler_that_fails_is_said_once_and_torch_goes_on(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CC", wrapped(tmp_path, "-Dfloat=nothing_known"))
    with caplog.at_level(logging.WARNING):
        assert kernels_of(chosen(compiles=True)) == 0
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 3  # two convolutions, and the dense layers
    assert all("nothing_known" in line and "\n" not in line for line in said)
