"""Writes arrays, tensors and tables into an address: their contents, kinds, names, and what is attached to them.

Stands beside `value_address`, whose walk it writes with, and which knows these by their classes' names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from gridsearch.plugins.value_parts import bytes_of_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Writer(Protocol):
    """What of a walk is used here."""

    def put(self, tag: str, *parts: bytes) -> None:
        """Write bytes under a tag."""

    def value(self, value: Any, name: str | None = None) -> None:
        """Write anything."""

    def several(self, tag: str, values: Iterable[Any]) -> None:
        """Write values, in their order."""

    def state(self, tag: str, values: Mapping[str, Any]) -> None:
        """Write attributes."""

    def pairs(self, tag: str, values: Mapping[Any, Any]) -> None:
        """Write keys with their values."""

    def bind(self, words: str) -> None:
        """Note why a copy in another process would compute otherwise."""

    def unknown(self, value: Any, what: str | None = None) -> None:
        """Note what cannot be addressed."""


def array(walk: Writer, value: Any) -> None:
    """Write an array of numpy."""
    walk.put("array", f"{value.dtype.str} {value.dtype.descr} {value.shape}".encode())
    if value.ndim > 1 and value.flags.f_contiguous and not value.flags.c_contiguous:
        walk.put("by columns")  # sums are rounded in the order in which the numbers lie
    if value.dtype.hasobject:
        walk.several("objects", value.ravel().tolist())
    else:
        walk.put("bytes", value.tobytes())


def tensor(walk: Writer, value: Any) -> None:
    """Write a tensor of torch."""
    walk.put("tensor", f"{value.dtype} {tuple(value.shape)} {value.requires_grad}".encode())
    walk.value(type(value))
    try:
        array(walk, bytes_of_tensor(value))
    except (RuntimeError, TypeError, NotImplementedError):  # sparse, quantized, on no device
        walk.unknown(value, "a tensor whose values cannot be read")
    attached(walk, value)


def attached(walk: Writer, value: Any) -> None:
    """Write what somebody has attached to a tensor or to an array of a class of their own."""
    if found := getattr(value, "__dict__", None):
        walk.state("attached", found)


def table(walk: Writer, value: Any) -> None:
    """Write a table, a column or an index of pandas."""
    walk.value(type(value))
    if found := getattr(value, "attrs", None):
        walk.value(found, "attrs")
    if hasattr(value, "columns"):
        walk.value(value.columns, "columns")
        walk.several("table", [value.iloc[:, i] for i in range(value.shape[1])])
    else:
        walk.put("column", str(value.dtype).encode())
        if value.dtype == "category":  # its name says nothing of the categories, nor of their order
            walk.several("categories", (value.dtype.categories, value.dtype.ordered))
        walk.value(getattr(value, "name", None))
        if getattr(value, "nlevels", 1) > 1 and any(name is not None for name in value.names):
            walk.several("names of levels", value.names)
        walk.value(value.to_numpy())
    if hasattr(value, "index"):
        walk.value(value.index, "index")
