"""Allocations of a Slurm cluster: checked, asked for, looked up and cancelled; the only module that knows submitit.

Stands below `slurm_transport`.  Submitit writes the batch script and hands it to sbatch; in the allocation it calls
`allocation.serve`.  States come from squeue, which needs no accounting database, and many clusters have none.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gridsearch.errors import EngineUnreachable, UnusableError, UsageError, cut
from gridsearch.executors.allocation import serve
from gridsearch.executors.local import worker_environment

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from gridsearch.executors.slurm_words import AllocationRequest

_COMMANDS = ("sbatch", "squeue", "scancel")
_ANSWER_SECONDS = 60.0
_FORMAT = "%i|%T|%P|%r"
_OF_SUBMITIT = frozenset(("setup", "signal_delay_s", "array_parallelism"))

_NO_ANSWER = re.compile(
    r"contact slurm|slurm controller|timed out|connection refused|communication|configuration source|munge|credential",
    re.IGNORECASE,
)
_LIMITS = re.compile(r"violates|submit limit|QOSMax|AssocMax|AssocGrp|QOSGrp", re.IGNORECASE)
_WRONG_WORDS = re.compile(
    r"invalid|unrecognized|specification|not available|not permitted|can ?not be satisfied|unsupported|qos|account",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job stands.

    Attributes:
        state: as Slurm calls it: "PENDING", "RUNNING", "CANCELLED", ...
        partition: where it runs or waits.
        reason: why it waits, in Slurm's word: "Priority", "Resources", ...
    """

    state: str
    partition: str = ""
    reason: str = ""

    @property
    def waits(self) -> bool:
        """Whether it is still to begin, for the first time or again."""
        return self.state in (
            "PENDING",
            "CONFIGURING",
            "REQUEUED",
            "REQUEUE_HOLD",
            "SPECIAL_EXIT",
            "RESV_DEL_HOLD",
        )

    @property
    def runs(self) -> bool:
        """Whether it has nodes."""
        return self.state in (
            "RUNNING",
            "COMPLETING",
            "SUSPENDED",
            "STOPPED",
            "SIGNALING",
            "STAGE_OUT",
            "RESIZING",
        )


def require_slurm(request: AllocationRequest) -> None:
    """Let Slurm look at what is asked for, before anything is written.

    Raises:
        UsageError: it takes an option or a value not.
        UnusableError: Slurm or submitit is not here.
        EngineUnreachable: Slurm does not answer.
    """
    missing = [command for command in _COMMANDS if shutil.which(command) is None]
    if missing:
        raise UnusableError(
            f"--executor slurm: no {', '.join(missing)} on PATH",
            hint="run on a login node of a Slurm cluster",
        )
    _submitit()
    options = {name: value for name, value in request.options.items() if name not in _OF_SUBMITIT}
    words = [_option(name, value) for name, value in options.items()]
    _run("sbatch", "--test-only", *words, "--wrap=true")


def slurm_version() -> str:
    """Return which Slurm is here.

    Raises:
        UnusableError: none.
        EngineUnreachable: it does not answer.
    """
    if shutil.which("sinfo") is None:
        raise UnusableError("no sinfo on PATH")
    return _run("sinfo", "--version").strip()


def partitions() -> tuple[str, ...]:
    """Return the partitions that take jobs, the default one with a star.

    Raises:
        EngineUnreachable: Slurm does not answer.
    """
    lines = _run("sinfo", "--noheader", "--format=%P %a").splitlines()
    return tuple(dict.fromkeys(line.split()[0] for line in lines if line.split()[1:] == ["up"]))


