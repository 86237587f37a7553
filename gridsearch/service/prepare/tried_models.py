"""Tries models of the user's own before anything is written: one that gives no logits is refused, not trained.

Stands between the catalog that has found them and the worker's own look at a model, which it asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.advice import is_own
from gridsearch.errors import UsageError
from gridsearch.service.prepare.catalog import models_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gridsearch.records import Settings, Value
    from gridsearch.service.prepare.catalog import Catalog

_MOST = 4
"""Sets of options with which a model is tried: one that gives logits with any of them is not refused."""


def check_outputs(
    catalog: Catalog, shapes: Mapping[str, tuple[int, int, int]], classes: int, settings: Iterable[Settings]
) -> None:
    """Call each of the user's own models on two images.

    Args:
        catalog: has found them.
        shapes: (C, H, W) that each model gets, by the name that the settings have for it.
        classes: of the dataset.
        settings: of the trials.

    Raises:
        UsageError: one gives no logits [B, classes], with any of the options that were tried.
    """
    from gridsearch.executors.model_check import why_refused

    sets: dict[str, list[dict[str, Value]]] = {}
    for name, options in models_of(settings):
        if is_own("model", name) or not catalog.find_model(name).locator:
            sets.setdefault(name, []).append(dict(options))
    for name, every in sets.items():
        if reason := why_refused(catalog.find_model(name), every[:_MOST], shapes[name], classes):
            raise UsageError(f"model {name!r} cannot train: {reason}")
