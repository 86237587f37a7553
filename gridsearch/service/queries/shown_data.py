"""A dataset as it was understood: its images, classes, splits and groups, for `data show`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gridsearch.errors import SpecError
from gridsearch.records import DATA_PREFIX
from gridsearch.service.prepare.catalog import Catalog
from gridsearch.spec import build
from gridsearch.zoo import datasets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.plugins import ImageData
    from gridsearch.records import Value
    from gridsearch.service.prepare.options import Places


@dataclass(frozen=True, slots=True)
class ShownData:
    """A loaded dataset.

    Attributes:
        fingerprint: SHA-256 of its images, labels, splits and groups.
        options: the `data.*` options, complete.
    """

    name: str
    fingerprint: str
    options: dict[str, Value]
    images: ImageData

    @property
    def lines(self) -> tuple[str, ...]:
        """What there is to know, in lines."""
        shape = "x".join(map(str, self.images.train_images.shape[1:]))
        kind = self.images.train_images.dtype
        return (
            f"{self.name}: {datasets.described(self.images)}",
            f"images {shape} ({kind}), {self.images.train_images.nbytes / 1e6:.3g} MB to train on",
            *datasets.cautions(self.images),
            *self.images.notes,
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, schema 1; `train` counts no validation images."""
        data = self.images
        counts = Counter(data.train_labels.tolist())
        val = 0 if data.val_indices is None else len(data.val_indices)
        return {
            "schema": 1,
            "dataset": self.name,
            "fingerprint": self.fingerprint,
            "options": self.options,
            "image_shape": list(data.train_images.shape[1:]),
            "type": str(data.train_images.dtype),
            "classes": {name: counts[label] for label, name in enumerate(data.class_names)},
            "train": len(data.train_labels) - val,
            "validation": val or None,
            "test": None if data.test_labels is None else len(data.test_labels),
            "groups": None if data.groups is None else len(set(data.groups.tolist())),
            "doubts": list(datasets.cautions(data)),
            "notes": list(data.notes),
        }


def show_data(name: str, places: Places, *, settings: Sequence[str], say: Callable[[str], None]) -> ShownData:
    """Load a dataset, fetched if it is not there.

    Args:
        name: name or locator of the dataset.
        places: where the data lies.
        settings: "data.NAME=VALUE" each.
        say: takes a message.

    Raises:
        UsageError: there is no such dataset, or an option is wrong.
        DataError: it cannot be loaded.
    """
    spec = build(options={"dataset": name}, settings=settings)
    foreign = [key for key in spec.recipe.changes() if not key.startswith(DATA_PREFIX)]
    if foreign:
        raise SpecError([f"--set {key}: only data.NAME says how images are read" for key in foreign])
    flat = spec.recipe.flat()
    options = {k.removeprefix(DATA_PREFIX): v for k, v in flat.items() if k.startswith(DATA_PREFIX)}
    catalog = Catalog(name, places.data)
    catalog.fetch(say)
    shown, full, _ = catalog.data(options)
    images, fingerprint = catalog.known(full)
    return ShownData(shown, fingerprint, full, images)
