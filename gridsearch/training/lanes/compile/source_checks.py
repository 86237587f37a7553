"""The code that a model's forward runs, searched for what tracing it once would fix for good.

Stands between a model's first pass and the choice of a network.  A K-lane form is made from what the first pass does;
code that sets attributes, reads the clock, or reads what others may change, can do something else at step 50.  Only
code that ran is searched, all its branches included: a branch that is not taken yet can only be taken once something
has changed, and code that ran shows what can change.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import functools
import gc
import os
import random
import sys
import sysconfig
import types
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from gridsearch.training.lanes.compile.lane_values import TrainsAlone
from gridsearch.training.lanes.compile.module_state import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

_TORCH = str(Path(torch.__file__).parent)
_PACKAGE = Path(__file__).parents[3]
_OURS = (
    *(f"{_PACKAGE / part}{os.sep}" for part in ("training", "executors", "plugins")),
    str(_PACKAGE / "zoo" / "torchvision.py"),
)
"""What runs beside a model's forward without belonging to it: it measures memory, captures what is printed, imports."""

_DECORATES = str(Path("torch", "utils", "_contextlib.py"))
"""Where torch's contexts become decorators of functions."""

_LIBRARY = sysconfig.get_paths()["stdlib"]

_OUTSIDE = frozenset(
    ("time", "random", "_random", "os", "posix", "nt", "datetime", "secrets", "uuid", "socket", "threading", "io",
     "_io", "subprocess", "tempfile", "shutil")
)  # fmt: skip
"""Modules that depend on the world outside, or keep state."""

_BUILTINS = frozenset(("open", "input", "globals", "setattr", "delattr", "vars", "exec", "eval"))

_METHODS = frozenset(
    ("data", "requires_grad_", "set_", "register_hook", "register_post_accumulate_grad_hook", "register_buffer",
     "register_parameter", "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
     "register_full_backward_pre_hook", "register_module", "add_module", "load_state_dict", "train", "eval",
     "__dict__", "__setattr__", "is_grad_enabled", "initial_seed", "get_rng_state", "default_generator",
     "register_prehook", "register_multi_grad_hook")
)  # fmt: skip
"""Attributes whose use may change a module, or read what is not in its graph."""

_DESCRIBE = (staticmethod, classmethod, property, functools.cached_property)
"""What a class has under a name that gives something else: their code is examined as it runs."""

_LOADS = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")
_STORES = {"STORE_ATTR": "sets", "DELETE_ATTR": "deletes", "STORE_GLOBAL": "sets", "DELETE_GLOBAL": "deletes"}
_MAKERS = ("__init__", "__new__", "__post_init__", "__del__")
"""They set attributes of an object that is new, or ends."""


