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

from gridsearch.records import StudyData, TrialState, Value
from gridsearch.reporting.findings.study_findings import find
from gridsearch.reporting.output import effects_table, pareto_table
from gridsearch.reporting.output.cautions import mixed_words
from gridsearch.reporting.output.figure_data import as_script_json, whose
from gridsearch.reporting.output.fold_table import fold_table
from gridsearch.reporting.output.headline import Headline, headline, show_mean, time_spent
from gridsearch.reporting.output.page_tables import (
    CLASS_COLUMNS,
    MOST_POINTS,
    class_rows,
    filter_example,
    hidden_classes,
    long_table,
    losses,
    point_columns,
    point_row,
    shown_trials,
)
from gridsearch.reporting.output.report_parts import parts_list
from gridsearch.reporting.output.trial_table import TrialColumns
from gridsearch.reporting.ranking.effects import decompose
from gridsearch.reporting.ranking.pareto import front_words
from gridsearch.reporting.ranking.selection import part_words
from gridsearch.reporting.words.text import NOTHING, metric_name, printable, show_metric, show_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import jinja2

    from gridsearch.reporting.figures.pictures import Classes, Picture
    from gridsearch.reporting.ranking.ranking import Ranking

SCRIPTS: Final = (
    "drawing.js",
    "studies.js",
    "tables.js",
    "heatmap.js",
    "parallel.js",
    "dots.js",
    "curves.js",
    "classes.js",
    "answers.js",
    "pair.js",
    "trial.js",
    "start.js",
)
"""What the page's script consists of, in this order."""
LIVE_SCRIPT: Final = "live.js"
"""What keeps a page up to date that a server shows."""
_RECIPE_HIDDEN: Final = frozenset(
    {"data_fingerprint", "model_source", "objective_source", "optimizer_source", "augment_source"}
)


@dataclass(frozen=True, slots=True)
class Live:
    """What a page needs to know that a server keeps up to date.

    Attributes:
        mark: distinguishes this state of the study from any other; "" where no server does.
        secret: what the server takes for a sign that one of its own pages asks.
    """

    mark: str = ""
    secret: str = ""


