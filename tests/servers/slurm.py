"""A Slurm cluster of one node, from Debian's packages, in a folder and on ports of its own.

munged, slurmctld and slurmd run as the user of the tests.  There are no cgroups and no database: `sacct` fails, as it
does on clusters without one.  The node claims four cores, whatever the machine has, so that several allocations fit.
Jobs of partition `high` preempt those of `low`, which are requeued.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_START_SECONDS = 60.0
_LOCK = Path(tempfile.gettempdir()) / f"gridsearch-slurm-{os.getuid()}.lock"


@dataclass
class SlurmCluster:
    """A running cluster.

    Attributes:
        folder: its configuration, keys, state and logs.
        environment: the variables by which Slurm's commands find it.
    """

    folder: Path
    environment: dict[str, str]
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *words: str) -> str:
        """Run one of Slurm's commands and return what it prints."""
        done = subprocess.run(
            words,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def jobs(self) -> dict[str, str]:
        """Return the state of each job that has not ended, by its number."""
        lines = self.command("squeue", "--noheader", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def cancel_all(self) -> None:
        """End every job, and wait until none is left."""
        for signal_of_it in ("TERM", "KILL"):
            for job in self.jobs():
                with contextlib.suppress(AssertionError):  # it has ended meanwhile
                    self.command("scancel", *(["--signal=KILL", "--full"] * (signal_of_it == "KILL")), job)
            deadline = time.monotonic() + 10
            while self.jobs() and time.monotonic() < deadline:
                time.sleep(0.2)

    def stop(self) -> None:
        """End the daemons, the last that was started first."""
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def start(folder: Path) -> SlurmCluster:
    """Start a cluster and wait until its node takes jobs.

    Raises:
        RuntimeError: it cannot be started; says why.
    """
    if missing := [program for program in PROGRAMS if shutil.which(program, path=_PATH) is None]:
        raise RuntimeError(f"no {', '.join(missing)} here (Debian: apt-get install slurm-wlm munge)")
    cluster = SlurmCluster(folder, {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _PATH})
    try:
        _start_munge(cluster)
        _write_configuration(folder)
        _start(cluster, "slurmctld", "-D", "-i", "-f", folder / "slurm.conf")
        _wait(cluster, lambda: "UP" in cluster.command("scontrol", "ping"))
        _start(cluster, "slurmd", "-D", "-f", folder / "slurm.conf")
        _wait(cluster, lambda: "idle" in cluster.command("sinfo", "--noheader", "--format=%t"))
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _start_munge(cluster: SlurmCluster) -> None:
    folder = cluster.folder / "munge"
    folder.mkdir(mode=0o755)
    key = folder / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    own = {"key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed", "socket": "socket"}
    options = [f"--{option}={folder / name}" for option, name in own.items()]
    _start(cluster, "munged", "--foreground", "--force", *options)
    _wait(cluster, (folder / "socket").exists)


def _write_configuration(folder: Path) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir()
    node = socket.gethostname().split(".")[0]
    control, daemon = _free_ports(2)
    settings = {
        "ClusterName": "tests",
        "SlurmctldHost": f"{node}(127.0.0.1)",
        "SlurmctldPort": control,
        "SlurmdPort": daemon,
        "SlurmUser": getpass.getuser(),
        "SlurmdUser": getpass.getuser(),
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder / 'munge' / 'socket'}",
        "CredType": "cred/munge",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd.pid",
        "SlurmctldLogFile": folder / "slurmctld.log",
        "SlurmdLogFile": folder / "slurmd.log",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "sched_interval=2,bf_interval=2",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "KillWait": 20,
        "ReturnToService": 2,
        "MpiDefault": "none",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "SlurmdParameters": "config_overrides",
        "InactiveLimit": 0,
    }
    lines = [f"{name}={value}" for name, value in settings.items()]
    lines += [
        f"NodeName={node} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN",
        f"PartitionName=low Nodes={node} Default=YES PriorityTier=1 MaxTime=60 State=UP",
        f"PartitionName=high Nodes={node} PriorityTier=10 PreemptMode=OFF MaxTime=60 State=UP",
    ]
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on at the moment."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start(cluster: SlurmCluster, program: str, *words: object) -> None:
    path = shutil.which(program, path=_PATH)
    assert path is not None
    with (cluster.folder / f"{program}.out").open("wb") as output:
        cluster.daemons.append(
            subprocess.Popen(
                [path, *map(str, words)],
                env={**os.environ, **cluster.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        )


def _wait(cluster: SlurmCluster, ready) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(AssertionError):
            if ready():
                return
        gone = [daemon for daemon in cluster.daemons if daemon.poll() is not None]
        if gone or time.monotonic() > deadline:
            said = [path.read_text(errors="replace")[-300:] for path in sorted(cluster.folder.glob("*.out"))]
            raise RuntimeError(f"Slurm does not start here: {' '.join(' '.join(said).split())}")
        time.sleep(0.1)


@pytest.fixture(scope="module")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """A cluster for all tests of a module, or a skip; processes that test side by side take turns."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Path(tempfile.mkdtemp(prefix="gs-slurm-"))  # short: sockets have short names
        folder.chmod(0o755)
        try:
            cluster = start(folder)
        except RuntimeError as error:
            shutil.rmtree(folder, ignore_errors=True)
            pytest.skip(str(error))
        try:
            yield cluster
        finally:
            cluster.cancel_all()
            cluster.stop()
            shutil.rmtree(folder, ignore_errors=True)
