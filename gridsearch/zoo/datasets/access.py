"""What the service asks of any dataset, built in or a user's own: find, load, fetch, verify, fingerprint."""

from __future__ import annotations

import inspect
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch import locators
from gridsearch.errors import RAISED, DataError, GridsearchError, PluginError, UsageError, nearest, said
from gridsearch.folders import expanded
from gridsearch.plugins import DATASETS, Fetchable, ImageData, Plugin, find
from gridsearch.plugins.arithmetic import computing
from gridsearch.random_streams import Streams
from gridsearch.users_code import kept_apart
from gridsearch.zoo.datasets.cache import Say, silent
from gridsearch.zoo.datasets.folder import FolderDataset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from gridsearch.records import Value

_ROOT = ("root",)


def _csv(path: Path) -> Any:
    from gridsearch.zoo.datasets.csv_list import CsvDataset

    return CsvDataset(path)


def _hub(path: Path | str) -> Any:
    from gridsearch.zoo.datasets.hf_dataset import HubDataset

    return HubDataset(str(path))


def _npz(path: Path) -> Any:
    from gridsearch.zoo.datasets.npz_arrays import NpzDataset

    return NpzDataset(path)


def open_dataset(locator: str) -> Plugin:
    """Find a dataset by "fmnist", "folder:PATH", "csv:FILE", "file.py:Name", "module:Name" or an entry point's name.

    Nothing is read yet, except the code of a user's own dataset.

    Raises:
        PluginError: there is none; one line, with the nearest known name.
    """
    kind = locator.rstrip(":")
    if kind in _OF_PLACES:
        raise PluginError(f"dataset {kind!r} needs a path", hint=f"name it as {_OF_PLACES[kind].form}")
    place = locators.placed(locator)
    if place is not None:
        return _OF_PLACES[place[0]].open(*place)
    try:
        return find(locator, DATASETS)
    except PluginError as error:
        form = None
        with suppress(OSError):  # a name that is too long for a path
            form = _form_of(expanded(locator))
        if form is not None:
            raise PluginError(error.message, hint=f"{form}:{locator} names it") from error
        raise


@dataclass(frozen=True, slots=True)
class _OfPlace:
    """A kind of dataset that is named by where it lies.

    Attributes:
        form: how it is named.
        make: gives the dataset of a path, or of a name of the hub.
    """

    form: str
    make: Callable[[Any], Any]

    def open(self, kind: str, written: str) -> Plugin:
        """Return the dataset of a path as it was written."""
        path = expanded(written)
        if (
            kind == "hf"
            and not path.exists()
            and written.count("/") < 2
            and not written.startswith((".", "/", "~"))
        ):
            return Plugin(
                name=f"hf:{written}", locator=f"hf:{written}", target=self.make(written), source=None
            )
        named = path if path.name not in ("", "..") else path.resolve()
        name = locators.short_name(kind, str(named))
        return Plugin(name=name, locator=f"{kind}:{path}", target=self.make(path), source=None)


_OF_PLACES = {
    "folder": _OfPlace("folder:PATH", FolderDataset),
    "csv": _OfPlace("csv:FILE", _csv),
    "npz": _OfPlace("npz:FILE", _npz),
    "hf": _OfPlace("hf:NAME or hf:PATH", _hub),
}


def _form_of(path: Path) -> str | None:
    """Return the kind of dataset that lies at a path, by its name."""
    if path.is_dir():
        return "folder"
    suffix = path.suffix.casefold().lstrip(".")
    kind = {"tsv": "csv", "parquet": "hf"}.get(suffix, suffix)
    return kind if kind in _OF_PLACES and path.is_file() else None


def load(plugin: Plugin, root: Path, options: Mapping[str, Value]) -> ImageData:
    """Call a dataset and bring its result into one form: images [N, C, H, W], labels int64 0 to Y-1.

    Args:
        plugin: from `open_dataset`.
        root: the data root.
        options: its `data.*` options.

    Raises:
        UsageError: an option that it does not take, or lacks.
        DataError: it is missing, damaged or not usable for classification; one line with its name.
    """
    from gridsearch.zoo.datasets.arrays import image_data

    _check_options(plugin, options)
    try:
        with computing(plugin.arithmetic):
            result = _call(plugin.target, root, options)
    except (GridsearchError, MemoryError):
        raise
    except RAISED as error:
        reason = " ".join(said(error).split())
        raise DataError(
            f"dataset {plugin.name!r} failed: {type(error).__name__}: {reason}".rstrip(": ")
        ) from error
    return image_data(result, name=plugin.name)


def fingerprint(plugin: Plugin, root: Path, options: Mapping[str, Value]) -> str:
    """Return the SHA-256 that says what the data is, without loading it where the dataset knows a way.

    Raises:
        GridsearchError: see `load`.
    """
    from gridsearch.zoo.datasets.arrays import fingerprint_of as of_arrays

    own = _method(plugin, "fingerprint")
    if own is None:
        return of_arrays(load(plugin, root, options))
    _check_options(plugin, options)
    return str(own(root, **options))


def has_own_fingerprint(plugin: Plugin) -> bool:
    """Whether a dataset gives its fingerprint without its images, which may not be fetched yet."""
    return _method(plugin, "fingerprint") is not None and _method(plugin, "with_fingerprint") is None


def reads_as_before(plugin: Plugin) -> bool:
    """Whether a dataset can read its files as an earlier version of this program did."""
    return _method(plugin, "as_before") is not None


