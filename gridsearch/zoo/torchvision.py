"""Imports torchvision, for the zoo and for users' files, beside any build of torch.

torchvision's compiled operators load only beside the build of torch that they were compiled against.  Where
they do not load, `import torchvision` dies with "operator torchvision::nms does not exist", because it
registers fake kernels for operators that are not declared.  Declaring their two schemas first makes the import
work; datasets, models and transforms need none of the compiled operators.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")

_declared: list[Any] = []  # a torch.library.Library takes its operators away when it is collected


def admit() -> None:
    """Let `import torchvision` work wherever `load` does, for code that does not know of this module."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds torchvision as Python does, and declares what is missing just before its code runs."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return torchvision's own spec; None for all else."""
        if fullname != "torchvision":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def prepared(module: ModuleType) -> None:
                if not compiled_operators():
                    _declare_missing()
                run(module)

            spec.loader.exec_module = prepared  # type: ignore[method-assign]
        return spec


@cache
def load() -> ModuleType:
    """Import torchvision, with the missing operators declared, and return the module.

    Raises:
        ImportError: torchvision is not installed, or does not import beside this torch; one line.
    """
    try:
        if not compiled_operators():
            _declare_missing()
        return importlib.import_module("torchvision")
    except ImportError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ImportError(
            f"torchvision does not import beside this torch: {reason}", name="torchvision"
        ) from error


@cache
def compiled_operators() -> bool:
    """Whether torchvision's compiled operators load beside this torch; what `doctor` reports.

    Raises:
        ImportError: torchvision or torch is not installed.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("torchvision is not installed", name="torchvision")
    import torch

    for folder in spec.submodule_search_locations:
        for library in sorted(Path(folder).glob("_C*.so")) + sorted(Path(folder).glob("_C*.pyd")):
            try:
                torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
            except OSError:
                continue
            return _exists("nms")
    return _exists("nms")  # linked into torch, as some distributions do


def mirrors(dataset: str) -> tuple[str, ...]:
    """Return the addresses from which torchvision fetches one of its idx datasets ("MNIST", "FashionMNIST").

    Raises:
        ImportError: see `load`.
    """
    load()
    datasets = importlib.import_module("torchvision.datasets")
    return tuple(getattr(datasets, dataset).mirrors)


def features(network: str) -> Any:
    """Build the convolutional part of one of torchvision's networks ("vgg16"), initialized as there.

    Raises:
        ImportError: see `load`.
    """
    load()
    models = importlib.import_module("torchvision.models")
    return getattr(models, network)(weights=None).features


def pretrained(weights: str) -> dict[str, Any]:
    """Return the tensors of published weights ("VGG16_Weights.IMAGENET1K_V1"), fetched if they are not there.

    Raises:
        ImportError: see `load`.
        OSError: they cannot be fetched, or do not have the published hash.
    """
    load()
    models = importlib.import_module("torchvision.models")
    try:
        state: dict[str, Any] = models.get_weight(weights).get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except RuntimeError as error:  # the hash of what came
        raise OSError(str(error)) from error
    return state


def _declare_missing() -> None:
    import torch

    missing = [name for name in _OPERATORS if not _exists(name)]
    if missing:
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in missing:
            library.define(f"{name}{_SCHEMA}")  # type: ignore[no-untyped-call]
        _declared.append(library)


def _exists(operator: str) -> bool:
    import torch

    return hasattr(torch.ops.torchvision, operator)
