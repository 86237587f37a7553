"""Takes plug-ins that live in this session alone (a notebook, a script, a closure) to the worker processes.

Between the catalog, which knows them, and `worker`, which finds them by their display names: cloudpickle writes
them by value, with all that they refer to, into a file without a name that the workers inherit.
"""

from __future__ import annotations

import contextlib
import mmap
import pickle
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

from gridsearch.errors import PluginError, UsageError, said
from gridsearch.executors.by_value import dumped
from gridsearch.importing import importable, importing
from gridsearch.plugins import Plugin
from gridsearch.plugins.loaded_source import as_written
from gridsearch.plugins.ownership import own_module
from gridsearch.random_streams import TURN, Streams

if TYPE_CHECKING:
    from collections.abc import Iterator


def pickled(objects: Mapping[str, Plugin]) -> bytes:
    """Return plug-ins as bytes that another process makes them of, code and all.

    Args:
        objects: by display name.

    Raises:
        UsageError: they hold something that cannot leave this process, such as an open file.
    """
    import cloudpickle

    with TURN, contextlib.ExitStack() as by_value:  # what is registered, is so for all threads
        unknown = list(_unknown_elsewhere())
        for module in unknown:
            cloudpickle.register_pickle_by_value(module)
            by_value.callback(cloudpickle.unregister_pickle_by_value, module)
        try:
            return dumped(dict(objects), by_value={module.__name__ for module in unknown})
        except Exception as error:
            reason = " ".join(said(error).split())
            raise UsageError(
                f"{', '.join(objects)} cannot be sent to a worker process: {type(error).__name__}: {reason}",
                hint='executor="inline" trains in this process; or name it as file.py:Name',
            ) from error


def _unknown_elsewhere() -> Iterator[ModuleType]:
    """Give the modules of the user's of which a worker that imports them by their names gets none, or another."""
    found: dict[str, bool] = {}
    for name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or name == "__main__" or module.__name__ != name:
            continue
        top = sys.modules.get(name.partition(".")[0])
        if top is None or not own_module(top):
            continue
        if own_module(module) and not (importable(name, found) and as_written(module)):
            yield module


class Received(Mapping[str, Plugin]):
    """What a worker inherited, unpickled when it is first asked for: what fails then fails a trial, not the worker.

    Args:
        file: holds what `pickled` gave.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._found: dict[str, Plugin] | None = None

    def __getitem__(self, name: str) -> Plugin:
        return self._objects[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def _objects(self) -> dict[str, Plugin]:
        if self._found is None:
            self._found = self._load()
        return self._found

    def _load(self) -> dict[str, Plugin]:
        try:
            with (
                self._file,
                importing("what the session sent"),
                Streams(0).inside(),  # a module may draw numbers when it is imported
                mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as content,
                memoryview(content) as view,
            ):
                found: dict[str, Any] = pickle.loads(view)  # noqa: S301 - our own session wrote it
        except Exception as error:
            reason = " ".join(said(error).split())
            raise PluginError(
                f"what is defined in the session cannot be made again in a worker: {type(error).__name__}: {reason}",
                hint='executor="inline" trains in the session\'s own process',
            ) from error
        return found
