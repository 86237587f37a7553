"""docs/networks.png, drawn from results/networks.json, and the tables of docs/networks.md, with what else was measured.

    python -m tests.benchmarks.networks_figure

A row of the picture is a network at a batch size: images per second of what `--lanes auto` chooses, and of lone
lanes, as multiples of a plain loop's.  Dots are medians, whiskers go from the least to the most.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.benchmarks.figure import DOTS, FAINT, INK, OTHERS, OURS, SMALL, STYLE
from tests.benchmarks.measure import RESULTS

DOCS = Path(__file__).parents[2] / "docs"
WIDTH, ROW, HEAD, FOOT, LEFT, RIGHT = 9.0, 0.23, 0.75, 1.0, 2.1, 0.35
"""Inches of the sheet, of a row, above and below the rows, and beside them."""
BF16 = "#d55e00"
BFLOAT16 = "auto bfloat16 of plain"
TICKS = (0.5, 1, 2, 3, 5, 8, 12)
TABLES = ("networks", "networks-avx2", "other_networks")
"""Results with a table of their own, each between two comments of the page."""


def rows_of(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the networks' figures by title, in the order of the table."""
    return {title: row for title, row in result["figures"].items() if isinstance(row, dict) and "auto" in row}


def draw(result: dict[str, Any]) -> Figure:
    """Draw all rows onto one sheet."""
    rows = rows_of(result)
    height = HEAD + ROW * len(rows) + FOOT
    with matplotlib.style.context(["default", STYLE]):
        sheet = Figure(figsize=(WIDTH, height), facecolor="white")
        FigureCanvasAgg(sheet)
        box = (LEFT / WIDTH, FOOT / height, 1 - (LEFT + RIGHT) / WIDTH, ROW * len(rows) / height)
        axes = sheet.add_axes(box)
        axes.set_xscale("log")
        drawn = [
            ("lanes 1 of plain", OTHERS, "--lanes 1", -0.16),
            ("auto of plain", OURS, "--lanes auto", 0.0),
        ]
        if any(BFLOAT16 in row for row in rows.values()):
            drawn.append((BFLOAT16, BF16, "--lanes auto, dtype=bfloat16", 0.16))
        for key, colour, label, shift in drawn:
            found = [(i + shift, row[key]) for i, row in enumerate(rows.values()) if key in row]
            middle = [spread["median"] for _, spread in found]
            ends = [
                [spread["median"] - spread["least"] for _, spread in found],
                [spread["most"] - spread["median"] for _, spread in found],
            ]
            style = {"fmt": "o", "markersize": 4, "elinewidth": 1, "color": colour, "label": label}
            axes.errorbar(middle, [place for place, _ in found], xerr=ends, **style)
        axes.axvline(1, color=FAINT, linewidth=1, zorder=0)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [named(title) for title in rows], color=INK)
        axes.tick_params(axis="y", length=0, labelsize=SMALL)
        axes.set_xlim(min(0.8, *axes.get_xlim()), axes.get_xlim()[1])
        low, high = axes.get_xlim()
        axes.set_xticks(
            [t for t in TICKS if low <= t <= high], [f"{t:g}x" for t in TICKS if low <= t <= high]
        )
        axes.minorticks_off()
        axes.grid(axis="x", color="#e6e8ee", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel(
            "images per second against a plain loop (= 1): resident images, channels_last, torch's Adam"
        )
        count = result["figures"]["processes"]
        title = (
            f"Many networks: 8 trials that differ in lr, {count} process{'es' * (count > 1)} of one thread"
        )
        sheet.text(0.15 / WIDTH, 1 - 0.28 / height, title, size=10.5, weight="bold")
        legend = {
            "loc": "lower right",
            "bbox_to_anchor": (1, 1),
            "ncols": 3,
            "frameon": False,
            "fontsize": SMALL,
        }
        axes.legend(**legend)
        sheet.text(0.15 / WIDTH, 0.15 / height, machine(result), size=SMALL, color=FAINT)
    return sheet


def named(title: str) -> str:
    """Return how a row is called in words."""
    name, _, batch = title.rpartition(":")
    return f"{name}, batch {batch}"


def machine(result: dict[str, Any]) -> str:
    """Return what it was measured on, in a line or two."""
    hardware = result["hardware"]
    rates = [
        f"{key.removeprefix('matrix rate, ').partition(', each')[0].replace(', ', ' by ')} {spread['median']:.0f}"
        for key, spread in result["figures"].items()
        if key.startswith("matrix rate")
    ]
    features = " ".join(hardware.get("features", ()))
    torch, cores = hardware["versions"]["torch"], hardware["cores"]
    return (
        f"{hardware['cpu']} ({hardware['model']}; {features}), {cores} core{'s' * (cores > 1)}, torch {torch}.\n"
        f"GFLOP/s of a matrix product in a process: {', '.join(rates)}."
    )


def table(result: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    heads = [
        "network, batch", "images", "plain loop, images/s", "`--lanes 1`", "auto", "lanes", "of the best",
        "of the matrix rate",
    ]  # fmt: skip
    narrow = any(BFLOAT16 in row for row in rows_of(result).values())
    heads += ["in bfloat16"] * narrow
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for title, row in rows_of(result).items():
        best = next(value for key, value in row.items() if re.match(r"auto of the best", key))
        auto = row["auto"]
        how = f"{auto['lanes']}" if auto["method"] == "stacked" else f"{auto['lanes']} ({auto['method']})"
        cells = [
            named(title),
            row["image"],
            f"{row['plain']['median']:,.0f}",
            f"{row['lanes 1 of plain']['median']:.2f}x",
            f"**{row['auto of plain']['median']:.2f}x**",
            how,
            f"{100 * best:.0f} %",
            f"{row['auto of the matrix rate']['median']:.0f} %",
            *[bfloat16(row)] * narrow,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def bfloat16(row: dict[str, Any]) -> str:
    """Return what bfloat16 gains against the plain loop, which computes in float32."""
    return f"{row[BFLOAT16]['median']:.2f}x" if BFLOAT16 in row else "-"


def with_tables(page: str, results: dict[str, dict[str, Any]]) -> str:
    """Return the page with a table of each result."""
    for name, result in results.items():
        start, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = page.partition(start)
        _, _, after = rest.partition(end)
        page = f"{before}{start}\n{machine(result)}\n\n{table(result)}\n{end}{after}"
    return page


def main() -> None:
    """Draw, and write the tables into the page."""
    results = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in TABLES}
    draw(results["networks"]).savefig(DOCS / "networks.png", dpi=DOTS, metadata={"Software": None})
    page = DOCS / "networks.md"
    page.write_text(with_tables(page.read_text(), results))


if __name__ == "__main__":
    main()
