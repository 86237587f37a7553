"""Which of two compiled forms of an operation this machine gets: measured once for each shape, and kept.

Stands between the families of operations and the folder of compiled kernels, where the choices lie.  Two starts must
compute the same bytes, whatever else the machine does meanwhile: a choice is therefore made once for a shape, a
processor and a version of the code, the first to write it wins, and all later starts read it.  Where it cannot be kept
a formula decides, as it does where the two forms take about the same time.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from gridsearch import files
from gridsearch.training.kernels import compiler
from gridsearch.training.kernels.op_timing import fastest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Calls = Mapping[str, Callable[[], object]]

_log = logging.getLogger(__name__)

_SECONDS = 0.03  # of a measurement
_ALIKE = 1.1  # times that differ by less say nothing
_known: dict[tuple[Path, str], str | None] = {}


def kept_choice(key: str, forms: Callable[[], Calls]) -> str | None:
    """Return the form that is clearly faster on this machine; None where a formula shall decide.

    Args:
        key: all that the forms' times depend on beside the processor.
        forms: gives a call of each form by its name, if they are measured.
    """
    path = _path()
    place = path, f"{compiler.processor_model()}; {key}"
    if place not in _known:
        try:
            row = files.read_json(path).get(place[1])
            _known[place] = _form(row) if row is not None else _measured(*place, forms)
        except OSError as error:
            _log.info("choices of kernels cannot be kept in %s: %s", path.parent, error)
            _known[place] = None
    return _known[place]


def kept_choices() -> dict[str, str | None]:
    """Return what was chosen on this machine, by key; None where the forms are alike."""
    own = f"{compiler.processor_model()}; "
    rows = files.read_json(_path())
    return {key.removeprefix(own): _form(row) for key, row in rows.items() if key.startswith(own)}


def compare(forms: Calls) -> tuple[str | None, dict[str, float]]:
    """Return which of two forms is clearly faster, None where neither is, and the seconds that each took."""
    times = fastest(forms, _SECONDS, time.thread_time)
    best, other = sorted(times, key=times.__getitem__)
    return best if times[best] * _ALIKE < times[other] else None, times


def _path() -> Path:
    return compiler.kernel_folder() / files.CHOICES


def _form(row: Any) -> str | None:
    """Return the form that a row of the file names."""
    form = row.get("form") if isinstance(row, dict) else None
    return form if isinstance(form, str) else None


def _measured(path: Path, key: str, forms: Callable[[], Calls]) -> str | None:
    """Measure forms and keep the choice, unless another process has been faster; return what is kept.

    Raises:
        OSError: it cannot be kept.
    """
    compiler.make_private(path.parent)
    form, times = compare(forms())
    row = {"form": form, "microseconds": {name: round(1e6 * each, 1) for name, each in times.items()}}
    kept: list[Any] = []

    def add(rows: dict[str, Any]) -> dict[str, Any]:
        kept.append(rows.setdefault(key, row))
        return rows

    files.update_json(path, add)
    return _form(kept[0])
