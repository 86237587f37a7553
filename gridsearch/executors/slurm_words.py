"""What `--slurm KEY=VALUE` asks of Slurm for each allocation: options of sbatch by their names, checked.

Stands between the command line or Python and `slurm`, which hands them to submitit.  What an allocation has decides how
many workers it runs: one for each of its GPUs, else one for each of its cores, as on a machine with so many.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gridsearch.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

NOTICE_SECONDS = 120
"""So long before an allocation's time ends its worker gets notice, to leave its pack with a checkpoint."""

_TEXTS = frozenset(
    (
        *("account", "acctg_freq", "batch", "begin", "bb", "bbf", "cluster_constraint", "comment"),
        *("constraint", "container", "cpu_freq", "cpus_per_gpu", "deadline", "delay_boot", "dependency"),
        *("distribution", "exclude", "export", "extra_node_info", "gpu_bind", "gpu_freq", "gpus"),
        *("gpus_per_node", "gpus_per_socket", "gpus_per_task", "gres", "gres_flags", "hint", "licenses"),
        *("mail_type", "mail_user", "mcs_label", "mem_bind", "network", "nodefile", "nodelist"),
        *("partition", "power", "prefer", "priority", "profile", "propagate", "qos", "reservation"),
        *("switches", "tmp", "tres_bind", "tres_per_task", "wckey"),
    )
)
_COUNTS = frozenset(
    (
        *("cores_per_socket", "cpus_per_task", "mincpus", "nice", "sockets_per_node", "thread_spec"),
        *("core_spec", "threads_per_core", "signal_delay_s", "array_parallelism"),
    )
)
_TIMES = frozenset(("time", "time_min"))
_SIZES = frozenset(("mem", "mem_per_cpu", "mem_per_gpu"))
_FLAGS = frozenset(
    (*("exclusive", "hold", "oversubscribe", "overcommit", "reboot", "spread_job", "use_min_nodes"),)
)
_LINES = frozenset(("setup",))
KNOWN = _TEXTS | _COUNTS | _TIMES | _SIZES | _FLAGS | _LINES

