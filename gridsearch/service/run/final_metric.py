"""Gives a trial that has ended the metric that ranks its study, where training does not compute it.

Stands between the recorder, to whom results come, and the store: the metric is that of the predictions that the trial
has left in its scratch folder, which the store is about to keep.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from gridsearch.files import PREDICTIONS
from gridsearch.records import TrialState
from gridsearch.records.image_metrics import known_metric, label_of
from gridsearch.service.queries.reports import as_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridsearch.records import DataFacts, Trial, TrialFinished
    from gridsearch.store import Home


class FinalMetric:
    """Computes one metric of the trials of one study.

    Args:
        metric: its name; one that trials record themselves, or that is not of images, is left to them.
        home: the files.
        study: the study's name.
        facts: what is known of its trials' images, by fingerprint.
    """

    def __init__(self, metric: str, *, home: Home, study: str, facts: Mapping[str, DataFacts]) -> None:
        known = known_metric(metric)
        self._missing = known is not None and not known.recorded
        self._metric = metric
        self._home = home
        self._study = study
        self._facts = facts

    def added(self, trial: Trial, event: TrialFinished) -> TrialFinished:
        """Return a result with the metric; one whose predictions cannot give it has no value that ranks.

        Args:
            trial: as it was claimed.
            event: its result, whose files are in its scratch folder.

        Raises:
            ArtifactError: its predictions are not there or altered.
        """
        ref = next((ref for ref in event.files if ref.name == PREDICTIONS), None)
        if not self._missing or event.state is not TrialState.COMPLETE or ref is None:
            return event
        from gridsearch.reporting.stats.prediction_scores import ImageScores, Unmeasured

        place = self._home.scratch(self._study, trial.number, trial.attempt) / ref.name
        scores = ImageScores(as_predictions(self._home.read_verified(place, ref.sha256)))
        facts = self._facts.get(trial.settings.data_fingerprint)
        label = label_of(self._metric, facts.class_names if facts is not None else ())
        try:
            value, message = scores.value(self._metric, label=label), event.message
        except Unmeasured as error:
            value, message = math.nan, f"no {self._metric}: {error}"
        return dataclasses.replace(event, metrics={**event.metrics, self._metric: value}, message=message)
