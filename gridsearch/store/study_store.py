"""The store as studies are changed as a whole: renamed, stopped, tested, deleted; files shown and taken away."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, select

from gridsearch.errors import ArtifactError, UsageError
from gridsearch.files import WEIGHTS
from gridsearch.store import (
    claims,
    dashboard_artifacts,
    deletion,
    ledger_tables,
    optuna_studies,
    presence,
    reconcile,
    row_lookup,
    stops,
    study_queries,
)
from gridsearch.store.artifacts import file_name
from gridsearch.store.database import StoreFull, retried
from gridsearch.store.kept_weights import WEIGHTS_KEPT, KeptWeights
from gridsearch.store.reader import StoreReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from gridsearch.store.messages import (
        RunnerAtWork,
    )


class StudyStore(StoreReader):
    """What can be changed of the studies of an open store, but for the life of their trials; see `Store`."""

    @retried
    def request_stop(self, study: str, *, at_once: bool) -> list[RunnerAtWork]:
        """Ask all that run a study now to stop; return those that hold trials of it.

        Args:
            study: its name.
            at_once: not at the next epoch's end.

        Raises:
            StudyNotFound: there is no such study.
        """
        with self._writing() as connection:
            study_id = row_lookup.find_study(connection, study).id
            stops.ask(connection, study_id, at_once=at_once)
            return [each for each in claims.runners(connection, study_id, dead=self._dead) if not each.gone]

    @retried
    def retitle(self, optuna_id: int, title: str) -> dict[str, Any] | None:
        """Give a study another name in Optuna's tables; its name here and its files stay.

        Returns:
            What Optuna's tables say of the study then, None if there is none of that id.

        Raises:
            UsageError: another study has that name.
        """
        with self._database.write() as connection:
            there = optuna_studies.study_named(connection, title)
            if there not in (None, optuna_id):
                raise UsageError(f"a study named {title!r} is there already")
            optuna_studies.rename_study(connection, optuna_id, title)
            return optuna_studies.description(connection, optuna_id)

    @retried
    def delete_optuna_study(self, optuna_id: int) -> bool:
        """Delete a study from Optuna's tables, with what the dashboard shows of it; return whether it was there.

        The ledger drops it when it is next written; the files of its trials stay.
        """
        with self._database.write() as connection:
            if optuna_studies.description(connection, optuna_id) is None:
                return False
            copies = deletion.copies(connection, optuna_id)
            optuna_studies.delete_study(connection, optuna_id)
        self.home.remove_copies(copies)
        return True

    @retried
    def clear_remnant(self, name: str) -> bool:
        """Delete what is left of a study, or an empty study of Optuna's; return whether there was any."""
        with self._database.write() as connection:
            return deletion.clear_remnant(connection, name)

    @retried
    def add_artifact(
        self, *, study: str, number: int | None = None, path: Path, mimetype: str | None = None
    ) -> None:
        """Show a file in Optuna's dashboard, with a trial or (without a number) with the study.

        A file of the same name replaces the one that was shown before.

        Raises:
            StudyNotFound: there is no such study.
            StoreError: the study has no such trial.
            ArtifactError: the file cannot be read.
        """
        name = file_name(path.name)
        with self._database.read() as connection:
            row = row_lookup.find_study(connection, study)
            if number is not None:
                row_lookup.optuna_id_of(connection, row, number)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error
        file = dashboard_artifacts.copy(
            self.home, uid=row.uid, number=number, name=name, content=content, mimetype=mimetype
        )
        with self._database.write_rows() as connection:
            row = row_lookup.find_study(connection, study)
            trial_id = None if number is None else row_lookup.optuna_id_of(connection, row, number)
            dashboard_artifacts.register(
                connection, [(file, trial_id)], study_id=row.id, optuna_id=row.optuna_id
            )

    @retried
    def show(self, study: str, number: int, files: Mapping[str, bytes]) -> None:
        """Show files by name with a trial in Optuna's dashboard.

        Raises:
            StudyNotFound: there is no such study.
            StoreError: the study has no such trial.
        """
        with self._database.read() as connection:
            uid = row_lookup.find_study(connection, study).uid
        copies = [
            dashboard_artifacts.copy(self.home, uid=uid, number=number, name=name, content=content)
            for name, content in files.items()
        ]
        with self._database.write_rows() as connection:
            row = row_lookup.find_study(connection, study)
            trial_id = row_lookup.optuna_id_of(connection, row, number)
            dashboard_artifacts.register(
                connection, [(file, trial_id) for file in copies], study_id=row.id, optuna_id=row.optuna_id
            )

    @retried
    def record_test(self, study_id: int, result: Mapping[str, Any], *, nth: int) -> bool:
        """Record what the test images showed; return False if somebody else recorded that reading meanwhile.

        Args:
            study_id: the ledger's id of the study; its name may be another one's by now.
            result: JSON-able; what `StudyData.test` gives from now on.
            nth: which reading of them it is, from 1; the first alone is a clean test.

        Raises:
            StudyDeleted: there is no such study.
        """
        with self._database.write() as connection:
            reconcile.relink(connection)
            presence.require_study(connection, study_id)
            s = ledger_tables.studies
            row = connection.execute(select(s).where(s.c.id == study_id)).one()
            there = study_queries.tests(connection, row)
            if len(there) != nth - 1:
                return False
            attribute = {study_queries.TEST_ATTRIBUTE: [*there, dict(result)]}
            optuna_studies.set_study_user_attributes(connection, row.optuna_id, attribute)
        return True

    def kept_weights(self, study: str) -> KeptWeights:
        """Return what decides, as results come in, which trials keep their weights.

        Raises:
            StudyNotFound: there is no such study.
        """
        with self._database.read() as connection:
            row = row_lookup.find_study(connection, study)
            best = study_queries.best_values(connection, row, WEIGHTS_KEPT)
            having = study_queries.numbers_with(connection, row.id, WEIGHTS)
        return KeptWeights(best, having=having, direction=row.direction)

    def prune_weights(self, study: str, *, keep: int = WEIGHTS_KEPT) -> int:
        """Remove the weights of all but the best trials; return how many files went.

        Raises:
            StudyNotFound: there is no such study.
        """
        with self._database.read() as connection:
            row = row_lookup.find_study(connection, study)
            best = {number for _, number in study_queries.best_values(connection, row, keep)}
            there = study_queries.numbers_with(connection, row.id, WEIGHTS)
        return self.drop_weights(study, [number for number in there if number not in best])

    @retried
    def drop_weights(self, study: str, numbers: Sequence[int]) -> int:
        """Remove the weights of trials; return how many these are.

        Raises:
            StudyNotFound: there is no such study.
        """
        if not numbers:
            return 0
        a = ledger_tables.artifacts
        with self._database.write_rows() as connection:
            row = row_lookup.find_study(connection, study)
            for number in numbers:  # before the commit: a file without its row would never be found again
                self.home.remove_trial_file(study, number, WEIGHTS)
            for some in ledger_tables.chunks(numbers):
                rows = (a.c.study_id == row.id, a.c.name == WEIGHTS, a.c.number.in_(some))
                connection.execute(delete(a).where(*rows))
        return len(numbers)

    def take_folder(self, study: str) -> None:
        """Mark the folder of a study as its own, before its first file is written; see `Home.take`.

        Raises:
            StudyNotFound: there is no such study.
            FolderTaken: another store's study has it.
            StoreError: the mark cannot be written.
        """
        with self._database.read() as connection:
            uid = row_lookup.find_study(connection, study).uid
        self.home.take(study, uid)

    @retried
    def delete_study(self, study: str) -> int:
        """Delete a study with its trials and files; return the number of bytes that were freed.

        Files that another store needs stay; see `Home.others`.  Where the disk has no room for what SQLite notes
        meanwhile, the files go first: they are the room.

        Raises:
            StudyNotFound: there is no such study.
            StoreError: the store cannot be written.
        """
        with self._database.read() as connection:
            uid = deletion.uid_of(connection, study)
        if self.home.others(study):
            self._delete_rows(study)
            self.home.leave(study, uid)
            return self.home.end_removal(study)
        freed = 0
        with self.home.set_aside(study):
            try:
                self._delete_rows(study)
            except StoreFull:
                freed = self.home.end_removal(study)
                self._delete_rows(study)
        return freed + self.home.remove_study(study)

    def _delete_rows(self, study: str) -> None:
        with self._database.write() as connection:
            # before the commit: without its row a copy would never be found again
            self.home.remove_copies(deletion.remove(connection, study))

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Give a transaction that writes rows; studies that others copied under another name are followed in it."""
        with self._database.write_rows() as connection:
            reconcile.relink(connection)
            yield connection

    def _follow(self) -> None:
        """Follow studies that others copied under another name meanwhile: their claims still hold."""
        with self._database.read() as connection:
            if not reconcile.moved(connection):
                return
        with self._writing():
            pass
