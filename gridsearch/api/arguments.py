"""The arguments of the Python functions by name and type, and what is said of one that nobody knows.

Stands before `keywords`, which reads what the arguments hold.
"""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypedDict, TypeVar

from gridsearch.api.python_words import speaking_python
from gridsearch.errors import UsageError, nearest

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from gridsearch.records import Value

P = ParamSpec("P")
T = TypeVar("T")


class SearchArguments(TypedDict, total=False):
    """What `gridsearch.run` takes about what to search, beside `grid`; its own documentation says what each means."""

    exclude: str | Sequence[str] | None
    when: str | Sequence[str] | None
    study: str | None
    dataset: Any
    model: str | Callable[..., Any] | Sequence[Any] | None
    code: str | Callable[..., Any] | Sequence[Any] | None
    objective: str | Callable[..., Any] | None
    metric: str | None
    direction: str | None
    epochs: int | None
    seeds: int | Sequence[int] | None
    val: float | None
    folds: int | None
    group: str | None
    subset: int | None
    version: str | None
    sample: int | None
    order: str | None
    ignore: str | Sequence[str] | None
    recipe: Mapping[str, Value] | None


class RunArguments(SearchArguments, total=False):
    """What `gridsearch.run` takes beside `grid`; its own documentation says what each means."""

    more_seeds: int | None
    top: int | None
    home: str | os.PathLike[str] | None
    store: str | None
    device: Any
    workers: int | str | None
    lanes: int | str | None
    executor: str | None
    slurm: Mapping[str, Any] | str | Sequence[str] | None
    prune: str | None
    budget: float | str | timedelta | None
    trial_limit: float | str | timedelta | None
    retries: int | None
    checkpoint: float | str | timedelta | None
    store_patience: float | str | timedelta | None
    lease: float | str | timedelta | None
    keep_going: bool
    notify: str | Sequence[str] | None
    report: bool
    open: bool
    quiet: bool


class BestArguments(TypedDict, total=False):
    """What `gridsearch.best` takes beside the study's name; its own documentation says what each means."""

    where: Mapping[str, Value] | None
    again: bool
    model: str | Callable[..., Any] | Sequence[Any] | None
    code: str | Callable[..., Any] | Sequence[Any] | None
    dataset: Any
    home: str | os.PathLike[str] | None
    store: str | None
    device: Any
    executor: str | None
    slurm: Mapping[str, Any] | str | Sequence[str] | None
    quiet: bool


def with_nearest_name(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function refuse a keyword that it does not know with the nearest one that it does.

    It refuses to be called, too, where the session's working directory is gone: no path and no worker would mean
    anything.  Its errors are those of `speaking_python`.

    Raises:
        UsageError: at the call.
    """
    signature = inspect.signature(function)
    known = [n for n, p in signature.parameters.items() if p.kind is not p.VAR_POSITIONAL]
    any_name = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())

    @speaking_python
    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in known and not any_name:
                raise UsageError(
                    f"gridsearch.{function.__name__} takes no argument {name!r}{nearest(name, known)}"
                )
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise UsageError(f"gridsearch.{function.__name__}: {error}") from None
        try:
            Path.cwd()
        except OSError:
            raise UsageError(
                "the working directory no longer exists", hint="os.chdir to an existing folder"
            ) from None
        return function(*args, **kwargs)

    return inner
