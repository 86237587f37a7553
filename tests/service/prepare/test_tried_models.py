"""A model of the user's own that gives no logits is refused before anything is written; any other is left to train."""

from __future__ import annotations

import pytest
from torch import nn

import gridsearch as gs

NETS = """
from torch import nn

class Pair(nn.Module):
    def __init__(self, num_classes, pair=True):
        super().__init__()
        self.out, self.pair = nn.LazyLinear(num_classes), pair
    def forward(self, x):
        h = x.flatten(1)
        return (self.out(h), h) if self.pair else self.out(h)

class Named(Pair):
    def forward(self, x):
        y, h = super().forward(x)
        return {"scores": y, "features": h}

class InTraining(Pair):
    def forward(self, x):
        pair = super().forward(x)
        return pair if self.training else pair[0]

class Narrow(Pair):
    def __init__(self, num_classes):
        super().__init__(3, pair=False)

class Raises(Pair):
    def forward(self, x):
        raise RuntimeError("not on this device")

def text(num_classes):
    return "a network"
"""

REFUSED = {
    "Pair": ("gives a tuple", "return y[0]`"),
    "Named": ("gives a dict", 'return y["scores"]`'),
    "InTraining": ("gives in training a tuple", "return y[0] if self.training else y`"),
    "Narrow": ("gives [2, 3] for 2 images", "num_classes=10"),
    "text": ("gives a str", "not a torch.nn.Module"),
}

WORDS = ("--dataset", "digits", "--epochs", "1", "--grid", "lr=.1,.2")


@pytest.fixture(autouse=True)
def nets(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("model", REFUSED)
def test_what_gives_no_logits_is_refused_in_one_line_and_nothing_is_written(cli, tmp_path, command, model):
    found = cli(command, *WORDS, "--model", f"nets.py:{model}", "--executor", "inline")
    assert found.code == 2
    line = found.err.strip()
    assert "\n" not in line
    assert f"model 'nets.py:{model}' cannot train: " in line
    assert all(words in line for words in REFUSED[model])
    assert not [*tmp_path.glob("**/gridsearch.db")]


def test_one_set_of_options_with_logits_is_enough_to_begin(cli):
    found = cli("plan", *WORDS, "model.pair=true,false", "--model", "nets.py:Pair", "--json")
    assert found.json["new"] == 4


def test_an_exception_is_left_to_the_trials_whose_device_may_be_another(cli):
    found = cli("run", *WORDS, "--model", "nets.py:Raises", "--executor", "inline", "--no-report")
    assert found.code == 3
    assert "not on this device" in found.err


def test_a_class_of_the_session_is_refused_as_one_of_a_file(tmp_path):
    class Pair(nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.out = nn.LazyLinear(num_classes)

        def forward(self, x):
            h = x.flatten(1)
            return self.out(h), h

    with pytest.raises(gs.UsageError, match="gives a tuple"):
        gs.run(grid={"lr": [0.1]}, model=Pair, dataset="digits", home=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_class_that_changes_what_the_session_sees_is_called_where_it_does_not(tmp_path):
    seen = []

    class Noting(nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.out = nn.LazyLinear(num_classes)

        def forward(self, x):
            seen.append(len(x))
            return self.out(x.flatten(1)), x

    with pytest.raises(gs.UsageError, match="gives a tuple"):
        gs.run(grid={"lr": [0.1]}, model=Noting, dataset="digits", home=tmp_path / "runs")
    assert seen == []
