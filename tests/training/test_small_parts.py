"""Streams, batches, precision, dropout, files, devices: the small parts that training is made of."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import gridsearch.training
from gridsearch.errors import DeviceError, UsageError
from gridsearch.records.dtypes import DTYPES
from gridsearch.training import device_choice, devices, outputs, seeds
from gridsearch.training.batches import batch_plan
from gridsearch.training.model_setup import has_batch_norm, has_dropout, set_dropout
from gridsearch.training.precision import Precision
from gridsearch.training.probe import PeakMemory, probe

if TYPE_CHECKING:
    from pathlib import Path


@given(seed=st.integers(0, 10**6), index=st.integers(0, 10**6), other=st.integers(0, 10**6))
def test_streams_differ_by_seed_name_and_index(seed, index, other):
    here = seeds.stream(seed, "order", index)
    assert 0 <= here < 2**63
    assert here != seeds.stream(seed, "augment", index)
    assert (here == seeds.stream(seed, "order", other)) == (index == other)
    assert (here == seeds.stream(other, "order", index)) == (seed == other)


def test_streams_never_change():
    """Pinned: a trial's result is only comparable with later ones if its streams stay what they are."""
    assert seeds.stream(0, "weights") == 5409347080047710043
    assert seeds.stream(7, "order", 3) == 4973603909648859553


def test_reseeding_is_what_manual_seed_does():
    torch.manual_seed(99)
    expected = torch.rand(4).tolist()
    seeds.reseed(torch.device("cpu"), 99)
    assert torch.rand(4).tolist() == expected


@given(
    images=st.integers(1, 500), batch=st.integers(1, 600), drop_last=st.booleans(), drop_single=st.booleans()
)
def test_a_batch_plan_covers_the_epoch(images, batch, drop_last, drop_single):
    plan = batch_plan(images, batch, drop_last=drop_last, drop_single=drop_single)
    sizes = [len(part) for part in torch.arange(plan.images).split(plan.batch)]
    assert len(sizes) == plan.steps >= 1
    assert sum(sizes) == plan.images
    lost = images - plan.images
    assert 0 <= lost < plan.batch
    if drop_last:
        assert set(sizes) == {min(batch, images)}
    elif lost:
        assert drop_single
        assert lost == 1
    if drop_single and plan.batch > 1:
        assert sizes[-1] > 1


def test_dropout_of_every_kind_is_found_and_set():
    model = nn.Sequential(
        nn.Linear(2, 2), nn.Sequential(nn.Dropout2d(0.1), nn.AlphaDropout(0.2)), nn.Dropout()
    )
    assert has_dropout(model)
    set_dropout(model, 0.75)
    assert [m.p for m in model.modules() if hasattr(m, "p")] == [0.75] * 3
    assert not has_dropout(nn.Sequential(nn.Linear(2, 2)))


def test_batch_norm_of_every_kind_is_found():
    assert has_batch_norm(nn.Sequential(nn.Sequential(nn.BatchNorm1d(3))))
    assert has_batch_norm(nn.SyncBatchNorm(3))
    assert not has_batch_norm(nn.Sequential(nn.LayerNorm(3), nn.GroupNorm(1, 3)))


def test_what_a_dtype_needs_and_the_device_lacks_is_said():
    assert Precision.of("float64", torch.device("cpu")).weights == torch.float64
    with pytest.raises(UsageError, match="dtype=tf32: not on cpu"):
        Precision.of("tf32", torch.device("cpu"))
    with pytest.raises(UsageError, match="dtype=float64: not on mps"):
        Precision.of("float64", torch.device("mps"))
    with pytest.raises(UsageError, match="dtype=half: unknown"):
        Precision.of("half", torch.device("cpu"))
    assert {Precision.of(d, torch.device("cuda")).name for d in DTYPES} == set(DTYPES)


@pytest.mark.parametrize(("name", "value"), [("tf32", "tf32"), ("float32", "ieee")])
def test_how_cuda_rounds_products_is_set_and_set_back(name, value):
    places = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [place.fp32_precision for place in places]
    with Precision.of(name, torch.device("cuda")).products():
        assert [place.fp32_precision for place in places] == [value, value]
    assert [place.fp32_precision for place in places] == before


def test_weights_in_channels_last_and_extra_state_are_written_plainly(tmp_path: Path):
    class Extra(nn.Conv2d):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    model = Extra(3, 4, 3).to(memory_format=torch.channels_last)
    outputs.write_weights(tmp_path, model.state_dict())
    found = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert set(found) == {"weight", "bias"}
    assert torch.equal(found["weight"], model.weight)
    assert found["weight"].is_contiguous()


def test_auto_takes_what_is_there():
    there = devices.available()
    resolved = devices.resolve_device("auto")
    assert there[0] == "cpu"
    assert set(resolved) <= set(there)
    if len(there) == 1:
        assert resolved == ("cpu",)
    assert devices.resolve_device("cpu") == ("cpu",)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "", "cpu:1x"])
def test_an_unknown_device_is_refused_with_the_known_names(name):
    with pytest.raises(DeviceError) as caught:
        devices.resolve_device(name)
    assert caught.value.hint


def test_a_device_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(DeviceError, match="no device 'cuda:99' here; there is cpu") as caught:
        devices.resolve_device("cuda:99")
    assert "--device" in caught.value.hint


def test_several_cuda_devices_are_a_worker_s_place_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.resolve_device("auto") == devices.resolve_device("cuda") == ("cuda:0", "cuda:1")
    assert devices.resolve_device("cuda:1") == ("cuda:1",)


