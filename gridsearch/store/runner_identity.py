"""Who holds a claim, and whether that process is still alive; asked when claims are taken back."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import psutil

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerIdentity:
    """A process that claims trials.

    Attributes:
        host: machine and process namespace; a container's process ids mean nothing outside of it.
        boot: differs after each start of the machine.
        pid: process id.
        started: start time of the process, in clock ticks since boot on Linux (a step of the wall clock does
            not change it), else in seconds since 1970; together with `pid` it names one process.
    """

    host: str
    boot: str
    pid: int
    started: float

    @classmethod
    def current(cls) -> Self:
        """Return this process."""
        pid = os.getpid()
        started = _start_of(pid)
        assert started is not None
        return cls(host=_host(), boot=_boot(), pid=pid, started=started)

    def is_dead(self) -> bool:
        """Return whether the process has certainly ended; False for another host, where nobody can tell."""
        if self.host != _host():
            return False
        return self.boot != _boot() or _start_of(self.pid) != self.started

    @property
    def is_elsewhere(self) -> bool:
        """Whether it runs where nobody here can tell if it has ended."""
        return self.host != _host()

    @property
    def name(self) -> str:
        """One text for the four attributes."""
        return f"{self.host}|{self.boot}|{self.pid}|{self.started!r}"


@lru_cache
def _host() -> str:
    try:
        namespace = str((_PROC / "self/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{namespace}"


@lru_cache
def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(round(psutil.boot_time()))


def _start_of(pid: int) -> float | None:
    """Return when a process started, None if there is none or only its zombie."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except FileNotFoundError:
        if _PROC.joinpath("self").exists():
            return None
    except ProcessLookupError:
        return None
    except OSError:
        pass
    else:
        fields = text.rpartition(")")[2].split()  # the name before the parenthesis may hold anything
        return None if fields[0] in "ZX" else float(fields[19])
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None
