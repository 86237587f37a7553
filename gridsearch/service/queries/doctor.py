"""Examines the machine, the packages, the data and the store, and says what is wrong and how to fix it."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Literal

from gridsearch.errors import GridsearchError
from gridsearch.folders import can_be_made, nearest_there
from gridsearch.reporting.words.text import plural
from gridsearch.service.queries.engines import engines
from gridsearch.service.queries.studies import require_never_made
from gridsearch.store import masked, open_store, store_exists, store_facts, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gridsearch.service.prepare.options import Places

Verdict = Literal["ok", "note", "bad"]

_PACKAGES = (
    *("torch", "torchvision", "optuna", "optuna-dashboard", "sqlalchemy", "tensorboard", "numpy", "pandas"),
    *("matplotlib", "seaborn", "scikit-learn", "scipy", "safetensors", "rich", "pydantic", "jinja2"),
)
_LITTLE_SPACE_MB = 500.0
_FIX_COMPILER = "install a C compiler with its headers (gcc and libc6-dev, or clang), or name one in $CC"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        verdict: "ok", "note" (worth knowing), or "bad" (something will not work).
        mend: how to fix it, where there is something to fix; a key of `doctor --json`.
    """

    subject: str
    verdict: Verdict
    detail: str
    mend: str | None = None


def examine(places: Places, *, model: str | None = None, dataset: str | None = None) -> list[Finding]:
    """Return what there is to say, in a fixed order.

    Args:
        places: where things lie.
        model: name or locator of the model to examine, None for all built-in ones.
        dataset: what it would train on; where none is named, made-up grey images of 28x28.

    Raises:
        GridsearchError: the model or the dataset that was named is not there.
    """
    return [
        *_python(),
        *_packages(),
        *_torchvision(),
        *_devices(),
        *_kernel_choices(),
        *_engines(),
        *_places(places),
        *_caches(places),
        *_data(places),
        *_store(places),
        *_models(places, model=model, dataset=dataset),
    ]


def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    ranges = {}
    for line in requires("gridsearch") or ():
        requirement = Requirement(line)
        ranges[requirement.name.lower()] = requirement.specifier
    for package in _PACKAGES:
        try:
            found = version(package)
        except PackageNotFoundError:
            yield Finding(package, "bad", "not installed", f"pip install {package}")
            continue
        wanted = ranges.get(package)
        if wanted is not None and not wanted.contains(found.partition("+")[0], prereleases=True):
            yield Finding(
                package, "bad", f"{found}, but {wanted} is needed", f"pip install '{package}{wanted}'"
            )
        else:  # a range with an end says for which versions this program was tested
            limited = wanted is not None and "<" in str(wanted)
            yield Finding(package, "ok", f"{found}, within {wanted}" if limited else found)


def _torchvision() -> Iterator[Finding]:
    from gridsearch.zoo import torchvision

    try:
        if torchvision.compiled_operators():
            yield Finding("torchvision operators", "ok", "they load beside this torch")
        else:
            reason = "they do not load beside this build of torch; nothing here needs them"
            yield Finding("torchvision operators", "note", reason)
        torchvision.load()
    except ImportError as error:
        yield Finding("torchvision", "bad", str(error), "install the torchvision that belongs to this torch")


def _devices() -> Iterator[Finding]:
    from gridsearch.training import can_compile, describe, resolve_device

    yield Finding("device", "ok", f"auto means {', '.join(resolve_device('auto'))}")
    for name, detail in describe().items():
        if name == "kernels" and detail.startswith("no C compiler"):
            yield Finding(name, "note", detail, _FIX_COMPILER)
        elif name == "kernels" and detail.startswith("compiled") and not can_compile():
            yield Finding(name, "note", f"not {detail}: it fails, torch computes everything", _FIX_COMPILER)
        elif name not in ("torch", "python"):
            yield Finding(name, "note" if detail.startswith("no device") else "ok", detail)


def _kernel_choices() -> Iterator[Finding]:
    """Say which ways of computing were measured to be faster here."""
    from gridsearch.training import kept_choices

    found = Counter("alike" if form is None else form for form in kept_choices().values())
    if found:
        forms = ", ".join(f"{form} {count}" for form, count in found.most_common())
        timed = plural(found.total(), "operation")
        yield Finding(
            "kernel choices", "ok", f"two ways to compute {timed} were timed; the faster ones: {forms}"
        )


