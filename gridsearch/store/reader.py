"""The open store as it is read: every method is one transaction that changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from gridsearch.advice import place
from gridsearch.errors import FolderTaken
from gridsearch.store import claims, deletion, row_lookup, study_queries, worker_queries
from gridsearch.store.artifacts import Home
from gridsearch.store.runner_identity import RunnerIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path
    from types import TracebackType

    from sqlalchemy import Connection

    from gridsearch.records import EpochRow, StudyData, Trial, TrialRecord, TrialState
    from gridsearch.store.database import Database
    from gridsearch.store.messages import (
        Artifact,
        IdleRunner,
        OpenStudy,
        OpenTrial,
        RunnerAtWork,
        StudySummary,
        TrialCurve,
    )


class StoreReader:
    """What can be read of an open store; a context manager that closes it.

    Args:
        database: the database.
        url: how it is named.
        home: folder of the artifacts.
        dead: says whether an owner has certainly ended.
    """

    def __init__(
        self,
        database: Database,
        *,
        url: str,
        home: Path,
        dead: Callable[[RunnerIdentity], bool] = RunnerIdentity.is_dead,
    ) -> None:
        self.url = url
        self.home = Home(home, store=url)
        self._database = database
        self._dead = dead

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    @property
    def place(self) -> str:
        """The database as messages name it."""
        return self._database.place

    def problems(self) -> tuple[str, ...]:
        """Return what an integrity check of the whole database finds, nothing if all is well."""
        return self._database.problems()

    # What is there.

    def studies(self, *, sizes: bool = True) -> list[StudySummary]:
        """Return all studies, oldest first.

        Args:
            sizes: measure their files as well; without, each has size 0.
        """
        with self._database.read() as connection:
            return study_queries.studies(
                connection,
                home=self.home if sizes else None,
                abandoned=lambda i: self._abandoned(connection, i),
            )

    def marks(self) -> dict[str, str]:
        """Return for each study what changes whenever one of its trials does, or its test images are read."""
        with self._database.read() as connection:
            return study_queries.marks(connection)

    def names(self) -> list[str]:
        """Return the names of all studies; `studies` counts their trials and measures their files besides."""
        with self._database.read() as connection:
            return row_lookup.names(connection)

    def _abandoned(self, connection: Connection, study_id: int) -> Collection[int]:
        return claims.abandoned(connection, study_id, dead=self._dead)

    def ledger(self, study: str) -> list[Trial]:
        """Return all trials of a study in the order in which it got them; none if there is no such study."""
        with self._database.read() as connection:
            names, rows = study_queries.ledger(connection, study)
            return [claims.as_trial(row, names) for row in rows]

    def study_data(self, study: str) -> StudyData:
        """Return a study with all its trials and epochs; those whose runner is gone wait.

        Raises:
            StudyNotFound: there is no such study.
        """
        with self._database.read() as connection:
            data = study_queries.study_data(
                connection, study, abandoned=lambda i: self._abandoned(connection, i)
            )
        return replace(data, advice=replace(data.again, where=place(self.home.root, self.url)))

    def runners(self, study: str) -> list[RunnerAtWork]:
        """Return who holds trials of a study, runners that are gone included.

        Raises:
            StudyNotFound: there is no such study.
        """
        with self._database.read() as connection:
            study_id = row_lookup.find_study(connection, study).id
            return claims.runners(connection, study_id, dead=self._dead)

    def anybody_at_work(self, *, within: float) -> bool:
        """Return whether a runner of any study was seen within so many seconds and may still live."""
        with self._database.read() as connection:
            return bool(claims.at_work(connection, dead=self._dead, within=within))

    def open_studies(self) -> list[OpenStudy]:
        """Return all studies with how many of their trials wait and run, oldest first."""
        with self._database.read() as connection:
            return worker_queries.open_studies(connection, abandoned=lambda i: self._abandoned(connection, i))

    def open_trials(self, study: str) -> list[OpenTrial]:
        """Return the trials of a study that wait or run, in the order in which it got them.

        Raises:
            StudyNotFound: there is no such study.
        """
        with self._database.read() as connection:
            study_id = row_lookup.find_study(connection, study).id
            return worker_queries.open_trials(
                connection, study_id, abandoned=lambda i: self._abandoned(connection, i)
            )

    def idle_runners(self, *, within: float) -> list[IdleRunner]:
        """Return the runners that hold no trial, were seen within so many seconds, and may still live."""
        with self._database.read() as connection:
            return worker_queries.idle_runners(connection, dead=self._dead, within=within)

    def is_gone(self, owner: RunnerIdentity) -> bool:
        """Return whether a runner has ended, or, on another machine, has not been seen for as long as a lease."""
        if self._dead(owner) or owner == RunnerIdentity.current():
            return True
        with self._database.read() as connection:
            return owner.is_elsewhere and claims.is_silent(connection, owner)

    def holds(self, uid: str) -> bool:
        """Return whether a study that bears this id is there."""
        with self._database.read() as connection:
            return row_lookup.is_there(connection, uid)

    def trial_record(self, study: str, number: int) -> tuple[TrialRecord, tuple[EpochRow, ...]]:
        """Return one trial and its epochs.

        Raises:
            StudyNotFound: there is no such study.
            StoreError: the study has no such trial.
        """
        with self._database.read() as connection:
            return study_queries.trial_record(connection, study, number)

    def spec(self, study: str) -> Mapping[str, Any]:
        """Return the spec that a study was last asked for with.

        Raises:
            StudyNotFound: there is no such study.
        """
        with self._database.read() as connection:
            return study_queries.spec_of(connection, study)

    def study_id(self, study: str) -> int:
        """Return the ledger's id of a study.

        Raises:
            StudyNotFound: there is no such study.
        """
        with self._database.read() as connection:
            return int(row_lookup.find_study(connection, study).id)

    def running_packs(self, study: str) -> int:
        """Return how many packs of a study train now, of all runners.

        Raises:
            StudyNotFound: there is no such study.
        """
        with self._database.read() as connection:
            return study_queries.running_packs(connection, row_lookup.find_study(connection, study).id)

    def curves(
        self, study_id: int, known: Mapping[int, tuple[int, int, TrialState]] | None = None
    ) -> list[TrialCurve]:
        """Return what each trial of a study has shown, but for those known by attempt, epochs and state."""
        with self._database.read() as connection:
            return study_queries.curves(connection, study_id, known or {})

    def artifacts(self, study: str, number: int | None = None) -> dict[str, Artifact]:
        """Return the recorded files of a trial, or of the study itself, by name.

        Raises:
            StudyNotFound: there is no such study.
        """
        with self._database.read() as connection:
            return study_queries.artifacts(connection, study, number)

    def hashes(self, study: str, name: str) -> dict[int, str]:
        """Return the SHA-256 of the file of this name of each trial that has one, by the trial's number.

        Raises:
            StudyNotFound: there is no such study.
        """
        with self._database.read() as connection:
            return study_queries.hashes(connection, row_lookup.find_study(connection, study).id, name)

    def is_folder_of(self, study: str) -> bool:
        """Return whether the files in a study's folder are its own, and not those of another store's study.

        Raises:
            StudyNotFound: there is no such study.
        """
        return self.folder_problem(study) is None

    def folder_problem(self, study: str) -> str | None:
        """Return what is wrong with a study's folder: that another store's study has it; None if nothing is.

        Raises:
            StudyNotFound: there is no such study.
        """
        with self._database.read() as connection:
            uid = row_lookup.find_study(connection, study).uid
        try:
            self.home.require(study, uid, fresh=False)
        except FolderTaken as error:
            return error.message
        return None

    def remnants(self) -> tuple[str, ...]:
        """Return the names of studies that a deletion which was cut off has left in part."""
        with self._database.read() as connection:
            return deletion.remnants(connection)