_WORKERS = "--workers says how many allocations, and each runs a worker for each of its GPUs or cores"
_OURS = {
    **dict.fromkeys(("array", "nodes", "ntasks", "ntasks_per_node", "ntasks_per_gpu"), _WORKERS),
    **dict.fromkeys(
        ("output", "error", "input", "open_mode", "job_name", "chdir", "wrap"), "gridsearch sets it"
    ),
    **dict.fromkeys(
        ("signal", "timeout_min"), "time and signal_delay_s say when an allocation ends and is told"
    ),
    **dict.fromkeys(("requeue", "no_requeue"), "an allocation that is preempted is always requeued"),
    **dict.fromkeys(
        ("clusters", "wait", "parsable", "test_only", "uid", "gid"), "gridsearch does not offer it"
    ),
}
_SHORT = {
    "p": "partition",
    "t": "time",
    "a": "account",
    "q": "qos",
    "c": "cpus_per_task",
    "g": "gpus",
    "w": "nodelist",
}
_TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}")
_SIZE = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
_MEGABYTES = {"K": 1 / 1024, "": 1.0, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


@dataclass(frozen=True, slots=True)
class AllocationRequest:
    """What each allocation shall have.

    Attributes:
        options: of sbatch and submitit, by name; "setup" holds lines of a shell.
    """

    options: dict[str, Any] = field(default_factory=dict)

    @property
    def partition(self) -> str:
        """The partition that was named, or nothing where Slurm's default counts."""
        return str(self.options.get("partition", ""))

    @property
    def gpus(self) -> int:
        """How many GPUs an allocation has."""
        for name in ("gpus_per_node", "gpus", "gpus_per_task", "gpus_per_socket"):
            if name in self.options:
                return sum(_number(word) for word in str(self.options[name]).split(","))
        resources = str(self.options.get("gres", "")).split(",")
        return sum(_number(word) for word in resources if word.partition(":")[0] in ("gpu", "gres/gpu"))

    @property
    def workers(self) -> int:
        """How many workers an allocation runs: one a GPU, else one a core."""
        return self.gpus or int(self.options.get("cpus_per_task", 1))

    @property
    def megabytes(self) -> float | None:
        """The memory of an allocation, None where nobody has said."""
        for name, times in (("mem", 1), ("mem_per_cpu", self.options.get("cpus_per_task", 1))):
            if found := _SIZE.fullmatch(str(self.options.get(name, ""))):
                return float(found[1]) * _MEGABYTES[found[2].upper()] * times or None  # 0: the whole node's
        return None

    @property
    def seconds(self) -> float | None:
        """How long an allocation may last, None where the partition decides."""
        if "time" not in self.options:
            return None
        days, _, clock = str(self.options["time"]).rpartition("-")
        parts = [int(part) for part in clock.split(":")]
        if days or len(parts) == 3:  # hours first
            hours, minutes, seconds = (*parts, 0, 0)[:3]
        else:  # minutes first
            hours, minutes, seconds = 0, *(*parts, 0)[:2]
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60.0 + seconds

    @property
    def notice(self) -> int:
        """Seconds before its end at which an allocation gets notice; no more than a quarter of its time."""
        given = int(self.options.get("signal_delay_s", NOTICE_SECONDS))
        return given if self.seconds is None else min(given, int(self.seconds // 4))


def read_request(words: Iterable[str]) -> AllocationRequest:
    """Return what words such as "partition=gpu" and "time=2:00:00" ask for.

    Raises:
        UsageError: an option that nobody knows, that is not the user's to set, or a value that it does not take.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        key = name.strip().lstrip("-").removeprefix("slurm_").replace("-", "_")
        key = _SHORT.get(key, key)
        if key in _OURS:
            raise UsageError(f"--slurm {word}: not here; {_OURS[key]}")
        if key not in KNOWN:
            close = nearest(key, KNOWN)
            known = (
                "; any option of sbatch that describes an allocation"
                if close.startswith("; known")
                else close
            )
            raise UsageError(f"--slurm {word}: no option {key!r}{known}", hint="--slurm partition=gpu")
        if key in options and key not in _LINES:
            raise UsageError(f"--slurm {word}: {key} is given twice")
        read = _read(key, value.strip() if equals else "true", word)
        options[key] = [*options.get(key, ()), read] if key in _LINES else read
    if "mem" in options and "mem_per_cpu" in options:
        raise UsageError("--slurm mem and mem_per_cpu exclude each other")
    return AllocationRequest(options)


def _read(key: str, value: str, word: str) -> Any:
    """Return a value as sbatch takes it, checked as far as that does not depend on the cluster."""
    wanted = ""
    if not value or not value.isprintable() or (value == "true" and key not in _FLAGS):
        wanted = f"{key}=VALUE, on one line"
    elif key in _COUNTS and not (value.isdigit() and (int(value) > 0 or key in ("nice", "signal_delay_s"))):
        wanted = "a whole number of at least 1"
    elif key in _TIMES and not _TIME.fullmatch(value):
        wanted = "a time as sbatch reads it: 90 (minutes), 2:00:00, 1-12 (days-hours)"
    elif key in _SIZES and not _SIZE.fullmatch(value):
        wanted = "a size such as 4G or 800M"
    elif key in _FLAGS and key != "exclusive" and value != "true":
        wanted = f"nothing: `--slurm {key}`"
    if wanted:
        raise UsageError(f"--slurm {word}: takes {wanted}")
    if key in _COUNTS:
        return int(value)
    return True if key in _FLAGS and value == "true" else value


def _number(word: str) -> int:
    """Return how many a word such as "2", "a100:2", "gpu:a100:2" or "gpu" names."""
    last = word.strip().rpartition(":")[2].partition("(")[0]
    return int(last) if last.isdigit() else 1
