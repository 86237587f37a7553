"""What Python gets from a study: its ranking, its tables as pandas frames, its figures."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gridsearch import web_browser
from gridsearch.api.python_words import speaking_python
from gridsearch.api.watching import warn
from gridsearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

    from gridsearch.records import StudyData, Value
    from gridsearch.reporting import Predictions, Ranking
    from gridsearch.service.prepare.options import Places


@dataclass(frozen=True, slots=True, repr=False)
class StudyResult:
    """A study's results as they were when it was read.

    Attributes:
        data: the records of the study, from which everything else is computed.
        ranking: the points, ranked.
        report_page: path of the report's index.html; None if no report was written.
        places: where the study's files are, for figures that need predictions; None without a store.
        new: number of trials that this run added; 0 after `load`.
        reused: number of trials that were already there.
        failed: number of failed trials.
        open: number of trials without a result yet.
    """

    data: StudyData
    ranking: Ranking
    report_page: Path | None = None
    new: int = 0
    reused: int = 0
    failed: int = 0
    open: int = 0
    places: Places | None = None

    @property
    def study(self) -> str:
        """The study's name."""
        return self.data.name

    @property
    def points(self) -> pd.DataFrame:
        """The points, best first: rank, params, n, mean, 95 % interval, ties; accuracies are fractions.

        Points of other images, settings or code are ranked separately, below: their ranks begin at 1 again, and where
        there are any, `apart` is 0 for the points that are ranked with the best, and a number for each group of others.
        """
        from gridsearch import reporting

        return reporting.points_frame(self.data, ranking=self.ranking)

    @property
    def trials(self) -> pd.DataFrame:
        """The trials, one row each: params, seed, state, metrics, epochs, training time in seconds."""
        from gridsearch import reporting

        return reporting.trials_frame(self.data)

    @property
    def epochs(self) -> pd.DataFrame:
        """The metrics of every epoch of every trial, one row each."""
        from gridsearch import reporting

        return reporting.epochs_frame(self.data)

    @property
    def effects(self) -> pd.DataFrame:
        """Share of the variance that each axis or pair of axes explains; shares may overlap in a grid with holes."""
        from gridsearch import reporting

        return reporting.effects_frame(self.ranking)

    @property
    def findings(self) -> pd.DataFrame:
        """What the study shows and what to try next, one row each: code, evidence, and the command to run."""
        from gridsearch import reporting

        return reporting.findings_frame(self.data, ranking=self.ranking)

    @property
    def ensembles(self) -> pd.DataFrame:
        """Accuracy of ensembles of the best 2, 3, 5 and 10 points, from their stored predictions."""
        from gridsearch import reporting

        return reporting.ensembles_frame(self.ranking)

    def __repr__(self) -> str:
        """Return one line: how much there is, and what is best."""
        from gridsearch.reporting.words.text import plural, printable, show_params

        trials, points, best = len(self.data.trials), len(self.ranking.listed), self.ranking.best
        words = f"{plural(trials, 'trial')} of {plural(points, 'point')}"
        if apart := len(self.ranking.incomparable):
            words += f" ({apart} of them apart)"
        counts = self.data.counts()
        words += "".join(f", {counts[s]} {s}" for s in ("failed", "diverged", "pruned") if counts[s])
        if left := counts["waiting"] + counts["running"]:
            words += f", {left} without a result yet"
        if best is not None:
            metric = self.ranking.metric
            value = self.ranking.digits_of().show(best.mean)
            words += f"; best {show_params(best.params, limit=200)} with {printable(metric, 60)} {value}"
        return f"<StudyResult {printable(self.study)!r}: {words}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what won, and the first points."""
        from gridsearch import reporting

        return reporting.ranking_html(self.data, self.ranking)

    @property
    def best(self) -> dict[str, Value] | None:
        """The params of the best point, None before there is a result."""
        best = self.ranking.best
        return None if best is None else dict(best.params)

    @speaking_python
    def predictions(self, trial: int | None = None) -> Predictions | None:
        """Return a trial's predictions of the validation images; default: the winner's first seed.

        With folds the default joins all folds: each image is predicted by the network that was not trained on it.

        Args:
            trial: its number.

        Returns:
            Logits [N, Y], true labels [N] and the images' indices in the training set [N]; None if there are none.

        Raises:
            StoreError: the study has no such trial.
            ArtifactError: the file is missing, or differs from what was stored.
        """
        from gridsearch import reporting
        from gridsearch.service.queries import reports, studies

        best, point = self.ranking.best_trial, self.ranking.best
        if self.places is None or (trial is None and best is None):
            return None
        if trial is None and point is not None and point.folds is not None:
            return reporting.predictions_of(point, self.predictions)
        number = trial if trial is not None or best is None else best.number
        assert number is not None
        with studies.existing(self.places) as store:
            record, _ = store.trial_record(self.study, number)
            return reports.read_predictions(store, self.study, record)

    def heatmap(self) -> Figure | None:
        """Draw the metric over the two strongest axes, a panel for each value of the others; None for one point."""
        from gridsearch import reporting

        return next(iter(reporting.heatmap_figures(self.data, ranking=self.ranking).values()), None)

    def curves(self, top: int = 5) -> Figure | None:
        """Draw loss and accuracy by epoch of the best points (at most 5)."""
        from gridsearch import reporting

        return reporting.curves_figure(self.data, ranking=self.ranking, top=top)

    def marginals(self) -> Figure | None:
        """Draw the metric over each axis by itself; None with fewer than two varying axes."""
        from gridsearch import reporting

        return reporting.marginals_figure(self.data, ranking=self.ranking)

    def parallel(self) -> Figure | None:
        """Draw every point as a line across all axes; None with fewer than two varying axes."""
        from gridsearch import reporting

        return reporting.parallel_figure(self.data, ranking=self.ranking)

    def cost(self) -> Figure | None:
        """Draw the metric against the training time of a trial; None with fewer than two points."""
        from gridsearch import reporting

        return reporting.cost_figure(self.data, ranking=self.ranking)

    @speaking_python
    def confusion(self, *trials: int) -> Figure | None:
        """Draw the confusion matrix of a trial, or of several side by side; default: the winner's first seed.

        With folds the default joins all folds.  None if a trial has no predictions.

        Raises:
            StoreError: the study has no such trial.
            UsageError: the trials have different classes.
        """
        from gridsearch import reporting

        best = self.ranking.best_trial
        numbers = trials or ((best.number,) if best else ())
        pooled = not trials and self.ranking.noun == "fold"
        found = [self.predictions()] if pooled else [self.predictions(number) for number in numbers]
        matrices = [reporting.confusion_matrix(p) for p in found if p is not None]
        if not matrices or len(matrices) < len(numbers):
            return None
        settings = {trial.number: trial.settings for trial in self.data.trials}
        names = self.data.classes_of(settings[numbers[0]])
        if other := [n for n in numbers if self.data.classes_of(settings[n]) != names]:
            raise UsageError(f"trial {other[0]} predicts other classes than trial {numbers[0]}")
        if len(matrices) == 1:
            title = "All folds of the winner" if pooled else f"Trial {numbers[0]}"
            return reporting.confusion_figure(matrices[0], class_names=names, title=title)
        titles = [f"Trial {number}" for number in numbers]
        return reporting.confusions_figure(matrices, titles=titles, class_names=names)

    @speaking_python
    def by(self, metric: str) -> StudyResult:
        """Return the study ranked by another metric of the validation images, from the stored predictions.

        Args:
            metric: "accuracy", "balanced_accuracy", "macro_f1", "loss", "top3", "auc", "ece" (calibration error), or
                "recall:CLASS".  Of a function any metric that it returned: one that is called "loss", "rmse" or the
                like is minimized, any other maximized, unless ":minimize" or ":maximize" follows its name.

        Raises:
            UsageError: no such metric, no such class, or results without a store.
            ArtifactError: it cannot be computed from the stored predictions.

        Warns:
            GridsearchWarning: trials that do not have it.
        """
        return self._chosen(by=metric, write=False)

    @speaking_python
    def pareto(self, *quantities: str, model: str | Sequence[str] = ()) -> pd.DataFrame:
        """Return the points with several quantities; those that no other point beats in all of them come first.

        Args:
            *quantities: two or more: any metric of `by`, "parameters", "latency" (milliseconds for one image, by ONNX
                Runtime on this machine) or "seconds"; default: accuracy, parameters and latency.
            model: your own models ("file.py:Name"), to measure their latency.

        Returns:
            Params, each quantity with the ends of its interval (`_low`, `_high`), `front`, and `open` where the
            intervals leave open whether a point is beaten.

        Raises:
            GridsearchError: as on the command line; `exit_code` says which kind.

        Warns:
            GridsearchWarning: networks that could not be measured, and why.
        """
        from gridsearch import reporting
        from gridsearch.service.queries import reports, studies

        places, notes = self._places(), list[str]()
        asked = reports.ParetoQuestion(
            words=quantities or ("accuracy", "parameters", "latency"),
            places=places,
            models=[model] if isinstance(model, str) else model,
        )
        with studies.existing(places) as store:
            read = reports.reader(store, self.data)
            found = reports.pareto_of(store, self.data, asked, self.ranking, predictions=read, warnings=notes)
        for note in notes:
            warn(note)
        return reporting.pareto_frame(found)

    @speaking_python
    def report(
        self,
        *,
        by: str | None = None,
        where: Mapping[str, Value] | None = None,
        pareto: Sequence[str] | None = None,
    ) -> StudyResult:
        """Write the report's page and tables, as `gridsearch report` does, and return what they show.

        Args:
            by: the metric that ranks, see `by`; default: the one of these results.
            where: only the trials with these values.
            pareto: quantities for a Pareto front, see `pareto`.

        Raises:
            GridsearchError: as on the command line; `exit_code` says which kind.

        Warns:
            GridsearchWarning: what could not be shown, and why.
        """
        return self._chosen(by=by, where=where, write=True, pareto=pareto)

    @speaking_python
    def show(self) -> Path | None:
        """Write the report of these results, and open its page in the browser, as `--open` does.

        Returns:
            The page's path; None if the home cannot be written.

        Raises:
            GridsearchError: as on the command line; `exit_code` says which kind.

        Warns:
            GridsearchWarning: what could not be shown, and why; the page's path if there is no browser.
        """
        page = self._chosen(by=None, write=True).report_page
        if page is not None and (problem := web_browser.open_page(page)):
            warn(problem)
        return page

    def _places(self) -> Places:
        if self.places is None:
            raise UsageError("these results were made without a store, so there are no stored predictions")
        return self.places

    def _chosen(
        self,
        *,
        by: str | None,
        write: bool,
        where: Mapping[str, Value] | None = None,
        pareto: Sequence[str] | None = None,
    ) -> StudyResult:
        from gridsearch.api.keywords import where_of
        from gridsearch.service.queries import reports, studies

        places = self._places()
        with studies.existing(places) as store:
            if not write:
                data, notes = reports.chosen(store, self.data, by=by)
                found = replace(self, data=data, ranking=reports.rank_study(store, data), report_page=None)
            else:
                asked = None if pareto is None else reports.ParetoQuestion(words=pareto, places=places)
                made = reports.make_report(
                    store,
                    self.study,
                    where=where_of(where),
                    by=by,
                    data=self.data,
                    root=places.data,
                    pareto=asked,
                )
                found = replace(self, data=made.data, ranking=made.ranking, report_page=made.page)
                notes = made.warnings
        for note in notes:
            warn(note)
        return found

    @speaking_python
    def export(self, to: str, output: str | os.PathLike[str] | None = None) -> str:
        """Export the study as it is in the store now, as `gridsearch export` does.

        Args:
            to: "mlflow", "wandb-offline", "csv", "json", "latex" or "markdown".
            output: MLflow's tracking URI, a folder for W&B's runs, or a file for a table; default: in the home, and
                tables are returned.

        Returns:
            The table, or where it was written.

        Raises:
            UsageError: an unknown target, one whose package is not installed, or a result without a store.
            StoreError: what is there cannot be written to.
        """
        from gridsearch.service.queries import exporting, studies

        exporting.require_target(to)
        if self.places is None:
            raise UsageError(f"export({to!r}): this result comes from no store")
        with studies.existing(self.places) as store:
            where = None if output is None else os.fspath(output)
            made = exporting.export(store, self.study, to=to, output=where)
        return made.text or made.where

    @property
    def test(self) -> Mapping[str, Any] | None:
        """What `best` found on the test images, None before it has read them."""
        return self.data.test

    def to_json(self) -> dict[str, Any]:
        """Return the content of `gridsearch report --json`."""
        from gridsearch import reporting

        return reporting.report_json(self.data, ranking=self.ranking)
