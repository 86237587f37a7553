"""Proxies, which stand for tensors and sizes while a model is traced: their numbers, and their changes in place.

Stands below `tracer`, which answers what they are asked.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable  # noqa: TC003  (of a constant's annotation)
from contextlib import contextmanager
from types import FunctionType
from typing import TYPE_CHECKING, Any

from torch import fx
from torch.fx.proxy import Attribute

from gridsearch.training.lanes.compile.in_place import IN_PLACE_OPERATORS, assigned
from gridsearch.training.lanes.compile.size_nodes import is_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

_OUT_OF_PLACE: dict[Any, Callable[..., Any]] = {
    function: getattr(operator, f"__{name[3:]}") for name, function in IN_PLACE_OPERATORS.items()
}
"""What an operator in place is out of place."""


_ANSWERED = {"ndim": "rank", "device": "device"}
"""Attributes that code wants as what they are, and what of the tracer tells."""


class _Known:
    """A proxy whose value may be asked for."""

    node: fx.Node
    tracer: Any

    def __int__(self) -> int:
        return int(self.tracer.samples.known(self.node))

    def __index__(self) -> int:
        return operator.index(self.tracer.samples.known(self.node))

    def __float__(self) -> float:
        return float(self.tracer.samples.known(self.node))

    def __len__(self) -> int:
        return int(self.tracer.samples.known_length(self.node))

    def __getattr__(self, name: str) -> Any:
        part = TracedPart(self, name)  # type: ignore[arg-type]  # every `_Known` is a proxy
        return getattr(self.tracer, _ANSWERED[name])(part) if name in _ANSWERED else part

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, fx.Proxy):
            _write_back(value.node, self.node, self.tracer.create_arg(index))
        self.tracer.create_proxy("call_function", assigned, (self, index, value), {})


def _write_back(value: fx.Node, changed: fx.Node, index: Any) -> None:
    """Let `x[i] += y` change no part of x before it is set: Python calls it `t = x[i]`, `t += y`, `x[i] = t`."""
    plain: Any = _OUT_OF_PLACE.get(value.target)
    part = value.args[0] if plain and value.args else None
    if isinstance(part, fx.Node) and part.target is operator.getitem and part.args == (changed, index):
        value.target = plain


def _changing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method of an operator in place; of a number or a shape it makes another one."""

    def method(self: _Known, other: Any) -> Any:
        if is_size(self.node):
            return NotImplemented
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _name, _operator in IN_PLACE_OPERATORS.items():
    setattr(_Known, _name, _changing(_operator))


class TracedValue(_Known, fx.Proxy):
    """What stands for a tensor or a size while a model is traced."""


class TracedPart(_Known, Attribute):
    """An attribute of it, or a method."""


@contextmanager
def traced_lengths(tracer: Any, root: nn.Module) -> Iterator[None]:
    """Let `len` of what stands for a tensor be how many images there are, where that is what it asks for.

    Python wants an integer of a method `__len__`, and so the built-in function itself is replaced meanwhile, wherever
    the model's code finds it: a user's file may have a table of built-in functions of its own.
    """
    own = len
    classes = {kind for module in root.modules() for kind in type(module).__mro__}
    functions: list[Any] = [f for kind in classes for f in vars(kind).values() if isinstance(f, FunctionType)]
    tables = {id(table): table for table in (vars(builtins), *(f.__builtins__ for f in functions))}

    def length(value: Any) -> Any:
        return tracer.length(value) if isinstance(value, TracedValue | TracedPart) else own(value)

    for table in tables.values():
        table["len"] = length
    try:
        yield
    finally:
        for table in tables.values():
            table["len"] = own