def load_known(
    plugin: Plugin, root: Path, options: Mapping[str, Value], *, wanted: str | None = None
) -> tuple[ImageData, str]:
    """Return a dataset and the fingerprint of just these images, as `load` and `fingerprint` give them.

    Two calls would not do: files may come, go or change between them.

    Args:
        plugin: from `open_dataset`.
        root: the data root.
        options: its `data.*` options.
        wanted: the fingerprint of a stored trial: where an earlier version of this program read these files another
            way, and gave that one, they are read so.

    Raises:
        GridsearchError: see `load`; or the images change while they are read.
    """
    read = _method(plugin, "with_fingerprint")
    if read is not None:  # reads and hashes in one go
        _check_options(plugin, options)
        found = read(root, **options)
        if wanted is not None and found.fingerprint != wanted and reads_as_before(plugin):
            before = plugin.target.as_before(root, **options)
            found = before if before.fingerprint == wanted else found
        return found.data, found.fingerprint
    if _method(plugin, "fingerprint") is None:
        data = load(plugin, root, options)
        return data, fingerprint_of(data)
    before = fingerprint(plugin, root, options)
    data = load(plugin, root, options)
    if fingerprint(plugin, root, options) != before:
        raise DataError(f"the images of {plugin.name!r} changed while they were read", hint="run again")
    return data, before


def fingerprint_of(data: ImageData) -> str:
    """Return the SHA-256 over a loaded dataset's images and labels.

    It is what `fingerprint` gives for a dataset that has no fingerprint of its own.
    """
    from gridsearch.zoo.datasets.arrays import fingerprint_of as of_arrays

    return of_arrays(data)


def available(plugin: Plugin, root: Path) -> bool:
    """Whether all files are there, so that nothing need be fetched; `verify` says whether they are whole."""
    own = _method(plugin, "available")
    if own is not None:
        return bool(own(root))
    verify_files = _method(plugin, "verify")
    return not verify_files(root) if verify_files is not None else True


def fetch(plugin: Plugin, root: Path, source: Path | None = None, *, say: Say = silent) -> str:
    """Bring a dataset's files to the data root, verified, and say in one line where they came from.

    Args:
        plugin: from `open_dataset`.
        root: the data root.
        source: a folder that holds the files (`--from`), or None for the dataset's own sources.
        say: gets each step, line by line.

    Raises:
        UsageError: `source` is not a folder, or the dataset takes none.
        DataError: no source has the files, they are not the right ones, or they cannot be written.
    """
    if isinstance(plugin.target, Fetchable) and not inspect.isclass(plugin.target):
        return plugin.target.fetch(root, source, say=say)
    if source is not None:
        raise UsageError(f"dataset {plugin.name!r} is not fetched, so --from {source} has no meaning")
    return "nothing to fetch"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found in all files of a dataset.

    Attributes:
        problems: what is wrong, one line each; nothing if all is well.
        notes: what else there is to know: the dataset in one line, what was done to images, what is in doubt.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def verify(plugin: Plugin, root: Path) -> tuple[str, ...]:
    """Return what is wrong with a dataset's files, one line each; nothing if all is well.  See `examine`."""
    return examine(plugin, root).problems


def examine(plugin: Plugin, root: Path) -> Inspection:
    """Read all files of a dataset: those that should be images and that a run would skip are problems.

    A dataset that is not fetched is loaded, if its options have defaults, and its refusal is what is wrong.
    """
    from gridsearch.zoo.datasets.summary import cautions, described

    own = _method(plugin, "verify")
    if own is not None:
        return Inspection(tuple(own(root)))
    own_examine = _method(plugin, "examine")
    problems: tuple[str, ...] = ()
    try:
        if own_examine is None:
            data = load(plugin, root, {})
        else:
            data, problems = own_examine(root)
    except DataError as error:
        return Inspection((error.message,))
    notes = [note for note in data.notes if not any(p in note for p in problems) and "more files" not in note]
    return Inspection(problems, (described(data), *cautions(data), *notes))


def _method(plugin: Plugin, name: str) -> Any:
    """Return a method of a dataset that is an object; a class is only called, its methods lack a self."""
    return None if inspect.isclass(plugin.target) else getattr(plugin.target, name, None)


def _check_options(plugin: Plugin, options: Mapping[str, Value]) -> None:
    known = [name for name in plugin.options(_ROOT) if name != _positional(plugin.target)]
    unknown = [] if plugin.accepts_any_option() else [name for name in options if name not in known]
    if unknown:
        close = nearest(unknown[0], known) if known else "; it has none"
        raise UsageError(f"data.{unknown[0]}: dataset {plugin.name!r} has no such option{close}")
    lacking = [n for n in plugin.required_options() if n not in options and n != _positional(plugin.target)]
    if lacking:
        raise UsageError(f"data.{lacking[0]}: dataset {plugin.name!r} needs this option")


def _call(target: Any, root: Path, options: Mapping[str, Value]) -> object:
    parameters = inspect.signature(target).parameters
    with (
        kept_apart(),
        Streams(0).inside(),
    ):  # one that draws numbers without a seed gives the same images in every process
        if "root" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return target(root=root, **options)
        if _positional(target) is not None:
            return target(root, **options)
        return target(**options)


def _positional(target: Any) -> str | None:
    """Return the name of a first argument that stands for `root` under another name, if there is one."""
    try:
        first = next(iter(inspect.signature(target).parameters.values()), None)
    except (TypeError, ValueError):
        return None
    if first is None or first.name == "root" or first.default is not first.empty:
        return None
    return first.name if first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD) else None


def images_changed(dataset: str) -> DataError:
    """Return the error of a dataset that is another one than a moment ago."""
    files = dataset.startswith(("folder:", "csv:", "hf:", "npz:"))
    draws = "" if files else "; if it draws images, it needs a seed to draw the same ones: default_rng(0)"
    return DataError(
        f"the images have changed: those of {dataset!r} are other than when the run began",
        hint=f"run again{draws}",
    )
