"""From a comparison of studies to its folder and its words: page, figures and JSON, and the terminal's table."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from gridsearch import files
from gridsearch.errors import GridsearchError
from gridsearch.reporting.figures.pictures import Pictures
from gridsearch.reporting.output.comparison_data import TRIALS_FILE, drawn_sides, trials_of, winner_words
from gridsearch.reporting.output.comparison_figures import add
from gridsearch.reporting.output.headline import show_interval, show_mean
from gridsearch.reporting.output.page import rendered
from gridsearch.reporting.output.page_tables import Column, Row
from gridsearch.reporting.output.terminal import short_heading
from gridsearch.reporting.ranking.comparison import (
    ComparedAxes,
    Comparison,
    SharedPoint,
    compare,
)
from gridsearch.reporting.ranking.selection import part_words
from gridsearch.reporting.stats.predictions import MOST_KEPT, kept
from gridsearch.reporting.words.digits import Digits
from gridsearch.reporting.words.text import NOTHING, listed, metric_name, plural, printable, show_params

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from rich.console import Group

    from gridsearch.plugins import ImageData
    from gridsearch.records import StudyData, TrialRecord
    from gridsearch.reporting.output.page import Drawn
    from gridsearch.reporting.ranking.winner_differences import Difference, Side

MOST_SHARED: Final = 200
MOST_STILL: Final = 500_000
"""Bytes of drawings that the page carries as such, to stay below 2 MB with 200 trials of each of five studies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonFiles:
    """A comparison that was written.

    Attributes:
        page: index.html.
        notes: what could not be shown, and why.
    """

    comparison: Comparison
    page: Path
    notes: tuple[str, ...]


