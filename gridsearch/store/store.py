"""The store as a run writes it: every method is one transaction over the ledger and Optuna's tables."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sqlalchemy import select

from gridsearch.records import (
    Advance,
    Trial,
    TrialDraft,
    TrialFailed,
    TrialFinished,
    TrialResumed,
    TrialState,
)
from gridsearch.store import (
    adding,
    claims,
    dashboard_artifacts,
    ledger_tables,
    presence,
    result_writer,
    row_lookup,
    study_queries,
    worker_queries,
)
from gridsearch.store.database import retried
from gridsearch.store.params import StudyAxes
from gridsearch.store.runner_identity import RunnerIdentity
from gridsearch.store.study_store import StudyStore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from gridsearch.records import FileRef
    from gridsearch.store.database import Database
    from gridsearch.store.messages import (
        Added,
        Reclaimed,
        StudyDraft,
    )


class Store(StudyStore):
    """An open store; a context manager that closes it.

    It may be used by several threads.  Any method raises StoreError when the file is damaged, read-only or
    full, and StoreUnreachable when another process holds its lock for more than a minute.

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
        super().__init__(database, url=url, home=home, dead=dead)
        self._held: dict[int, int] = {}  # trial -> attempt, of all claims made through this object
        self._lock = threading.Lock()

    # The trials' life.

    def waiting(self, study_id: int, ids: Collection[int] | None = None) -> list[Trial]:
        """Return the trials of a study (or those of `ids` among them) that wait, by number.

        Raises:
            StoreError: the study was deleted.
        """
        wanted = None if ids is None else set(ids)
        self._follow()
        with self._database.read() as connection:
            presence.require_study(connection, study_id)
            rows = study_queries.rows_of_study(connection, study_id, state=TrialState.WAITING)
            shown = connection.scalar(
                select(ledger_tables.studies.c.shown).where(ledger_tables.studies.c.id == study_id)
            )
        names = StudyAxes.from_json(shown or "").names
        return [claims.as_trial(row, names) for row in rows if wanted is None or row.id in wanted]

    def open_counts(self, study_id: int, ids: Collection[int] | None = None) -> dict[TrialState, int]:
        """Return how many trials of a study (or of `ids`) are in each state; all states are present.

        Raises:
            StoreError: the study was deleted.
        """
        self._follow()
        with self._database.read() as connection:
            presence.require_study(connection, study_id)
            return study_queries.counts(connection, study_id, ids)

    @retried
    def add(self, study: StudyDraft, drafts: Sequence[TrialDraft], *, prune: bool = False) -> Added:
        """Insert the trials of a grid that the store lacks, and offer again those that failed.

        Args:
            study: the study, made if it is not there.
            drafts: all trials that the grid asks for.
            prune: whether pruning is on; if not, PRUNED trials are offered again.

        Raises:
            UsageError: the study's name is not allowed, or it holds another dataset or metric.
            StoreError: a study of that name is there that gridsearch did not make.
            FolderTaken: another store's study of that name has its folder.
        """
        self.home.study_dir(study.name)
        s = ledger_tables.studies
        with self._database.write() as connection:
            there = connection.scalar(select(s.c.uid).where(s.c.name == study.name))
            if there is not None:
                self.home.require(study.name, there)
            return adding.add(
                connection,
                study,
                drafts,
                prune=prune,
                begins=lambda: self.home.begin(study.name),
            )

    def claim(self, ids: Sequence[int], *, owner: RunnerIdentity, pack: str, lease: float) -> list[Trial]:
        """Take those of these trials that wait; return them as they are now, in the order of `ids`.

        Args:
            ids: ledger ids.
            owner: who will work on them.
            pack: id of the pack in which they train together.
            lease: seconds until others may take them, unless `heartbeat` extends it.
        """
        return self.claim_packs({pack: ids}, owner=owner, lease=lease)[pack]

    @retried
    def claim_packs(
        self, packs: Mapping[str, Sequence[int]], *, owner: RunnerIdentity, lease: float
    ) -> dict[str, list[Trial]]:
        """Take the trials of several packs in one transaction, see `claim`.

        Args:
            packs: ledger ids by the packs' ids; at least one pack, and no trial twice.
            owner: who will work on them.
            lease: seconds until others may take them.
        """
        with self._writing() as connection:
            taken = claims.claim(connection, packs, owner=owner, lease=lease)
        with self._lock:
            self._held |= {trial.id: trial.attempt for trials in taken.values() for trial in trials}
        return taken

    @retried
    def move_claims(self, packs: Mapping[int, str]) -> None:
        """Note that trials train in other packs than those for which they were claimed.

        Args:
            packs: ids of packs by the ledger ids of the trials; at least one.
        """
        with self._writing() as connection:
            claims.set_packs(connection, packs)

    @retried
    def heartbeat(self, owner: RunnerIdentity, *, lease: float) -> set[int]:
        """Extend the leases of all that an owner holds; return the trials lost since the last call."""
        with self._lock:
            believed = set(self._held.items())
        with self._writing() as connection:
            holds = claims.renew(connection, owner, lease=lease)
        with self._lock:
            lost = {pair for pair in believed - holds if self._held.get(pair[0]) == pair[1]}
            for trial, _ in lost:
                del self._held[trial]
        return {trial for trial, _ in lost}

    @retried
    def announce(self, owner: RunnerIdentity) -> None:
        """Note that a runner is there, though it holds nothing."""
        with self._database.write_rows() as connection:
            claims.register(connection, owner)

    @retried
    def depart(self, owner: RunnerIdentity) -> None:
        """Note that a runner ends, which holds nothing."""
        with self._database.write_rows() as connection:
            worker_queries.depart(connection, owner)

    @retried
    def reclaim(self, study_id: int) -> list[Reclaimed]:
        """Take back the claims of the dead on this host at once, and of anybody whose lease has ended.

        Nobody's try is counted: it was the runner that ended, not a trial that ended its worker.
        """
        with self._writing() as connection:
            return claims.reclaim(connection, study_id, dead=self._dead, home=self.home)

    @retried
    def requeue(
        self, held: Collection[tuple[int, int]], *, retries: int, reason: str = "worker died"
    ) -> list[Reclaimed]:
        """Let trials (id, attempt) wait again whose worker died; those tried often enough have FAILED."""
        pairs = list(held)
        with self._writing() as connection:
            rows = claims.held(connection, pairs)
            again = [row for row in rows if row.tries <= retries]
            epochs = claims.put_back(connection, again, tries_back=0, home=self.home)
            spent = [
                TrialFailed(
                    trial=row.id,
                    attempt=row.attempt,
                    reason="died",
                    message=f"{reason}, {row.tries} times" if row.tries > 1 else reason,
                    traceback="",
                )
                for row in rows
                if row.tries > retries
            ]
            result_writer.write_results(connection, spent, home=self.home)
        self._forget(pairs)
        for row in rows:
            if row.id not in epochs:
                self.home.drop_scratch(row.study, row.number)
        return [
            claims.reclaimed(row, tries=row.tries, epoch=epochs.get(row.id, 0), requeued=row.id in epochs)
            for row in rows
        ]

    @retried
    def release(self, held: Collection[tuple[int, int]]) -> int:
        """Give claims (id, attempt) back without counting them as tries; return how many still held."""
        pairs = list(held)
        with self._writing() as connection:
            count = claims.release(connection, pairs, home=self.home)
        self._forget(pairs)
        return count

    @retried
    def unclaim(self, ids: Collection[int], *, pack: str) -> int:
        """Give those of these trials back that were claimed for a pack, where nobody knows whether they were."""
        with self._writing() as connection:
            pairs = claims.claimed_for(connection, list(ids), pack)
            return claims.release(connection, pairs, home=self.home)

    @retried
    def record_epochs(self, events: Sequence[Advance]) -> int:
        """Write epochs and steps; return how many were accepted: not those of an attempt that has lost its claim."""
        with self._writing() as connection:
            return result_writer.record_epochs(connection, events)

    @retried
    def resume(self, events: Sequence[TrialResumed]) -> int:
        """Let running trials have recorded what their checkpoints hold, and nothing of later epochs.

        Returns:
            How many were accepted: not those of an attempt that has lost its claim.
        """
        with self._writing() as connection:
            return result_writer.resume(connection, events)

    def finish(self, event: TrialFinished, *, epochs: Sequence[Advance] = ()) -> bool:
        """Write a result; return False if the attempt has lost its claim, which then changes nothing."""
        return self.finish_many([event], epochs=epochs)[0]

    def fail(self, event: TrialFailed) -> bool:
        """Write that a trial could not be trained; return False if the attempt has lost its claim."""
        return self.finish_many([event])[0]

    @retried
    def finish_many(
        self,
        events: Sequence[TrialFinished | TrialFailed],
        *,
        epochs: Sequence[Advance] = (),
        shown: Mapping[int, Mapping[str, bytes]] | None = None,
    ) -> list[bool]:
        """Write how trials ended in one transaction and move their files from scratch to the trials' folders.

        Args:
            events: results and failures.
            epochs: epochs of any trials to write before them, see `record_epochs`.
            shown: files by name that Optuna's dashboard shows with a trial, by the ledger's id.  They come with
                the result: the dashboard does not read a finished trial again.

        Returns:
            For each event whether it was accepted.

        Raises:
            ArtifactError: a file is missing, or not the one that the worker announced; nothing is written.
        """
        pairs = [(e.trial, e.attempt) for e in events]
        self._follow()
        with self._database.read() as connection:
            rows = claims.held(connection, pairs, lock=False)
        by_claim = {(row.id, row.attempt): row for row in rows}
        announced: list[tuple[Path, FileRef, Path | None]] = []
        for e in events:
            row = by_claim.get((e.trial, e.attempt))
            if row is not None and isinstance(e, TrialFinished):
                scratch = self.home.scratch(row.study, row.number, row.attempt)
                for ref in e.files:
                    place = self.home.trial_file(row.study, row.number, ref.name)
                    announced.append((scratch / ref.name, ref, place))
        self.home.verify(announced)  # hashed before the lock is taken
        for row in rows:
            self.home.put_up_log(row.study, row.number)
        copies = {
            row.id: [
                dashboard_artifacts.copy(
                    self.home, uid=row.uid, number=row.number, name=name, content=content
                )
                for name, content in (shown or {}).get(row.id, {}).items()
            ]
            for row in rows
        }
        with self._database.write_rows() as connection:
            result_writer.record_epochs(connection, epochs)
            accepted = result_writer.write_results(connection, events, home=self.home, copies=copies)
        for row in rows:
            self.home.drop_scratch(row.study, row.number)
        self._forget(pairs)
        return accepted

    def clean(self, study: str) -> int:
        """Remove what unfinished attempts and writes have left of a study, but for trials that run; return the bytes.

        Raises:
            StudyNotFound: there is no such study.
            FolderTaken: another store's study has its folder.
            StoreError: a file cannot be removed.
        """
        with self._database.write() as connection:  # nobody claims a trial meanwhile
            row = row_lookup.find_study(connection, study)
            self.home.require(study, row.uid)
            left = self.home.unfinished(study, keep=claims.running(connection, row.id))
        return self.home.remove_unfinished(study, left)

    def drop_leftovers(self, study: str) -> None:
        """Remove what attempts at trials that have ended have left: a runner may be killed right after its commit."""
        for trial in self.ledger(study):
            if trial.state.ended:
                self.home.drop_scratch(study, trial.number)

    def _forget(self, pairs: Iterable[tuple[int, int]]) -> None:
        with self._lock:
            for trial, attempt in pairs:
                if self._held.get(trial) == attempt:
                    del self._held[trial]
