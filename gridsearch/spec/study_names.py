"""Names of studies: checked before one reaches a path or the store; by default that of the dataset."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gridsearch import locators
from gridsearch.files import DATABASE, MLFLOW, MLFLOW_ARTIFACTS
from gridsearch.folders import tilde
from gridsearch.spec.collector import InvalidValue, shortened

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_LONGEST = 64
_SUFFIXES = (".csv", ".tsv", ".txt", ".npz", ".parquet")
_TAKEN = {DATABASE: "the store's file", MLFLOW: "MLflow's file", MLFLOW_ARTIFACTS: "MLflow's files"}
"""What lies beside the folders of the studies; SQLite's own files bear the names of databases with more behind them."""


def good_name(name: str) -> str:
    """Return the name if a study may bear it.

    Raises:
        InvalidValue: a letter that is not allowed, empty, too long, or with a dot or dash at its start.
    """
    shown = repr(shortened(name))
    if not name:
        raise InvalidValue("a study's name is empty")
    if len(name) > _LONGEST:
        raise InvalidValue(
            f"the study's name {shown} has {len(name)} characters, and at most {_LONGEST} are allowed"
        )
    if name[0] in ".-":
        raise InvalidValue(f"the study's name {shown} starts with {name[0]!r}")
    if not _NAME.fullmatch(name):
        raise InvalidValue(f"the study's name {shown} may hold letters, digits, '.', '_' and '-' only")
    if (owner := _taken(name)) is not None:
        raise InvalidValue(f"the study's name {shown} is that of {owner}")
    return name


def _taken(name: str) -> str | None:
    """Return whose files bear a name, in words; None where nobody's do."""
    return next((owner for taken, owner in _TAKEN.items() if name.lower().startswith(taken)), None)


def default_name(dataset: str) -> str:
    """Return the study's name for a dataset: its name, a folder's or file's base name, a plug-in's attribute."""
    place = locators.placed(dataset)
    if place is not None:
        path = Path(os.path.normpath(tilde(place[1]).absolute()))  # of "." and "..", too
        name = path.stem if path.suffix in _SUFFIXES else path.name
    else:
        name = dataset.rpartition(":")[2]
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".-").rstrip("-")[:_LONGEST]
    if not cleaned or _taken(cleaned):
        return "study"
    return cleaned
