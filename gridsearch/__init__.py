"""gridsearch: hyperparameter grid search for image classifiers.

Every point exactly once, many trials per device, a ranking one can trust.  The public names below are imported
when they are first used (PEP 562), so that ``gridsearch --help`` answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gridsearch._version import __version__
from gridsearch.zoo.torchvision import admit

if TYPE_CHECKING:
    from gridsearch.api import best, compare, load, predict, run
    from gridsearch.api.keywords import BestArguments, RunArguments, SearchArguments
    from gridsearch.api.result import StudyResult
    from gridsearch.errors import (
        ArtifactError,
        DataError,
        DeviceError,
        GridsearchError,
        GridsearchWarning,
        PluginError,
        SpecError,
        StoreError,
        StoreUnreachable,
        StudyNotFound,
        TrainingFailed,
        UnusableError,
        UsageError,
    )
    from gridsearch.plugins import ImageData
    from gridsearch.spec import Grid, StudySpec

__all__ = [
    "ArtifactError",
    "BestArguments",
    "DataError",
    "DeviceError",
    "Grid",
    "GridsearchError",
    "GridsearchWarning",
    "ImageData",
    "PluginError",
    "RunArguments",
    "SearchArguments",
    "SpecError",
    "StoreError",
    "StoreUnreachable",
    "StudyNotFound",
    "StudyResult",
    "StudySpec",
    "TrainingFailed",
    "UnusableError",
    "UsageError",
    "__version__",
    "best",
    "compare",
    "load",
    "predict",
    "run",
]

_HOMES = {
    **dict.fromkeys(("best", "compare", "load", "predict", "run"), "api"),
    **dict.fromkeys(("BestArguments", "RunArguments", "SearchArguments"), "api.keywords"),
    **dict.fromkeys(("Grid", "StudySpec"), "spec"),
    "ImageData": "plugins",
    "StudyResult": "api.result",
}


admit()  # whoever imports torchvision from here on: users' own files, in every process of the program


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gridsearch' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gridsearch.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
