"""The table of networks trains what it says: every row's network, in every way, on all of an epoch's images."""

from __future__ import annotations

import pytest
from torch import nn

from gridsearch.training import devices
from gridsearch.zoo import models
from tests.benchmarks import networks, networks_figure
from tests.benchmarks.arithmetic import model_flops
from tests.benchmarks.network_process import Process
from tests.benchmarks.network_rows import ROWS


def test_each_way_trains_whole_epochs_of_all_its_lanes():
    process = Process()
    with devices.at_work(threads=1):  # gives back how this process computes
        process.row("mlp, 10 hidden:32", steps=4)
        process.plain()
        assert process.prepare(lanes=2, dtype="float32") == {"method": "stacked"}
        epoch = process.images
        assert epoch == pytest.approx(4 * 32, abs=10)  # the split keeps the shares of the classes
        assert process.train("plain", seconds=0)["images"] == epoch
        assert process.train("lanes 2 float32", seconds=0)["images"] == 2 * epoch


def test_auto_is_held_against_the_plain_loop_and_the_best_way():
    found = {
        "GFLOP per image": 0.5,
        "rates": {
            "plain": [100.0, 110.0, 90.0],
            "lanes 1 float32": [150.0, 165.0, 135.0],
            "lanes 2 float32": [300.0, 330.0, 270.0],
            "lanes 4 float32": [200.0, 220.0, 180.0],
        },
        "auto": {"float32": {"lanes": 4, "method": "stacked", "reason": "", "costs": {"1": 1.0}}},
    }
    row = networks.figures_of(found, {"float32": 400.0})
    assert row["auto of plain"].median == pytest.approx(2.0)
    assert row["auto of the best, lanes 2"] == pytest.approx(2 / 3)
    assert row["auto of the matrix rate"].median == pytest.approx(25.0)
    assert row["lanes 1 of plain"].median == pytest.approx(1.5)


def test_the_picture_and_the_table_have_a_line_for_each_network_that_was_measured():
    spread = {"median": 2.0, "least": 1.0, "most": 3.0, "n": 3, "unit": "x"}
    row = {
        "image": "1x28x28",
        "plain": spread,
        "lanes 1 of plain": spread,
        "auto": {"lanes": 4, "method": "vmap"},
        "auto of plain": spread,
        "auto of the best, lanes 4": 0.97,
        "auto of the matrix rate": spread,
    }
    machine = {"cpu": "One", "model": "model 1", "cores": 2, "features": ["avx2"], "versions": {"torch": "9"}}
    figures = {"processes": 2, "matrix rate, float32, onednn, each of 2 processes": spread, "a net:32": row}
    result = {"hardware": machine, "figures": figures | {"b net:8": row | {"auto bfloat16 of plain": spread}}}
    written = networks_figure.table(result).splitlines()
    assert written[2].split(" | ")[0] == "| a net, batch 32"
    assert "**2.00x** | 4 (vmap) | 97 %" in written[2]
    assert written[2].endswith("- |")
    assert written[3].endswith("2.00x |")
    axes = networks_figure.draw(result).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a net, batch 32", "b net, batch 8"]
    assert "2 processes" in networks_figure.draw(result).texts[0].get_text()


def test_all_networks_of_the_zoo_are_in_the_table():
    assert {row.name.partition(",")[0] for row in ROWS} >= set(models.__all__)


def test_a_grouped_convolution_counts_what_it_multiplies():
    layers = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3, groups=6, stride=2), nn.Conv2d(6, 4, 1, groups=2)
    )
    net = nn.Sequential(layers, nn.Flatten(), nn.Linear(4 * 12 * 12, 3))
    outputs = 26 * 26 * 6 * 9, 12 * 12 * 6 * 9, 12 * 12 * 4 * 3, 3 * 4 * 12 * 12
    passes = 2, 3, 3, 3  # no gradient for the images
    expected = sum(2 * one * times for one, times in zip(outputs, passes, strict=True))
    assert model_flops(net, 5) == expected


def test_a_recurrent_layer_counts_its_products():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(6, 4, batch_first=True)

        def forward(self, x_BCHW):
            return self.rnn(x_BCHW[:, 0])[0][:, -1]

    from_images, from_states, steps = 2 * 16 * 6, 2 * 16 * 4, 5
    found = model_flops(Rows(), 3, (1, steps, 6))
    # no gradient for the images, nor for the first state
    assert found == 2 * steps * from_images + (3 * steps - 1) * from_states
