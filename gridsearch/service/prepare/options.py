"""Where and how a study is run: everything about a run that does not decide a trial's result."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gridsearch import files
from gridsearch.advice import Advice, default_home, place
from gridsearch.errors import UsageError
from gridsearch.folders import cache_root, expanded

if TYPE_CHECKING:
    from pathlib import Path

PRUNERS = ("none", "median", "asha", "hyperband")
"""What may end a trial early: nothing, or one of Optuna's pruners."""

LEASE_SECONDS = 60.0
"""So long a claim holds without a heartbeat."""

_URL_PASSWORD = re.compile(r"://[^/@:]*:[^/@]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things lie.

    Attributes:
        home: the store and all files of the studies.
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
            UsageError: the URL bears a password.
        """
        root = expanded(home or default_home())
        url = store or os.environ.get("GRIDSEARCH_STORE") or f"sqlite:///{root / files.DATABASE}"
        if _URL_PASSWORD.search(url):
            raise UsageError(
                "--store: a password in the URL can be read by every user of this machine",
                hint="leave it out of the URL; take it from the environment or a file",
            )
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
class RunOptions:
    """How to run; see `gridsearch run --help` for each.

    Attributes:
        places: where things lie.
        device: "auto", "cpu", "cuda", "cuda:N", "mps".
        workers: worker processes, None for one per core or accelerator.
        lanes: trials in one pack at most, None to let the planner choose.
        executor: "local" or "inline".
        prune: "none", "median", "asha" or "hyperband".
        budget: seconds after which no trial is started any more, or None.
        retries: attempts after a worker died.
        keep_going: go on where the first trials all failed with the same error.
        report: whether to make the report at the end.
        command: the command line, for the record.
        lease: seconds after which a claim without a heartbeat may be taken over.
    """

    places: Places = field(default_factory=Places.find)
    device: str = "auto"
    workers: int | None = None
    lanes: int | None = None
    executor: str = "local"
    prune: str = "none"
    budget: float | None = None
    retries: int = 2
    keep_going: bool = False
    report: bool = True
    command: str = ""
    lease: float = LEASE_SECONDS

    @property
    def settled(self) -> bool:
        """Whether the packs follow from the study's trials alone, whenever it is begun; see `planning.fixed_packs`."""
        return self.lanes is not None and self.workers is not None and self.prune == "none"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: a value is out of range or not part of this version.
        """
        if self.executor not in ("local", "inline"):
            raise UsageError(f"--executor {self.executor}: known: inline, local")
        if self.prune not in PRUNERS:
            raise UsageError(f"--prune {self.prune}: known: {', '.join(PRUNERS)}")
        for name in ("workers", "lanes"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"--{name} {value}: must be a whole number of at least 1")
        if self.retries < 0:
            raise UsageError(f"--retries {self.retries}: must be at least 0")
