"""What `gridsearch data list` shows: every installed dataset, and whether its files are there and whole."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from gridsearch.errors import PluginError
from gridsearch.plugins import DATASETS, find, installed
from gridsearch.zoo.datasets.pinned import PinnedDataset

if TYPE_CHECKING:
    from pathlib import Path


class DatasetState(StrEnum):
    """Whether a dataset can be loaded."""

    READY = "ready"
    NOT_FETCHED = "not fetched"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """One line of the list.

    Attributes:
        name: what `--dataset` takes.
        state: see `DatasetState`.
        problem: what is damaged, in one line; else empty.
        size: bytes on the disk when fetched; None where that is not known.
        licence: of the data.
        source: where it comes from.
        image_shape: "1x28x28" (C, H, W); empty where that is not known.
        classes: how many; None where that is not known.
    """

    name: str
    state: DatasetState
    problem: str = ""
    size: int | None = None
    licence: str = ""
    source: str = ""
    image_shape: str = ""
    classes: int | None = None


def listing(root: Path) -> tuple[DatasetInfo, ...]:
    """Return all datasets by name, their files verified.

    Args:
        root: the data root.
    """
    return (*(_info(name, root) for name in installed(DATASETS)), *_OF_PLACES, _hub())


_OF_PLACES = (
    DatasetInfo(name="csv:FILE", state=DatasetState.READY, source="a CSV file of paths and labels"),
    DatasetInfo(
        name="npz:FILE", state=DatasetState.READY, source="arrays of numpy: x and y, x_train and y_train"
    ),
)


def _hub() -> DatasetInfo:
    there = importlib.util.find_spec("datasets") is not None
    lacking = "" if there else ", once installed: pip install 'gridsearch[hf]'"
    return DatasetInfo(
        name="hf:NAME",
        state=DatasetState.READY if there else DatasetState.NOT_FETCHED,
        source=f"Hugging Face's datasets: its hub, or a folder of save_to_disk or Parquet{lacking}",
    )


def _info(name: str, root: Path) -> DatasetInfo:
    if name == "folder":
        return DatasetInfo(
            name="folder:PATH", state=DatasetState.READY, source="a folder with one sub-folder per class"
        )
    if name == "digits":
        return DatasetInfo(
            name=name,
            state=DatasetState.READY,
            licence="CC BY 4.0",
            source="comes with scikit-learn",
            image_shape="1x8x8",
            classes=10,
        )
    try:
        target = find(name, DATASETS).target
    except PluginError as error:
        return DatasetInfo(name=name, state=DatasetState.DAMAGED, problem=error.message)
    if not isinstance(target, PinnedDataset):
        return DatasetInfo(name=name, state=DatasetState.READY, source="a plug-in")
    problems = target.verify(root)
    state = DatasetState.READY
    if problems:
        state = DatasetState.DAMAGED if target.available(root) else DatasetState.NOT_FETCHED
    return DatasetInfo(
        name=name,
        state=state,
        problem=problems[0] if state is DatasetState.DAMAGED else "",
        size=target.size,
        licence=target.licence,
        source=target.home,
        image_shape="x".join(map(str, target.image_shape)),
        classes=len(target.class_names),
    )
