"""TensorBoard runs of the trials that train now: written epoch by epoch, so that one can watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.records import TrialState, trial_key
from gridsearch.reporting import TensorBoardRun

if TYPE_CHECKING:
    from gridsearch.records import EpochEnded, Trial, TrialFailed, TrialFinished
    from gridsearch.store import Home


class Boards:
    """The runs of one study.

    Args:
        home: the files.
        study: the study's name.
    """

    def __init__(self, home: Home, study: str) -> None:
        self._home = home
        self._study = study
        self._runs: dict[int, TensorBoardRun] = {}

    def start(self, trial: Trial) -> None:
        """Begin a trial's run anew; an earlier attempt's events go."""
        run = TensorBoardRun(self._home.tensorboard_dir(self._study, trial.number))
        run.start({**trial.params, "seed": trial.seed}, group=trial_key(trial.settings, 0)[:16])
        self._runs[trial.id] = run

    def epoch(self, event: EpochEnded) -> None:
        """Add an epoch."""
        if run := self._runs.get(event.trial):
            run.epoch(event)

    def finish(self, event: TrialFinished | TrialFailed) -> None:
        """End a trial's run."""
        run = self._runs.pop(event.trial, None)
        if run is None:
            return
        state = getattr(event, "state", TrialState.FAILED)
        run.finish(getattr(event, "metrics", {}), epochs=getattr(event, "epochs", 0), state=state)
