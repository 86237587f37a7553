"""What a session has put into installed modules is found, whatever it is, and nothing else is taken for such."""

from __future__ import annotations

import functools
import importlib
import inspect
import statistics
import sys

import pytest
import torch
from torch import nn

from gridsearch import plugins
from gridsearch.plugins.patched import patched, patched_everywhere
from tests.plugins.addresses import address, made

HEAD = "import functools, statistics, torch\nfrom torch import nn\nimport torch.nn.functional as F\n"


class Mine(nn.Module):
    def forward(self, x):
        return x * 2


PUT = {
    "an installed class": (nn, "ReLU", nn.GELU, "nn.ReLU()"),
    "a class of one's own": (nn, "ReLU", Mine, "nn.ReLU()"),
    "a class with arguments": (
        nn,
        "BatchNorm2d",
        functools.partial(nn.BatchNorm2d, eps=1),
        "nn.BatchNorm2d(2)",
    ),
    "a built-in function": (nn.functional, "relu", nn.functional.gelu, "F.relu(p)"),
    "a function": (statistics, "mean", statistics.fmean, "statistics.mean([1])"),
    "a method": (nn.Dropout, "forward", nn.GELU.forward, "nn.Dropout"),
    "an object": (statistics, "mean", Mine(), "statistics.mean([1])"),
    "a name that is not there": (statistics, "best", functools.partial(max, 1), "statistics.best(0)"),
}


@pytest.mark.parametrize("owner, name, value, call", PUT.values(), ids=PUT)
def test_what_stands_in_place_of_something_installed_is_in_the_address(owner, name, value, call, monkeypatch):
    code = f"{HEAD}def g(p): return {call}\ndef f(p, s): return g(p)"
    before = address(made(code))
    assert not plugins.identity(made(code)).bound
    monkeypatch.setattr(owner, name, value, raising=False)
    found = plugins.identity(made(code))
    assert found.source != before
    assert f".{name}, which this session has replaced" in found.bound[0]


def test_what_networks_are_made_of_counts_though_no_code_names_it(monkeypatch):
    code = "from timm import create_model\ndef f(p, s): return create_model('resnet18')"
    before = address(made(code))
    monkeypatch.setattr(nn, "ReLU", Mine)
    assert address(made(code)) != before
    monkeypatch.undo()
    monkeypatch.setattr(nn.Conv2d, "forward", Mine.forward)
    assert address(made(code)) != before
    monkeypatch.undo()
    assert address(made(code)) == before


def test_a_method_of_an_installed_base_counts(monkeypatch):
    code = "import json\nclass E(json.JSONEncoder): pass\ndef f(p, s): return E().encode(p)"
    before = address(made(code))
    monkeypatch.setattr(importlib.import_module("json").JSONEncoder, "default", Mine.forward)
    assert address(made(code)) != before


def test_a_module_whose_installed_modules_the_session_has_changed_runs_by_value(tmp_path, monkeypatch):
    (tmp_path / "fit_means.py").write_text(
        "import statistics\ndef g(): return statistics.mean([1, 2])\ndef f(params, seed): return {'y': g()}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("fit_means")
    before = plugins.identity(module.f)
    assert before.locator == "fit_means:f"
    monkeypatch.setattr(statistics, "mean", lambda values: 9)
    after = plugins.identity(module.f)
    assert (after.locator, after.bound) == ("", ("uses statistics.mean, which this session has replaced",))
    assert after.source != before.source
    del sys.modules["fit_means"]


def test_what_a_module_replaces_when_it_is_imported_is_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "mean", statistics.mean)
    (tmp_path / "fit_own_means.py").write_text(
        "import statistics\ndef mine(values): return 9\nstatistics.mean = mine\n"
        "def f(params, seed): return {'y': statistics.mean([1, 2])}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("fit_own_means")
    assert plugins.identity(module.f).locator == "fit_own_means:f", "a worker that imports it does the same"
    del sys.modules["fit_own_means"]


@pytest.mark.parametrize(
    "module", ["torch", "torch.nn", "torch.nn.functional", "numpy", "pandas", "timm.layers"]
)
def test_nothing_of_an_installed_module_is_taken_for_the_sessions(module):
    found = importlib.import_module(module)
    names = [
        name for name, value in vars(found).items() if name.isidentifier() and not inspect.ismodule(value)
    ]
    body = "\n".join(f" m.{name}" for name in names)
    assert patched(made(f"def f(p, s):\n{body}", m=found)) == {}


def test_nothing_in_the_modules_of_networks_is_the_users_own():
    assert torch.nn.ReLU.__name__ == "ReLU"
    assert patched_everywhere() == {}
