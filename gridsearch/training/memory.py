"""How much memory there is for training on this machine: what the system, control groups and ulimit leave.

Knows nothing of torch; packs are sized by it, and a worker's end is explained by it.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # makes VmHWM what VmRSS is, man proc_pid_clear_refs
_NO_LIMIT = 2**60
"""Version 1 writes "no limit" as a number near 2**63."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on memory.

    Attributes:
        name: whose it is, in words.
        most: bytes that may be used.
        left: bytes that are free below it.
    """

    name: str
    most: float
    left: float


def free_bytes() -> float:
    """Return the bytes that are free for training, within every limit of this process."""
    return min((limit.left for limit in limits()), default=math.inf)


def tightest() -> Limit:
    """Return the limit that is reached first where nothing else grows."""
    return min(limits(), key=lambda limit: limit.most)


def described() -> str:
    """Return the tightest limit in words: "1.1 GB (control group)"."""
    limit = tightest()
    return f"{limit.most / 1e9:.1f} GB ({limit.name})"


class ProcessPeak:
    """Measures the most memory that this process has inside a `with` block, beyond what it has now.

    The kernel counts it (Linux).  What was freed before is given back to it first: else that would serve the block, and
    not be seen.

    Attributes:
        base: bytes of the process now; None where the kernel does not count them.
        beyond: bytes beyond that, once a block was left; None likewise.
    """

    def __init__(self) -> None:
        _give_back()
        self.base = _status("VmRSS")
        self.beyond: float | None = None

    def __enter__(self) -> Self:
        _give_back()
        now = _status("VmRSS")
        if self.base is not None and now is not None:
            self.base = min(self.base, now)  # what was there then may have been freed since
        try:
            _CLEAR.write_text(_RESET_PEAK)
        except OSError:
            self.base = None
        return self

    def __exit__(self, *_: object) -> None:
        peak = _status("VmHWM")
        self.beyond = None if peak is None or self.base is None else max(0.0, peak - self.base)


def _give_back() -> None:
    """Give the kernel back what this process has freed."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(name: str) -> float | None:
    """Return a size of this process that the kernel reports, in bytes."""
    with suppress(OSError, ValueError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024.0 * int(line.split()[1])
    return None


def limits(*, root: Path = _ROOT, own: Path = _OWN) -> list[Limit]:
    """Return the machine's memory and whatever bounds it for this process.

    Args:
        root: where control groups are mounted.
        own: the file that says in which ones this process is.
    """
    machine = psutil.virtual_memory()
    return [
        Limit("this machine", machine.total, machine.available),
        *_control_groups(root, own),
        *_of_the_process(),
    ]


def _control_groups(root: Path, own: Path) -> Iterator[Limit]:
    """Give the limits of this process's control groups and of those above them.

    Version 2 has one tree, version 1 a tree for memory of its own.  A container may see its own group as the root
    of the tree, whatever the file says.  The page cache counts as used there and is given back when needed, so it
    counts as free here.
    """
    version_2, version_1 = _own_groups(own)
    yield from _tree(root, version_2, ("memory.max", "memory.high"), "memory.current", "inactive_file")
    yield from _tree(
        root / "memory", version_1, ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"
    )


def _own_groups(own: Path) -> tuple[str, str]:
    """Return the paths of this process's group in the trees of version 2 and of version 1's memory."""
    unified, memory = "/", "/"
    with suppress(OSError):
        for line in own.read_text().splitlines():
            number, kinds, path = line.split(":", 2)
            if number == "0" and not kinds:
                unified = path
            elif "memory" in kinds.split(","):
                memory = path
    return unified, memory


def _tree(root: Path, path: str, bounds: tuple[str, ...], used: str, cache: str) -> Iterator[Limit]:
    folder = root
    folders = [folder] + [
        folder := folder / part for part in path.strip("/").split("/") if part not in ("", "..")
    ]
    for each in folders:
        for bound in bounds:
            with suppress(OSError, ValueError):
                most = float((each / bound).read_text())  # "max" where there is none
                if most < _NO_LIMIT:
                    taken = float((each / used).read_text()) - _cached(each / "memory.stat", cache)
                    yield Limit("control group", most, max(0.0, most - taken))


def _cached(path: Path, wanted: str) -> int:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == wanted:
            return int(value)
    return 0


def _of_the_process() -> Iterator[Limit]:
    """Give what ulimit allows each process: its address space, and its data."""
    if sys.platform == "win32":
        return
    import resource

    used = psutil.Process(os.getpid()).memory_info()
    for name, kind, taken in (
        ("ulimit -v", resource.RLIMIT_AS, used.vms),
        ("ulimit -d", resource.RLIMIT_DATA, getattr(used, "data", used.rss)),
    ):
        most, _ = resource.getrlimit(kind)
        if most != resource.RLIM_INFINITY:
            yield Limit(name, most, max(0.0, most - taken))
