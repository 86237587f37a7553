"""The GPU's benchmark refuses where there is none, and measures the whole grid."""

from __future__ import annotations

import pytest
import torch

from tests.benchmarks import gpu


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
    found = gpu.figures(torch.device("cpu"), images=100, epochs=1, seeds=1, lanes=[2], rounds=1)
    assert found.keys() == {"with graphs", "without graphs"}
    for figures in found.values():
        assert figures["16 trials of 1 epochs"].median > 0
        assert len(figures["a step of one trial"]) == 1
