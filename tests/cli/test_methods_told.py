"""`plan` and `doctor` say which of stacked, vmap and solo a model gets, and why not better."""

from __future__ import annotations

import pytest

NETS = """
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.out = nn.LazyLinear(num_classes)
    def forward(self, x):
        return self.out(x.flatten(1))

class Unknown(Plain):
    def forward(self, x):  # how many images there are no trace can answer; vmap can
        return super().forward(x) * (2 if len(x) else 1)

class Draws(Plain):
    def forward(self, x):
        return super().forward(x + torch.rand_like(x))

class Raises(Plain):
    def forward(self, x):
        print("about to")
        raise RuntimeError("no such\\nluck")

def one(num_classes, depth):
    return Plain(num_classes)
"""

METHODS = {
    "Plain": ("stacked", ""),
    "Unknown": ("vmap", "size depends on the batch"),
    "Draws": ("solo", "rand_like"),
    "Raises": ("model 'nets.py:Raises' cannot run", "RuntimeError: no such luck"),
}


@pytest.fixture
def nets(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)


@pytest.mark.parametrize("model", METHODS)
def test_the_doctor_tells_the_method_of_a_users_model_and_why(cli, nets, model):
    found = cli("doctor", "--model", f"nets.py:{model}", "--json")
    told = [f for f in found.json["findings"] if f["subject"].startswith("model ")]
    assert [f["subject"] for f in told] == [f"model nets.py:{model}"]
    method, reason = METHODS[model]
    assert told[0]["detail"].startswith(f"{method}: ")
    assert reason in told[0]["detail"]
    assert told[0]["verdict"] == {"stacked": "ok", "vmap": "note", "solo": "note"}.get(method, "bad")


def test_the_doctor_looks_at_a_librarys_network_without_its_weights(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))
    found = cli("doctor", "--model", "torchvision:squeezenet1_1", "--json")
    told = [f for f in found.json["findings"] if f["subject"].startswith("model ")]
    assert told[0]["detail"].startswith("stacked: ")
    assert not (tmp_path / "no weights").exists()


@pytest.mark.parametrize("model", [model for model in METHODS if model != "Raises"])
def test_the_plan_tells_the_method_of_a_group_and_why(cli, nets, model):
    words = ("--dataset", "digits", "--model", f"nets.py:{model}", "--grid", "lr=.1,.2,.3,.4", "--lanes", "2")
    group = cli("plan", *words, "--json").json["groups"][0]
    method, reason = METHODS[model]
    assert (group["method"], group["lanes"]) == (method, 2)
    assert reason in group["reason"]
    assert bool(group["reason"]) == (method != "stacked")
    assert group["reason"] in cli("plan", *words).out


def test_the_plan_says_why_a_group_trains_lane_after_lane(cli):
    words = ("plan", "--dataset", "digits", "--grid", "lr=.1,.2", "--json")
    assert cli(*words, "--lanes", "1").json["groups"][0]["reason"] == "--lanes 1"


def test_the_doctor_looks_at_every_built_in_model(cli):
    models = cli("models", "list", "--json").json["models"]
    told = {f["subject"]: f for f in cli("doctor", "--json").json["findings"]}
    for model in (m for m in models if ":" not in m["name"]):  # timm:NAME is one of many
        detail = told[f"model {model['name']}"]["detail"]
        large = f"--model {model['name']}` looks at it" in detail
        assert detail.startswith("stacked: ") != large
        assert large == (model["name"] == "vgg16")


def test_the_doctor_refuses_what_is_not_there(cli, nets):
    assert cli("doctor", "--model", "lenett").code == 2
    assert cli("doctor", "--dataset", "digits").code == 2
    missing = cli("doctor", "--model", "nets.py:one", "--json")
    assert missing.code == 4
    assert "depth" in missing.out


def test_names_with_colons_are_shown_as_they_are(cli, tmp_path):
    (tmp_path / "nets.py").write_text(NETS.replace("Unknown", "warning"))
    assert "nets.py:warning: vmap" in cli("doctor", "--model", "nets.py:warning").out
