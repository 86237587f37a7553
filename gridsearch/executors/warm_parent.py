"""A process that imports once what workers need, and forks a worker whenever the runner asks for one.

Stands between `PipeTransport`, which asks, and `worker_process`, which such a worker is.  Importing torch takes a
second of a core for each process; forked workers share one import, and one that replaces a worker that died is there
at once.  A session that runs one study after another keeps the process, so that only the first waits for the import.

    python -m gridsearch.executors.warm_parent SOCKET RUNNER KIND

with the descriptor of a socket for requests, the runner's process id, and the kind of study.  A worker that it forks is
a child of the runner, as if the runner had started it: signals, exit codes and the end with the runner are the same,
and nothing depends on this process once the worker is there.  Forking is safe as long as nothing that was imported has
started a thread; where something has, or the system has no such fork, the runner starts workers one by one.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from gridsearch import garbage
from gridsearch.executors.forked_call import called_in_fork
from gridsearch.training.device_choice import DeviceFacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CLONE_PARENT = 0x8000  # of linux/sched.h: the child's parent is the caller's parent
_CLONE = {"x86_64": 56, "aarch64": 220}
"""The number of the system call `clone` by machine; glibc has no function that forks without a new stack."""

_PATIENCE = 60.0
"""Seconds that a request may take; the first waits for the imports, which a slow disk holds up."""

_LIMITS = 16
"""Kinds of resource limits that Linux has."""

_IDLE = 600.0
"""Seconds without a request after which the process ends: a session that trains no more gets its memory back."""

_LONGEST = 1 << 14
"""Bytes of a request or an answer."""


class WarmParent:
    """The runner's end of such a process.

    Args:
        kind: name of the kind of study whose workers it forks.
        environment: of the process and of its workers.
    """

    late: ClassVar[tuple[str, ...]] = ("GRIDSEARCH_CACHE", "GRIDSEARCH_HOME", "GRIDSEARCH_KERNELS")
    """Variables that nothing reads while it is imported: a worker gets those of the runner as they are now."""

    _kept: ClassVar[_Kept]

    def __init__(self, kind: str, environment: Mapping[str, str]) -> None:
        self._started_as = _circumstances(environment)
        self._facts: tuple[Mapping[str, str], DeviceFacts] | None = None
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests.settimeout(_PATIENCE)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [
                    *(sys.executable, "-P", "-m", "gridsearch.executors.warm_parent"),
                    *(str(theirs.fileno()), str(os.getpid()), kind),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what is wrong with an import, a worker of its own says
                pass_fds=(theirs.fileno(),),
                env=environment,
                start_new_session=True,
            )
        except BaseException:
            self._requests.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid

    @classmethod
    def start(cls, kind: str, environment: Mapping[str, str]) -> None:
        """Have the process there whose workers will be like ones that this process would start itself now.

        Raises:
            OSError: the system starts no more processes.
        """
        if sys.platform != "linux":
            return
        kept = cls._kept.by_kind.get(kind)
        if kept is not None and kept._started_as == _circumstances(environment) and kept._lives():
            return
        cls.end(kind)
        cls._kept.by_kind[kind] = cls(kind, environment)

    @classmethod
    def fork(
        cls, kind: str, environment: Mapping[str, str], end: signal.Signals, descriptors: Sequence[int]
    ) -> int | None:
        """Fork a worker; return its process id, or None where the caller has to start it.

        Args:
            kind: name of the kind of study.
            environment: the worker's.
            end: the signal that ends it, see `worker_process`.
            descriptors: for its commands, events, and output, and of its objects if it has any.

        Raises:
            OSError: the system starts no more processes.
        """
        cls.start(kind, environment)
        if (kept := cls._kept.by_kind.get(kind)) is None:
            return None
        pid = kept._forked({"end": end.value, "environment": _late(environment)}, descriptors)
        if pid is None:
            cls.end(kind)
        return pid

    @classmethod
    def device_facts(cls, kind: str, environment: Mapping[str, str]) -> DeviceFacts | None:
        """Return what this machine trains on, as a process that is there finds it; None where there is none."""
        kept = cls._kept.by_kind.get(kind)
        if kept is None or kept._started_as != _circumstances(environment):
            return None
        now = _late(environment)
        if kept._facts is None or kept._facts[0] != now:
            answer = kept._asked({"environment": now}, [])
            found = json.loads(answer) if answer else None
            kept._facts = found and (now, DeviceFacts(tuple(found["devices"]), found["described"]))
        return kept._facts and kept._facts[1]

    @classmethod
    def end(cls, *kinds: str) -> None:
        """End this thread's processes of some kinds, else of all; workers that they have forked stay."""
        for kind in kinds or tuple(cls._kept.by_kind):
            if (kept := cls._kept.by_kind.pop(kind, None)) is not None:
                kept._close()

    def _lives(self) -> bool:
        return self._process.poll() is None

    def _forked(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> int | None:
        here = os.open(".", os.O_PATH)  # which works in a folder that was removed, too
        try:
            return int(self._asked(request, [here, *descriptors]) or b"0") or None
        finally:
            os.close(here)

    def _asked(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> bytes:
        """Return the answer to a request; nothing where the process has ended, or takes too long."""
        try:
            socket.send_fds(self._requests, [json.dumps(request).encode()], descriptors)
            return self._requests.recv(_LONGEST)
        except OSError:
            return b""

    def __del__(self) -> None:  # with its thread
        if hasattr(self, "_process"):
            self._close()

    def _close(self) -> None:
        self._requests.close()
        if self._started_as[0] == os.getpid():  # not in a fork of the process that started it
            self._process.kill()
            self._process.wait()


class _Kept(threading.local):
    """The processes of each thread: the kernel ends what a thread has started with the thread, and all its forks."""

    def __init__(self) -> None:
        self.by_kind: dict[str, WarmParent] = {}


WarmParent._kept = _Kept()
atexit.register(WarmParent.end)


def _circumstances(environment: Mapping[str, str]) -> tuple[object, ...]:
    """Return what a process has from the one that starts it, and which one that is; the folder it is in aside."""
    import resource

    limits = tuple(resource.getrlimit(which) for which in range(_LIMITS))
    owners = (os.getresuid(), os.getresgid(), os.getgroups())
    scheduling = (os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0))
    early = {name: text for name, text in environment.items() if name not in WarmParent.late}
    return os.getpid(), early, limits, owners, scheduling, _umask()


def _late(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in WarmParent.late if name in environment}


def _set_late(late: Mapping[str, str]) -> None:
    for name in WarmParent.late:
        os.environ.pop(name, None)
    os.environ.update(late)


def _umask() -> int:
    before = os.umask(0o077)
    os.umask(before)
    return before


class ForkedProcess:
    """A child of this process that `Popen` has not started.

    Attributes:
        pid: its process id.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def wait(self) -> int:
        """Wait for its end; return its exit code as `Popen.wait` does, 0 where somebody else has asked for it."""
        if self._code is None:
            try:
                self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            except ChildProcessError:
                self._code = 0
        return self._code


def main(requests: int, runner: int, kind: str) -> None:
    """Import, then fork a worker for each request until the runner closes the socket.

    Args:
        requests: descriptor of the socket.
        runner: process id of the runner.
        kind: name of the kind of study.
    """
    with garbage.resting(keep=True):  # in pages that all workers share
        from gridsearch.executors import worker, worker_process

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a key on the runner's terminal is for the runner
        worker_process.end_with_parent(runner, by=signal.SIGKILL)
        worker.load(kind)
    with socket.socket(fileno=requests) as channel:
        channel.settimeout(_IDLE)
        while True:
            try:
                text, descriptors, *_ = socket.recv_fds(channel, _LONGEST, 8)
            except TimeoutError:
                return
            if not text:
                return
            request = json.loads(text)
            if not descriptors:
                channel.send(_device_facts(request["environment"]))
                continue
            pid = _fork_sibling() if _alone() else 0
            if pid is None:
                channel.close()
                _be_worker(request, descriptors, runner)
            for descriptor in descriptors:
                os.close(descriptor)
            with contextlib.suppress(BrokenPipeError):
                channel.send(str(pid).encode())


def _alone() -> bool:
    """Whether this process has one thread: locks that another one holds would stay locked in a fork."""
    return len(list(Path("/proc/self/task").iterdir())) == 1


def _device_facts(late: Mapping[str, str]) -> bytes:
    """Return what this machine trains on, as JSON.

    A process that has asked a GPU's driver can use it no more once it is forked: a child asks.
    """

    def asked() -> str:
        from gridsearch.training import device_facts

        _set_late(late)
        return json.dumps(asdict(device_facts()))

    return (called_in_fork(asked, patience=_PATIENCE) or "").encode()


def _fork_sibling() -> int | None:
    """Fork a process that is a child of this one's parent.

    `os.fork` with one flag more, and with its calls of the interpreter before and after.

    Returns:
        Its process id, 0 where that cannot be done; in the new process None.
    """
    number = _CLONE.get(platform.machine())
    if number is None or not hasattr(ctypes.pythonapi, "PyOS_BeforeFork"):
        return 0
    call = ctypes.PyDLL(None).syscall  # which keeps the interpreter's lock
    call.restype = ctypes.c_long
    flags = _CLONE_PARENT | signal.SIGCHLD
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = call(*(ctypes.c_long(value) for value in (number, flags, 0, 0, 0, 0)))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return None
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    return max(0, pid)


def _be_worker(request: Mapping[str, Any], descriptors: Sequence[int], runner: int) -> NoReturn:
    """Be what `python -m gridsearch.executors.worker_process` would be."""
    from gridsearch.executors import worker_process

    here, commands, events, output, *objects = descriptors
    code = 1
    try:
        os.setsid()
        _set_late(request["environment"])
        os.fchdir(here)
        os.close(here)
        for standard in (1, 2):
            os.dup2(output, standard)
        os.close(output)
        worker_process.main(request["end"], commands, events, runner, *objects)
        code = 0
    except BaseException:  # noqa: BLE001 - it must not go on as its parent would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
