"""The README's picture of the measurements, drawn from results/peers.json, growth.json and lanes.json.

``python -m tests.benchmarks.figure``

Three panels: seconds of each way to train the same trials, trials per second against lanes, and the time of a
trial's step against lanes.  A panel whose result is not there is left out.  Bars and points are medians, whiskers go
from the least to the most.  The file is made for 900 pixels of width, and has twice as many for fine screens.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.benchmarks.measure import RESULTS

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

WIDTH = 9.0
DOTS = 200
"""An inch: 9 inches are 900 pixels of a page, at twice their number."""
EDGE, HEAD, FOOT = 0.15, 0.78, 0.66
"""Inches of the sheet's edge, a panel's titles, its axis and the room below."""
NAMES, BAR, NUMBERS = 2.75, 0.45, 2.5
"""Inches of the programs' names, of one program's height, of the numbers beside the bars."""
PANEL, TICKS, ROOM = 2.3, 0.5, {"growth": 0.35, "lanes": 1.55}
"""Inches of a lower panel's height, of the numbers left of it and of what is written right of it."""
SMALL, LINE = 8, 0.16
"""The caption's size in points, and a line of it in inches."""
INK, FAINT, OURS, OTHERS = "#1f2430", "#6b7080", "#0072b2", "#a9afbb"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56606e", "#7a3b9a", "#3b8ea5")
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#8b909c",
    "axes.labelcolor": FAINT,
    "axes.labelsize": SMALL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
}


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Those of the three results that are there, by name."""
    paths = {name: folder / f"{name}.json" for name in ("peers", "growth", "lanes")}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def draw(found: dict[str, dict[str, Any]]) -> Figure:
    """Draw what is there onto one sheet."""
    caption = captions(found)
    lower = [name for name in ("growth", "lanes") if name in found]
    bars = BAR * len(peers_of(found["peers"])) if "peers" in found else 0
    above = HEAD + bars + FOOT if bars else 0
    height = EDGE + above + (HEAD + PANEL + FOOT if lower else 0) + LINE * len(caption) + EDGE
    with matplotlib.style.context(["default", STYLE]):
        sheet = Figure(figsize=(WIDTH, height), facecolor="white")
        FigureCanvasAgg(sheet)

        def place(left: float, top: float, wide: float, tall: float) -> Axes:
            """Axes in inches from the upper left corner."""
            return sheet.add_axes((left / WIDTH, 1 - (top + tall) / height, wide / WIDTH, tall / height))

        if bars:
            draw_peers(place(NAMES, EDGE + HEAD, WIDTH - NAMES - NUMBERS - EDGE, bars), found["peers"])
        share = (WIDTH - 2 * EDGE) / max(1, len(lower))
        for i, name in enumerate(lower):
            left, wide = EDGE + i * share + TICKS, share - TICKS - ROOM[name]
            DRAWN[name](place(left, EDGE + above + HEAD, wide, PANEL), found[name])
        at = (EDGE / WIDTH, EDGE / height)
        style = {"size": SMALL, "color": FAINT, "va": "bottom", "linespacing": LINE * 72 / SMALL / 1.2}
        sheet.text(*at, "\n".join(caption), **style)
    return sheet


def note(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    offset: tuple[float, float],
    xy: Any = "data",
    **style: Any,
) -> None:
    """Write text so many points from a place, which may lie outside the axes."""
    axes.annotate(
        text,
        at,
        offset,
        xycoords=xy,
        textcoords="offset points",
        annotation_clip=False,
        **{"size": 8.5, **style},
    )


def titles(axes: Axes, left: float, title: str, below: str) -> None:
    """Write a panel's two titles, so many inches left of its axes."""
    corner = ("axes fraction", "axes fraction")
    note(axes, title, (0, 1), (-72 * left, 36), corner, size=10.5, weight="bold")
    note(axes, below, (0, 1), (-72 * left, 22), corner, color=FAINT)


