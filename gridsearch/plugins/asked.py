"""What code asks of functions, classes and objects beside what they do: annotations, subclasses, docstrings, order.

Nothing of that is in the address of code that does not ask for it: another annotation then trains nothing again.  Below
`value_address`, which writes it for all that code reaches, where any of this code names one of the words here.
"""

from __future__ import annotations

import dis
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_WORDS: Final = {
    "annotations": (
        "__annotations__", "__annotate__", "annotation", "get_annotations", "get_type_hints", "getfullargspec",
        "signature", "__orig_bases__", "get_original_bases",
    ),
    "wrapped": ("__wrapped__", "unwrap", "signature"),
    "subclasses": ("__subclasses__",),
    "docstring": ("__doc__", "getdoc"),
    "order": ("__dict__", "vars"),
}  # fmt: skip
"""By what is asked for, the names by which code does so."""

_LOOKED_UP: Final = ("globals", "eval", "exec")


def asked_by(code: CodeType) -> set[str]:
    """Return what code asks for, by the names and texts in it; not the code within it."""
    names = {*code.co_names, *(c for c in code.co_consts if isinstance(c, str))}
    return {what for what, words in _WORDS.items() if not names.isdisjoint(words)}


def answers(what: str, value: Any) -> dict[str, Any] | None:
    """Return what something says where code asks for it, by name; None where it has nothing of that kind."""
    if what == "order":
        return _order(value)
    made = isinstance(value, FunctionType | type)
    if what == "annotations" and made:
        return {"annotations": _annotations(value), "bases": vars(value).get("__orig_bases__")}
    if what == "docstring" and made:
        home = value.__globals__.get("__doc__") if isinstance(value, FunctionType) else None
        return {"docstring": value.__doc__, "of its module": home}
    if what == "wrapped" and isinstance(value, FunctionType) and "__wrapped__" in vars(value):
        return {"wrapped": vars(value)["__wrapped__"]}
    if what == "subclasses" and isinstance(value, type):
        below: list[type] = type.__subclasses__(value)
        return {"subclasses": [(each.__name__, each) for each in below]}
    return None


def _annotations(value: Any) -> Any:
    try:
        return dict(value.__annotations__)
    except Exception:  # noqa: BLE001 - evaluated when they are asked for, by the user's own code
        return None


def _order(value: Any) -> dict[str, Any] | None:
    held = getattr(value, "__dict__", None)
    if held is None:
        return None
    names = [name for name in held if isinstance(name, str) and not (name[:2] == name[-2:] == "__")]
    return {"order": names} if len(names) > 1 else None


def looked_up(code: CodeType, around: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of functions and classes of a module that code may look up by texts which it computes.

    It does so in `globals()[params["model"]]`, `eval(params["model"])` and `getattr(sys.modules[__name__], ...)`.
    """
    if not looks_up(code):
        return
    for name in sorted(name for name in around if isinstance(name, str)):
        value = around[name]
        function = isinstance(value, FunctionType) and value.__globals__ is around
        if function or (isinstance(value, type) and value.__module__ == around.get("__name__")):
            yield name


def looks_up(code: CodeType) -> bool:
    """Whether code looks up what a module has by a text that it computes."""
    names = {*code.co_names}
    if "modules" in names and ("sys" in names or "__name__" in names):
        return True
    inside = any(looks_up(each) for each in code.co_consts if isinstance(each, CodeType))
    return inside or (not names.isdisjoint(_LOOKED_UP) and _by_computed_text(code))


def _by_computed_text(code: CodeType) -> bool:
    """Whether code gives `eval`, `exec` or `globals()[...]` anything but a text that is written there."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in _SILENT]
    for step, *after in zip(steps, steps[1:], steps[2:], steps[3:], strict=False):
        if step.opname not in _LOADS or step.argval not in _LOOKED_UP:
            continue
        if step.argval == "globals":  # behind the call, and perhaps a `get`
            given = after[2] if after[1].argval == "get" else after[1]
        else:
            given = after[0]
        literal = given.opname == "LOAD_CONST" and isinstance(given.argval, str)
        variable = given.opname in _LOADS and step.argval != "globals"  # its value is read
        if not (literal or variable) or (variable and after[1].opname in _COMPUTING):
            return True
    return False


_LOADS: Final = ("LOAD_GLOBAL", "LOAD_NAME")
_COMPUTING: Final = ("BINARY_OP", "BINARY_SUBSCR", "BUILD_STRING", "FORMAT_VALUE", "LOAD_ATTR", "LOAD_METHOD")
_SILENT: Final = frozenset({"CACHE", "PUSH_NULL", "PRECALL", "EXTENDED_ARG", "NOP", "RESUME"})
