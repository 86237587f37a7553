"""What a model, a dataset and an objective are, and how one is found by name, "module:attribute" or file.

Built-in models and datasets are entry points like anybody's; nothing here knows their names.  A file's code
runs only when a locator from the command line, or from a study file given there, names it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from gridsearch.errors import PluginError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import torch

    from gridsearch.records import Value

MODELS = "gridsearch.models"
DATASETS = "gridsearch.datasets"
OBJECTIVES = "gridsearch.objectives"

SHAPE_ARGUMENTS = ("in_channels", "num_classes", "image_size")


class Model(Protocol):
    """A class or function that builds a network from images [B, C, H, W] to logits [B, Y].

    It is called with those of `in_channels`, `num_classes`, `image_size=(H, W)` and the `model.*` options
    that its signature accepts.  An attribute `smallest_input = (H, W)` states the smallest image it takes;
    smaller ones are resized to it.  An attribute `file_options = ("weights",)` states which options may name a
    file: what is in it then belongs to the model's identity.
    """

    def __call__(self, *args: Any, **options: Any) -> torch.nn.Module:
        """Build the network."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How files became the images of a dataset, for the line that is said before training.

    Attributes:
        changes: what was done to how many images, and how many files were left out: "6 rotated", "3 skipped".
        test_from: where the test images lie, "" where that is not known.
        warnings: what puts results in doubt (images in two classes, test images to train on), in sentences.
        levels: which values of images of more than 8 bits are black (0) and white (1); None without such images.
    """

    changes: tuple[str, ...] = ()
    test_from: str = ""
    warnings: tuple[str, ...] = ()
    levels: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ImageData:
    """A dataset in memory.

    Attributes:
        train_images: uint8 [N, C, H, W] (0..255), or float32 of the same shape (0..1).
        train_labels: int64 [N], 0 to Y-1.
        test_images: likewise, or None: then a seeded, stratified sixth of train is held out as test.
        class_names: Y names, by label.
        notes: what a user should know of how the data was read (skipped files and why).
        reading: how files became images; None where the dataset does not tell.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray | None
    test_labels: np.ndarray | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    reading: Reading | None = None


class Dataset(Protocol):
    """Called with `root` (a folder for its files) and the `data.*` options; gives the images.

    It returns an `ImageData`, or any object or mapping with those attributes; images may also be [N, H, W]
    or [N, H, W, C].
    """

    def __call__(self, root: Path, **options: Any) -> ImageData:
        """Load the data."""
        ...


@runtime_checkable
class Fetchable(Protocol):
    """What a dataset offers besides, when its files come from somewhere."""

    def fetch(self, root: Path, source: Path | None = None, *, say: Callable[[str], None] = ...) -> str:
        """Bring the files to `root` (from a folder, if given), verified; say where they came from."""
        ...

    def verify(self, root: Path) -> tuple[str, ...]:
        """Return what is wrong with the files under `root`, one line each; nothing if all is well."""
        ...

    def fingerprint(self, root: Path, **options: Any) -> str:
        """Return the fingerprint without loading the images."""
        ...