def _engines() -> Iterator[Finding]:
    for engine in engines():
        if engine.ready:
            yield Finding(f"engine {engine.name}", "ok", engine.detail)
        else:
            detail = f"{engine.detail}: {'; '.join(engine.missing)}"
            verdict: Verdict = "bad" if engine.wanted else "note"
            yield Finding(f"engine {engine.name}", verdict, detail, "; ".join(engine.fixes))


def _caches(places: Places) -> Iterator[Finding]:
    """Name what is kept and is not whole; all of it is made again when it is needed."""
    from gridsearch.training import damaged_kernels

    for path in damaged_kernels():
        yield Finding("kernels", "note", f"{path} is damaged, or not this user's alone: it is compiled again")
    for path in (places.probes, places.overheads):
        with suppress(FileNotFoundError):
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                yield Finding(
                    "measurements", "note", f"{path} cannot be read ({error}): it is measured again"
                )


def _places(places: Places) -> Iterator[Finding]:
    for subject, folder, how in (
        ("home", places.home, "--home"),
        ("cache", places.cache, "$GRIDSEARCH_CACHE"),
    ):
        if not can_be_made(folder):
            yield Finding(
                subject,
                "bad",
                f"{folder} cannot be written",
                f"choose another folder with {how}",
            )
            continue
        free = _free_megabytes(folder)
        short = free < _LITTLE_SPACE_MB
        yield Finding(
            subject,
            "bad" if short else "ok",
            f"{folder}, {free / 1000:.1f} GB free" + ("" if folder.exists() else " (made when needed)"),
            "make room" if short else None,
        )


def _data(places: Places) -> Iterator[Finding]:
    from gridsearch.zoo import datasets

    for entry in datasets.listing(places.data):
        state = entry.state.value
        verdict: Verdict = "bad" if state == "damaged" else "ok" if state == "ready" else "note"
        mend = None if verdict == "ok" else f"gridsearch data fetch {entry.name}"
        yield Finding(f"data {entry.name}", verdict, entry.problem or state, mend)


def _store(places: Places) -> Iterator[Finding]:
    url = masked(places.store)
    try:
        if not store_exists(places.store):
            require_never_made(places)
            yield Finding("store", "note", f"{url}: none yet; the first run makes it")
            return
        with open_store(places.store, home=places.home, create=False) as store:
            problems = store.problems()
            server, writable = store_facts(places.store)
            studies = store.studies()
            remnants = store.remnants()
            spooled = waiting(store)
            leftovers = store.home.leftovers({*(study.name for study in studies), *remnants})
    except GridsearchError as error:
        yield Finding("store", "bad", error.message, error.hint)
        return
    for problem in problems:
        yield Finding("store", "bad", problem, "keep a copy of the file and begin with another --home")
    for name in remnants:
        yield Finding(
            "store", "bad", f"study {name!r} was deleted in part", replace(places.again, study=name).clean()
        )
    if spooled:
        detail = (
            f"{plural(spooled, 'record')} of a run that could not reach it wait: the next run takes them in"
        )
        yield Finding("store", "note", detail)
    for name, size in leftovers.items():
        detail = f"files of trials of a study {name!r}, which the store does not hold: {size / 1e6:.1f} MB"
        yield Finding("home", "note", detail, replace(places.again, study=name).clean())
    trials = sum(sum(study.counts.values()) for study in studies)
    held = f"{plural(len(studies), 'study')}, {plural(trials, 'trial')}"
    if writable:
        yield Finding("store", "ok", f"{url}: {held}; {server}")
    else:
        detail = f"{url}: {held}; {server}: read-only here"
        yield Finding("store", "note", detail, "ask for the right to write it, or begin another with --store")


def _models(places: Places, *, model: str | None, dataset: str | None) -> Iterator[Finding]:
    """Say which of stacked, vmap and solo the packs of a model get, and why not better."""
    from gridsearch.service.plan.methods import WORDS, methods_of
    from gridsearch.training import resolve_device

    device = resolve_device("auto")[0]
    for found in methods_of(places, device=device, model=model, dataset=dataset):
        subject = f"model {found.model}"
        if found.method is None:
            yield Finding(subject, "bad" if model else "note", found.reason)
            continue
        detail = f"{found.method}: {WORDS[found.method]}" + (f"; {found.reason}" if found.reason else "")
        yield Finding(subject, "ok" if found.method == "stacked" else "note", detail)


def _free_megabytes(folder: Path) -> float:
    """Return the free space where a folder is, or will be."""
    return shutil.disk_usage(nearest_there(folder)).free / 1e6
