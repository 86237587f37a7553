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
    from gridsearch.errors import GridsearchError
    from gridsearch.plugins import ImageData
    from gridsearch.result import StudyResult
    from gridsearch.spec import Grid, StudySpec

__all__ = [
    "Grid",
    "GridsearchError",
    "ImageData",
    "StudyResult",
    "StudySpec",
    "__version__",
    "best",
    "compare",
    "load",
    "predict",
    "run",
]

_HOMES = {
    "Grid": "spec",
    "GridsearchError": "errors",
    "ImageData": "plugins",
    "StudyResult": "result",
    "StudySpec": "spec",
    "best": "api",
    "compare": "api",
    "load": "api",
    "predict": "api",
    "run": "api",
}


admit()  # whoever imports torchvision from here on: users' own files, in every process of the program


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gridsearch' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gridsearch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
