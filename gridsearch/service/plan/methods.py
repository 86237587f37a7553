"""How the lanes of a model train, asked of a trainer in this process: for `plan` and `doctor`.

Stands between the catalog of what was named and the worker's trainer, which alone knows torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gridsearch import plugins
from gridsearch.advice import command
from gridsearch.errors import GridsearchError, PluginError
from gridsearch.records import ImageSettings, WorkerSetup
from gridsearch.service.prepare.catalog import Catalog
from gridsearch.zoo.pretrained import PretrainedModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from gridsearch.executors.pack_trainer import PackTrainer
    from gridsearch.plugins import Plugin
    from gridsearch.records import Value
    from gridsearch.service.prepare.options import Places
    from gridsearch.service.prepare.prepared import Plugins

WORDS = {
    "stacked": "its lanes train as one stacked network",
    "vmap": "its lanes train as one network by torch.func.vmap, without compiled operations",
    "solo": "its lanes train one after the other, each by its own module, so that packs gain nothing",
}
"""What each method means, for people."""

_LARGE = 10_000_000
"""Parameters above which a model is examined when it is named, since that takes seconds."""


@dataclass(frozen=True, slots=True)
class ModelMethod:
    """How lanes of a model train.

    Attributes:
        method: "stacked", "vmap" or "solo"; None where the model cannot run, or is too large to examine unasked.
        reason: why not a better one, in one line; "" for stacked.
    """

    model: str
    method: str | None
    reason: str


def trainer_of(catalog: Plugins, device: str) -> PackTrainer:
    """Return a trainer of this process for what a catalog has found."""
    from gridsearch.executors.pack_trainer import PackTrainer

    setup = WorkerSetup(name="plan", **catalog.setup, device=device, threads=1)
    return PackTrainer(setup, lambda _: None, catalog.objects)


def methods_of(
    places: Places, *, device: str, model: str | None = None, dataset: str | None = None
) -> Iterator[ModelMethod]:
    """Say how the lanes of each built-in model would train, or those of one model.

    Args:
        places: where the data lies.
        device: where they would train.
        model: name or locator of the one to examine.
        dataset: what they would train on; a few made-up images of 1x28x28 where none is named.

    Raises:
        PluginError: there is no such model or dataset.
        DataError: the dataset is not there.
    """
    catalog = Catalog(_noise if dataset is None else dataset, places.data)
    names = plugins.installed(plugins.MODELS) if model is None else (model,)
    for name in names:
        catalog.find_model(name)
    trainer = trainer_of(catalog, device)
    _, data_options, fingerprint = catalog.data({})
    for name in names:
        try:
            shown, options, source = catalog.model(name, _without_weights(catalog.find_model(name)))
        except GridsearchError as error:
            yield ModelMethod(name, None, error.message)
            continue
        settings = ImageSettings(
            dataset=catalog.dataset.name,
            data_options=data_options,
            data_fingerprint=fingerprint,
            model=shown,
            model_options=options,
            model_source=source,
            batch=8,
        )
        if model is None and (count := trainer.parameters(settings)) > _LARGE:
            reason = (
                f"{count / 1e6:.0f} million parameters; `{command('doctor', '--model', name)}` looks at it"
            )
            yield ModelMethod(shown, None, reason)
            continue
        try:
            yield ModelMethod(shown, *trainer.method(settings))
        except PluginError as error:
            yield ModelMethod(shown, None, error.message)


def _without_weights(model: Plugin) -> dict[str, Value]:
    """Return the options with which a model is looked at: how it trains depends on no weights, which need a network."""
    return {"weights": None} if isinstance(model.target, PretrainedModel) else {}


def _noise(root: Path) -> Mapping[str, Any]:  # noqa: ARG001 - a dataset's signature
    """Return images that are good enough to ask a network for its shapes."""
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (60, 1, 28, 28), dtype=np.uint8)
    return {"train_images": images, "train_labels": np.arange(60) % 10}


__all__ = ["WORDS", "ModelMethod", "methods_of", "trainer_of"]
