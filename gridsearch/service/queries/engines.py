"""Which engines this machine has (local, Ray, Slurm, PostgreSQL), and what each of them lacks; for the doctor.

Packages are known by their metadata and programs by the search path; what is there is asked whether it answers, and
nothing is started.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from types import MappingProxyType
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from gridsearch.errors import GridsearchError
from gridsearch.reporting.words.text import plural
from gridsearch.service.run.machine import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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
        wanted: whether the environment says where it is.
    """

    name: str
    detail: str
    missing: tuple[str, ...] = ()
    fixes: tuple[str, ...] = ()
    wanted: bool = False

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
    if not missing:
        try:
            there += _ANSWERS[extra]() if extra in _ANSWERS else ()
        except GridsearchError as error:
            missing.append(error.message)
            fixes.append(error.hint or "check that it runs")
    detail = ", ".join((_USES[extra], *there))
    return Engine(extra, detail, tuple(missing), tuple(fixes), wanted=bool(address))


def _slurm_answers() -> list[str]:
    from gridsearch.executors import slurm

    return [slurm.slurm_version(), f"partitions {', '.join(slurm.partitions()) or 'none'}"]


def _ray_answers() -> list[str]:
    from gridsearch.executors import ray

    return ray.answers()


_ANSWERS: Mapping[str, Callable[[], list[str]]] = MappingProxyType(
    {"ray": _ray_answers, "slurm": _slurm_answers}
)
"""What asks an engine whether it answers, and says in a few words what did."""


def _range_of(package: str) -> SpecifierSet:
    """Return the versions of a package that this program was made for, as its metadata has them."""
    found = (Requirement(line) for line in requires("gridsearch") or ())
    return next((each.specifier for each in found if each.name == package and each.marker), SpecifierSet())
