"""What a run costs beside its epochs: measured in every run, kept for the next plan."""

from __future__ import annotations

import statistics
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from gridsearch import files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_KEPT = 9
"""Measurements of each overhead that are kept; their median counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheads:
    """Seconds of a run that are no epoch's.

    The defaults hold until a run was measured; they are those of two cores of a server (Fashion-MNIST).

    Attributes:
        start: from the command to the first worker that is ready.
        load: what a worker's first pack takes beyond the others: the data, the first use of every kernel.
        pack: of one pack, beyond its epochs, for each of its lanes: to build it, to write the results.
        probe: measuring the sizes of one group's packs.
        report: from the last trial's end to the end.
    """

    start: float = 1.5
    load: float = 0.7
    pack: float = 0.1
    probe: float = 3.0
    report: float = 1.5

    @classmethod
    def of(cls, seen: Mapping[str, list[float]]) -> Self:
        """Return the medians of what was measured, and the defaults of what was not."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: statistics.median(v) for name, v in seen.items() if name in known and v})


class OverheadLog:
    """Measured overheads of each device, in a JSON file that several runners may update.

    A damaged file counts as empty: everything in it can be measured again.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, device: str) -> Overheads:
        """Return what is known of a device."""
        return Overheads.of(_checked(files.read_json(self._path)).get(device, {}))

    def add(self, device: str, measured: Mapping[str, list[float]]) -> None:
        """Keep what a run has measured; a file that cannot be written is no error."""
        with suppress(OSError):
            files.update_json(self._path, lambda content: _with(_checked(content), device, measured))


def _with(
    content: dict[str, dict[str, list[float]]], device: str, measured: Mapping[str, list[float]]
) -> dict[str, dict[str, list[float]]]:
    known = content.setdefault(device, {})
    for name, values in measured.items():
        known[name] = [*known.get(name, ()), *(round(v, 4) for v in values)][-_KEPT:]
    return content


def _checked(content: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Return what the file holds, nothing where one thing in it is none of ours."""
    try:
        return {
            device: {name: [float(v) for v in values] for name, values in seen.items()}
            for device, seen in content.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}
