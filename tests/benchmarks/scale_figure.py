"""The figure of docs/scale.md, drawn from results/scale.json.

``python -m tests.benchmarks.scale_figure``

Left, the processor time of a trial's whole bookkeeping over the size of its study: whiskers go from the least to the
most.  Right, what is done once for a study of 10,000 and of 100,000 trials, on a scale of powers of ten.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.benchmarks.figure import DOTS, FAINT, OTHERS, OURS, STYLE
from tests.benchmarks.measure import RESULTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLACE = Path(__file__).parents[2] / "docs" / "scale.png"
GOAL = 5.0
"""Milliseconds of a trial's bookkeeping that are aimed at."""
STEPS = ("plan", "add", "claim", "finish", "status", "report", "dashboard: opened", "dashboard: asked again")


def draw(sections: dict[str, Any]) -> Figure:
    """Return the figure of the sections that are there."""
    with matplotlib.style.context(STYLE):
        sheet = Figure(figsize=(9.0, 3.0), layout="constrained")
        FigureCanvasAgg(sheet)
        left, right = sheet.subplots(1, 2, width_ratios=(1.0, 1.4))
        _draw_bookkeeping(left, sections["bookkeeping"]["figures"])
        sizes = (("10,000 trials", "stages", OURS), ("100,000 trials", "large", OTHERS))
        there = [
            (label, sections[name]["figures"], colour) for label, name, colour in sizes if name in sections
        ]
        _draw_stages(right, there)
    return sheet


def _draw_bookkeeping(axes: Axes, figures: dict[str, Any]) -> None:
    found = {
        int(name.partition(" ")[0]): spread
        for name, spread in figures.items()
        if name.endswith("processor time a trial")
    }
    sizes, medians = list(found), [spread["median"] for spread in found.values()]
    low = [spread["median"] - spread["least"] for spread in found.values()]
    high = [spread["most"] - spread["median"] for spread in found.values()]
    axes.errorbar(sizes, medians, [low, high], color=OURS, marker="o", markersize=4, capsize=2)
    for size, median in zip(sizes, medians, strict=True):
        axes.annotate(f"{median:.1f}", (size, median), xytext=(6, 5), textcoords="offset points", color=OURS)
    axes.axhline(GOAL, color=FAINT, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(0, 1.15 * GOAL)
    axes.set_xlabel("trials of the study")
    axes.set_ylabel("ms of processor time")
    axes.set_title("Bookkeeping of one trial", loc="left")


def _draw_stages(axes: Axes, there: list[tuple[str, dict[str, Any], str]]) -> None:
    tall = 0.8 / max(len(there), 1)
    for i, (label, figures, colour) in enumerate(there):
        for row, step in enumerate(STEPS):
            if step not in figures:
                continue
            seconds = figures[step]["median"]
            place = row + (i - (len(there) - 1) / 2) * tall
            axes.barh(place, seconds, tall, color=colour, label=label if row == 0 else None)
            axes.annotate(
                f"{seconds:.2g} s" if seconds < 100 else f"{seconds:.0f} s",
                (seconds, place),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
    axes.set_xscale("log")
    axes.set_xlim(left=0.1)
    axes.set_yticks(range(len(STEPS)), STEPS)
    axes.invert_yaxis()
    axes.set_xlim(right=3 * axes.get_xlim()[1])
    axes.set_xlabel("seconds")
    axes.set_title("Once for the study", loc="left")
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def main() -> int:
    """Draw the file; return 1 if nothing was measured."""
    path = RESULTS / "scale.json"
    if not path.exists():
        print("results/scale.json is not there: python -m tests.benchmarks.scale", file=sys.stderr)
        return 1
    draw(json.loads(path.read_text())["sections"]).savefig(PLACE, dpi=DOTS, metadata={"Software": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
