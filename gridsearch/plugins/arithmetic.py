"""How a process computes unless it is told otherwise: torch's default dtype, how numpy and `decimal` round and warn.

What a file of a user's own sets while it is imported holds for that file's trials, whatever a process has trained
before, and for nothing else: `lookup` notes it, and the executors compute with it.
"""

from __future__ import annotations

import decimal
import importlib
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from gridsearch.random_streams import TURN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

_NUMPY: Final = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
"""What numpy does about errors in a new process."""

_NOTED: dict[str, Mapping[str, Any]] = {}


@contextmanager
def computing(*settings: Mapping[str, Any]) -> Iterator[None]:
    """Compute as in a new process, but for some settings; afterwards all is as before, and threads take turns.

    Args:
        settings: those that `set_here` gave; a later one goes before an earlier one.
    """
    wanted = {name: value for each in settings for name, value in each.items()}
    with TURN, ExitStack() as stack:
        stack.enter_context(decimal.localcontext(wanted.get("decimal", decimal.DefaultContext)))
        if (numpy := sys.modules.get("numpy")) is not None:
            stack.enter_context(numpy.errstate(**wanted.get("numpy", _NUMPY)))
        dtype = torch.get_default_dtype() if (torch := sys.modules.get("torch")) is not None else None
        if torch is not None:
            torch.set_default_dtype(wanted.get("torch", torch.float32))
        try:
            yield
        finally:
            if (torch := sys.modules.get("torch")) is not None:
                torch.set_default_dtype(dtype or torch.float32)


def set_here() -> dict[str, Any]:
    """Return how this thread computes where that is another way than in a new process."""
    found: dict[str, Any] = {}
    context = decimal.getcontext().copy()
    context.clear_flags()
    if repr(context) != repr(decimal.DefaultContext):
        found["decimal"] = context
    if (numpy := sys.modules.get("numpy")) is not None and (errors := numpy.geterr()) != _NUMPY:
        found["numpy"] = errors
    if (torch := sys.modules.get("torch")) is not None:
        dtype = torch.get_default_dtype()
        found |= {} if dtype is torch.float32 else {"torch": dtype}
    return found


def imported(name: str) -> ModuleType:
    """Return a module by its name, imported in a process that computes as a new one; see `noted`.

    Raises:
        BaseException: whatever its code raises.
    """
    if name in sys.modules:
        return importlib.import_module(name)
    with computing():
        module = importlib.import_module(name)
        _NOTED[name] = set_here()
    return module


def noted(module: ModuleType) -> Mapping[str, Any]:
    """Return how a module set the process to compute when `imported` imported it."""
    return _NOTED.get(module.__name__, {})
