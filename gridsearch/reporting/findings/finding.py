"""A finding as a value: a code that can be ignored, the evidence in a sentence, the command that goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gridsearch.records.finding_codes import FINDINGS

if TYPE_CHECKING:
    from gridsearch.records import Value

LEVEL: Final = 0.05
"""A finding is wrong in at most so many of the studies in which there is nothing to find."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a study shows, and what would follow from it.

    Attributes:
        code: short and stable ("GS101"); see `FINDINGS` and docs/findings.md.
        sentence: what was found, with its evidence.
        command: goes on from there; "" where no command can name the code that it needs.
        axis: which axis it is about, None for none.
        value: which value of the axis, where it is about one.
    """

    code: str
    sentence: str
    command: str
    axis: str | None = None
    value: Value = None

    @property
    def name(self) -> str:
        """What the code stands for, in a few words ("edge-of-axis")."""
        return FINDINGS[self.code]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able mapping."""
        return {
            "code": self.code,
            "name": self.name,
            "axis": self.axis,
            "sentence": self.sentence,
            "command": self.command or None,
        }
