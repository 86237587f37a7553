"""Finds a model, a dataset or an objective by name, "module:attribute" or file, or takes one given from Python.

Built-in models and datasets are entry points like anybody's; nothing here knows their names.  A file's code
runs only when a locator from the command line, or from a study file given there, names it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import inspect
import re
import shlex
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridsearch import locators
from gridsearch.errors import PluginError, nearest, said
from gridsearch.folders import expanded, tilde
from gridsearch.importing import MAIN, importing
from gridsearch.plugins.arithmetic import imported, noted
from gridsearch.plugins.file_loader import OwnModules, load_file, load_module
from gridsearch.plugins.objects import identity, module_address
from gridsearch.plugins.ownership import own_module
from gridsearch.plugins.shape_arguments import SHAPE_ARGUMENTS, Shape, words_of
from gridsearch.plugins.source_files import sha256
from gridsearch.users_code import kept_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from types import ModuleType

    import torch

    from gridsearch.records import Value

MODELS = "gridsearch.models"
DATASETS = "gridsearch.datasets"
OBJECTIVES = "gridsearch.objectives"
OPTIMIZERS = "gridsearch.optimizers"
AUGMENTATIONS = "gridsearch.augments"

_MOST_OFFERED = 4
"""Names in a file that a message lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A model, dataset or objective that was found.

    Attributes:
        name: how it is shown and stored ("lenet", "my_net.py:Net").
        locator: where it was found, absolute where it is a file; what a worker finds it by.
        target: the class or function itself.
        source: the address of its code: for a user's own file that imports nothing else of theirs the SHA-256 of its
            bytes, see `docs/address.md` for all else; None for an installed one.
        parts: addresses of what it consists of, by name: files, or functions and the values that they reach.
        missing: what it reaches that has no address, in words; its trials are then computed again each time.
        edited: a file that it comes from, where that has changed since the session imported it.
        older: the address by which earlier versions of this program knew it; see `known_as`.
        arithmetic: how its module set the process to compute when it was imported, see `arithmetic`.
        bound: why a copy in another process would compute otherwise, in words that follow a name.
    """

    name: str
    locator: str
    target: Any
    source: str | None
    parts: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    edited: str = ""
    older: str = ""
    arithmetic: Mapping[str, Any] = field(default_factory=dict)
    bound: tuple[str, ...] = ()

    def known_as(self, sources: Collection[str | None]) -> Plugin:
        """Return it with the address under which a study's trials have it, the present one or the earlier versions'.

        Args:
            sources: addresses in the study.
        """
        return replace(self, source=self.older) if self.older and self.older in sources else self

    def options(self, reserved: tuple[str, ...] = SHAPE_ARGUMENTS) -> dict[str, Value]:
        """Return the options that the signature accepts, with their defaults.

        An option without a default, or whose default is not a plain value, is given as None.
        """
        found: dict[str, Value] = {}
        for name, parameter in parameters_of(self.target).items():
            if name in reserved or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            default = parameter.default
            found[name] = default if isinstance(default, bool | int | float | str) else None
        return found

    def accepts_any_option(self) -> bool:
        """Whether the signature ends in `**options`."""
        return any(p.kind is p.VAR_KEYWORD for p in parameters_of(self.target).values())

    def required_options(self) -> tuple[str, ...]:
        """Return the options that have no default."""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return tuple(
            name
            for name, p in parameters_of(self.target).items()
            if p.default is p.empty and p.kind in kinds and name not in (*SHAPE_ARGUMENTS, "root")
        )

    def shape_words(self) -> dict[str, str]:
        """Return the arguments that mean the data's shape under another name than the contract's; see `shapes`."""
        return words_of(parameters_of(self.target))

    def passed(
        self, *, in_channels: int, num_classes: int, image_size: tuple[int, int], options: Mapping[str, Value]
    ) -> dict[str, Any]:
        """Return what the arguments of `shape_words` get from the data: all that no option sets to something else."""
        shape = Shape(in_channels, num_classes, image_size)
        parameters = parameters_of(self.target)
        return {
            name: shape.of(kind, parameters[name])
            for name, kind in self.shape_words().items()
            if options.get(name) is None or options[name] == parameters[name].default
        }

    def build(
        self, *, in_channels: int, num_classes: int, image_size: tuple[int, int], options: Mapping[str, Value]
    ) -> torch.nn.Module:
        """Call a model with those of the arguments that its signature accepts."""
        offered: dict[str, Any] = {
            "in_channels": in_channels,
            "num_classes": num_classes,
            "image_size": image_size,
        }
        parameters = parameters_of(self.target)
        open_ended = self.accepts_any_option()
        arguments = {k: v for k, v in offered.items() if k in parameters or open_ended}
        arguments |= {k: v for k, v in options.items() if k in parameters or open_ended}
        arguments |= self.passed(**offered, options=options)
        return self._call(arguments, [name for name in offered if name not in parameters])

    def _call(self, arguments: dict[str, Any], unasked: list[str]) -> torch.nn.Module:
        """Call the target, without those of the unasked arguments that whoever gets its `**options` does not know."""
        try:
            with kept_apart():
                module: torch.nn.Module = self.target(**arguments)
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if unknown is None or unknown[1] not in unasked or unknown[1] not in arguments:
                raise
            left = {name: value for name, value in arguments.items() if name != unknown[1]}
            return self._call(left, unasked)
        return module

    def identity(self, options: Mapping[str, Value]) -> str | None:
        """Return what a model is besides its name and options: its source, and what is in files that it reads.

        Args:
            options: the `model.*` options; those that the target's `file_options` names may hold a path.
        """
        # of a library's network, whose files may have to be fetched
        find = getattr(self.target, "weight_files", None)
        if find is not None:
            files = list(find(options))
        else:
            named = [options.get(name) for name in getattr(self.target, "file_options", ())]
            paths = [tilde(value) for value in named if isinstance(value, str)]
            files = [path for path in paths if path.is_file()]
        if not files:
            return self.source
        parts = [self.source or "", *map(_digest, files)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def smallest_input(self) -> tuple[int, int] | None:
        """The smallest (H, W) that a model says it takes, or None."""
        return getattr(self.target, "smallest_input", None)


def installed(group: str) -> tuple[str, ...]:
    """Return the names of a group's entry points, sorted."""
    return tuple(sorted(_entry_points(group)))


