"""From a ranked study and its figures to index.html: one file that asks nobody for anything.

The page carries its style, its script and its pictures.  A Content-Security-Policy allows exactly these
(style and script by their hashes, pictures as data), so that a name that slipped through the template's
escaping still could not run.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from gridsearch.records import StudyData, TrialRecord, TrialState, Value
from gridsearch.reporting.effects import decompose
from gridsearch.reporting.headline import Headline, headline, show_mean, time_spent
from gridsearch.reporting.ranking import RankedPoint, Ranking, finite
from gridsearch.reporting.text import (
    NOTHING,
    metric_name,
    printable,
    show_metric,
    show_params,
    show_value,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import jinja2

    from gridsearch.reporting.predictions import ClassResult

MOST_POINTS: Final = 1000
MOST_TRIALS: Final = 2500
MOST_FAILURES: Final = 50
MOST_CLASSES: Final = 300
LARGEST_SVG: Final = 600_000
"""A larger drawing is shown as PNG, so that the page stays below 5 MB."""

_METRICS: Final = ("val_accuracy", "val_loss", "train_accuracy", "train_loss")
_RECIPE_HIDDEN: Final = frozenset({"data_fingerprint", "model_source"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFigure:
    """A picture in the page.

    Attributes:
        alt: what it shows, for who does not see it.
        notes: sentences below it.
    """

    title: str
    alt: str
    png: bytes
    svg: bytes
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The picture as a data: URI."""
        kind, content = ("svg+xml", self.svg) if len(self.svg) <= LARGEST_SVG else ("png", self.png)
        return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """How the winner tells the classes apart."""

    results: Sequence[ClassResult]
    balanced_accuracy: float
    macro_f1: float
    pairs: Sequence[str]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: its cells as text, and what the template marks it with."""

    cells: tuple[str, ...]
    kind: str = ""
    anchor: str = ""
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading, and whether it holds numbers."""

    title: str
    numeric: bool


