"""Why a network has no ONNX graph, in words about the network: the exporter's own messages are about its steps.

Read by `export`, whose reason goes to model.json, the card and the terminal.
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gridsearch.errors import said

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST: Final = 300
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_OPERATION: Final = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")
_BRANCHES: Final = ("GuardOnDataDependentSymNode", "UserError", "Unsupported")
"""What torch raises, under these names, where Python would have to look into a tensor that is not there yet."""
_LIBRARY: Final = Path(sysconfig.get_paths()["stdlib"])
_INSTALLED: Final = {"site-packages", "dist-packages"}


def why_no_graph(error: BaseException) -> str:
    """Return in one line why a network could not be translated.

    Args:
        error: what the exporter raised; its innermost cause is what counts.
    """
    chain = list(_causes(error))
    innermost = chain[-1]
    first = _COLOUR.sub("", said(innermost)).strip().partition("\n")[0]
    operation = _OPERATION.search(first)
    if operation:
        return f"ONNX has nothing for its operation {operation[1]}"
    if type(innermost).__name__ in _BRANCHES and "data-dependent" in said(innermost).lower():
        what = "what it does depends on the values in a tensor (an `if`, a length, an index), which a graph cannot hold"
    else:
        what = f"{type(innermost).__name__}: {first or 'no reason was given'}"
    place = next((found for each in reversed(chain) if (found := _place(each))), "")
    return " ".join(f"{what}{place}".split())[:_LONGEST]


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in seen:
        seen.append(at)
        yield at
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)


def _place(error: BaseException) -> str:
    """Return where in the network's own file an error came up, "" where none of its lines was at work."""
    own = Path(__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        foreign = own in path.parents or _LIBRARY in path.parents or _INSTALLED & set(path.parts)
        if path.is_absolute() and not foreign:
            return f" ({path.name}, line {frame.lineno}: {(frame.line or '').strip()[:80]})"
    return ""
