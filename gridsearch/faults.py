"""Fault points: places at which a test lets this process die, stand still, or be refused the disk.

Below all layers: `files` passes one at each step of writing a file whole, `store.database` one before and after each
commit.  They cost a look into an empty dict unless

    GRIDSEARCH_FAULT=POINT:ACTION:N    (several with commas between them)

is set: at the N-th time that a process passes the point it is killed (`die`), stops (`stop`; SIGCONT lets it go on), or
the step fails (`ENOSPC`: the disk is full, `EIO`: it cannot be read or written).  Workers inherit the variable and
count for themselves.  A fault strikes once in a process; once in all of them where GRIDSEARCH_FAULT_MARK names a file,
which is made when it strikes.
"""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

POINTS: Final = ("write", "sync", "rename", "renamed", "commit", "committed")
"""Before a draft is written, before bytes are flushed, before and after a rename; before and after a commit."""

ACTIONS: Final = ("die", "stop", "ENOSPC", "EIO")
"""The last two where a step lies ahead."""

_DONE = ("renamed", "committed")


@dataclass(slots=True)
class _Fault:
    """What happens at a point.

    Attributes:
        action: one of `ACTIONS`.
        left: so many times the point is passed until then, that one included.
    """

    action: str
    left: int


_planned: dict[str, _Fault] = {}


def at(point: str, failing: Callable[[int], Exception] | None = None) -> None:
    """Pass a fault point.

    Args:
        point: one of `POINTS`.
        failing: makes the error of an errno; None for an `OSError`.

    Raises:
        Exception: what `failing` makes, if the step is to fail now.
    """
    if (fault := _planned.get(point)) is not None:
        _pass(fault, failing)


def plan(text: str) -> None:
    """Plan the faults that a text names, see above, instead of those before.

    Raises:
        ValueError: it names none.
    """
    _planned.clear()
    for each in filter(None, text.split(",")):
        point, action, number = (*each.split(":"), "", "")[:3]
        known = point in POINTS and action in (ACTIONS[:2] if point in _DONE else ACTIONS)
        if not known or not number.isdecimal() or each.count(":") != 2:
            raise ValueError(
                f"GRIDSEARCH_FAULT={each}: must be POINT:ACTION:N, with {', '.join(POINTS)} and {', '.join(ACTIONS)}"
            )
        _planned[point] = _Fault(action, int(number))


def _pass(fault: _Fault, failing: Callable[[int], Exception] | None) -> None:
    fault.left -= 1
    if fault.left != 0 or not _first():
        return
    if fault.action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        number = getattr(errno, fault.action)
        raise failing(number) if failing is not None else OSError(number, os.strerror(number))


def _first() -> bool:
    """Whether no other process was struck before this one."""
    mark = os.environ.get("GRIDSEARCH_FAULT_MARK")
    if mark is None:
        return True
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


plan(os.environ.get("GRIDSEARCH_FAULT", ""))
