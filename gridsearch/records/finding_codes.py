"""The codes of what a report proposes next, like a linter's: short, stable, each with a name; nothing below needs them.

`reporting.findings` finds them; options name those that are to be silent.  `docs/findings.md` has a section for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FINDINGS: Mapping[str, str] = MappingProxyType(
    {
        "GS101": "edge-of-axis",
        "GS102": "axis-without-effect",
        "GS103": "curves-still-rise",
        "GS104": "too-few-seeds",
        "GS105": "value-fails",
        "GS106": "value-diverges",
        "GS107": "optimum-between-values",
    }
)
"""The name of each code.  A code is never given to something else."""
