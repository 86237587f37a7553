"""Models as others wrote them: constructors with words of their own, torchvision, and such as cannot run."""

from __future__ import annotations

import inspect

import pytest

from gridsearch.plugins import of_object
from gridsearch.plugins.shape_arguments import words_of

NETS = """
import torch
from torch import nn

class Timm(nn.Module):
    def __init__(self, img_size=224, in_chans=3, num_classes=1000, width=9):
        super().__init__()
        self.out = nn.Linear(img_size * img_size * in_chans, num_classes)
    def forward(self, x):
        return self.out(x.flatten(1))

class Dense(nn.Module):
    def __init__(self, input_size, hidden=5, n_classes=10):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(input_size, hidden), nn.Linear(hidden, n_classes))
    def forward(self, x):
        return self.net(x)

class Broken(nn.Module):
    def __init__(self, num_classes, depth=1):
        super().__init__()
        self.out = nn.Linear(5, num_classes)
    def forward(self, x):
        return self.out(x.flatten(1))

class Tuple(Timm):
    def forward(self, x):
        y = super().forward(x)
        return (y, y) if self.training else y

class Leaves(Timm):
    def forward(self, x):
        raise SystemExit("no such layer")

class Sometimes(nn.Module):
    def __init__(self, num_classes, hidden=64):
        super().__init__()
        self.out = nn.Linear(hidden, num_classes)
    def forward(self, x):
        return self.out(x.flatten(1))
"""

VISION = """
from torch import nn
from torchvision import ops
from torchvision.models import resnet18

def net(num_classes):
    found = resnet18(weights=None, num_classes=num_classes)
    found.conv1 = nn.Conv2d(1, 64, 3)
    assert isinstance(ops.Permute([0, 1]), nn.Module)
    return found
"""

DIGITS = ("--dataset", "digits", "--grid", "lr=.1,.2", "--set", "batch=512", "--epochs", "1")


@pytest.fixture
def nets(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)


def test_a_plan_loads_a_file_that_imports_torchvision_as_its_authors_do(cli, tmp_path):
    (tmp_path / "vision.py").write_text(VISION)
    found = cli("plan", *DIGITS, "--model", "vision.py:net", "--lanes", "2", "--json")
    assert found.code == 0, found.err
    assert found.json["groups"][0]["method"] == "stacked"


def test_torchvision_s_own_functions_are_named_as_modules_and_get_the_arguments_that_they_know(cli):
    found = cli("plan", *DIGITS, "--model", "torchvision.models:squeezenet1_1", "--lanes", "1", "--json")
    assert found.code == 2
    assert (
        "to have 3 channels, but got 1" in found.err
    )  # the network's own words, and not those of a wrong call


def test_constructors_with_words_of_their_own_get_the_data_s_shape_and_a_word_tells_which(cli, nets):
    for name, words in (
        ("Timm", "img_size=8, in_chans=1"),
        ("Dense", "input_size=64, n_classes=10"),
    ):
        found = cli("plan", *DIGITS, "--model", f"nets.py:{name}", "--lanes", "1")
        assert found.code == 0, found.err
        assert f"nets.py:{name} gets {words}, as the images are" in found.err


def test_a_word_that_somebody_sets_is_taken_as_it_is_set(cli, nets):
    words = ("--model", "nets.py:Dense", "--set", "model.input_size=32", "--lanes", "1")
    found = cli("plan", *DIGITS, *words)
    assert found.code == 2
    assert "shapes cannot be multiplied" in found.err


SIGNATURES = {
    "(in_channels, num_classes, image_size)": {},
    "(num_classes=10, channels=16)": {},  # a width
    "(num_classes, channels=3)": {"channels": "channels"},
    "(in_channels, num_classes, channels)": {},  # has been said already
    "(n_channels, n_classes)": {"n_channels": "channels", "n_classes": "classes"},
    "(class_num=100)": {"class_num": "classes"},
    "(nclass, in_ch=1)": {"nclass": "classes", "in_ch": "channels"},
    "(input_dim, output_dim)": {"input_dim": "flat", "output_dim": "classes"},
    "(input_size=784, num_classes=10)": {"input_size": "flat"},
    "(input_size=224, n_class=1000)": {"input_size": "side", "n_class": "classes"},
    "(input_channels, input_size, classes)": {
        "input_channels": "channels",
        "input_size": "side",
        "classes": "classes",
    },
    "(classes=None)": {},
    "(hidden, depth=3)": {},
}


@pytest.mark.parametrize("text", SIGNATURES)
def test_the_words_of_a_signature_mean_what_people_mean_by_them(text):
    scope = {}
    exec(f"def f{text}: pass", scope)
    found = words_of(inspect.signature(scope["f"]).parameters)
    assert found == SIGNATURES[text]


def test_sizes_come_in_the_form_of_the_default_or_the_annotation():
    def f(img_size=224, n_classes=10): ...
    def g(img_size=(224, 224)): ...
    def h(input_shape=(3, 32, 32)): ...
    def k(img_size: tuple[int, int]): ...

    def passed(function, sides):
        return of_object(function).passed(in_channels=2, num_classes=5, image_size=sides, options={})

    assert passed(f, (8, 8)) == {"img_size": 8, "n_classes": 5}
    assert passed(f, (8, 6))["img_size"] == (8, 6)
    assert passed(g, (8, 8)) == {"img_size": (8, 8)}
    assert passed(h, (8, 6)) == {"input_shape": (2, 8, 6)}
    assert passed(k, (8, 8)) == {"img_size": (8, 8)}


@pytest.mark.parametrize("lanes", ["1", "2"])
@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("Broken", "cannot run: it raises RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        ("Tuple", "cannot train: the model gives in training a tuple, not a tensor"),
        ("Leaves", "cannot run: it raises SystemExit: no such layer"),
    ],
)
def test_the_plan_refuses_a_model_that_cannot_run_with_its_error(cli, nets, model, error, lanes):
    found = cli("plan", *DIGITS, "--model", f"nets.py:{model}", "--lanes", lanes)
    assert found.code == 2
    assert f"model 'nets.py:{model}' {error}" in found.err
    assert not found.out


def test_a_plan_of_models_some_of_which_cannot_run_says_which(cli, nets):
    grid = ("--grid", "model.hidden=64,5")
    words = ("--dataset", "digits", *grid, "--model", "nets.py:Sometimes", "--lanes", "1", "--json")
    groups = cli("plan", *words).json["groups"]
    assert sorted("cannot run" in group["reason"] for group in groups) == [False, True]
