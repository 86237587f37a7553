"""TensorBoard's runs under names that say what they are: ``fmnist/3 lr=0.1 batch=16`` for ``fmnist/tensorboard/3``.

A trial's files lie under its number, which never changes; what is named by its params is a folder of links to
them, made when TensorBoard is started and kept up with the trials that start meanwhile.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from gridsearch.errors import StudyNotFound
from gridsearch.reporting.words.text import show_params, show_replicate
from gridsearch.service.queries.studies import existing
from gridsearch.spec.words import Worded, words_of
from gridsearch.store import Home

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gridsearch.records import Trial
    from gridsearch.service.prepare.options import Places
    from gridsearch.spec.words import Words

_UNSAFE = re.compile(r"[^\w.=,+@ -]")
"""What some file system or TensorBoard's own address line does not take in a name."""

_LONGEST_NAME = 200
"""Bytes; a file's name may have 255."""


class NamedRuns:
    """A folder in which the runs of some studies bear names.

    Attributes:
        study: the one whose runs are there, None where that is all of them, or none yet.
        others: how many older studies there were when the newest was chosen.

    Args:
        folder: an empty one, which is filled with links.
        places: where the studies lie.
        study: only this one; None for the newest that there is when it is first looked for.
        every: all studies, those to come included.

    Raises:
        OSError: links cannot be made here.
    """

    def __init__(
        self, folder: Path, places: Places, *, study: str | None = None, every: bool = False
    ) -> None:
        self.folder = folder
        self.study = study
        self.others = 0
        self._places = places
        self._every = every
        self._linked: dict[str, set[int]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Link the runs that have begun since."""
        home = Home(self._places.home)
        for study in self._studies():
            new = _runs(home.tensorboard_dir(study)) - self._linked.setdefault(study, set())
            if not new:
                continue
            place = self.folder / study
            place.mkdir(exist_ok=True)
            for number, name in self._named(study, new):
                (place / name).symlink_to(home.tensorboard_dir(study, number), target_is_directory=True)
            self._linked[study] |= new

    def _studies(self) -> Sequence[str]:
        if self.study is not None:
            return (self.study,)
        with existing(self._places) as store:
            names = store.names()
        if self._every or not names:
            return names
        self.study, self.others = names[-1], len(names) - 1
        return (self.study,)

    def _named(self, study: str, numbers: set[int]) -> Iterator[tuple[int, str]]:
        """Give each run its name; one that the ledger does not know keeps its number."""
        try:
            with existing(self._places) as store:
                trials = {trial.number: trial for trial in store.ledger(study)}
        except StudyNotFound:
            trials = {}
        words = words_of(trial.params for trial in trials.values())
        points = Counter(tuple(sorted(trial.params.items(), key=str)) for trial in trials.values())
        replicated = max(points.values(), default=1) > 1
        for number in sorted(numbers):
            trial = trials.get(number)
            yield number, str(number) if trial is None else run_name(trial, words, replicated=replicated)


def run_name(trial: Trial, words: Words, *, replicated: bool) -> str:
    """Return the name of a trial's run: its number, its params as they were typed, its seed where there are several.

    Args:
        trial: as the ledger has it.
        words: of the study.
        replicated: whether some points of the study have several seeds.
    """
    params = show_params(Worded(trial.params, words), tuple(trial.params)) if trial.params else ""
    seed = show_replicate(trial) if replicated else ""
    name = _UNSAFE.sub("_", " ".join(part for part in (str(trial.number), params, seed) if part))
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore").strip()


def _runs(folder: Path) -> set[int]:
    """Return the numbers under which trials have written runs."""
    return (
        {int(each.name) for each in folder.iterdir() if each.name.isdecimal()} if folder.is_dir() else set()
    )