def _names(group: str) -> tuple[str, ...]:
    """Return what may stand for a plug-in of a group beside one of the user's own, for a message."""
    forms = {
        DATASETS: [f"{kind}:PATH" for kind in locators.DATASETS],
        MODELS: [f"{package}:NAME" for package in locators.LIBRARIES],
    }
    names = [name for name in installed(group) if name not in locators.DATASETS]
    return (*names, *forms.get(group, ()))


def _defined_in(locator: str, *, functions_first: bool) -> list[str]:
    """Return the first classes, or else functions, that a file defines; none where it is none. No code runs."""
    path = expanded(locator)
    try:
        body = ast.parse(path.read_bytes()).body if path.suffix == ".py" and path.is_file() else []
    except (OSError, SyntaxError, ValueError):
        return []
    classes = [node.name for node in body if isinstance(node, ast.ClassDef)]
    functions = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    for found in (functions, classes) if functions_first else (classes, functions):
        if names := [name for name in found if not name.startswith("_")]:
            return names[:_MOST_OFFERED]
    return []


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
            if inside := _defined_in(locator, functions_first=group == OBJECTIVES):
                raise PluginError(
                    f"{kind} {locator!r} is a file: which class or function in it?",
                    hint=f"name it: {' or '.join(shlex.quote(f'{locator}:{name}') for name in inside)}",
                )
            raise PluginError(
                f"unknown {kind} {locator!r}{nearest(locator, _names(group))}",
                hint=f"{article} {kind} of your own is named as file.py:Name or module:Name",
            )
        module = _load(lambda: imported(entry.module), kind, locator)
        target = _load(entry.load, kind, locator)
        if not own_module(module):
            return Plugin(name=locator, locator=locator, target=target, source=None)
        return _of_module(module, target, locator)  # of a project that is installed as it lies in its folder
    if where.endswith(".py"):
        path = expanded(where)
        own = _load(lambda: load_file(path), kind, locator)
        target = _attribute(own.module, attribute, kind, locator)
        place = f"{path}:{attribute}"
        return _of_file(own, target, name=f"{path.name}:{attribute}", locator=place)
    if not where.replace(".", "_").isidentifier():
        raise PluginError(
            f"unknown {kind} {locator!r}",
            hint=f"name it as file.py:Name, module:Name, or one of {', '.join(_names(group))}"
            if installed(group)
            else "name it as file.py:Name or module:Name",
        )
    module = _load(lambda: imported(where), kind, locator)
    path = Path(getattr(module, "__file__", None) or "")
    # edited since it was imported: take what is there
    if module_address(module) is None and path.suffix == ".py":
        own = _load(lambda: load_module(where, path), kind, locator)
        target = _attribute(own.module, attribute, kind, locator)
        return _of_file(own, target, name=locator, locator=locator)
    return _of_module(module, _attribute(module, attribute, kind, locator), locator)


