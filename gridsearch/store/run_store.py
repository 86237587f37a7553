"""The store as a run uses it: a store that is away for a while does not end the run.

Stands between the coordinator and `Store`.  While the file is locked by another process, cannot be read, or is not at
its place, training goes on: what is to be written waits in the spool, nothing is claimed, and the last counts known
stand.  `tend`, which the coordinator calls at every turn of its loop, tries again each second, writes what waits once
and in order, and gives up after `patience`.

There is no thread of its own for this: one thread keeps one order of writes, and the coordinator knows at once what was
accepted while all is well.  So that the workers' pipes are drained meanwhile, no call waits for a lock for longer than
five seconds.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from gridsearch.errors import StoreUnreachable, unwritable
from gridsearch.records import TrialState
from gridsearch.store import claims, presence, row_lookup, spool, stops
from gridsearch.store.database import may_return
from gridsearch.store.kept_weights import WEIGHTS_KEPT
from gridsearch.store.spool import Spool, SpoolRecord
from gridsearch.store.spool_replay import replay, take_in
from gridsearch.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from gridsearch.records import Advance, Trial, TrialFailed, TrialFinished, TrialResumed
    from gridsearch.store.messages import Reclaimed, RunnerAtWork, TrialCurve
    from gridsearch.store.run_of import RunOf
    from gridsearch.store.runner_identity import RunnerIdentity

T = TypeVar("T")
StopRequest: TypeAlias = Literal["epoch", "now"]

BUSY_SECONDS = 5.0
"""So long a call waits for another process's lock before the store counts as away."""

_TRY_SECONDS = 0.25
"""The same while it is away."""

_AGAIN_SECONDS = 1.0
"""So long after a vain try comes the next."""

_CHECK_SECONDS = 2.0
"""How often to ask whether the study is still there, and whether somebody wants the run to stop."""

_OTHERS_FIRST = 1 / 3
"""After the store was away nobody's lease that ended meanwhile is taken for such a part of a lease, more than there is
between two heartbeats: its runner waited as we did."""

_STEP_SECONDS = 5.0
"""By so much the store's clock must run ahead of the monotonic one to count as set forward."""


