"""The ledger of points and Optuna's record of them in one database, and the files under home.

It stands between the spec (which points are wanted) and the executors (who work on them): it claims, records
and gives back.  Names are imported on first use, so that a command which needs no database loads none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gridsearch.store.artifacts import Home
    from gridsearch.store.dashboard import serve_dashboard
    from gridsearch.store.messages import (
        Added,
        Artifact,
        Reclaimed,
        RunnerAtWork,
        StudyDraft,
        StudySummary,
        TrialCurve,
    )
    from gridsearch.store.opening import open_store, store_exists
    from gridsearch.store.pruners import PruningStudy
    from gridsearch.store.run_store import RunOf, RunStore, take_in
    from gridsearch.store.runner_identity import RunnerIdentity
    from gridsearch.store.store import Store
    from gridsearch.store.url import masked

__all__ = [
    "Added",
    "Artifact",
    "Home",
    "RunnerIdentity",
    "PruningStudy",
    "Reclaimed",
    "Store",
    "StudyDraft",
    "RunnerAtWork",
    "RunOf",
    "RunStore",
    "StudySummary",
    "TrialCurve",
    "masked",
    "open_store",
    "serve_dashboard",
    "store_exists",
    "take_in",
]

_HOMES = {
    "Added": "messages",
    "Artifact": "messages",
    "Home": "artifacts",
    "RunnerIdentity": "runner_identity",
    "PruningStudy": "pruners",
    "Reclaimed": "messages",
    "RunOf": "run_store",
    "RunStore": "run_store",
    "Store": "store",
    "StudyDraft": "messages",
    "RunnerAtWork": "messages",
    "StudySummary": "messages",
    "TrialCurve": "messages",
    "masked": "url",
    "open_store": "opening",
    "serve_dashboard": "dashboard",
    "store_exists": "opening",
    "take_in": "run_store",
}


def __getattr__(name: str) -> Any:
    """Import a public name from the module where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return list(__all__)
