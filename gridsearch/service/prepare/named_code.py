"""The user's own code that a worker's command line names, and what of it each study in the store needs.

A store never makes code run: what it holds of a study names its code, and here is what of that may run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch import locators
from gridsearch.records.study_kinds import IMAGES
from gridsearch.service.prepare.prepared import Given

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.records import StudyData


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCode:
    """Locators of models, datasets and functions, for any number of studies.

    Attributes:
        models: of the user's own models, optimizers and augmentations.
        datasets: of the user's own datasets, and where folders of images are here.
        objectives: of the user's own functions.
    """

    models: Sequence[str] = ()
    datasets: Sequence[str] = ()
    objectives: Sequence[str] = ()

    def given(self, data: StudyData) -> Given:
        """Return what of it a study needs, by the names that its trials bear; whether it is the same is checked later.

        Args:
            data: the study, with the trials that are to be trained.
        """
        if data.kind is not IMAGES:
            return Given(objective=_named_as(data.dataset, self.objectives))
        uses = {file_of(name) for trial in data.trials for _, name in trial.settings.uses}
        return Given(
            dataset=_named_as(data.dataset, self.datasets),
            models=tuple(locator for locator in self.models if file_of(locator) in uses),
        )


def _named_as(name: str, locators: Sequence[str]) -> str | None:
    return next((locator for locator in locators if file_of(locator) == file_of(name)), None)


def file_of(locator: str) -> str:
    """Return what a locator says without its folders: `my_net.py:Net` of `nets/my_net.py:Net`, `folder:cats` too."""
    place = locators.placed(locator)
    return locator.rpartition("/")[2] if place is None else locators.short_name(*place)
