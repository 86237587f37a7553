"""A network that trains alone in bfloat16: it learns, and its test is that of its weights."""

from __future__ import annotations

import pytest

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, in_channels, num_classes, image_size):
        super().__init__()
        self.hidden = nn.Linear(in_channels * image_size[0] * image_size[1], 64)
        self.out = nn.Linear(64, num_classes)
        self.hidden.register_forward_hook(lambda *_: None)  # a lane of a pack has no modules to hook

    def forward(self, x):
        return self.out(self.hidden(x.flatten(1)).relu())
"""


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize("executor", ["inline", "local"])
def test_a_network_that_trains_alone_in_bfloat16_learns_and_is_tested_as_it_is(cli, tmp_path, executor):
    (tmp_path / "net.py").write_text(NET)
    how = ("--executor", executor)
    words = (
        "--dataset",
        "digits",
        "--model",
        "net.py:Net",
        "--epochs",
        "4",
        "--no-report",
        "--workers",
        "1",
        *how,
    )
    found = {}
    for dtype in ("float32", "bfloat16"):
        fixed = ("--grid", "lr=.01", "--set", f"dtype={dtype}", "--study", dtype)
        ran = cli("run", *words, *fixed, "--json")
        assert ran.code == 0, ran.err
        found[dtype] = ran.json["trials"][0]["val_accuracy"]
    assert found["bfloat16"] == pytest.approx(found["float32"], abs=0.03)
    assert found["bfloat16"] > 0.8
    tested = cli("best", "--study", "bfloat16", "--model", "net.py:Net", *how, "--json")
    assert tested.code == 0, tested.err
    assert tested.json["test"]["accuracy"] == pytest.approx(found["float32"], abs=0.05)
