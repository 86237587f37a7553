"""The pages that Optuna's dashboard shows beside a study and its trials, in Markdown; `dashboard_notes` keeps them.

The store's own JSON stays in the ledger.  Every value may be a user's, so that cells are escaped.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from gridsearch.spec.words import exact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gridsearch.advice import Advice
    from gridsearch.records import TrialDraft
    from gridsearch.store.messages import StudyDraft

_NOT_SHOWN: Final = frozenset({"study", "code", "grid", "recipe", "locators"})
"""Parts of a spec that have a place of their own, or are addresses and nothing to read."""

_SHOWN_COMMANDS: Final = 10

_SEVERAL: Final = "This is what was last asked for; earlier commands may have added other points."

_IMPORTANCE: Final = (
    "The *hyperparameter importance* of this dashboard is PED-ANOVA's: it asks which parameters set the best tenth of "
    "the single trials apart from all trials, and its shares always add up to 1. The *effects* in the report say how "
    "much of the variance of the results each axis, and each pair of axes, explains over the whole grid, with what "
    "the seeds leave unexplained beside them. The two differ most where one axis decides everything: all good trials "
    "then share its best value, and an axis without any effect can seem important among them. To learn what an axis "
    "changes on this grid, use the effects."
)


def study_page(draft: StudyDraft, commands: Sequence[str]) -> str:
    """Return a study's page: what is searched, where the best point is, what the importance means, the commands.

    Args:
        draft: the study as it was last asked for.
        commands: that asked for it, the newest last.
    """
    spec, axes = draft.spec, _axes(draft.spec.get("grid", {}))
    parts = [
        f"# {draft.name}",
        f"A grid search on **{_cell(draft.dataset)}**, ranked by **{_cell(draft.metric)}** ({draft.direction}).",
        *([_SEVERAL] if len(commands) > 1 else []),
        *_table("The grid", ("axis", "values"), axes),
        *_rules(spec.get("grid", {})),
        *_table("The same for all points of the grid", ("setting", "value"), _settings(spec, axes)),
        "## The best point",
        (
            "The best trial that this dashboard names is the best of all single seeds. The best point, by the mean "
            f"over its seeds and with its interval, is in the report: `{draft.again.report()}`."
        ),
        "## Importance here, effects in the report",
        _IMPORTANCE,
        "## Commands",
        "```\n" + "\n".join(commands[-_SHOWN_COMMANDS:]) + "\n```",
    ]
    if len(commands) > _SHOWN_COMMANDS:
        parts.append(f"The last {_SHOWN_COMMANDS} of {len(commands)}.")
    return "\n\n".join(parts) + "\n"


def trial_page(again: Advice, number: int, draft: TrialDraft) -> str:
    """Return a trial's page: all that decides its result, and where its curves and log are.

    Args:
        again: the commands about its study.
        number: the trial's.
        draft: the trial.
    """
    settings = {"seed": draft.seed, **draft.settings.flat()}
    shown = ((name, value) for name, value in settings.items() if value is not None)
    parts = [
        f"Curves and log: `{again.trial(number)}`",
        *_table("", ("setting", "value"), shown),
    ]
    return "\n\n".join(parts) + "\n"


def _axes(grid: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the axes and their values as `Grid.to_json` writes them, ``lr=0.01,0.001``."""
    axes = grid.get("axes", ())
    if not isinstance(axes, list | tuple):
        axes = [f"{name}={values}" for name, values in axes.items()]
    found = (axis.partition("=") for axis in axes)
    return [(name, values.replace(",", ", ")) for name, _, values in found]


def _rules(grid: Mapping[str, Any]) -> list[str]:
    """Return what is left out of the grid, and where an axis does not exist, as one list."""
    rules = [f"- without `{rule}`" for rule in grid.get("exclude", ())]
    conditions = (rule.partition(":") for rule in grid.get("when", ()))
    rules += [f"- `{axis}` only where `{condition.strip()}`" for axis, _, condition in conditions]
    return ["\n".join(rules)] if rules else []


def _settings(spec: Mapping[str, Any], axes: Iterable[tuple[str, str]]) -> Iterable[tuple[str, object]]:
    """Return what all points share; the recipe's value of an axis is not that of any point."""
    varies = {name for names, _ in axes for name in names.split(",")}
    for name, value in {**spec, **spec.get("recipe", {})}.items():
        if name not in _NOT_SHOWN and name not in varies and value is not None:
            yield name, value


def _table(title: str, heads: tuple[str, str], rows: Iterable[tuple[str, object]]) -> list[str]:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    if not lines:
        return []
    table = "\n".join([f"| {heads[0]} | {heads[1]} |", "|---|---|", *lines])
    return [f"## {title}", table] if title else [table]


def _cell(value: object) -> str:
    """Return text that stays one cell and is no Markdown of its own."""
    if isinstance(value, float):
        value = exact(value)
    return _escaped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


@lru_cache(maxsize=1024)  # the settings of a study's trials are nearly all the same
def _escaped(text: str) -> str:
    text = " ".join(text.split())
    for sign in "\\|`*_<>[]":
        text = text.replace(sign, f"\\{sign}")
    return text