NOT_LIVE: Final = Live()


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the page's script gets, as JSON that is safe inside a script element; "" for nothing.

    Attributes:
        studies: of each study the numbers that are drawn, see `figure_data`.
        answers: what trials answered, see `answer_data`.
        live: of a page that a server keeps up to date.
    """

    studies: str = ""
    answers: str = ""
    live: Live = NOT_LIVE

    @classmethod
    def of(
        cls,
        studies: Sequence[Mapping[str, Any] | None],
        answers: Mapping[str, Any] | None = None,
        *,
        live: Live = NOT_LIVE,
    ) -> Drawn:
        """Return the two as the page holds them; no studies where any of them is too large to be drawn."""
        from markupsafe import Markup

        def text(value: object) -> str:
            return Markup(as_script_json(value))  # noqa: S704  escaped for its place

        there = bool(studies) and all(study is not None for study in studies)
        return cls(
            text(studies) if there else "", text(answers) if there and answers is not None else "", live
        )


NOTHING_DRAWN: Final = Drawn()


def render_page(
    data: StudyData,
    ranking: Ranking,
    *,
    pictures: Mapping[str, Picture] | None = None,
    classes: Classes | None = None,
    notes: Sequence[str] = (),
    parts: Sequence[tuple[str, str]] = (),
    whole: str = "",
    drawn: Drawn = NOTHING_DRAWN,
) -> str:
    """Return the page as HTML.

    Args:
        data: the study, filtered already.
        ranking: its ranking.
        pictures: by their files' stem.
        classes: the winner's per-class results, None without stored predictions.
        notes: what is missing in this report and why.
        parts: the reports that there are of parts of the study: address and words.
        whole: of a part, the address of the report of the whole study, "" where there is none.
        drawn: what the page's script draws and compares.
    """
    from markupsafe import Markup

    words = headline(data, ranking)
    shown = shown_trials(data, ranking)
    decomposition = decompose(ranking)
    point_rows = [point_row(p, ranking, data.axes, shown) for p in ranking.listed[:MOST_POINTS]]
    columns = TrialColumns.of([ranking], data.axes)
    trial_rows = [columns.row(t, data, ranking) for t in data.trials if t.number in shown]
    return rendered(
        "report.html",
        study=printable(data.name),
        about=printable(f"{data.kind.preposition} {data.dataset}"),
        words=words,
        findings=find(data, ranking),
        pareto=_pareto(ranking),
        lead=_lead(words),
        progress=_progress(ranking),
        part=part_words(data),
        mixed=mixed_words(data, ranking),
        whole=whole,
        parts=Markup(parts_list(parts)),  # noqa: S704  escaped there
        counts=[(state, n) for state, n in ranking.counts.items() if n],
        facts=_facts(data, ranking),
        pictures=pictures or {},
        drawn=drawn,
        live=drawn.live.mark,
        secret=drawn.live.secret,
        notes=notes,
        classes=classes,
        classes_of=whose(ranking),
        class_rows=class_rows(classes),
        class_hidden=hidden_classes(classes),
        class_columns=CLASS_COLUMNS,
        settings=columns.settings,
        folds=fold_table(ranking),
        points=long_table("points", point_columns(ranking, data.axes), point_rows, of=len(ranking.listed)),
        filter_example=filter_example(ranking),
        trials=long_table("trials", columns.headings, trial_rows, of=len(data.trials)),
        losses=losses(data, shown),
        effects=effects_table.rows(ranking, decomposition),
        effects_method=effects_table.method(decomposition),
        recipe=_recipe(data),
        commands=[printable(c) for c in data.commands],
        environment=[(printable(k), printable(v)) for k, v in data.environment.items()],
    )


def _pareto(ranking: Ranking) -> dict[str, Any] | None:
    """Return the section on the Pareto front, None where nobody asked for one."""
    if (found := ranking.pareto) is None:
        return None
    return {
        "words": front_words(found),
        "headings": pareto_table.headings(found),
        "rows": pareto_table.rows(found, ranking.varying),
        "hidden": pareto_table.hidden(found),
    }


def rendered(template: str, **values: Any) -> str:
    """Return a page that carries our style and script, and a policy that allows nothing else.

    Args:
        template: its file's name.
        **values: what the template shows; `live` is not "" where the page may ask the server that it came from.
    """
    live = str(values.setdefault("live", ""))
    style = _asset("report.css")
    script = "\n".join(map(_asset, (*SCRIPTS, LIVE_SCRIPT) if live else SCRIPTS))
    policy = _policy(style, script) + ("; connect-src 'self'" if live else "")
    page = environment().get_template(template)
    return page.render(policy=policy, style=_own(style), script=_own(script), **values)


def live_overview(
    studies: Sequence[Mapping[str, Any]], *, place: str, idle: Sequence[str], live: Live
) -> str:
    """Return the page that lists the studies of a home, as a server shows it.

    Args:
        studies: of each `study`, `title`, `about`, `address`, and what `live_strip` takes.
        place: where they lie.
        idle: who holds no trial.
        live: what the page needs to know of its server.
    """
    return rendered(
        "live.html",
        studies=studies,
        place=printable(place, 200),
        idle=idle,
        live=live.mark,
        secret=live.secret,
        token=live.mark,
        part=False,
    )


def live_strip(study: Mapping[str, Any]) -> str:
    """Return how far a study is and who trains it, for the top of its page.

    Args:
        study: `words`, `eta`, `lines`, `token`, `stoppable`, and `stop`, the address that stops it.
    """
    return environment().get_template("live.html").render(studies=[study], part=True, token=study["token"])


def load_templates() -> None:
    """Compile the templates of a study's page, which the first page else does.

    Raises:
        ImportError: what renders them is missing.
    """
    for name in ("report.html", "pareto.html", "parts.html", "findings.html", "folds.html"):
        environment().get_template(name)


@functools.cache
def environment() -> jinja2.Environment:
    """Return what renders our HTML templates: whatever names hold stays text."""
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


def _progress(ranking: Ranking) -> tuple[int, int] | None:
    """Return how many trials have ended, of how many; None if all have."""
    total = sum(ranking.counts.values())
    ended = sum(n for state, n in ranking.counts.items() if TrialState(state).ended)
    return (ended, total) if ended < total else None


def _lead(words: Headline) -> str:
    return f"{words.won} {words.margin}".strip()


def _facts(data: StudyData, ranking: Ranking) -> list[tuple[str, str]]:
    """Return the few figures of the header, as name and value."""
    best = ranking.best
    seeds = sorted({p.n for p in ranking.listed if p.n})
    better = "" if data.direction == "maximize" else ", the lower the better"
    facts = [("ranked by", f"{metric_name(data.metric)}{better}")]
    if best is not None:
        facts.append((f"best {metric_name(data.metric)}", show_mean(best, ranking.digits_of())))
        train = best.metric_mean("train_accuracy")
        if train is not None and data.metric != "train_accuracy" and data.kind.classifies:
            facts.append(("its train accuracy", show_metric(train, "train_accuracy")))
        if (
            known := data.facts.get(best.settings.data_fingerprint)
        ) is not None and known.constant is not None:
            name, share = known.constant
            facts.append(
                ("majority-class baseline", f"{show_metric(share, 'val_accuracy')} ({printable(name, 30)})")
            )
    facts += [
        ("points", f"{len(ranking.listed):,}"),
        ("trials", f"{len(data.trials):,}"),
        (
            f"{ranking.noun}s per point",
            " to ".join(str(n) for n in (seeds[:1] + seeds[-1:] if len(seeds) > 1 else seeds)) or NOTHING,
        ),
        ("time", time_spent(data)),
    ]
    return facts


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
        ("optimizer_source", "SHA-256 of the optimizer's file"),
        ("augment_source", "SHA-256 of the augmentation's file"),
        ("objective_source", "SHA-256 of the objective's file"),
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
