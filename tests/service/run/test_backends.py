"""What each kind of `--executor` says of its workers, as far as it follows from the options alone."""

from __future__ import annotations

import pytest

from gridsearch.errors import DeviceError, UsageError
from gridsearch.records.study_kinds import FUNCTION, IMAGES
from gridsearch.service.prepare.options import ALLOCATIONS, RUN_OPTIONS, RunOptions
from gridsearch.service.run.backends import BACKENDS, backend_of
from gridsearch.service.run.workers import may_lack_devices, room_for_packs

GPUS = ("cuda:0", "cuda:1")


def slurm(*words, **how):
    return backend_of(RunOptions(executor="slurm", slurm=words, **how))


def test_every_executor_that_can_be_named_has_a_backend():
    assert set(BACKENDS) == set(RUN_OPTIONS["executor"].choices)


def test_this_machine_has_a_worker_for_each_core_or_gpu_unless_the_user_says_how_many(monkeypatch):
    monkeypatch.setattr("gridsearch.service.run.backends.cores", lambda: 6)
    local = backend_of(RunOptions())
    assert [local.most_workers(devices) for devices in (("cpu",), GPUS)] == [6, 2]
    assert backend_of(RunOptions(workers=3)).most_workers(("cpu",)) == 3
    assert backend_of(RunOptions(executor="inline", workers=3)).most_workers(("cpu",)) == 1


def test_workers_of_slurm_are_those_of_all_allocations():
    assert slurm("cpus_per_task=8").most_workers(("cpu",)) == 8 * ALLOCATIONS
    assert slurm("gpus_per_node=2", workers=3).most_workers(GPUS) == 6


def test_workers_of_an_allocation_share_its_memory():
    assert slurm("cpus_per_task=4", "mem=16G").free_megabytes(("cpu",), 99) == 4096
    assert slurm("cpus_per_task=4").free_megabytes(("cpu",), 99) is None, "nobody said how much it has"
    assert slurm("gpus_per_node=2", "mem=16G").free_megabytes(GPUS, 99) is None, "it is not the GPUs'"
    options = RunOptions(executor="slurm", slurm=("cpus_per_task=4", "mem=16G"))
    room = room_for_packs(options, ("cpu",), 99)
    assert room is not None
    assert (room.limit_mb, room.of_mb) == pytest.approx((0.8 * 4096 - 500, 4096))
    assert room_for_packs(options, ("cpu",), 99, FUNCTION) is None


def test_measured_costs_of_a_cluster_belong_to_what_was_asked_for():
    assert slurm("partition=gpu", "constraint=a100").hardware("cuda:0") == "slurm gpu a100 cuda"
    assert slurm().hardware("cpu") == "slurm cpu"
    assert backend_of(RunOptions(executor="ray")).hardware("cuda:0") == "ray cuda"


def test_a_device_that_cannot_be_is_refused_before_anything_is_asked_of_a_cluster():
    with pytest.raises(DeviceError, match="no GPU is asked for"):
        slurm(device="cuda").devices(IMAGES)
    with pytest.raises(DeviceError, match="no device 'mps' in an allocation"):
        slurm(device="mps").devices(IMAGES)
    for executor in ("local", "inline", "ray"):
        with pytest.raises(UsageError, match="chooses its device itself"):
            backend_of(RunOptions(executor=executor, device="cuda")).devices(FUNCTION)


def test_only_this_machine_has_a_device_whatever_it_is():
    assert [name for name in BACKENDS if may_lack_devices(RunOptions(executor=name))] == ["ray", "slurm"]
    assert may_lack_devices(RunOptions(device="cuda"))
