"""The page's table of trials, of one study or of several beside each other: its columns, and trials as rows of text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from gridsearch.records import StudyData, TrialRecord, TrialState
from gridsearch.reporting.output.page_tables import Column, Row, axis_titles, without_unit
from gridsearch.reporting.ranking.points import finite
from gridsearch.reporting.ranking.ranking import TRIAL_METRICS
from gridsearch.reporting.words.text import NOTHING, metric_name, printable, show_param

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.records import Value
    from gridsearch.reporting.ranking.ranking import Ranking


def address_of(trial: int, study: str = "") -> str:
    """Return the id of a trial's row, by which its page is linked to.

    Args:
        trial: its number.
        study: its name where the page is about several; letters, digits, dots, dashes and underscores.
    """
    return f"trial-{trial}{suffix_of(study)}"


def suffix_of(study: str) -> str:
    """Return what the ids of a study's trials end in; see `address_of`."""
    return f"-of-{study}" if study else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialColumns:
    """What the table shows.

    Attributes:
        axes: a column for each.
        metrics: likewise.
        folds: whether any trial is of a cross-validation.
        length: what the number of epochs or steps is called.
        several: whether it is about several studies.
    """

    axes: tuple[str, ...]
    metrics: tuple[str, ...]
    folds: bool
    length: str
    several: bool = False

    @classmethod
    def of(cls, rankings: Sequence[Ranking], axes: Sequence[str]) -> Self:
        """Return the columns for the trials of some studies."""
        units = {ranking.kind.unit for ranking in rankings}
        return cls(
            axes=tuple(axes),
            metrics=tuple(dict.fromkeys(m for ranking in rankings for m in _metrics(ranking))),
            folds=any(ranking.noun == "fold" for ranking in rankings),
            length="epochs trained" if units == {"epoch"} else "steps",
            several=len(rankings) > 1,
        )

    @property
    def headings(self) -> list[Column]:
        """The headings of the table."""
        text = {"state", "error"}
        first = ["trial", *(["study"] if self.several else [])]
        last = [
            "seed",
            *(["fold"] if self.folds else []),
            *("state", *map(metric_name, self.metrics), self.length, "seconds", "attempts", "error"),
        ]
        return [
            *(Column(name, name == "trial") for name in first),
            *(Column(title, False) for title in axis_titles(self.axes, [*first, *last])),
            *(Column(name, name not in text) for name in last),
        ]

    @property
    def settings(self) -> int:
        """How many columns after the number say what a trial is; the others say what came out."""
        return len(self.axes) + 1 + self.folds + self.several

    def row(
        self, trial: TrialRecord, data: StudyData, ranking: Ranking, params: Mapping[str, Value] | None = None
    ) -> Row:
        """Return a trial as a row.

        Args:
            trial: the trial.
            data: its study.
            ranking: its study's, whose digits it is written with.
            params: its values of the axes; default: those of its study's axes.
        """
        params = trial.params if params is None else params
        fold = NOTHING if trial.settings.fold is None else str(trial.settings.fold)
        cells = (
            str(trial.number),
            *([printable(data.name)] if self.several else []),
            *(show_param(params, a) for a in self.axes),
            str(trial.seed),
            *([fold] if self.folds else []),
            f"{trial.state.value}{', stopped early' * trial.stopped_early}",
            *(ranking.digits_of(m).show(finite(trial.metrics.get(m))) for m in self.metrics),
            str(trial.epochs),
            without_unit(trial.seconds),
            str(trial.attempts),
            printable(trial.error or "", 300),
        )
        lost = trial.state in (TrialState.FAILED, TrialState.DIVERGED)
        anchor = address_of(trial.number, data.name if self.several else "")
        return Row(cells, "lost" if lost else "", anchor)


def _metrics(ranking: Ranking) -> tuple[str, ...]:
    if not ranking.kind.classifies:
        return (ranking.metric, *ranking.others)
    shown = (*TRIAL_METRICS, *ranking.class_metrics)
    return shown if ranking.metric in shown else (ranking.metric, *shown)