def peers_of(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The measured programs, the slowest first."""
    peers = {name: f for name, f in result["figures"].items() if isinstance(f, dict) and "what" in f}
    return dict(sorted(peers.items(), key=lambda item: -item[1]["seconds"]["median"]))


def factor(result: dict[str, Any], peer: str) -> float:
    """How many times as long as ours with its report a program took: repeat by repeat where that was written."""
    figures = result["figures"]
    if paired := figures.get(f"{peer} / gridsearch"):
        return float(paired["median"])
    return float(figures[peer]["seconds"]["median"] / figures["gridsearch"]["seconds"]["median"])


def draw_peers(axes: Axes, result: dict[str, Any]) -> None:
    """One bar a program, with its seconds, its factor and its accuracy beside it."""
    figures, peers = result["figures"], peers_of(result)
    network, trials, *_ = figures["work"].split(", ")
    images = figures["images to train on"]
    size = "all images" if isinstance(images, str) else f"{images:,} images"
    below = f"{network}, {size}, {figures['epochs']} epochs; from start to end, start-up included"
    titles(axes, NAMES - EDGE, f"The same {trials}: seconds of wall time", below)
    axes.set_ylim(len(peers) - 0.5, -0.5)
    axes.set_xlim(0, 1.02 * max(peer["seconds"]["most"] for peer in peers.values()))
    axes.set_yticks([])
    axes.set_xlabel("seconds")
    columns = [
        (
            0.75,
            f"seconds\n{repeats([peer['seconds'] for peer in peers.values()])}",
            lambda _, peer: seconds(peer["seconds"]["median"]),
        ),
        (1.6, "times\ngridsearch", lambda name, _: f"{factor(result, name):.2f}"),
        (2.45, "mean val.\naccuracy", lambda _, peer: f"{100 * peer['mean validation accuracy']:.1f} %"),
    ]
    if "gridsearch" not in peers:
        del columns[1]
    for inches, head, _ in columns:
        corner = ("axes fraction", "axes fraction")
        note(axes, head, (1, 1), (72 * inches, 0), corner, ha="right", va="bottom", size=SMALL, color=FAINT)
    for bar, (name, peer) in enumerate(peers.items()):
        ours = name.startswith("gridsearch")
        weight = "bold" if ours else "normal"
        spread = peer["seconds"]
        axes.barh(bar, spread["median"], height=0.62, color=OURS if ours else OTHERS)
        if spread["n"] > 1:
            ends = [[spread["median"] - spread["least"]], [spread["most"] - spread["median"]]]
            axes.errorbar(spread["median"], bar, xerr=ends, fmt="none", ecolor=INK, elinewidth=1, capsize=3)
        first, _, rest = peer["what"].partition(", ")
        note(axes, first, (0, bar), (-8, 6 if rest else 0), ha="right", va="center", size=9, weight=weight)
        note(axes, rest, (0, bar), (-8, -7), ha="right", va="center", size=SMALL, color=FAINT)
        for inches, _, text in columns:
            style = {"ha": "right", "va": "center", "size": 9, "weight": weight}
            note(axes, text(name, peer), (1, bar), (72 * inches, 0), ("axes fraction", "data"), **style)


def seconds(value: float) -> str:
    """Write seconds with three digits or more."""
    return f"{value:.0f} s" if value >= 100 else f"{value:.1f} s"


def draw_growth(axes: Axes, result: dict[str, Any]) -> None:
    """Trials per second of whole runs against the most lanes that they may share."""
    found = by_lanes(result["figures"], "trials per second")
    line(axes, found, OURS)
    for lanes, (_, median, most) in found.items():
        note(axes, f"{median:.2g}", (lanes, most), (0, 5), ha="center", va="bottom")
    axis_of_lanes(axes, list(found))
    axes.set_ylim(0, 1.18 * max(most for *_, most in found.values()))
    work = result["figures"]["work"].replace(" of Fashion-MNIST", "")
    titles(axes, TICKS, "Trials per second", f"{work}; whole runs")


def draw_lanes(axes: Axes, result: dict[str, Any]) -> None:
    """The time of one trial's step against the lanes, that of a lone trial being 1."""
    ends, lanes = [], {1}
    works = [(title, rows) for title, rows in result["figures"].items() if ", batch " in title]
    for i, (title, rows) in enumerate(works):
        gains = by_lanes(rows, "against lanes 1")
        found = {1: (1.0, 1.0, 1.0)} | {k: (1 / c, 1 / b, 1 / a) for k, (a, b, c) in gains.items()}
        line(axes, found, COLOURS[i % len(COLOURS)])
        ends.append((found[max(found)][1], title, COLOURS[i % len(COLOURS)]))
        lanes |= set(found)
    axis_of_lanes(axes, sorted(lanes))
    top = 1.05 * axes.get_ylim()[1]
    axes.set_ylim(0, top)
    ends.sort()
    an_inch = top / PANEL
    for (end, title, colour), place in zip(
        ends, apart([end for end, *_ in ends], 0.18 * an_inch, top), strict=True
    ):
        offset = (10, 72 * (place - end) / an_inch)
        note(axes, title, (1, end), offset, ("axes fraction", "data"), va="center", color=colour)
    titles(axes, TICKS, "Time of a trial's step", "one thread; a trial alone = 1")


def by_lanes(figures: dict[str, Any], what: str) -> dict[int, tuple[float, float, float]]:
    """The least, the median and the most of one measure, by the number of lanes."""
    found = {}
    for key, spread in figures.items():
        if match := re.fullmatch(rf"lanes (\d+): {what}", key):
            found[int(match[1])] = (spread["least"], spread["median"], spread["most"])
    return dict(sorted(found.items()))


def line(axes: Axes, found: dict[int, tuple[float, float, float]], colour: str) -> None:
    """A line through medians, with whiskers."""
    whiskers = zip(*((b - a, c - b) for a, b, c in found.values()), strict=True)
    medians = [median for _, median, _ in found.values()]
    style = {"color": colour, "marker": "o", "markersize": 3.5, "linewidth": 1.5, "capsize": 2.5}
    axes.errorbar(list(found), medians, yerr=list(whiskers), **style)


def axis_of_lanes(axes: Axes, lanes: list[int]) -> None:
    """Lanes double from tick to tick."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(lanes, [str(k) for k in lanes])
    axes.minorticks_off()
    axes.set_xlabel("lanes (trials that share a step)")


def apart(places: list[float], room: float, top: float) -> list[float]:
    """Move ascending places up until each has its room, and down again from the top."""
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + room) if found else place)
    for i in reversed(range(len(found))):
        found[i] = min(found[i], found[i + 1] - room if i + 1 < len(found) else top)
    return found


DRAWN = {"growth": draw_growth, "lanes": draw_lanes}


def captions(found: dict[str, dict[str, Any]]) -> list[str]:
    """On what machine, how often and with which versions each panel was measured."""
    machines: dict[str, list[str]] = {}
    for name, result in found.items():
        machine = result["hardware"]
        model = f" ({machine['model']})" if machine.get("model") else ""
        on = machines.setdefault(f"{machine['cpu']}{model}, {machine['cores']} cores", [])
        on.append(SAID[name](result))
    lines = ["Bars and points are medians, whiskers go from the least to the most."]
    for machine, said in machines.items():
        lines += textwrap.wrap(f"{machine}. {' '.join(said)}", 140, break_on_hyphens=False)
    return lines


def _said_of_peers(result: dict[str, Any]) -> str:
    peers = peers_of(result).values()
    versions = {"python": result["hardware"]["python"]}
    for peer in peers:
        versions |= peer["versions"]
    counts = repeats([peer["seconds"] for peer in peers])
    failed = "".join(f" Failed: {name}." for name in result["figures"].get("failed", ()))
    listed = ", ".join(f"{library} {found}" for library, found in versions.items())
    return f"Programs: {counts}; {listed}.{failed}"


def _said_of_growth(result: dict[str, Any]) -> str:
    figures = result["figures"]
    counts = repeats([spread for key, spread in figures.items() if key.endswith("trials per second")])
    workers = f"{figures['workers']} workers, {figures['trials while lanes vary']} trials"
    return f"Trials per second: {counts}, {workers}; {_torch(result)}."


def _said_of_lanes(result: dict[str, Any]) -> str:
    groups = [rows for title, rows in result["figures"].items() if ", batch " in title]
    return f"Time of a step: {repeats([spread for rows in groups for spread in rows.values()])}; {_torch(result)}."


def _torch(result: dict[str, Any]) -> str:
    return f"torch {result['hardware']['versions']['torch']}"


def repeats(spreads: list[dict[str, Any]]) -> str:
    """How often it was measured."""
    counts = sorted({spread["n"] for spread in spreads})
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


SAID = {"peers": _said_of_peers, "growth": _said_of_growth, "lanes": _said_of_lanes}


def main() -> int:
    found = results(RESULTS)
    if not found:
        print("nothing was measured yet: `python -m tests.benchmarks`", file=sys.stderr)
        return 1
    path = RESULTS / "benchmarks.png"
    draw(found).savefig(path, dpi=DOTS, metadata={"Software": None})
    print(f"{path}: {', '.join(found)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
