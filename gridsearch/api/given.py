"""Classes, functions and datasets that Python code passes as objects, and where their trials can run.

Between the caller's objects and the catalog, which finds plug-ins by the names made here; see `executors.shipping`
for how they come to the workers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gridsearch import plugins
from gridsearch.api.watching import warn
from gridsearch.errors import UsageError
from gridsearch.executors.shipping import pickled
from gridsearch.plugins import ImageData
from gridsearch.plugins.session_state import held_by
from gridsearch.random_streams import Streams
from gridsearch.records import CODE_KEYS
from gridsearch.zoo.datasets.class_labels import CONVERTED, odd_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.plugins import Plugin


_READ_AGAIN = 16
"""At least so many images of a torch dataset are read twice: each shows a transform of chance 1/2 with chance 1/2."""


class Objects:
    """Classes, functions and datasets given instead of names, under the names that the spec uses for them."""

    def __init__(self) -> None:
        self.models: dict[str, Any] = {}
        self.dataset: Any = None
        self.objective: Any = None

    def named(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with names in place of objects.

        Raises:
            UsageError: an object of the wrong kind.
        """
        found = dict(asked)
        for name in ("model", "code"):
            if name in asked:
                found[name] = self._each(name, asked[name])
        if "dataset" in asked:
            found["dataset"] = self._dataset(asked["dataset"])
        if callable(objective := asked.get("objective")):
            self.objective = objective
            found["objective"] = plugins.of_object(objective).name
        return found

    def grid(self, grid: Any) -> Any:
        """Return a grid with names in place of the models, optimizers and augmentations on its axes."""
        if not isinstance(grid, Mapping):
            return grid
        own = {name: grid[name] for name in CODE_KEYS if name in grid and _has_code(grid[name])}
        return {**grid, **{name: self._each(name, values, several=True) for name, values in own.items()}}

    def recipe(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Return a recipe with names in place of an optimizer and an augmentation."""
        own = {name: recipe[name] for name in CODE_KEYS[1:] if name in recipe and _has_code(recipe[name])}
        return {**recipe, **{name: self._each(name, value) for name, value in own.items()}}

    def _each(self, name: str, given: Any, *, several: bool = False) -> Any:
        """Return the name of what is given, or of each of several."""
        name_of = self.model if name == "model" else self._code
        if isinstance(given, list | tuple):
            return [name_of(each) for each in given]
        return [name_of(given)] if several else name_of(given)

    def _code(self, target: Any) -> Any:
        """Return the name of an optimizer, an augmentation or of what a stored study needs again.

        Raises:
            UsageError: it is an optimizer that was made already.
        """
        if _is_a(target, "torch.optim", "Optimizer"):
            kind = type(target).__name__
            raise UsageError(
                f"optimizer: an instance of {kind} was given, and each trial makes one of its own",
                hint=f"give the class (optimizer={kind}); its arguments are optimizer.NAME",
            )
        if isinstance(target, str) or not callable(target):
            return target
        name = getattr(target, "__name__", "")
        of_torch = getattr(sys.modules.get("torch.optim"), name, None) is target
        return f"torch.optim:{name}" if of_torch else self._named(target)

    def model(self, target: Any) -> Any:
        """Return a model's name; anything but a class or function is returned as it is.

        Raises:
            UsageError: it is a network that was built already.
        """
        if _is_a(target, "torch.nn", "Module"):
            kind = type(target).__name__
            raise UsageError(
                f"model: an instance of {kind} was given, and each trial builds a network of its own",
                hint=f"give the class (model={kind}), or a function that returns a new one",
            )
        return self._named(target) if callable(target) else target

    def _named(self, target: Any) -> str:
        found = plugins.of_object(target)
        name, other = found.name, self.models.get(found.name)
        # two lambdas, partials of one class, a class and what it was
        if other is not None and other is not target:
            name = f"{name}#{(found.source or '')[:6]}"
        self.models[name] = target
        return name

    def _dataset(self, given: Any) -> Any:
        found = as_dataset(given)
        if not callable(found):
            return found
        self.dataset = found
        return plugins.of_object(found).name

    @property
    def of_the_session(self) -> dict[str, Plugin]:
        """Those that no worker could import, by display name."""
        given = {name: plugins.of_object(model, name=name) for name, model in self.models.items()}
        for target in (self.dataset, self.objective):
            if target is not None:
                plugin = plugins.of_object(target)
                given[plugin.name] = plugin
        return {name: plugin for name, plugin in given.items() if not plugin.locator}

    def executor(self, asked: str | None, warn: Callable[[str], None]) -> str:
        """Return where trials run: in workers, or in this process where the objects are bound to it.

        Args:
            asked: what the caller wants, None to have it found out.
            warn: gets the reason why trials run in this process.

        Raises:
            UsageError: workers are asked for, and an object cannot be sent to them.
        """
        session = self.of_the_session
        bound = next(
            (f"{plugin.name} {plugin.bound[0]}" for plugin in session.values() if plugin.bound), None
        )
        if asked is not None or not session:
            if asked not in (None, "inline") and session:
                if bound is not None:
                    raise UsageError(
                        f"{bound}: a copy in a worker process would compute otherwise",
                        hint='executor="inline" trains in this process',
                    )
                pickled(session)
            return asked or "local"
        reason = held_by(self.objective) if self.objective is not None else None
        reason = reason or bound
        if reason is None:
            try:
                pickled(session)
            except UsageError as error:
                reason = error.message
            else:
                return "local"
        warn(
            f"{reason}: trials run in this process, one after the other, and share its memory and threads; "
            'executor="local" sends copies to worker processes, executor="inline" says that this is meant'
        )
        return "inline"


def _has_code(given: Any) -> bool:
    """Whether a value, or one of several, is code or a network instead of a name."""
    each = given if isinstance(given, list | tuple) else [given]
    return any(callable(value) or _is_a(value, "torch.optim", "Optimizer") for value in each)


_IMAGES = ("images", "x", "X", "data")
_LABELS = ("labels", "target", "y", "label")
"""What others call images and their labels in a mapping."""


class Given:
    """A dataset that was given as it is: called, it returns that.

    Args:
        data: an `ImageData`, or a mapping with its fields.
        name: how it is shown.
    """

    def __init__(self, data: Any, name: str) -> None:
        self.data = data
        self.__module__, self.__name__ = "__main__", name

    def __call__(self) -> Any:
        """Return the data."""
        return self.data


def as_dataset(given: Any) -> Any:
    """Return a dataset as something that can be called, or its name.

    Taken besides are an `ImageData`, a mapping with its fields, and a `torch.utils.data.Dataset` of images and labels,
    which is read once, now.

    Raises:
        UsageError: a loader, or anything else that holds no images with labels.
    """
    if isinstance(given, str):
        return given
    if isinstance(given, os.PathLike):
        kind = {".csv": "csv", ".npz": "npz", ".parquet": "hf"}.get(Path(given).suffix.lower(), "folder")
        raise UsageError("dataset: a path was given", hint=f'it is named "{kind}:{os.fspath(given)!s}"')
    kind = type(given).__name__
    if _is_a(given, "torch.utils.data", "DataLoader"):
        raise UsageError(
            "dataset: a DataLoader was given, and trials batch and shuffle by their own settings",
            hint="give its dataset: dataset=loader.dataset; the batch size is the axis `batch`",
        )
    if _is_a(given, "torch.utils.data", "Dataset"):
        return Given(_read(given, kind), kind)
    if _is_a(given, "datasets", "Dataset") or _is_a(given, "datasets", "DatasetDict"):
        raise UsageError(
            f"dataset: a {kind} of Hugging Face's library was given",
            hint='write it with its save_to_disk("FOLDER"), and give dataset="hf:FOLDER"',
        )
    if isinstance(given, Mapping) and "train_images" not in given:
        _refuse_other_names(given, kind)
    if isinstance(given, ImageData | Mapping):
        return Given(given, "images")
    if isinstance(given, list | tuple) and given and all(isinstance(each, str) for each in given):
        raise UsageError(
            f"dataset takes one value, not a {kind}",
            hint="a study has one dataset: call run for each of them",
        )
    if _is_a(given, "torch", "Tensor") or isinstance(given, np.ndarray | list | tuple):
        raise UsageError(
            f"dataset: {'an array' if kind == 'ndarray' else f'a {kind}'} was given",
            hint='give {"train_images": ..., "train_labels": ...}, or a function that returns it',
        )
    if not callable(given):
        raise UsageError(
            f"dataset must be a name, a class or function, or images with labels, not {kind}",
            hint='{"train_images": array [N, H, W] or [N, C, H, W], "train_labels": array [N]}',
        )
    return given


def _refuse_other_names(given: Mapping[Any, Any], kind: str) -> None:
    """Refuse a mapping that holds images and labels by the names of others: a Bunch of scikit-learn, x and y.

    Raises:
        UsageError: with what to give.
    """
    images, labels = (next((n for n in names if n in given), None) for names in (_IMAGES, _LABELS))
    if images is not None and labels is not None:
        raise UsageError(
            f"dataset: a {kind} with {images!r} and {labels!r} was given, and no 'train_images'",
            hint=f'give {{"train_images": d["{images}"], "train_labels": d["{labels}"]}}, where d is what was given',
        )


def _read(dataset: Any, kind: str) -> dict[str, Any]:
    """Read a map-style torch Dataset item by item: images to one array, labels to another.

    Raises:
        UsageError: it has no length, or its items are no pairs of an image and a label, or an image is of a palette.
    """
    try:
        count = len(dataset)
    except TypeError:
        raise UsageError(
            f"dataset: {kind} has no length, and images are held in memory", hint="give one with __len__"
        ) from None
    with Streams(0).inside():  # one that draws numbers gives the same images each time
        items = [dataset[i] for i in range(count)]
        again = {i: dataset[i] for i in range(0, count, max(1, count // _READ_AGAIN))}
    if not items or not all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
        raise UsageError(
            f"dataset: the items of {kind} are no pairs of an image and a label",
            hint='give {"train_images": ..., "train_labels": ...}, or a function that returns it',
        )
    mode = next((mode for image, _ in items if (mode := odd_mode(image)) is not None), None)
    if mode is not None:
        raise UsageError(
            f"dataset: {kind} gives a Pillow image of mode {mode!r}, whose numbers are no grey or RGB",
            hint=CONVERTED,
        )
    images = [_array(image) for image, _ in items]
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise UsageError(
            f"dataset: the images of {kind} have {len(shapes)} shapes", hint="bring them to one size first"
        )
    if not all(np.array_equal(images[i], _array(item[0])) for i, item in again.items()):
        warn(
            f"the images of {kind} are others each time they are read, as those of random transforms are, and they are "
            "read once: each epoch sees the same ones, and validation and test images are transformed too; leave that "
            "out of the dataset, and give it as augment"
        )
    labels = [_array(label).item() if _is_one(label) else label for _, label in items]
    found: dict[str, Any] = {"train_images": np.stack(images), "train_labels": labels}
    names = list(dict.fromkeys(_class_names(dataset)))
    if len(names) > 1:
        warn(
            f"the parts of {kind} name their classes differently ({', '.join(names[0])}; {', '.join(names[1])}), and "
            "a label is taken for the same class in all of them"
        )
    elif names:
        found["class_names"] = names[0]
    return found


def _class_names(dataset: Any) -> Iterator[tuple[str, ...]]:
    """Yield the names that a dataset gives its classes, or that the datasets give which it is a part or the sum of."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        yield tuple(names)
    elif _is_a(dataset, "torch.utils.data", "Subset"):
        yield from _class_names(dataset.dataset)
    elif _is_a(dataset, "torch.utils.data", "ConcatDataset"):
        for part in dataset.datasets:
            yield from _class_names(part)


def _is_one(label: Any) -> bool:
    """Whether a label is a tensor, or a number of numpy's, that holds one value; one-hot ones are refused later."""
    return callable(getattr(label, "item", None)) and getattr(label, "shape", None) in ((), (1,))


def _array(image: Any) -> np.ndarray:
    if hasattr(image, "detach"):
        image = image.detach().cpu()
        image = (image.float() if str(image.dtype) == "torch.bfloat16" else image).numpy()
    return np.asarray(image)


def _is_a(value: Any, module: str, kind: str) -> bool:
    """Whether a value is of a class of torch's, without importing torch: who has such a value has imported it."""
    loaded = sys.modules.get(module)
    found = getattr(loaded, kind, None)
    return isinstance(found, type) and isinstance(value, found)


def images_of(images: Any) -> Sequence[Any]:
    """Return image files as a list.

    Raises:
        UsageError: something that is no path.
    """
    several = [images] if isinstance(images, str | os.PathLike) else images
    try:
        found = list(several)
    except TypeError:
        found = [several]
    for each in found:
        if not isinstance(each, str | os.PathLike):
            raise UsageError(f"images must be paths of files, not {type(each).__name__}")
    return found
