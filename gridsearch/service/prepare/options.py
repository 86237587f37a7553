"""Where and how a study is run: everything about a run that does not decide a trial's result."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gridsearch import files
from gridsearch.advice import Advice, default_home, place
from gridsearch.errors import UsageError
from gridsearch.executors.slurm_words import AllocationRequest, read_request
from gridsearch.folders import cache_root, expanded
from gridsearch.service.prepare.option_words import count_or_auto, duration, interval, natural
from gridsearch.store import object_storage
from gridsearch.store.url import masked, require_no_password

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

LEASE_SECONDS = 60.0
"""So long a claim holds without a heartbeat."""

ALLOCATIONS = 4
"""Allocations that are asked for by default: few enough for the limits of shared clusters, and soon granted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things lie.

    Attributes:
        home: the store and all files of the studies; a folder of the cache where they are in object storage.
        store: the database's URL.
        cache: datasets and measured costs, shared by many homes.
    """

    home: Path
    store: str
    cache: Path

    @classmethod
    def find(cls, home: str | Path | None = None, store: str | None = None) -> Places:
        """Resolve places: the argument, then the environment, then the default.

        Raises:
            UsageError: a URL bears a password, or a home in object storage has no store.
        """
        where = home or default_home()
        given = store or os.environ.get("GRIDSEARCH_STORE")
        if object_storage.is_address(where):
            if given is None:
                raise UsageError(
                    f"--home {masked(str(where))}: object storage holds files, and no ledger",
                    hint="name a store as well: --store postgresql://HOST/NAME",
                )
            root = object_storage.mirror(str(where), cache_root())
        else:
            root = expanded(where)
        url = given or f"sqlite:///{root / files.DATABASE}"
        require_no_password(url)
        return cls(home=root, store=url, cache=cache_root(root))

    @property
    def again(self) -> Advice:
        """The commands about no study yet, in these places."""
        return Advice(where=place(self.home, self.store))

    @property
    def data(self) -> Path:
        """Folder of the datasets' files."""
        return self.cache / files.DATA

    @property
    def probes(self) -> Path:
        """The file of measured costs."""
        return self.cache / files.PROBES

    @property
    def overheads(self) -> Path:
        """The file of what runs cost beside training."""
        return self.cache / files.OVERHEADS


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """How one option of a run is given, on the command line and from Python.

    Attributes:
        help: as `--help` shows it.
        metavar: what `--help` shows for the value.
        read: makes a value of a word; raises `argparse.ArgumentTypeError`.
        choices: the words that it takes; empty where `read` decides.
        time: whether it is a time: Python may give a number of seconds or a timedelta.
        many: whether it may be given several times; its value is a tuple of words, and Python may give a mapping.
        secret: whether its value is never shown.
    """

    help: str
    metavar: str | None = None
    read: Callable[[str], Any] | None = None
    choices: tuple[str, ...] = ()
    time: bool = False
    many: bool = False
    secret: bool = False