def _of_module(module: ModuleType, target: Any, locator: str) -> Plugin:
    source, parts = module_address(module) or ("", {})
    found = Plugin(name=locator, locator=locator, target=target, source=source or None, parts=parts)
    return replace(found, arithmetic=noted(module))


def _of_file(own: OwnModules, target: Any, *, name: str, locator: str) -> Plugin:
    found = Plugin(name=name, locator=locator, target=target, source=own.source, parts=own.parts)
    return replace(found, arithmetic=own.arithmetic)


def of_object(target: Any, *, name: str | None = None, version: str | None = None) -> Plugin:
    """Wrap a class, a function or an object that can be called, given from Python.

    Its locator is "module:attribute" where a worker can import the very same one; see `identity` for its address.
    One that lives in `__main__`, in a notebook, inside a function or in a module that is still being imported has
    no locator: it travels to the workers by value.

    Args:
        target: the object.
        name: how it is shown; default: its module and name.
        version: stands for what it reaches that has no address.
    """
    found = identity(target, version=version)
    inner = target
    while isinstance(inner, partial):
        inner = inner.func
    shown = getattr(inner, "__name__", type(inner).__name__)
    module = getattr(inner, "__module__", MAIN[0])
    return Plugin(
        name=name or found.locator or f"{'__main__' if module in MAIN else module}:{shown}",
        locator=found.locator,
        target=target,
        source=found.source,
        parts=found.parts,
        missing=found.missing,
        edited=found.edited,
        older=found.older,
        bound=found.bound,
    )


def signature_of(target: Any) -> inspect.Signature:
    """Return how something is called.

    What a decorator has put around a function bears, by `functools.wraps`, the signature of that function.  It counts
    where the decorator's own function takes anything and hands it on; else the decorator has changed it.

    Raises:
        TypeError: it cannot be called; ValueError: it has no signature.
    """
    try:
        own = inspect.signature(target, follow_wrapped=False)
    except ValueError:  # as that of `functools.lru_cache`, in C
        return inspect.signature(target)
    hands_on = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in own.parameters.values())
    return inspect.signature(target) if hands_on else own


def parameters_of(target: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of something that can be called; none where it has no signature."""
    try:
        return signature_of(target).parameters
    except (TypeError, ValueError):
        return {}


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, computed once for as long as it is the same: weights may be large."""
    found = path.stat()
    return _known_digest(path, found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache
def _known_digest(path: Path, *_: int) -> str:
    return sha256(path)


@lru_cache
def _entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=group)}


def _load(load: Callable[[], Any], kind: str, locator: str) -> Any:
    try:
        with importing(locator), kept_apart():
            return load()
    except PluginError:
        raise
    except FileNotFoundError as error:
        raise PluginError(f"{kind} {locator!r}: no such file: {error.filename or locator}") from error
    except BaseException as error:  # a user's module may raise anything, SystemExit too
        if isinstance(error, KeyboardInterrupt):
            raise
        reason = " ".join(said(error).split()) or type(error).__name__
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
