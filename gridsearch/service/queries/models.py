"""The models by name, and the layers of one when it is built for a dataset."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gridsearch import plugins
from gridsearch.errors import SpecError
from gridsearch.locators import LIBRARIES
from gridsearch.records import MODEL_PREFIX
from gridsearch.service.prepare.catalog import Catalog
from gridsearch.spec import build
from gridsearch.zoo import datasets
from gridsearch.zoo.pretrained import PretrainedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import Value
    from gridsearch.service.prepare.options import Places
    from gridsearch.training.layer_table import LayerTable


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A line of the list of models."""

    name: str
    summary: str
    options: dict[str, Value]

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ShownModel:
    """A model's layers.

    Attributes:
        input_shape: (C, H, W) that the network gets.
    """

    name: str
    dataset: str
    input_shape: tuple[int, int, int]
    classes: int
    options: dict[str, Value]
    table: LayerTable

    def to_json(self) -> dict[str, Any]:
        """Return the layers as JSON, schema 1."""
        return {
            "schema": 1,
            "model": self.name,
            "dataset": self.dataset,
            "input_shape": list(self.input_shape),
            "classes": self.classes,
            "options": self.options,
            "layers": [asdict(row) for row in self.table.rows],
            "parameters": self.table.total,
            "trainable": self.table.trainable,
        }


def list_models() -> list[ModelEntry]:
    """Return the models that are found by name."""
    found = []
    for name in plugins.installed(plugins.MODELS):
        plugin = plugins.find(name, plugins.MODELS)
        text = inspect.getdoc(plugin.target) or ""
        found.append(ModelEntry(name, text.partition("\n")[0].rstrip("."), plugin.options()))
    for library in LIBRARIES:
        options = plugins.of_object(PretrainedModel(library, "")).options()
        found.append(ModelEntry(f"{library}:NAME", f"A network of {library} with published weights", options))
    return found


def show_model(name: str, places: Places, *, dataset: str, settings: Sequence[str]) -> ShownModel:
    """Build a model for a dataset and return its layers.

    Args:
        name: name or locator of the model.
        places: where the data lies; an installed dataset whose shape is known is not loaded.
        dataset: locator of the dataset.
        settings: "model.NAME=VALUE" each.

    Raises:
        UsageError: there is no such model, an option is wrong, or its code raises.
        DataError: the dataset has to be loaded and cannot be.
    """
    from gridsearch.training.layer_table import layer_table

    spec = build(options={"dataset": dataset, "model": name}, settings=settings)
    flat = spec.recipe.flat()
    foreign = [key for key in spec.recipe.changes() if not key.startswith(MODEL_PREFIX)]
    if foreign:
        raise SpecError([f"--set {key}: only model.NAME shapes a network" for key in foreign])
    options = {k.removeprefix(MODEL_PREFIX): v for k, v in flat.items() if k.startswith(MODEL_PREFIX)}
    catalog = Catalog(dataset, places.data)
    shown, full, _ = catalog.model(name, options)
    shape, classes = _shape(catalog, places)
    plugin = catalog.find_model(name)
    smallest = plugin.smallest_input or (1, 1)
    shape = (shape[0], max(shape[1], smallest[0]), max(shape[2], smallest[1]))
    module = catalog.build(name, full, shape, classes)
    return ShownModel(shown, catalog.dataset.name, shape, classes, full, layer_table(module, shape))


def _shape(catalog: Catalog, places: Places) -> tuple[tuple[int, int, int], int]:
    """Return (C, H, W) and the number of classes; loads the data only where they are not known without."""
    if not catalog.available:
        for entry in datasets.listing(places.data):
            if entry.name == catalog.dataset.name and entry.image_shape and entry.classes:
                channels, height, width = map(int, entry.image_shape.split("x"))
                return (channels, height, width), entry.classes
    images = catalog.images({})
    channels, height, width = images.train_images.shape[1:]
    return (channels, height, width), len(images.class_names)