class RunStore(Store):
    """An open store that a run may go on without for a while.

    What `Store` says of its methods holds; while the store is away they answer as if all that is written were
    accepted, and as if there were nothing to claim.  A warning names each trial that turns out to be another
    runner's when the store is back.

    Args:
        store: the store, opened; this is another view of it.
        run: who uses it.

    Attributes:
        away: nothing can be written just now.
    """

    def __init__(self, store: Store, run: RunOf) -> None:
        database = store._database.beside()  # which waits for a minute, until workers wait for us: see `tend`
        super().__init__(database, url=store.url, home=store.home.root, dead=store._dead)
        self.home = self.home.bound()
        self._run = run
        self._spool = Spool(
            spool.roots(self.home.root, self.place),
            run.owner,
            store=database.identity,
            away=lambda: self.home.is_away,
        )
        self._counts = dict.fromkeys(TrialState, 0)
        self._away_since: float | None = None
        self._back_since = float("-inf")
        self._tried = self._checked = time.monotonic()
        with database.read() as connection:
            self._uid = presence.require_study(connection, run.study_id)
            self._stops = stops.asked(connection, run.study_id)
            self._clock_ahead = claims.store_time(connection) - time.monotonic()
            self._trials = row_lookup.count_trials(connection, run.study_id)
        self._stop: StopRequest | None = None
        self._lost: set[int] = set()

    @property
    def away(self) -> bool:
        """Whether the store could not be reached when it was needed last."""
        return self._away_since is not None

    def close(self) -> None:
        """Close all connections; what could not be written stays for the next run."""
        self._spool.close()
        super().close()

    # In the loop of a run

    def tend(self) -> None:
        """Try again if the store is away, else look now and then whether anything ends the run; call it often.

        Raises:
            StoreError: the study was deleted.
            StoreUnreachable: the store has been away for too long.
        """
        now = time.monotonic()
        if not self.away:
            self._database.busy = BUSY_SECONDS
            self.home_is_away()
        if self._away_since is None:
            if now - self._checked >= _CHECK_SECONDS:
                self._checked = now
                self._read(self._check, None)
        elif now - self._tried >= _AGAIN_SECONDS:
            self._come_back(self._away_since)
            self._tried = time.monotonic()

    def home_is_away(self) -> bool:
        """Return whether home is not at its place just now; the store then counts as away with it."""
        if self.home.is_away:
            self._leave(self._no_home())
        return self.home.is_away

    def _no_home(self) -> StoreUnreachable:
        return StoreUnreachable(f"home {self.home.root} is not there")

    def require(self) -> None:
        """Check that the store is there, at the end of a run that was asked to end and does not wait for it.

        Raises:
            StoreUnreachable: it is away.
        """
        if self.away:
            raise self._too_long("is still away")

    def _too_long(self, what: str) -> StoreUnreachable:
        return StoreUnreachable(
            f"store {self.place} {what}",
            hint=f"what could not be written lies in {self._spool.place}; the same command takes it in",
        )

    def stop_request(self) -> StopRequest | None:
        """Return whether somebody has asked since the run began that it ends: at the next epoch's end, or now."""
        return self._stop

    def _check(self) -> None:
        with self._database.read() as connection:
            asked = stops.asked(connection, self._run.study_id)
            if asked.count != self._stops.count:
                self._stop = "now" if asked.at_once else "epoch"
        self._follow()
        with self._database.read() as connection:
            self._require_all(connection)

    def _require_all(self, connection: Connection) -> None:
        """Check that nobody has deleted the study or a trial of it."""
        if presence.require_study(connection, self._run.study_id) != self._uid:
            raise presence.study_deleted()  # another store lies there now
        there = row_lookup.count_trials(connection, self._run.study_id)
        if there < self._trials:  # which one, takes a look at each
            presence.require_trials(connection, self._run.study_id)
        self._trials = there

    # Away and back

    def _write(self, record: SpoolRecord, call: Callable[[], T], otherwise: T) -> T:
        """Write to the store, or into the spool if it is away; what waits there is written before."""

        def keep() -> T:
            self._keep(record)
            return otherwise

        return self._unless_away(call, keep)

    def _keep(self, record: SpoolRecord) -> None:
        try:
            self._spool.append(record)
        except OSError as error:
            raise unwritable(self._spool.place, error) from error

    def _read(self, call: Callable[[], T], otherwise: T) -> T:
        return self._unless_away(call, lambda: otherwise)

    def _unless_away(self, call: Callable[[], T], while_away: Callable[[], T]) -> T:
        if not self.away:
            try:
                return call()
            except Exception as error:
                if not may_return(error):
                    raise
                self._leave(error)
        return while_away()

    def _leave(self, error: Exception) -> None:
        if self.away:
            return
        self._away_since = self._tried = time.monotonic()
        self._database.busy = _TRY_SECONDS
        self._run.warn(
            f"{error.args[0]}; training continues for up to {self._run.patience:.0f} s more, "
            f"results wait in {self._spool.place}"
        )

    def _come_back(self, since: float) -> None:
        try:
            if self.home.is_away:
                raise self._no_home()
            lost = super().heartbeat(self._run.owner, lease=self._run.lease)
            with self._database.read() as connection:
                self._require_all(connection)
            for path in self._spool.paths():
                replay(self, path, warn=self._run.warn)
            super().prune_weights(self._run.study)
        except Exception as error:
            if not may_return(error):
                raise
            if time.monotonic() - since > self._run.patience:
                raise self._too_long(
                    f"has been unavailable for more than {self._run.patience:.0f} s"
                ) from error
            return
        self._lost |= lost
        self._away_since, self._back_since = None, time.monotonic()
        self._database.busy = BUSY_SECONDS
        self._run.say(
            f"store {self.place} is back after {self._back_since - since:.0f} s, and all results are in it"
        )

    # Writing

    def record_epochs(self, events: Sequence[Advance]) -> int:
        """Write epochs and steps, see `Store.record_epochs`."""
        record = SpoolRecord(call="record_epochs", study=self._uid, epochs=events)
        write = super().record_epochs
        return self._write(record, lambda: write(events), len(events))

    def resume(self, events: Sequence[TrialResumed]) -> int:
        """Write where trials go on from, see `Store.resume`."""
        record = SpoolRecord(call="resume", study=self._uid, resumed=events)
        write = super().resume
        return self._write(record, lambda: write(events), len(events))

    def finish_many(
        self,
        events: Sequence[TrialFinished | TrialFailed],
        *,
        epochs: Sequence[Advance] = (),
        shown: Mapping[int, Mapping[str, bytes]] | None = None,
    ) -> list[bool]:
        """Write how trials ended, see `Store.finish_many`."""
        record = SpoolRecord(
            call="finish_many", study=self._uid, ended=events, epochs=epochs, shown=shown or {}
        )
        write = super().finish_many
        return self._write(record, lambda: write(events, epochs=epochs, shown=shown), [True] * len(events))

    def requeue(
        self, held: Collection[tuple[int, int]], *, retries: int, reason: str = "worker died"
    ) -> list[Reclaimed]:
        """Let trials wait again, see `Store.requeue`; what became of them nobody knows while the store is away."""
        pairs = list(held)
        record = SpoolRecord(call="requeue", study=self._uid, claims=pairs, retries=retries, reason=reason)
        write = super().requeue
        return self._write(record, lambda: write(pairs, retries=retries, reason=reason), [])

    def release(self, held: Collection[tuple[int, int]]) -> int:
        """Give claims back, see `Store.release`."""
        pairs = list(held)
        record = SpoolRecord(call="release", study=self._uid, claims=pairs)
        write = super().release
        return self._write(record, lambda: write(pairs), len(pairs))

    def append_log(self, number: int, text: str) -> None:
        """Append text to a trial's log, once home is there."""
        try:
            self.home.append_log(self._run.study, number, text)
        except StoreUnreachable as error:
            self._leave(error)
            self._keep(
                SpoolRecord(
                    call="append_log", study=self._uid, name=self._run.study, number=number, text=text
                )
            )

    def prune_weights(self, study: str, *, keep: int = WEIGHTS_KEPT) -> int:
        """Remove the weights of all but the best trials, see `Store.prune_weights`."""
        prune = super().prune_weights
        return self._read(lambda: prune(study, keep=keep), 0)

    def drop_weights(self, study: str, numbers: Sequence[int]) -> int:
        """Remove the weights of trials, see `Store.drop_weights`; not while the store is away."""
        drop = super().drop_weights
        return self._read(lambda: drop(study, numbers), 0)

    def show(self, study: str, number: int, files: Mapping[str, bytes]) -> None:
        """Show files with a trial, see `Store.show`; not while the store is away."""
        show = super().show
        self._read(lambda: show(study, number, files), None)

    # Claiming and reading

    def claim_packs(
        self, packs: Mapping[str, Sequence[int]], *, owner: RunnerIdentity, lease: float
    ) -> dict[str, list[Trial]]:
        """Take trials that wait, see `Store.claim_packs`; none while the store is away."""
        nothing: dict[str, list[Trial]] = {pack: [] for pack in packs}
        if self.away or self.home_is_away():
            return nothing
        try:
            return super().claim_packs(packs, owner=owner, lease=lease)
        except Exception as error:
            if not may_return(error):
                raise
            self._leave(error)
            # Perhaps it was made all the same: nobody would train them, while we keep them by our heartbeats.
            for pack, ids in packs.items():
                asked = [(trial, 0) for trial in ids if trial not in self._held]
                self._keep(SpoolRecord(call="unclaim", study=self._uid, claims=asked, name=pack))
            return nothing

    def move_claims(self, packs: Mapping[int, str]) -> None:
        """Note in which packs trials train, see `Store.move_claims`; not while the store is away."""
        move = super().move_claims
        self._read(lambda: move(packs), None)

    def heartbeat(self, owner: RunnerIdentity, *, lease: float) -> set[int]:
        """Extend the leases, see `Store.heartbeat`."""
        renew = super().heartbeat
        nothing: set[int] = set()
        lost, self._lost = self._lost, nothing
        return lost | self._read(lambda: renew(owner, lease=lease), nothing)

    def reclaim(self, study_id: int) -> list[Reclaimed]:
        """Take back the claims of runners that are gone, once what they left is written; see `Store.reclaim`."""
        reclaim = super().reclaim

        def take_back() -> list[Reclaimed]:
            self._watch_clock()
            if time.monotonic() - self._back_since < _OTHERS_FIRST * self._run.lease:
                return []
            take_in(self, warn=self._run.warn)
            return reclaim(study_id)

        return self._read(take_back, [])

    def _watch_clock(self) -> None:
        """Let others renew their leases first where the store's clock was set forward: none has lasted so long."""
        with self._database.read() as connection:
            ahead = claims.store_time(connection) - time.monotonic()
        if ahead - self._clock_ahead > _STEP_SECONDS:
            self._back_since = time.monotonic()
        self._clock_ahead = ahead

    def waiting(self, study_id: int, ids: Collection[int] | None = None) -> list[Trial]:
        """Return the trials that wait, see `Store.waiting`; none while the store is away."""
        waiting = super().waiting
        return self._read(lambda: waiting(study_id, ids), [])

    def open_counts(self, study_id: int, ids: Collection[int] | None = None) -> dict[TrialState, int]:
        """Return how many trials are in each state, see `Store.open_counts`; the last known while it is away."""
        count = super().open_counts
        counts = self._read(lambda: count(study_id, ids), self._counts)
        if ids is None or ids:
            self._counts = counts
        return dict(counts)

    def runners(self, study: str) -> list[RunnerAtWork]:
        """Return who holds trials, see `Store.runners`; nobody while the store is away."""
        runners = super().runners
        return self._read(lambda: runners(study), [])

    def curves(
        self, study_id: int, known: Mapping[int, tuple[int, int, TrialState]] | None = None
    ) -> list[TrialCurve]:
        """Return what trials have shown, see `Store.curves`; nothing new while the store is away."""
        curves = super().curves
        return self._read(lambda: curves(study_id, known), [])