class Allocations:
    """The allocations of one run.

    Args:
        request: what each shall have.
        folder: what runner and nodes share; submitit keeps its files there.
        name: the name of all its jobs, which no other run's have.
        cluster: "slurm"; or "local" for processes of this machine, which submitit keeps likewise.
    """

    def __init__(
        self, request: AllocationRequest, folder: Path, *, name: str, cluster: str = "slurm"
    ) -> None:
        self._folder = folder
        self._name = name
        self._jobs: dict[str, Any] = {}
        self._local = cluster == "local"
        submitit = _submitit()
        if self._local:
            self._executor = submitit.LocalExecutor(folder)
            self._executor.update_parameters(timeout_min=60)
            return
        # The batch shell becomes the worker's process, so that signals reach it.
        python = f"exec {shlex.quote(sys.executable)}"
        self._executor = submitit.SlurmExecutor(folder, max_num_timeout=0, python=python)
        own = {name: request.options[name] for name in ("array_parallelism",) if name in request.options}
        self._executor.update_parameters(
            job_name=name,
            time=None,  # the partition's, unless the user says
            wckey=None,
            use_srun=False,
            stderr_to_stdout=True,
            setup=[*_environment(), *request.options.get("setup", ())],
            additional_parameters={
                "requeue": True,
                "signal": f"B:USR2@{request.notice}",
                **{
                    name.replace("_", "-"): value
                    for name, value in request.options.items()
                    if name not in _OF_SUBMITIT
                },
            },
            **own,
        )

    def submit(self, count: int) -> list[str]:
        """Ask for allocations and return the ids of their jobs; several are one array.

        Raises:
            UsageError: Slurm takes an option not.
            UnusableError: it takes no more jobs of this user.
            EngineUnreachable: it does not answer.
        """
        submitit = _submitit()
        try:
            if count == 1 or self._local:
                jobs = [self._executor.submit(serve, str(self._folder)) for _ in range(count)]
            else:
                jobs = self._executor.map_array(serve, [str(self._folder)] * count)
        except submitit.core.utils.FailedJobError as error:
            raise _refused(str(error)) from error
        except submitit.core.utils.FailedSubmissionError as error:
            raise EngineUnreachable(f"Slurm: {_one_line(str(error))}") from error
        except OSError as error:
            raise UnusableError(f"{self._folder} cannot be written: {error}") from error
        self._jobs |= {job.job_id: job for job in jobs}
        return [job.job_id for job in jobs]

    def states(self) -> Mapping[str, JobState] | None:
        """Return the states of the jobs by their ids, without those that Slurm has forgotten; None: no answer."""
        if self._local:
            found = {"RUNNING": "RUNNING", "INTERRUPTED": "FAILED"}
            return {name: JobState(found.get(job.state, "COMPLETED")) for name, job in self._jobs.items()}
        try:
            words = ("--noheader", "--states=all", "--array", f"--name={self._name}", f"--format={_FORMAT}")
            said = _run("squeue", *words)
        except (EngineUnreachable, UnusableError, UsageError):
            return None
        states = {}
        for line in said.splitlines():
            job, state, partition, reason = (*line.split("|"), "", "", "")[:4]
            states[job] = JobState(state, partition, reason)
        return states

    def cancel(self, jobs: Collection[str]) -> None:
        """End jobs; those that have ended are left alone."""
        if self._local:
            for job in jobs:
                self._jobs[job].cancel()
        elif jobs:
            _run_anyway("scancel", "--quiet", *jobs)

    def wait(self, seconds: float) -> None:
        """Wait until no job runs any more, for so long at most; Slurm's end without anybody who waits."""
        deadline = time.monotonic() + seconds
        while self._local and time.monotonic() < deadline:
            if all(job.done() for job in self._jobs.values()):
                return
            time.sleep(0.05)

    def last_words(self, job: str) -> str:
        """Return the last line of what a job printed, and where the rest is."""
        path = self._jobs[job].paths.stdout
        try:
            lines = path.read_text(errors="replace").strip().splitlines()
        except OSError:
            return f"nothing in {path}: is this folder there on the nodes?"
        return f"{cut(lines[-1]) if lines else 'nothing'} ({path})"


def cancel_all(name: str) -> None:
    """End all jobs of this name, if there is a Slurm that answers."""
    if shutil.which("scancel") is not None:
        _run_anyway("scancel", "--quiet", f"--name={name}")


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UnusableError(
            f"--executor slurm needs submitit: {error}", hint="pip install 'gridsearch[slurm]'"
        ) from error
    return submitit


def _environment() -> list[str]:
    """Return lines of a shell that let a node's Python find the modules that this one finds."""
    path = worker_environment(threads=1)["PYTHONPATH"]
    return [f"export PYTHONPATH={shlex.quote(path)}"]


def _option(name: str, value: Any) -> str:
    word = f"--{name.replace('_', '-')}"
    return word if value is True else f"{word}={value}"


def _run(*words: str) -> str:
    """Run one of Slurm's commands and return what it prints.

    Raises:
        UsageError: it takes a word not.
        UnusableError: it fails otherwise.
        EngineUnreachable: it does not answer.
    """
    try:
        done = subprocess.run(  # noqa: S603 - Slurm's own commands, no shell
            words,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ANSWER_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineUnreachable(f"Slurm: {words[0]} does not answer within {_ANSWER_SECONDS:.0f}s") from error
    except OSError as error:
        raise UnusableError(f"Slurm: {words[0]} cannot be run: {error}") from error
    if done.returncode:
        raise _refused(done.stderr)
    return done.stdout


def _run_anyway(*words: str) -> None:
    try:
        _run(*words)
    except (UsageError, UnusableError, EngineUnreachable):
        return  # whatever is left ends by itself: nobody listens to it any more


def _refused(said: str) -> UsageError | UnusableError | EngineUnreachable:
    """Return what to raise for what one of Slurm's commands said."""
    reason = _one_line(said)
    if _NO_ANSWER.search(reason):
        return EngineUnreachable(f"Slurm does not answer: {reason}")
    if _WRONG_WORDS.search(reason) and not _LIMITS.search(reason):
        return UsageError(
            f"--slurm: Slurm refuses it: {reason}", hint="`gridsearch doctor` names the partitions"
        )
    return UnusableError(f"Slurm gives no allocation: {reason}")


def _one_line(said: str) -> str:
    """Return what a command of Slurm's said without its own name before each line."""
    lines: Sequence[str] = [re.sub(r"^\w+: (error|fatal): ", "", line).strip() for line in said.splitlines()]
    return cut("; ".join(dict.fromkeys(filter(None, lines))) or "it says no reason")
