"""The GPU's benchmark refuses where there is none, and measures the whole grid."""

from __future__ import annotations

import pytest
import torch

from tests.benchmarks import gpu, launches


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_benchmark_says_so_in_one_line():
    with pytest.raises(SystemExit, match=r"^no device 'cuda:0' to measure: .+; .+$"):
        gpu.main([])


@pytest.mark.end_to_end
def test_the_grid_has_a_pack_for_each_batch_and_every_trial_ends(tmp_path, monkeypatch):
    packs = gpu.packs_of(tmp_path, epochs=20, seeds=64)
    assert [len(pack.lanes) for pack in packs] == [256] * 4
    assert len({lane.trial.id for pack in packs for lane in pack.lanes}) == 1024
    monkeypatch.setattr(gpu, "BATCHES", (50,))
    monkeypatch.setattr(gpu, "RATES", (0.01,))  # two trials, the grid's shape was looked at above
    monkeypatch.setattr(gpu, "_PROBE_SECONDS", 0.01)
    parts = gpu.figures(torch.device("cpu"), images=100, epochs=1, seeds=2, lanes=[2], rounds=1)
    found = {name: part() for name, part in parts}
    assert list(found)[:2] == ["16 trials of 1 epochs, with graphs", "32 trials of 1 epochs, with graphs"]
    assert len(found) == 6
    for name, figure in found.items():
        each = figure.values() if name.startswith("a step") else [figure]
        assert all(spread.median > 0 for spread in each)


def test_a_pack_launches_what_one_of_its_lanes_does_and_the_host_waits_for_no_step():
    few, many = (launches.counts("mlp", lanes) for lanes in (2, 5))
    assert few == many
    assert few["operations a step"] > 10
    assert (few["waits of the host a step"], few["launches a step, recorded"]) == (0, 0.1)