class Objective(Protocol):
    """A function of params and seed, or a generator function: returns or yields a dict of metrics."""

    def __call__(self, params: Mapping[str, Value], seed: int) -> Any:
        """Compute the metrics."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A model, dataset or objective that was found.

    Attributes:
        name: how it is shown and stored ("lenet", "my_net.py:Net").
        locator: where it was found, absolute where it is a file; what a worker is told.
        target: the class or function itself.
        source: SHA-256 of the file's bytes for a user's own file, None for an installed one.
    """

    name: str
    locator: str
    target: Any
    source: str | None

    def options(self, reserved: tuple[str, ...] = SHAPE_ARGUMENTS) -> dict[str, Value]:
        """Return the options that the signature accepts, with their defaults.

        An option without a default, or whose default is not a plain value, is given as None.
        """
        found: dict[str, Value] = {}
        for name, parameter in _parameters(self.target).items():
            if name in reserved or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            default = parameter.default
            found[name] = default if isinstance(default, bool | int | float | str) else None
        return found

    def accepts_any_option(self) -> bool:
        """Whether the signature ends in `**options`."""
        return any(p.kind is p.VAR_KEYWORD for p in _parameters(self.target).values())

    def required_options(self) -> tuple[str, ...]:
        """Return the options that have no default."""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return tuple(
            name
            for name, p in _parameters(self.target).items()
            if p.default is p.empty and p.kind in kinds and name not in (*SHAPE_ARGUMENTS, "root")
        )

    def build(
        self, *, in_channels: int, num_classes: int, image_size: tuple[int, int], options: Mapping[str, Value]
    ) -> torch.nn.Module:
        """Call a model with those of the arguments that its signature accepts."""
        offered = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
        parameters = _parameters(self.target)
        open_ended = self.accepts_any_option()
        arguments = {k: v for k, v in offered.items() if k in parameters or open_ended}
        arguments |= {k: v for k, v in options.items() if k in parameters or open_ended}
        module: torch.nn.Module = self.target(**arguments)
        return module

    def identity(self, options: Mapping[str, Value]) -> str | None:
        """Return what a model is besides its name and options: its source, and what is in files that it reads.

        Args:
            options: the `model.*` options; those that the target's `file_options` names may hold a path.
        """
        named = [options.get(name) for name in getattr(self.target, "file_options", ())]
        paths = [Path(value).expanduser() for value in named if isinstance(value, str)]
        files = [path for path in paths if path.is_file()]
        if not files:
            return self.source
        parts = [self.source or "", *map(_sha256, files)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def smallest_input(self) -> tuple[int, int] | None:
        """The smallest (H, W) that a model says it takes, or None."""
        return getattr(self.target, "smallest_input", None)


def installed(group: str) -> tuple[str, ...]:
    """Return the names of a group's entry points, sorted."""
    return tuple(sorted(_entry_points(group)))


def find(locator: str, group: str) -> Plugin:
    """Find a plug-in by name, "module:attribute" or "file.py:attribute".

    Raises:
        PluginError: no such name, file, module or attribute, or it does not import; one line, with the
            nearest known name.
    """
    kind = group.removeprefix("gridsearch.").removesuffix("s")
    where, colon, attribute = locator.rpartition(":")
    if not colon:
        entry = _entry_points(group).get(locator)
        if entry is None:
            article = "an" if kind[0] in "aeiou" else "a"
            raise PluginError(
                f"unknown {kind} {locator!r}{nearest(locator, installed(group))}",
                hint=f"{article} {kind} of your own is named as file.py:Name or module:Name",
            )
        return Plugin(name=locator, locator=locator, target=_load(entry.load, kind, locator), source=None)
    if where.endswith(".py"):
        path = Path(where).expanduser().absolute()
        module, source = _load(lambda: _import_file(path), kind, locator)
        target = _attribute(module, attribute, kind, locator)
        return Plugin(
            name=f"{path.name}:{attribute}", locator=f"{path}:{attribute}", target=target, source=source
        )
    if not where.replace(".", "_").isidentifier():
        raise PluginError(
            f"unknown {kind} {locator!r}",
            hint=f"name it as file.py:Name, module:Name, or one of {', '.join(installed(group))}",
        )
    module = _load(lambda: importlib.import_module(where), kind, locator)
    origin = getattr(module, "__file__", None)
    return Plugin(
        name=locator,
        locator=locator,
        target=_attribute(module, attribute, kind, locator),
        source=_sha256(Path(origin)) if origin else None,
    )


def find_objective(locator: str) -> Plugin:
    """Find a plain function, see `Objective`.

    Raises:
        PluginError: as `find`, or it cannot be called with params and a seed.
    """
    return as_objective(find(locator, OBJECTIVES))


def as_objective(plugin: Plugin) -> Plugin:
    """Return a plug-in that can be called with params and a seed.

    Raises:
        PluginError: it cannot.
    """
    try:
        inspect.signature(plugin.target).bind({}, 0)
    except ValueError:  # a builtin that does not tell its signature; the call will show
        return plugin
    except TypeError as error:
        raise PluginError(
            f"objective {plugin.name!r} cannot be called with params and a seed: {error}",
            hint="define it as `def f(params, seed)`: params is a dict, seed a whole number",
        ) from None
    return plugin


def of_object(target: Any, *, name: str | None = None) -> Plugin:
    """Wrap a class or function given from Python.

    Its locator is "module:attribute" where a worker can import it, and its source then is that of the module's
    file, as if it had been named so.  One that lives in `__main__`, in a notebook or inside a function can only
    be used inside this process: its locator is empty.
    """
    module = getattr(target, "__module__", "__main__")
    shown = getattr(target, "__name__", type(target).__name__)
    if module != "__main__" and getattr(sys.modules.get(module), shown, None) is target:
        found = find(f"{module}:{shown}", "gridsearch.plugins")
        return Plugin(name=name or found.name, locator=found.locator, target=target, source=found.source)
    try:
        text = inspect.getsource(target)
    except (OSError, TypeError):
        text = f"{module}:{shown}"
        if code := getattr(
            target, "__code__", None
        ):  # typed at a prompt: its source is gone, its code is not
            text += _code_text(code)
        elif not inspect.isclass(target):
            text = repr(target)  # with its address: rather computed again than taken for another
    source = hashlib.sha256(text.encode()).hexdigest()
    return Plugin(name=name or f"{module}:{shown}", locator="", target=target, source=source)


def _code_text(code: CodeType) -> str:
    """Return what a function's code does, as text that is the same in every process."""
    constants = [_code_text(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} {constants}"


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}


@lru_cache
def _entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=group)}


def _load(load: Callable[[], Any], kind: str, locator: str) -> Any:
    try:
        return load()
    except PluginError:
        raise
    except FileNotFoundError as error:
        raise PluginError(f"{kind} {locator!r}: no such file: {error.filename or locator}") from error
    except BaseException as error:  # a user's module may raise anything, SystemExit too
        if isinstance(error, KeyboardInterrupt):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PluginError(f"{kind} {locator!r} does not import: {type(error).__name__}: {reason}") from error


def _attribute(module: Any, attribute: str, kind: str, locator: str) -> Any:
    try:
        target = getattr(module, attribute)
    except AttributeError:
        public = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise PluginError(
            f"{kind} {locator!r}: {attribute!r} is not in it{nearest(attribute, public)}"
        ) from None
    if not callable(target):
        raise PluginError(f"{kind} {locator!r}: {attribute!r} is not a class or function")
    return target


_FILES: dict[tuple[Path, str], Any] = {}


def _import_file(path: Path) -> tuple[Any, str]:
    """Import a file once per content, as a module named after it; its folder is importable meanwhile."""
    source = _sha256(path)
    module = _FILES.get((path, source))
    if module is None:
        name = f"gridsearch_plugin_{path.stem}_{source[:12]}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        sys.path.insert(0, str(path.parent))
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        finally:
            sys.path.remove(str(path.parent))
        _FILES[path, source] = module
    return module, source


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