def test_the_description_is_short_texts():
    found = devices.describe()
    assert found["torch"] == torch.__version__
    assert {"python", "cpu", "threads", "cuda", "memory"} <= set(found)
    assert all(isinstance(text, str) and "\n" not in text for text in found.values())


@pytest.mark.end_to_end
def test_a_tuned_allocator_keeps_what_it_frees():
    """In a process of its own: freed tensors of 16 and 64 MB stay resident while it is at work, not before or after."""
    program = """
import torch
from gridsearch.training import devices
from pathlib import Path
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
def gives_back(megabytes):
    x = torch.ones(megabytes << 18); before = resident(); del x
    return before - resident() > megabytes << 19
torch.set_num_threads(1)
print(gives_back(16), gives_back(64))
with devices.at_work(threads=1):
    print(gives_back(16), gives_back(64), gives_back(16))
print(gives_back(256))
"""
    if sys.platform != "linux" or devices.describe()["allocator"] == "as it is":
        pytest.skip("the C library is not glibc")
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    assert ran.stdout.split() == ["True", "True", "False", "False", "False", "True"]


@pytest.mark.end_to_end
def test_a_training_process_has_no_numbers_too_small_for_a_full_mantissa():
    """In a process of its own, on all threads, in backward passes too."""
    program = """
import torch
from gridsearch.training import devices
def tiny():
    x = torch.ones(1 << 20, requires_grad=True)
    y = x * 1e-20 * 1e-20
    return bool(y.any()), bool(torch.autograd.grad(y.sum(), x)[0].any())
torch.set_num_threads(1)
print(*tiny())
devices.prepare_process(threads=2)
print(*tiny())
"""
    if not torch.set_flush_denormal(False):
        pytest.skip("this CPU cannot flush them")
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    assert ran.stdout.split() == ["True", "True", "False", "False"]


@pytest.mark.end_to_end
def test_after_work_inline_the_process_has_its_tiny_numbers_and_its_threads_back():
    """In a process of its own: what a worker sets is for good only there."""
    program = """
import sys
import torch
from gridsearch.training import devices
torch.set_num_threads(2)
half = lambda: sys.float_info.min / 2 > 0
with devices.at_work(threads=1):
    print(torch.get_num_threads(), half())
print(torch.get_num_threads(), half())
torch.set_flush_denormal(True)
with devices.at_work(threads=1):
    pass
print(half())
"""
    if not torch.set_flush_denormal(False):
        pytest.skip("this CPU cannot flush them")
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    assert ran.stdout.splitlines() == ["1 False", "2 True", "False"]


def test_a_probe_says_what_a_trial_costs_and_leaves_the_generators(make_images, make_settings, nets):
    from gridsearch.training.resident_data import ResidentCache

    torch.manual_seed(4)
    expected = torch.rand(2).tolist()
    torch.manual_seed(4)
    settings = make_settings(lr=1e30, optimizer="sgd")  # costs are told of lanes that would diverge, too
    found = probe(
        settings,
        data=ResidentCache(make_images(), device="cpu"),
        build=nets["conv"],
        device="cpu",
        seconds=0.05,
    )
    assert torch.rand(2).tolist() == expected
    assert found.device == "cpu"
    assert 0 < found.step_seconds < 60
    assert 0 < found.image_seconds < 60
    assert found.steps >= 3
    assert found.steps_per_epoch == 4
    assert found.parameters == 6 * 9 + 6 + 12 + 96 * 3 + 3
    assert found.seconds(epochs=2, val_images=10) == pytest.approx(
        2 * (4 * found.step_seconds + 10 * found.image_seconds)
    )


def test_a_probe_without_validation_has_no_evaluation_cost(make_images, make_settings, nets):
    from gridsearch.training.resident_data import ResidentCache

    cache = ResidentCache(make_images(), device="cpu")
    found = probe(make_settings(val=0.0), data=cache, build=nets["dense"], device="cpu", seconds=0.01)
    assert found.image_seconds is None
    assert found.seconds(epochs=1, val_images=0) > 0


def test_peak_memory_counts_what_lives_at_a_time_and_not_what_was_there():
    there = torch.ones(1 << 20)
    with PeakMemory(torch.device("cpu"), [there]) as memory:
        first = torch.ones(16 << 20)
        del first
        second = torch.ones(4 << 20)
        view = second.view(2, -1)[0]
        there.add_(1)
        del second
        third = view.expand(7, -1).sum()
    assert memory.peak == (16 << 20) * 4
    assert third == 7 << 21


@pytest.mark.end_to_end
@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel counts a process's peak on Linux"
)
def test_the_peak_of_a_process_is_what_a_block_needs_and_not_what_was_freed_before():
    code = """
import numpy as np
from gridsearch.training.memory import ProcessPeak
def small_pieces():
    return [bytes(1000) for _ in range(200_000)]
freed, pin = small_pieces(), bytes(1000)  # behind which the heap does not end
del freed
later = small_pieces()
peak = ProcessPeak()
del later
for megabytes in (300, 60):
    with peak:
        np.ones(megabytes << 17).sum()
    print(peak.beyond / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    larger, smaller = map(float, done.stdout.split())
    assert larger == pytest.approx(300, abs=15)
    assert smaller == pytest.approx(60, abs=15)


@pytest.mark.end_to_end
def test_every_public_name_is_there_and_importing_the_package_imports_no_torch():
    for name in gridsearch.training.__all__:
        assert getattr(gridsearch.training, name) is not None
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = gridsearch.training.nothing
    program = "import sys, gridsearch.training, gridsearch.training.splits; print('torch' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "False"


def test_the_free_memory_of_a_cpu_is_known():
    free = device_choice.free_megabytes("cpu")
    assert free is not None
    assert free > 0
