"""Which devices are there, and what a process must set before it trains on one.

Serves the command line (`--device`, `doctor`) and the workers when they start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import warnings
from typing import TYPE_CHECKING

import torch

from gridsearch.training import kernels, memory
from gridsearch.training.device_choice import DeviceFacts, choose_devices

if TYPE_CHECKING:
    from collections.abc import Iterator

_M_TRIM_THRESHOLD = -1  # names and numbers of glibc's malloc.h
_M_MMAP_MAX = -4
_MAPPINGS = 65536  # as many as glibc makes of its own accord
_TRIM_THRESHOLD = 1 << 30


def device_facts() -> DeviceFacts:
    """Return which devices are here and what is known of them."""
    return DeviceFacts(available(), describe())


def resolve_device(name: str = "auto") -> tuple[str, ...]:
    """Return the devices that a `--device` option stands for; see `choose_devices`."""
    return choose_devices(name, available(), cuda_problem)


def cuda_problem() -> str:
    """Return why there is no CUDA device and how to fix it, in one line without its end; "" where there is one."""
    if _cuda_works():
        return ""
    if torch.version.cuda is None:
        return "the installed torch is a CPU build; install one with CUDA"
    built = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001  (whatever the driver says is reported)
        reason = " ".join(str(error).split()).partition(" Please ")[0].rstrip(". ")
        return f"{built} and says: {reason[:200]}; install a driver or a torch that fit each other"
    return f"{built} and finds no device (is CUDA_VISIBLE_DEVICES set?); make one visible"


def _cuda_works() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that is too old, said in full by `cuda_problem`
        return torch.cuda.is_available()


def available() -> tuple[str, ...]:
    """Return the names of all devices here, the CPU first."""
    cuda = torch.cuda.device_count() if _cuda_works() else 0
    mps = ("mps",) if torch.backends.mps.is_available() else ()
    return ("cpu", *(f"cuda:{i}" for i in range(cuda)), *mps)


def describe() -> dict[str, str]:
    """Return what `doctor` and a study's environment say of torch and the devices, as short texts by name."""
    found = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": f"{_cpu_name()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
        "allocator": "tunable (glibc)" if _mallopt() is not None else "as it is",
        "kernels": kernels.describe(),
    }
    found["memory"] = memory.described()
    if _cuda_works():
        found["cuda"] = str(torch.version.cuda)
        for i in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(i)
            found[f"cuda:{i}"] = (
                f"{facts.name}, {facts.total_memory / 1e9:.0f} GB, compute {facts.major}.{facts.minor}"
            )
    elif torch.version.cuda is None:
        found["cuda"] = "torch is a CPU build"
    else:
        found["cuda"] = f"no device: {cuda_problem()}"
    if torch.backends.mps.is_available():
        found["mps"] = "available"
    found["matmul precision"] = torch.get_float32_matmul_precision()
    return found


def prepare_process(*, threads: int) -> None:
    """Set what a training process needs once, before its first tensor: threads, the allocator, tiny numbers.

    Two processes of one thread beat one process of two threads on these small nets, so `threads` is usually
    1.  Numbers too small for a full mantissa become zero: a dead unit's moments halve until they are such
    numbers and then stay there, where arithmetic is slow (Adam over eight LeNets with many: 2.5 ms a step,
    without: .3).
    """
    torch.set_flush_denormal(True)  # before the threads start, which inherit it
    torch.set_num_threads(threads)
    tune_allocator()


@contextlib.contextmanager
def at_work(*, threads: int) -> Iterator[None]:
    """Prepare the process as `prepare_process` does, and give its arithmetic and its mappings back as they were.

    Inline, it is the user's own process, whose small numbers, threads and large arrays are none of our business.
    """
    before, flushed = torch.get_num_threads(), _flushes_tiny_numbers()
    prepare_process(threads=threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(flushed)
        if (mallopt := _mallopt()) is not None:
            mallopt(_M_MMAP_MAX, _MAPPINGS)


def _flushes_tiny_numbers() -> bool:
    """Whether this thread takes numbers below the smallest normal one for zero; torch sets it and cannot tell."""
    return sys.float_info.min / 2 == 0.0


def tune_allocator() -> bool:
    """Let glibc keep freed memory instead of giving it back to the kernel at every step.

    Large activations are otherwise mapped and unmapped at each step, and the page faults cost more than the
    arithmetic: a step of eight LeNets at batch 100 went from 6.5 to 3.8 ms per trial.  A higher threshold for mapping
    would not do: glibc takes none above 32 MB, and packs of large batches have larger activations (four LeNets with
    batch norm at batch 1000: 430 faults a step, 3 to 20 % of its time in the kernel, without mappings none).

    Returns:
        whether it was done; False where the C library is not glibc.
    """
    mallopt = _mallopt()
    if mallopt is None:
        return False
    done = mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
    return bool(done)


def _mallopt() -> ctypes._NamedFuncPointer | None:
    if platform.system() != "Linux":
        return None
    library = ctypes.CDLL(None)
    try:
        _ = library.gnu_get_libc_version
        mallopt = library.mallopt
    except AttributeError:
        return None
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    return mallopt


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123  (not a path of ours)
            for line in lines:
                if line.startswith("model name"):
                    return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()