def _option(default: Any, text: str, **how: Any) -> Any:
    declared = Option(help=text, **how)
    return field(default=default, repr=not declared.secret, metadata={"option": declared})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to run: one declaration for each option, which the command line and the library both read.

    A bool that is True by default is switched off by ``--no-NAME``.

    Attributes:
        places: where things lie.
        command: the command line, for the record.
        changed: options of a stored study that are others from now on, see `preparation.prepare_stored`.
    """

    places: Places = field(default_factory=Places.find)
    command: str = ""
    changed: Mapping[str, Any] = field(default_factory=dict)
    device: str = _option("auto", "auto (default), cpu, cuda, cuda:N, mps", metavar="D")
    executor: str = _option(
        "local",
        "where trials run: local (default, in worker processes), inline (in this one, one after another), ray (on a "
        "Ray cluster), or slurm (in allocations of a Slurm cluster)",
        choices=("inline", "local", "ray", "slurm"),
    )
    slurm: tuple[str, ...] = _option(
        (),
        "with --executor slurm: an option of sbatch for each allocation, such as partition=gpu, time=4:00:00, "
        "gpus_per_node=1, cpus_per_task=8, mem=16G, account=NAME, qos=NAME (repeatable)",
        metavar="KEY=VALUE",
        many=True,
    )
    workers: int | None = _option(
        None,
        f"worker processes (default: one per core or GPU); with --executor slurm, allocations (default: {ALLOCATIONS})",
        metavar="N",
        read=count_or_auto,
    )
    lanes: int | None = _option(
        None,
        "trials in one pack at most (default: measured; 1: no packs)",
        metavar="N",
        read=count_or_auto,
    )
    prune: str = _option(
        "none",
        "stop poor trials early: none (default); median: below the median of the complete trials at that epoch "
        "(5 or more of them, from epoch 2 on); asha: after a ninth of the epochs and after a third of them, one "
        "trial in three continues; hyperband: asha with several starts",
        metavar="P",
        choices=("none", "median", "asha", "hyperband"),
    )
    budget: float | None = _option(
        None,
        "stop after 30m, 2h, ...: no more trials start, and running ones stop at the end of their epoch, or after "
        "15 seconds; the next run continues them",
        metavar="TIME",
        read=duration,
        time=True,
    )
    trial_limit: float | None = _option(
        None,
        "a trial that trains for longer than 10m, 2h, ... fails (reason: limit); the others continue",
        metavar="TIME",
        read=duration,
        time=True,
    )
    retries: int = _option(2, "attempts after a worker died (default: 2)", metavar="N", read=natural)
    checkpoint: float | None = _option(
        60.0,
        "save each trial at an epoch's end, at most this often: 60s (default), every-epoch, or off; an interrupted "
        "trial continues from there",
        metavar="TIME",
        read=interval,
        time=True,
    )
    store_patience: float = _option(
        600.0,
        "keep training for this long while the store is locked or unreachable; results wait on disk (default: 10m)",
        metavar="TIME",
        read=duration,
        time=True,
    )
    lease: float = _option(
        LEASE_SECONDS,
        "a runner silent for this long loses its trials to others (default: 1m)",
        metavar="TIME",
        read=duration,
        time=True,
    )
    keep_going: bool = _option(
        False, "continue even if the first trials all fail with the same error; otherwise the run stops"
    )
    notify: tuple[str, ...] = _option(
        (),
        "send a message by Apprise when the run has ended, failed or was interrupted: json://HOST/PATH, mailto://..., "
        "slack://... (extra notify; repeatable; in $GRIDSEARCH_NOTIFY no other user of this machine can read it)",
        metavar="URL",
        many=True,
        secret=True,
    )
    report: bool = _option(True, "skip the report at the end")

    @property
    def settled(self) -> bool:
        """Whether the packs follow from the study's trials alone, whenever it is begun; see `planning.fixed_packs`."""
        return self.lanes is not None and self.workers is not None and self.prune == "none"

    @property
    def allocation(self) -> AllocationRequest:
        """What each allocation of a Slurm cluster shall have."""
        return read_request(self.slurm)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: a value is out of range or not part of this version.
        """
        for name, declared in RUN_OPTIONS.items():
            value = getattr(self, name)
            if declared.choices and value not in declared.choices:
                raise UsageError(f"--{name} {value}: known: {', '.join(declared.choices)}")
        for name in ("workers", "lanes"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"--{name} {value}: must be a whole number of at least 1")
        if self.slurm and self.executor != "slurm":
            raise UsageError(f"--slurm {self.slurm[0]}: only with --executor slurm")
        read_request(self.slurm)
        if self.retries < 0:
            raise UsageError(f"--retries {self.retries}: must be at least 0")


RUN_OPTIONS: Mapping[str, Option] = MappingProxyType(
    {each.name: each.metadata["option"] for each in fields(RunOptions) if "option" in each.metadata}
)
"""The options that a run is given by their names, in the order in which help shows them."""

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {each.name: each.default for each in fields(RunOptions) if "option" in each.metadata}
)


def require_report(*, open_it: bool, report: bool) -> None:
    """Refuse to open a report that is not made.

    Args:
        open_it: whether the report is to be opened in the browser.
        report: whether there is one.

    Raises:
        UsageError: it is to be opened, and there is none.
    """
    if open_it and not report:
        raise UsageError(
            "there would be no report to open",
            hint="leave out --no-report or --open (in Python report=False or open=True)",
        )
