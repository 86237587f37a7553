"""The measured table of docs/scale.md, written from results/scale.json.

``python -m tests.benchmarks.scale_table``

It stands between two comments, so that the page's numbers are those that were measured; a test compares them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
BEGIN, END = "<!-- measured -->\n", "<!-- end of what was measured -->\n"


def table(sections: dict[str, Any]) -> str:
    """Return the lines of the table, as far as its sections were measured."""
    lines = ["| what | measured |", "|---|---|"]
    lines += [f"| {what} | {value} |" for what, value in _rows(sections)]
    return "\n".join([*lines, "", _hardware(sections), ""])


def _rows(sections: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if "bookkeeping" in sections:
        figures = sections["bookkeeping"]["figures"]
        sizes = [int(name.partition(" ")[0]) for name in figures if name.endswith(": wall")]
        each = [_spread(figures[f"{size} trials: processor time a trial"]) for size in sizes]
        named = ", ".join(f"{size:,}" for size in sizes)
        rows.append(
            (f"processor time of a trial of an empty function, in studies of {named}", "; ".join(each))
        )
        most = figures[f"{sizes[-1]} trials: memory of the largest process"]
        rows.append((f"{sizes[-1]:,} such trials, whole run", _spread(figures[f"{sizes[-1]} trials: wall"])))
        rows.append(("its largest process", _spread(most)))
    if "small" in sections:
        figures = sections["small"]["figures"]
        rows += [(f"whole run: {what}", _spread(spread)) for what, spread in figures.items()]
    for name, size in (("stages", "10,000"), ("large", "100,000")):
        if name in sections:
            figures = sections[name]["figures"]
            rows += [(f"{size} trials: {step}", _stage(figures, step)) for step in _STEPS if step in figures]
    for name in ("workers", "short"):
        if name in sections:
            figures = sections[name]["figures"]
            seconds = figures["a lane's seconds"] * figures["lanes of a pack"]
            what = f"{figures['workers']:,} simulated workers, packs of {figures['lanes of a pack']} in {seconds:.0f} s"
            rate, work = _spread(figures["trials a second"]), _spread(figures["coordinator's work a trial"])
            whole = _spread(figures["busy, first and last packs included"])
            rows.append(
                (f"{what}: busy", f"{_spread(figures['busy'])} ({whole} with the first and last packs)")
            )
            rows.append(("trials a second, and the coordinator's work a trial", f"{rate}, {work}"))
    return rows


_STEPS = ("plan", "add", "claim", "finish", "status", "report", "dashboard: opened", "dashboard: asked again")


def _stage(figures: dict[str, Any], step: str) -> str:
    memory = figures.get(f"{step}: memory")
    return _spread(figures[step]) + (f", {_spread(memory)}" if memory else "")


def _spread(spread: dict[str, Any]) -> str:
    """Write a figure as `measure.Spread` shows it; one that was measured once has no range."""

    def text(x: float) -> str:
        if spread["unit"] == "%":
            return f"{x:.2f}"
        return f"{x:.3g}" if x < 100 else f"{x:.0f}"

    middle = f"{text(spread['median'])} {spread['unit']}"
    if spread["n"] == 1:
        return middle
    return f"{middle} ({text(spread['least'])} to {text(spread['most'])}, n={spread['n']})"


def _hardware(sections: dict[str, Any]) -> str:
    machines = {
        f"{found['cpu']}, {found['cores']} core{'s' * (found['cores'] > 1)}, Python {found['python']}"
        for found in (section["hardware"] for section in sections.values())
    }
    return f"Measured with {'; '.join(sorted(machines))}; n=1 where no range is given."


def inserted(page: str, sections: dict[str, Any]) -> str:
    """Return the page with the table of these sections in its place."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, "the page has no place for the table"
    assert end, "the page has no place for the table"
    return before + begin + table(sections) + end + after


def main() -> int:
    """Write the table into the page; return 1 if nothing was measured."""
    path = RESULTS / "scale.json"
    if not path.exists():
        print("results/scale.json is not there: python -m tests.benchmarks.scale", file=sys.stderr)
        return 1
    PAGE.write_text(inserted(PAGE.read_text(), json.loads(path.read_text())["sections"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
