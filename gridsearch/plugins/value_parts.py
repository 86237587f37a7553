"""What the address of a value reads of tensors, of scalars, and of objects as pickle sees them.

`value_address` walks what a user's code reaches; this says of one value what there is to be written.
"""

from __future__ import annotations

import copyreg
import functools
import sys
import types
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FunctionType

BY_NAME = (
    types.BuiltinFunctionType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.MethodWrapperType,
)
"""What the interpreter or an extension has made: its name is all there is to be written."""


def comes_from(kind: type, package: str, *names: str) -> bool:
    """Whether a class comes from one of a package that is not imported here."""
    return any(b.__name__ in names and b.__module__.partition(".")[0] == package for b in kind.__mro__)


def bytes_of_tensor(tensor: Any) -> Any:
    """Return a tensor's memory, as uint8 [bytes]; RuntimeError, TypeError or NotImplementedError where it has none."""
    import numpy as np

    plain = tensor.detach().cpu().contiguous()
    torch = sys.modules["torch"]
    flat = plain.reshape(-1).view(torch.uint8) if plain.numel() else plain.reshape(-1).to(torch.uint8)
    return np.asarray(flat.numpy())


def reduced(value: Any) -> Any:
    """Return an object as pickle and copy see it: what makes it, and its state; anything may be raised."""
    special = copyreg.dispatch_table.get(type(value))
    return special(value) if special is not None else value.__reduce_ex__(4)


def dispatches(function: FunctionType) -> bool:
    """Whether `functools.singledispatch` has made a function."""
    of = "singledispatch.<locals>.wrapper"
    return function.__globals__ is vars(functools) and function.__code__.co_qualname == of


def left_out(value: Any, state: Mapping[str, Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Return an object's attributes that neither its pickled state nor what makes it has: numbers and texts."""
    held = {} if isinstance(value, Enum) else getattr(value, "__dict__", None) or {}
    given = {(type(each), repr(each)) for each in arguments}
    held = {k: v for k, v in held.items() if (type(v), repr(v)) not in given}
    kinds = (bool, int, float, complex, str, bytes)
    return {k: v for k, v in held.items() if isinstance(k, str) and k not in state and type(v) in kinds}


def text(value: Any) -> str:
    """Return a scalar as text that no other value of its type has."""
    if isinstance(value, str):
        return value
    return value.hex() if isinstance(value, float) else hex(value) if type(value) is int else repr(value)
