"""How long the networks of a study take for an image on this machine, by ONNX Runtime; for `report --pareto`.

A network is exported as it is built, untrained: the time of its arithmetic does not depend on the weights.  What was
measured is kept in the cache, under the processor's name and the runtime's version.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gridsearch import files
from gridsearch.errors import GridsearchError, UsageError, said
from gridsearch.records import ImageSettings
from gridsearch.service.prepare.catalog import Catalog
from gridsearch.service.prepare.stored import check_models, stored_dataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gridsearch.plugins import ImageData
    from gridsearch.records import StudyData
    from gridsearch.reporting import RankedPoint
    from gridsearch.service.prepare.options import Places
    from gridsearch.store import Store

BATCH: Final = 1
THREADS: Final = 1
REPEATS: Final = 30
"""Timed calls at least; more until `_SECONDS` have gone, since short ones scatter more."""
_MOST: Final = 2000
_SECONDS: Final = 0.5
_WARM_UP: Final = 5


@dataclass(slots=True)
class Latencies:
    """What was measured.

    Attributes:
        by_point: median and quartiles in milliseconds, by `point_key`.
        how: processor, version of the runtime, batch, threads and repeats.
        problems: why networks could not be measured.
        first: the first of these.
    """

    by_point: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    first: GridsearchError | None = None

    def failed(self, model: str, error: GridsearchError) -> None:
        """Take note of a network that cannot be measured."""
        self.first = self.first or error
        self.problems.append(f"no latency of {model}: {error.message}")


def measure(
    store: Store,
    data: StudyData,
    points: Iterable[RankedPoint],
    places: Places,
    *,
    images: Callable[[ImageSettings], ImageData],
    models: Sequence[str] = (),
) -> Latencies:
    """Measure the networks of points, or take what was measured before.

    Args:
        store: the open store.
        data: the study.
        points: whose networks.
        places: where the data and the cache lie.
        images: gives the images of a trial's settings, or raises a GridsearchError that says why not.
        models: locators of the user's own models, which are named again.

    Raises:
        UsageError: ONNX Runtime is not installed, or a user's own model was not named or is another by now.
        GridsearchError: none of the networks can be measured.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise UsageError(
            "--pareto latency: ONNX Runtime is not installed", hint="pip install 'gridsearch[onnxruntime]'"
        )
    from gridsearch.reporting.ranking.points import point_key
    from gridsearch.training import describe

    runtime: Any = importlib.import_module("onnxruntime")
    found = Latencies(
        how={
            "processor": describe()["cpu"],
            "version": runtime.__version__,
            "batch": BATCH,
            "threads": THREADS,
            "repeats": REPEATS,
        }
    )
    builder = _Builder(store, data, places, images, models)
    cache = places.cache / files.LATENCIES
    known = files.read_json(cache)
    measured: dict[str, tuple[float, float, float] | None] = {}
    for point in points:
        settings = ImageSettings.of(point.settings)
        key = json.dumps([*builder.network(settings), *map(str, found.how.values())])
        if key not in measured:
            measured[key] = _known(known.get(key))
        if measured[key] is None:
            try:
                measured[key] = _time(builder.graph(settings))
            except GridsearchError as error:
                found.failed(settings.model, error)
                continue
            with suppress(OSError):  # a cache that cannot be written is no error
                files.update_json(cache, partial(_with_entry, key=key, entry=measured[key]))
        if (quartiles := measured[key]) is not None:
            found.by_point[point_key(point.settings)] = quartiles
    if not found.by_point and found.first is not None:
        raise found.first
    found.problems = list(dict.fromkeys(found.problems))
    return found


def _with_entry(content: dict[str, Any], *, key: str, entry: Any) -> dict[str, Any]:
    return {**content, key: entry}


def _known(entry: Any) -> tuple[float, float, float] | None:
    """Return what the cache holds, None where that is damaged."""
    if isinstance(entry, list) and len(entry) == 3 and all(isinstance(x, float) and x > 0 for x in entry):
        return entry[0], entry[1], entry[2]
    return None


class _Builder:
    """Builds the networks of a study's points; loads images and code when it is first asked for one."""

    def __init__(
        self,
        store: Store,
        data: StudyData,
        places: Places,
        images: Callable[[ImageSettings], ImageData],
        models: Sequence[str],
    ) -> None:
        self._store, self._data, self._places, self._models = store, data, places, models
        self._images = images
        self._catalog: Catalog | None = None
        self._shapes: dict[str, tuple[tuple[int, ...], int]] = {}

    def network(self, settings: ImageSettings) -> tuple[Any, ...]:
        """Return what decides how long a network takes: its code, its options, the shape of images, the classes."""
        classes = len(self._data.classes_of(settings))
        data = (settings.data_fingerprint, classes)
        return (settings.model, settings.model_source, dict(settings.model_options), *data)

    def graph(self, settings: ImageSettings) -> bytes:
        """Return a network as an ONNX graph.

        Raises:
            GridsearchError: its images or its code are not here, or ONNX cannot hold it.
        """
        from gridsearch.training.export import graph_of

        catalog = self._found()
        check_models(self._data, catalog, self._store.spec(self._data.name), [settings])
        if settings.data_fingerprint not in self._shapes:
            images = self._images(settings)
            shape = tuple(images.train_images.shape[1:])
            self._shapes[settings.data_fingerprint] = shape, len(images.class_names)
        shape, classes = self._shapes[settings.data_fingerprint]
        smallest = catalog.find_model(settings.model).smallest_input or (1, 1)
        taken = (shape[0], max(shape[1], smallest[0]), max(shape[2], smallest[1]))
        network = catalog.build(settings.model, settings.model_options, taken, classes)
        try:
            return graph_of(network, taken)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def _found(self) -> Catalog:
        if self._catalog is None:
            spec = self._store.spec(self._data.name)
            locator = stored_dataset(self._data, spec, self._store.home.root)
            catalog = Catalog(locator, self._places.data, version=spec.get("version"))
            catalog.known_as(lambda: [trial.settings for trial in self._data.trials])
            for model in self._models:
                catalog.find_model(model)
            self._catalog = catalog
        return self._catalog


def _time(graph: bytes) -> tuple[float, float, float]:
    """Return the median and the quartiles of the milliseconds that a graph takes for a batch.

    Raises:
        UsageError: the runtime does not take it.
    """
    import numpy as np

    from gridsearch.service.winner.onnx_graph import session

    try:
        run: Any = session(graph, threads=THREADS)
    except Exception as error:  # the runtime has exceptions of its own
        raise UsageError(f"ONNX Runtime does not take it: {said(error)}") from error
    (takes,) = run.get_inputs()
    pixels = np.random.default_rng(0).random((BATCH, *takes.shape[1:]), dtype=np.float32)
    times: list[float] = []
    for _ in range(_WARM_UP):
        run.run(None, {takes.name: pixels})
    began = time.perf_counter()
    while len(times) < REPEATS or (len(times) < _MOST and time.perf_counter() - began < _SECONDS):
        start = time.perf_counter()
        run.run(None, {takes.name: pixels})
        times.append(1000 * (time.perf_counter() - start))
    low, middle, high = statistics.quantiles(times, n=4)
    return middle, low, high