def render_page(
    data: StudyData,
    ranking: Ranking,
    *,
    figures: Sequence[PageFigure] = (),
    classes: Classes | None = None,
    notes: Sequence[str] = (),
    where: Mapping[str, Value] | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        data: the study, filtered already.
        ranking: its ranking.
        figures: pictures in the order of the page.
        classes: the winner's per-class results, None without stored predictions.
        notes: what is missing in this report and why.
        where: the filter that the report was made with.
    """
    words = headline(data, ranking)
    shown = _shown_trials(data, ranking)
    bad = [t for t in data.trials if t.state in (TrialState.FAILED, TrialState.DIVERGED)]
    style, script = _asset("report.css"), _asset("report.js")
    return (
        _environment()
        .get_template("report.html")
        .render(
            policy=_policy(style, script),
            style=_own(style),
            script=_own(script),
            study=printable(data.name),
            dataset=printable(data.dataset),
            metric=metric_name(data.metric),
            words=words,
            lead=_lead(words),
            where=show_params(where) if where else "",
            counts=[(state, n) for state, n in ranking.counts.items() if n],
            facts=_facts(data, ranking),
            figures=figures,
            notes=notes,
            classes=classes,
            class_rows=_class_rows(classes),
            class_columns=_CLASS_COLUMNS,
            point_columns=_point_columns(ranking, data.axes),
            point_rows=[_point_row(p, ranking, data.axes, shown) for p in ranking.points[:MOST_POINTS]],
            points_hidden=max(0, len(ranking.points) - MOST_POINTS),
            trial_columns=_trial_columns(data.axes),
            trial_rows=[_trial_row(t, data.axes) for t in data.trials if t.number in shown],
            trials_hidden=len(data.trials) - len(shown),
            failures=[_failure(t, data.axes, shown) for t in bad[:MOST_FAILURES]],
            failures_hidden=max(0, len(bad) - MOST_FAILURES),
            effects=_effects(ranking),
            recipe=_recipe(data),
            commands=[printable(c) for c in data.commands],
            environment=[(printable(k), printable(v)) for k, v in data.environment.items()],
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("gridsearch.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
def _asset(name: str) -> str:
    return (resources.files("gridsearch.reporting") / "templates" / name).read_text(encoding="utf-8")


def _own(text: str) -> Any:
    """Mark one of our own files as what it is; nothing of a user's ever comes through here."""
    from markupsafe import Markup

    assert "</" not in text
    return Markup(text)  # noqa: S704  our own file, checked above


def _policy(style: str, script: str) -> str:
    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def _lead(words: Headline) -> str:
    return f"{words.won} {words.margin}".strip()


def _facts(data: StudyData, ranking: Ranking) -> list[tuple[str, str]]:
    """Return the few figures of the header, as name and value."""
    best = ranking.best
    seeds = sorted({p.n for p in ranking.points if p.n})
    facts = [("ranked by", metric_name(data.metric))]
    if best is not None:
        facts.append((f"best {metric_name(data.metric)}", show_mean(best, data.metric)))
        train = best.metric_mean("train_accuracy")
        if train is not None and data.metric != "train_accuracy":
            facts.append(("its train accuracy", show_metric(train, "train_accuracy")))
    facts += [
        ("points", f"{len(ranking.points):,}"),
        ("trials", f"{len(data.trials):,}"),
        (
            "seeds per point",
            " to ".join(str(n) for n in (seeds[:1] + seeds[-1:] if len(seeds) > 1 else seeds)) or NOTHING,
        ),
        ("time", time_spent(data)),
    ]
    return facts


def _shown_trials(data: StudyData, ranking: Ranking) -> frozenset[int]:
    """Return the numbers of the trials that get a row: some that were lost, then those of the best points."""
    if len(data.trials) <= MOST_TRIALS:
        return frozenset(t.number for t in data.trials)
    numbers = [t.number for p in ranking.points for t in p.trials]
    bad = [t.number for t in data.trials if t.state in (TrialState.FAILED, TrialState.DIVERGED)][
        :MOST_FAILURES
    ]
    return frozenset([*bad, *numbers[: MOST_TRIALS - len(bad)]])


def _point_columns(ranking: Ranking, axes: Sequence[str]) -> list[Column]:
    others = _other_metrics(ranking.metric)
    return [
        Column("rank", True),
        *(Column(printable(a), _numeric(ranking.points, a)) for a in axes),
        Column("n", True),
        Column(metric_name(ranking.metric), True),
        *(Column(metric_name(m), True) for m in others),
        Column("seconds", True),
        Column("trials", True),
    ]


def _point_row(point: RankedPoint, ranking: Ranking, axes: Sequence[str], shown: frozenset[int]) -> Row:
    result = show_mean(point, ranking.metric)
    if point.mean is None or point.diverged:
        state = "diverged" if point.diverged else point.trials[0].state.value
        result = state if point.mean is None else f"{result} ({point.diverged} diverged)"
    cells = (
        NOTHING if point.rank is None else str(point.rank),
        *(show_value(point.params[a]) if a in point.params else NOTHING for a in axes),
        str(point.n),
        result,
        *(show_metric(point.metric_mean(m), m) for m in _other_metrics(ranking.metric)),
        NOTHING if point.seconds is None else f"{point.seconds:.1f}",
    )
    kind = "best" if point is ranking.best else "lost" if point.mean is None or point.diverged else ""
    links = tuple(str(t.number) for t in point.trials)
    return Row(cells, kind, "", tuple(n for n in links if int(n) in shown))


def _trial_columns(axes: Sequence[str]) -> list[Column]:
    names = ["state", *(metric_name(m) for m in _METRICS), "epochs trained", "seconds", "attempts", "error"]
    text = {"state", "error"}
    return [
        Column("trial", True),
        *(Column(printable(a), False) for a in axes),
        Column("seed", True),
        *(Column(n, n not in text) for n in names),
    ]


def _trial_row(trial: TrialRecord, axes: Sequence[str]) -> Row:
    cells = (
        str(trial.number),
        *(show_value(trial.params[a]) if a in trial.params else NOTHING for a in axes),
        str(trial.seed),
        trial.state.value,
        *(show_metric(finite(trial.metrics.get(m)), m) for m in _METRICS),
        str(trial.epochs),
        NOTHING if trial.seconds is None else f"{trial.seconds:.1f}",
        str(trial.attempts),
        printable(trial.error or "", 300),
    )
    lost = trial.state in (TrialState.FAILED, TrialState.DIVERGED)
    return Row(cells, "lost" if lost else "", f"trial-{trial.number}")


def _failure(trial: TrialRecord, axes: Sequence[str], shown: frozenset[int]) -> dict[str, Any]:
    return {
        "number": trial.number,
        "linked": trial.number in shown,
        "state": trial.state.value,
        "params": f"{show_params(trial.params, axes, limit=200)} seed={trial.seed}",
        "reason": printable(trial.error or "no reason recorded", 400),
    }


def _effects(ranking: Ranking) -> list[tuple[str, str]]:
    decomposition = decompose(ranking)
    if decomposition.residual_share is None or len(ranking.varying) < 2:  # one axis explains all by itself
        return []
    rows = [
        (" \u00d7 ".join(printable(a) for a in e.axis.split(",")), e.share) for e in decomposition.effects
    ]
    rows = [*rows[:12], ("everything else", 1.0 - sum(share for _, share in rows[:12]))]
    return [(name, f"{100 * max(0.0, share):.1f} %") for name, share in rows]


def _recipe(data: StudyData) -> list[tuple[str, str]]:
    """Return the settings that are the same for every trial."""
    if not data.trials:
        return []
    flats = [t.settings.flat() for t in data.trials]
    first = flats[0]
    varying = {k for flat in flats for k, v in flat.items() if k not in first or first[k] != v}
    varying |= {k for flat in flats for k in first if k not in flat} | set(data.axes)
    rows = [
        (printable(k), _shown_setting(k, v)) for k, v in first.items() if k not in varying | _RECIPE_HIDDEN
    ]
    for name, words in (
        ("data_fingerprint", "SHA-256 of the data"),
        ("model_source", "SHA-256 of the model's file"),
    ):
        if name not in varying and first.get(name):
            rows.append((words, printable(str(first[name]))))
    return rows


def _shown_setting(name: str, value: Value) -> str:
    if name == "val" and isinstance(value, float):
        return f"{value:.4g}"
    if name == "subset" and value is None:
        return "all"
    if name == "dropout" and value is None:
        return "as the model has it"
    return show_value(value)


_CLASS_COLUMNS: Final = [
    Column("class", False),
    Column("images", True),
    Column("recognised (recall)", True),
    Column("precision", True),
    Column("F1", True),
    Column("most often taken for", False),
]


def _class_rows(classes: Classes | None) -> list[Row]:
    if classes is None:
        return []
    return [
        Row(
            (
                r.name,
                str(r.images),
                *(_percent(x) for x in (r.recall, r.precision, r.f1)),
                r.taken_for or NOTHING,
            )
        )
        for r in classes.results[:MOST_CLASSES]
    ]


def _percent(share: float | None) -> str:
    return show_metric(share, "recall", digits=1)


def _other_metrics(metric: str) -> list[str]:
    return [m for m in ("val_loss", "train_accuracy", "train_loss") if m != metric]


def _numeric(points: Sequence[RankedPoint], axis: str) -> bool:
    values = [p.params.get(axis) for p in points]
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
