"""Which engines this machine has (local, Ray, Slurm, PostgreSQL), and what each of them lacks; for the doctor.

Nothing is started and nothing is asked over the network here: packages by their metadata, programs by the search path.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from gridsearch.reporting.words.text import plural
from gridsearch.service.run.workers import cores

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGES = {"ray": "ray", "slurm": "submitit", "postgresql": "psycopg"}
"""What the extra of each engine installs."""

_PROGRAMS = {"slurm": ("sbatch", "squeue", "scancel")}
"""Programs of the system that an engine calls, beside its package."""

_USES = {
    "ray": "--executor ray",
    "slurm": "--executor slurm",
    "postgresql": "--store postgresql://HOST/NAME",
}
_ADDRESSES = {"ray": "RAY_ADDRESS"}
"""Environment variables that say where an engine is."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that carries trials, or their ledger, to other machines.

    Attributes:
        name: "local", or the name of the extra that installs it.
        detail: the versions that are there and where it is, in a few words.
        missing: what it lacks here, a few words each.
        fixes: how to get each of these.
    """

    name: str
    detail: str
    missing: tuple[str, ...] = ()
    fixes: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether it can be used from here."""
        return not self.missing


def engines() -> Iterator[Engine]:
    """Yield all engines, the one that is always there first."""
    yield Engine("local", f"--executor local: {plural(cores(), 'core')} of this machine")
    for extra in _PACKAGES:
        yield _of_extra(extra)


def _of_extra(extra: str) -> Engine:
    there, missing, fixes = [], [], []
    package = _PACKAGES[extra]
    wanted = _range_of(package)
    try:
        found = version(package)
    except PackageNotFoundError:
        missing.append(f"{package} is not installed")
    else:
        if wanted.contains(found, prereleases=True):
            there.append(f"{package} {found}")
        else:
            missing.append(f"{package} {found}, but {wanted} is needed")
    if missing:
        fixes.append(f"pip install 'gridsearch[{extra}]'")
    if absent := [name for name in _PROGRAMS.get(extra, ()) if shutil.which(name) is None]:
        missing.append(f"no {', '.join(absent)} on the search path")
        fixes.append("run it on a node that submits jobs")
    address = os.environ.get(_ADDRESSES.get(extra, ""), "")
    there += [f"at {address}"] if address else []
    return Engine(extra, ", ".join((_USES[extra], *there)), tuple(missing), tuple(fixes))


def _range_of(package: str) -> SpecifierSet:
    """Return the versions of a package that this program was made for, as its metadata has them."""
    found = (Requirement(line) for line in requires("gridsearch") or ())
    return next((each.specifier for each in found if each.name == package and each.marker), SpecifierSet())