def write_comparison(
    sides: Sequence[Side],
    *,
    folder: Path,
    images: Callable[[StudyData, TrialRecord], ImageData] | None = None,
    write: Callable[[Path, bytes], object] | None = None,
) -> ComparisonFiles:
    """Write figures, JSON and page of a comparison into a folder of its own; figures of an earlier one go.

    Args:
        sides: two to five studies, each with a winner.
        folder: where to; made if it is not there.
        images: gives what a trial of a study was trained on, or raises a GridsearchError; default: none are shown.
        write: writes a file so that a reader never finds half of it; default: temporary file and rename.
    """
    write = write or files.write_whole
    sides = [
        replace(side, predictions=kept(side.predictions, most=MOST_KEPT // len(sides))) for side in sides
    ]
    comparison = compare(sides)
    found = Pictures()
    mistakes = add(found, comparison)
    with found.drawn_meanwhile():
        pixels = None if images is None else _pixels(comparison.sides[0], images)
        drawn = drawn_sides(comparison.sides, folder=folder, pixels=pixels)
    contents = {files.COMPARISON: json.dumps(comparison.to_json(), allow_nan=False, indent=1).encode()}
    for stem, picture in found.by_stem.items():
        contents[f"{stem}.png"], contents[f"{stem}.svg"] = picture.png, picture.svg
    largest = MOST_STILL // max(1, len(found.by_stem))
    found.by_stem = {stem: replace(picture, largest=largest) for stem, picture in found.by_stem.items()}
    contents[files.PAGE] = _page(comparison, found, mistakes, drawn).encode("utf-8", "replace")
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.png"), *folder.glob("*.svg")):
        if old.name not in contents:
            old.unlink(missing_ok=True)
    for name, content in contents.items():
        write(folder / name, content)
    return ComparisonFiles(comparison=comparison, page=folder / files.PAGE, notes=tuple(found.notes))


def print_comparison(comparison: Comparison) -> Group:
    """Return a comparison as something rich prints."""
    from rich import box
    from rich.console import Group
    from rich.text import Text

    from gridsearch.reporting.output.listing import Listing

    def table(columns: Sequence[Column], rows: Sequence[Row]) -> Listing:
        made = Listing(box=box.SIMPLE_HEAD)
        for column in columns:
            justify: Literal["right", "left"] = "right" if column.numeric else "left"
            made.add_column(Text(column.title), justify=justify, overflow="fold", no_wrap=column.numeric)
        for row in rows:
            made.add_row(*map(Text, row.cells), style="bold green" if row.kind else "")
        return made

    columns, rows = _winner_table(comparison, narrow=True)
    parts: list[Text | Listing] = [Text(" ".join(_lead(comparison)), style="bold"), table(columns, rows)]
    parts[:0] = [Text(words, style="bold yellow") for words in _parts(comparison)]
    parts.append(Text(_shared_words(comparison)))
    if comparison.shared:
        shown = comparison.shared[:10]
        parts.append(table(_shared_columns(comparison), [_shared_row(p, comparison) for p in shown]))
        if len(comparison.shared) > len(shown):
            parts.append(Text(f"… and {len(comparison.shared) - len(shown):,} more", style="dim"))
    parts += [Text(caution, style="dim") for caution in _cautions(comparison)]
    return Group(*parts)


def _pixels(side: Side, images: Callable[[StudyData, TrialRecord], ImageData]) -> np.ndarray | None:
    """Return the training images of a study's winner, None where they are not here."""
    trial = side.ranking.best_trial
    if trial is None or not side.data.kind.classifies:
        return None
    try:
        return images(side.data, trial).train_images
    except (GridsearchError, OSError):
        return None


def _page(
    comparison: Comparison, found: Pictures, mistakes: Sequence[tuple[str, Sequence[str]]], drawn: Drawn
) -> str:
    columns, rows = _winner_table(comparison)
    trials, settings = trials_of(comparison.sides)
    place = {side.data.name: i for i, side in enumerate(comparison.sides)}
    return rendered(
        "comparison.html",
        title=listed([printable(n) for n in comparison.names]),
        parts=_parts(comparison),
        lead=_lead(comparison),
        cautions=_cautions(comparison),
        winner_columns=columns,
        winner_rows=rows,
        shared_columns=_shared_columns(comparison),
        shared_rows=[_shared_row(p, comparison) for p in comparison.shared[:MOST_SHARED]],
        shared_hidden=max(0, len(comparison.shared) - MOST_SHARED),
        shared_words=_shared_words(comparison),
        pictures=found.by_stem,
        heatmaps=_stems(found, "heatmap", place),
        one_scale=len({(s.data.metric, s.data.direction) for s in comparison.sides}) == 1,
        confusions=_stems(found, "confusion", place),
        drawn=drawn,
        trials=trials,
        trials_file=TRIALS_FILE,
        settings=settings,
        mistakes=mistakes,
        notes=found.notes,
    )


def _stems(found: Pictures, kind: str, place: Mapping[str, int]) -> list[tuple[str, int | str]]:
    """Return the pictures of a kind, and the place of the study that each is of; "all" of one that is of all."""
    return [
        (stem, place.get(stem.removeprefix(f"{kind}-"), "all"))
        for stem in found.by_stem
        if stem.startswith(kind)
    ]


def _parts(comparison: Comparison) -> list[str]:
    """Say which trials of which study are compared, where not all are."""
    return [f"{printable(s.data.name)}: {part_words(s.data)}" for s in comparison.sides if not s.data.whole]


def _lead(comparison: Comparison) -> list[str]:
    """Say whose winner is the best, and of each other whether that may be luck; or why that is not said."""
    if comparison.not_comparable:
        return [comparison.not_comparable]
    first, metric = comparison.sides[0], comparison.sides[0].data.metric
    axes = ComparedAxes.of(comparison.sides)
    digits = _digits(comparison.sides, metric)
    won = f"{metric_name(metric)}: {show_mean(first.winner, digits)}."
    words = f"The winner of {printable(first.data.name)}, {winner_words(first, axes)}, has the best {won}"
    means = [side.winner.mean or 0.0 for side in comparison.sides]
    gaps = zip(comparison.differences, means[1:], strict=True)
    return [words, *(_difference_words(gap, digits.metric, means[0], own) for gap, own in gaps)]


def _difference_words(found: Difference, metric: str, first: float, second: float) -> str:
    if found.differs is False and found.ci_low is None:
        return f"The winner of {printable(found.study)} is the same point."
    words = _ahead_words(found, metric, first, second)
    if found.differs is None:
        return f"{words}; {found.method}."
    explained = "more than chance explains" if found.differs else "which chance may explain"
    return f"{words} (95 % interval {_gap_interval(found, metric)}), {explained}."


def _ahead_words(found: Difference, metric: str, first: float, second: float) -> str:
    """Say how far the first winner is ahead by the means that are shown, and by those that were compared."""
    name, digits = printable(found.study), Digits.of([first, second], metric)
    gap = abs(first - second)
    words = (
        f"It is {digits.finer(gap).difference(gap)} ahead of that of {name}"
        if gap
        else f"That of {name} is as good"
    )
    if found.means is None:
        return words
    one, two = (digits.show(m) for m in found.means)
    side = "ahead" if found.behind >= 0 else "behind"
    size = digits.finer(found.behind).difference(abs(found.behind))
    return f"{words}; by the first seed of each ({one} and {two}) it is {size} {side}"


def _gap_interval(found: Difference, metric: str) -> str:
    if found.ci_low is None or found.ci_high is None:
        return ""
    digits = Digits.of([found.ci_high - found.ci_low], metric).finer(found.behind)
    return digits.interval(found.ci_low, found.ci_high, sign=True)


def _digits(sides: Sequence[Side], metric: str, others: Sequence[float] = ()) -> Digits:
    """Return how the winners' values of a metric are written beside each other."""
    winners = [side.winner for side in sides if side.data.metric == metric]
    means = [*(w.mean for w in winners), *others]
    return Digits.of(means, metric, spreads=[w.spread for w in winners])


def _winner_table(comparison: Comparison, *, narrow: bool = False) -> tuple[list[Column], list[Row]]:
    """Return the table of winners; a narrow one leaves to the words above it how far they are apart."""
    sides, axes = comparison.sides, ComparedAxes.of(comparison.sides)
    metrics = {side.data.metric for side in sides}
    ranked = not comparison.not_comparable
    heading, with_gaps = (short_heading, False) if narrow else (metric_name, ranked)
    gaps = {d.study: d for d in comparison.differences}
    columns = [
        *([Column("rank", True)] if ranked else []),
        Column("study", False),
        *([] if len({s.data.dataset for s in sides}) == 1 else [Column(sides[0].data.kind.subject, False)]),
        Column("its best point", False),
        Column("n", True),
        Column(heading(sides[0].data.metric) if len(metrics) == 1 else "result", True),
        Column("95 % interval", True),
        *([Column("behind", True), Column("chance?", False)] if with_gaps else []),
    ]
    rows = []
    for place, side in enumerate(sides, start=1):
        metric, winner = side.data.metric, side.winner
        # what cannot be compared may be of quite another size
        digits = _digits(sides if ranked else [side], metric)
        result = show_mean(winner, digits)
        gap = gaps.get(side.data.name)
        cells = [
            *([str(place)] if ranked else []),
            printable(side.data.name),
            *([] if len({s.data.dataset for s in sides}) == 1 else [printable(side.data.dataset, 60)]),
            winner_words(side, axes),
            str(winner.n),
            result if len(metrics) == 1 else f"{result} {metric_name(metric)}",
            show_interval(winner, digits) or NOTHING,
            *(
                [NOTHING if gap is None else _gap_words(gap, digits.metric), _luck_cell(gap)]
                if with_gaps
                else []
            ),
        ]
        rows.append(Row(tuple(cells), "best" if ranked and place == 1 else ""))
    return columns, rows


def _gap_words(gap: Difference, metric: str) -> str:
    size = Digits(metric).finer(gap.behind).difference(gap.behind, unit=False)
    which = " by the first seeds" if gap.means is not None else ""
    return f"{size} {_gap_interval(gap, metric)}{which}".strip()


def _luck_cell(gap: Difference | None) -> str:
    if gap is None:
        return ""
    if gap.differs is None:
        return "not known"
    if gap.ci_low is None:
        return "same point"
    return "no" if gap.differs else "may be"


def _shared_columns(comparison: Comparison) -> list[Column]:
    return [Column("point", False), *(Column(printable(n), True) for n in comparison.names)]


def _shared_row(point: SharedPoint, comparison: Comparison) -> Row:
    cells = [show_params(point.params, limit=200)]
    for side, mean, n in zip(comparison.sides, point.means, point.n, strict=True):
        seeds = f" (n={n})" if n > 1 else ""
        digits = _digits(comparison.sides, side.data.metric, [m for m in point.means if m is not None])
        cells.append(f"{digits.show(mean)}{seeds}")
    return Row(tuple(cells))


def _shared_words(comparison: Comparison) -> str:
    shared = comparison.shared
    whose = "both studies have" if len(comparison.sides) == 2 else "two or more of the studies have"
    if not shared:
        return f"There is no point that {whose}."
    held, alike = f"{plural(len(shared), 'point')} that {whose}", comparison.sides[0].data.kind.alike
    if len({s.data.metric for s in comparison.sides}) > 1:
        return f"{held} ({alike}), each with the metric that ranks its study."
    unequal = sum(p.differs for p in shared)
    more_seeds = any(len({n for n in p.n if n}) > 1 for p in shared)
    values = f"{unequal:,} of them with different values" if unequal else "all with equal values"
    values += " for a seed that both have" if more_seeds else ""
    return f"{held}, {values} ({alike})."


def _cautions(comparison: Comparison) -> list[str]:
    sides = comparison.sides
    found = []
    counts = listed([f"{printable(s.data.name)}: {len(s.ranking.points):,}" for s in sides])
    found.append(
        "Each winner is the best of its study's points by the value shown here, so that value is partly luck, "
        f"and the more so the more points there were ({counts})."
    )
    by_method: dict[str, list[str]] = {}
    for gap in comparison.differences:
        if gap.ci_low is not None:
            by_method.setdefault(gap.method, []).append(printable(gap.study))
    for method, names in by_method.items():
        one = "interval of the difference" if len(names) == 1 else "intervals of the differences"
        found.append(f"The {one} to {listed(names)} {'is' if len(names) == 1 else 'are'} {method}.")
    if sum(gap.ci_low is not None for gap in comparison.differences) > 1:
        found.append("All intervals of the differences together hold with 95 % confidence.")
    if any(s.ranking.by_train for s in sides):
        found.append("One of the studies held out no images: a TRAIN accuracy says nothing about new images.")
    splits = {s.winner.settings.split() for s in sides}
    if not comparison.not_comparable and len(splits) > 1:
        found.append("The studies hold out different validation images.")
    for side in sides:
        left = sum(n for state, n in side.ranking.counts.items() if state in ("waiting", "running"))
        if left:
            found.append(f"{printable(side.data.name)} is not finished: {plural(left, 'trial')} left.")
    return found