class Watch:
    """Notes the code that runs inside a `with` block, and what it refers to.

    Args:
        model: whose code it is.
        refuses: whether `check` refuses what may act otherwise later; else only what changes is noted.

    Attributes:
        switches: whether gradients were switched off or on, which a traced graph does not contain.
        casts: likewise whether another arithmetic was.
    """

    def __init__(self, model: nn.Module, *, refuses: bool = True) -> None:
        self.switches = self.casts = False
        self._refuses = refuses
        self._fingerprint = Fingerprint(model, tensors=True)
        self._refers: dict[tuple[int, str], tuple[Callable[[], Any], object]] = {}
        self._codes: set[types.CodeType] = set()
        self._problem: TrainsAlone | None = None
        self._before: Any = None
        self._collects = False

    def __enter__(self) -> Self:
        self._before = sys.getprofile()
        self._collects = gc.isenabled()
        gc.disable()  # a collection runs code of others
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is None or callable(self._before):
            sys.setprofile(self._before)
        else:  # cProfile's, which Python returns and does not take back
            sys.setprofile(None)
            self._before.enable()
        if self._collects:
            gc.enable()

    def check(self) -> None:
        """Refuse what may act otherwise later.

        Raises:
            TrainsAlone: with what was found.
        """
        if self._problem is not None:
            raise self._problem
        for name in self.changed():
            raise TrainsAlone(f"its forward keeps state of its own ({name})")

    def changed(self) -> Iterator[str]:
        """Yield the names of what the code refers to, outside of its objects, that is no longer what it was.

        Raises:
            TrainsAlone: something has become what has no fingerprint, where that is refused.
        """
        for (_, name), (get, before) in self._refers.items():
            try:
                same = self._fingerprint.of(get(), name) == before
            except TrainsAlone:
                if self._refuses:
                    raise
                same = False
            if not same:
                yield name

    def _note(self, frame: types.FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        if not _is_own(code.co_filename):
            if code.co_name == "__enter__":
                self.switches |= code.co_filename.endswith("grad_mode.py") and _is_asked_by_own(frame)
                self.casts |= code.co_filename.endswith("autocast_mode.py") and _casts(frame)
            return
        if self._problem is None and (code not in self._codes or code.co_freevars) and not _imports(frame):
            self._codes.add(code)
            try:
                if code.co_name not in _MAKERS:
                    self._check_frame(frame)
            except TrainsAlone as problem:
                self._problem = problem

    def _check_frame(self, frame: types.FrameType) -> None:
        problem, names, attributes = _reading(frame.f_code)
        if problem and self._refuses:
            raise TrainsAlone(f"its forward {problem} (in {frame.f_code.co_qualname})")
        held = frame.f_globals
        for name in names:
            if name in held:
                self._refer(name, id(held), partial(held.get, name), frame)
                self._refer_inside(held[name], name, attributes, frame)
        for name in frame.f_code.co_freevars:
            if name in frame.f_locals:
                value = frame.f_locals[name]
                self._refer(name, id(value), partial(_itself, value), frame)
                self._refer_inside(value, name, attributes, frame)

    def _refer_inside(self, value: Any, name: str, attributes: Sequence[str], frame: types.FrameType) -> None:
        """Note what code may ask a module or a class for, by the names of attributes in it."""
        for attribute in attributes if _has_own_content(value) else ():
            inner = vars(value).get(attribute)
            if attribute in vars(value) and not isinstance(inner, _DESCRIBE):
                path = f"{name}.{attribute}"
                if self._refer(path, id(value), partial(_inside, value, attribute), frame):
                    self._refer_inside(inner, path, attributes, frame)

    def _refer(self, name: str, owner: int, get: Callable[[], Any], frame: types.FrameType) -> bool:
        """Note what code refers to, and say whether that is new."""
        key = owner, name
        if key in self._refers:
            return False
        value = get()
        if not self._refuses:
            with contextlib.suppress(TrainsAlone):  # whether it changes is not known then
                self._refers[key] = get, self._fingerprint.of(value, name)
            return key in self._refers
        origin = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        if origin in _OUTSIDE or isinstance(getattr(value, "__self__", None), random.Random):
            raise TrainsAlone(f"its forward asks {name} (in {frame.f_code.co_qualname})")
        self._refers[key] = get, self._fingerprint.of(value, name)
        return True


def _imports(frame: types.FrameType) -> bool:
    """Whether a module is being imported, which happens once."""
    around: types.FrameType | None = frame
    while around is not None and not around.f_code.co_filename.startswith(_OURS[0]):
        if around.f_code.co_filename.startswith("<frozen importlib"):
            return True
        around = around.f_back
    return False


def _is_asked_by_own(frame: types.FrameType) -> bool:
    """Whether own code switches gradients, by a context or by decorating a function; torch's own is one operation."""
    asking = frame.f_back
    while asking is not None and asking.f_code.co_filename.endswith(_DECORATES):
        asking = asking.f_back
    return asking is not None and _is_own(asking.f_code.co_filename)


def _casts(frame: types.FrameType) -> bool:
    """Whether an autocast context that own code is about to enter computes otherwise than what is around it."""
    if frame.f_back is None or not _is_own(frame.f_back.f_code.co_filename):
        return False  # precision.py enters some
    context: torch.autocast = frame.f_locals["self"]
    around = torch.is_autocast_enabled(context.device)
    differs = context.fast_dtype != torch.get_autocast_dtype(context.device)
    return context._enabled != around or (around and differs)


def _itself(value: Any) -> Any:
    return value


def _inside(owner: Any, name: str) -> Any:
    return vars(owner).get(name)


def _has_own_content(value: Any) -> bool:
    """Whether something is a module or a class of neither torch nor Python, whose attributes its code may change."""
    module = (
        value if isinstance(value, types.ModuleType) else sys.modules.get(getattr(value, "__module__", ""))
    )
    file = getattr(module, "__file__", None)
    return isinstance(value, types.ModuleType | type) and file is not None and _is_own(file)


@cache
def _is_own(filename: str) -> bool:
    """Whether code is neither torch's, nor Python's, nor made by Python itself, nor what trains here."""
    if filename.startswith((_TORCH, "<frozen", *_OURS)):
        return False
    library = filename.startswith(_LIBRARY)
    return not library or "site-packages" in filename or "dist-packages" in filename


@lru_cache(maxsize=1024)
def _reading(code: types.CodeType) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return what a function does that may change how it acts, "" for nothing, and the globals and attributes in it."""
    problem = ""
    names: list[str] = []
    attributes: list[str] = []
    for step in dis.get_instructions(code):
        what, name = step.opname, str(step.argval)
        problem = problem or _problem(what, name, code)
        if what in _LOADS:
            attributes.append(name)
        if what in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.append(name)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            own, more, inside = _reading(inner)
            problem = problem or own
            names += more
            attributes += inside
    return problem, tuple(dict.fromkeys(names)), tuple(dict.fromkeys(attributes))


def _problem(what: str, name: str, code: types.CodeType) -> str:
    """Return what an instruction does that may change how its function acts; "" for nothing."""
    if what in _STORES:
        return f"keeps state of its own: it {_STORES[what]} {name}"
    if what in ("STORE_DEREF", "DELETE_DEREF") and name in code.co_freevars:
        return f"keeps state of its own: it sets {name}"
    if what in _LOADS and name in _METHODS:
        return f"uses {name}"
    if what in ("LOAD_GLOBAL", "LOAD_NAME") and name in _BUILTINS and hasattr(builtins, name):
        return f"uses {name}"
    if what == "IMPORT_NAME" and name.partition(".")[0] in _OUTSIDE:
        return f"asks {name}"
    return ""


__all__ = ["Watch"]
