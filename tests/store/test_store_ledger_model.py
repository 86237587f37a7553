"""The ledger and the checkpoints against a model of both in a dict: whatever happens, in whatever order, they agree."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from optuna.storages._rdb import models as optuna_models

from gridsearch.checkpoints import checkpoints_in, write_checkpoint
from gridsearch.records import (
    EpochEnded,
    ImageSettings,
    TrialDraft,
    TrialFailed,
    TrialFinished,
    TrialResumed,
    TrialState,
    trial_key,
)
from gridsearch.store import RunnerIdentity, StudyDraft, open_store
from tests.servers.postgresql import emptied
from tests.store.readers import reader

if TYPE_CHECKING:
    from collections.abc import Callable

RETRIES = 1
SEEDS = tuple(range(4))
SETTINGS = ImageSettings(dataset="digits")
DRAFTS = {s: TrialDraft(key=trial_key(SETTINGS, s), seed=s, settings=SETTINGS, axes=()) for s in SEEDS}
STUDY = StudyDraft(name="digits", dataset="digits", metric="val_accuracy")
OWNERS = {
    name: dataclasses.replace(RunnerIdentity.current(), started=float(i)) for i, name in enumerate("ab")
}


def epoch_ended(trial, attempt, epoch):
    values = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5, "lr": 0.1}
    return EpochEnded(trial=trial, attempt=attempt, epoch=epoch, **values, seconds=1.0, images_per_second=1.0)


@dataclasses.dataclass
class Row:
    """What the model knows of a trial."""

    id: int
    state: TrialState = TrialState.WAITING
    attempt: int = 0
    tries: int = 0
    owner: str | None = None
    epochs: int = 0
    checkpoint: int = 0  # the epoch of its newest
    lapsed: bool = False  # its lease has ended, and its runner does not know

    def wait(self):
        """Wait again, with the epochs that a checkpoint holds."""
        self.state, self.owner, self.lapsed = TrialState.WAITING, None, False
        self.epochs = min(self.epochs, self.checkpoint)

    def end(self, state):
        """End; nothing goes on from it any more."""
        self.state, self.checkpoint, self.lapsed = state, 0, False


class Ledger(RuleBasedStateMachine):
    """Adds, claims, saves, resumes, finishes, fails, kills, lets leases end, reclaims, releases, deletes."""

    claims = Bundle("claims")
    new_store: Callable[[Path], str]
    """Makes an empty store and returns its URL."""

    @initialize()
    def open(self):
        self.folder = Path(tempfile.mkdtemp())
        self.dead = set()
        self.store = open_store(self.new_store(self.folder), home=self.folder, create=False)
        self.store._dead = lambda owner: int(owner.started) in self.dead
        self.model: dict[int, Row] = {}
        self.folders: dict[tuple[int, int], Path] = {}  # scratch folders by claim
        self.study_id = self.store.add(STUDY, []).study_id

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    @rule(seeds=st.sets(st.sampled_from(SEEDS), min_size=1))
    def add(self, seeds):
        added = self.store.add(STUDY, [DRAFTS[s] for s in sorted(seeds)])
        counts = {"new": 0, "reused": 0, "offered_again": 0, "in_flight": 0}
        for seed, trial in zip(sorted(seeds), added.ids, strict=True):
            row = self.model.get(seed)
            if row is None:
                self.model[seed] = Row(trial)
                counts["new"] += 1
                continue
            assert row.id == trial
            if row.state is TrialState.FAILED:
                row.state, row.tries, row.epochs = TrialState.WAITING, 0, 0
                counts["offered_again"] += 1
            else:
                counts["reused" if row.state.ended else "in_flight"] += 1
        assert {name: getattr(added, name) for name in counts} == counts

    @rule(target=claims, owner=st.sampled_from(sorted(OWNERS)))
    def claim(self, owner):
        self.dead.discard("ab".index(owner))  # a new process of that name
        waiting = {r.id: r for r in self.model.values() if r.state is TrialState.WAITING}
        asked = [r.id for r in self.model.values()][:2]
        taken = self.store.claim(asked, owner=OWNERS[owner], pack="p", lease=3600)
        assert [t.id for t in taken] == [i for i in asked if i in waiting]
        for trial in taken:
            row = waiting[trial.id]
            row.state, row.owner = TrialState.RUNNING, owner
            row.attempt += 1
            row.tries += 1
            assert trial.attempt == row.attempt
            folder = self.store.home.make_scratch("digits", trial.number, trial.attempt)
            self.folders[trial.id, trial.attempt] = folder
            found = checkpoints_in(folder)
            assert (found[0].epoch if found else 0) == row.checkpoint, (
                "the next attempt gets its predecessor's"
            )
        return [(t.id, t.attempt) for t in taken]

    def holds(self, claim):
        return next(
            (r for r in self.model.values() if (r.id, r.attempt) == claim and r.state is TrialState.RUNNING),
            None,
        )

    @rule(claims=claims)
    def save_a_checkpoint(self, claims):
        for claim in claims:
            row = self.holds(claim)
            epoch = row.epochs if row else 3
            if epoch and row:
                assert write_checkpoint(self.folders[claim], b"weights", epoch=epoch)
                row.checkpoint = epoch

    @rule(claims=claims)
    def one_that_lost_its_claim_writes_a_checkpoint(self, claims):
        for trial, attempt in claims:
            row = next((r for r in self.model.values() if r.id == trial), None)
            if row and row.state is TrialState.RUNNING and row.attempt != attempt:
                assert write_checkpoint(self.folders[trial, attempt], b"late", epoch=3) is None

    @rule(claims=claims)
    def resume(self, claims):
        events, held = [], []
        for trial, attempt in claims:
            row = self.holds((trial, attempt))
            upto = row.checkpoint if row else 2
            rows = tuple(epoch_ended(trial, attempt, epoch) for epoch in range(1, upto + 1))
            events.append(TrialResumed(trial=trial, attempt=attempt, epoch=upto, epochs=rows))
            held += [row] if row else []
        assert self.store.resume(events) == len(held)
        for row in held:
            row.epochs = row.checkpoint

    @rule(claims=claims, epoch=st.integers(1, 3))
    def record(self, claims, epoch):
        events = [epoch_ended(t, a, epoch) for t, a in claims]
        held = [row for claim in claims if (row := self.holds(claim))]
        assert self.store.record_epochs(events) == len(held)
        for row in held:
            row.epochs = max(row.epochs, epoch)

    @rule(claims=claims, state=st.sampled_from([TrialState.COMPLETE, TrialState.DIVERGED]))
    def finish(self, claims, state):
        events = [
            TrialFinished(
                trial=t, attempt=a, state=state, epochs=3, seconds=1.0, metrics={"val_accuracy": 0.5}
            )
            for t, a in claims
        ]
        held = [self.holds(claim) for claim in claims]
        assert self.store.finish_many(events) == [row is not None for row in held]
        for row in filter(None, held):
            row.end(state)
            row.epochs = 3

    @rule(claims=claims)
    def fail(self, claims):
        for trial, attempt in claims[:1]:
            row = self.holds((trial, attempt))
            event = TrialFailed(trial=trial, attempt=attempt, reason="error", message="no", traceback="")
            assert self.store.fail(event) == (row is not None)
            if row:
                row.end(TrialState.FAILED)

    @rule(claims=consumes(claims))
    def release(self, claims):
        held = [row for claim in claims if (row := self.holds(claim))]
        assert self.store.release(claims) == len(held)
        for row in held:
            row.wait()
            row.tries -= 1

    def died(self, rows):
        for row in rows:
            if row.tries > RETRIES:
                row.end(TrialState.FAILED)
            else:
                row.wait()

    @rule(claims=claims)
    def worker_dies(self, claims):
        held = [row for claim in claims if (row := self.holds(claim))]
        back = self.store.requeue(claims, retries=RETRIES)
        assert [(r.trial, r.tries, r.requeued) for r in back] == [
            (r.id, r.tries, r.tries <= RETRIES) for r in held
        ]
        self.died(held)

    @rule(owner=st.sampled_from(sorted(OWNERS)))
    def runner_is_killed(self, owner):
        self.dead.add("ab".index(owner))

    @rule()
    def reclaim(self):
        lost = [r for r in self.model.values() if self.is_abandoned(r)]
        back = self.store.reclaim(self.study_id)
        assert sorted(r.trial for r in back) == sorted(r.id for r in lost)
        for row in lost:  # a runner that died is no try of its trials
            row.wait()
            row.tries -= 1

    @rule(owner=st.sampled_from(sorted(OWNERS)))
    def leases_end(self, owner):
        """A runner is paused for longer than its leases."""
        with self.store._database.write() as connection:
            connection.exec_driver_sql(
                "UPDATE gridsearch_trials SET lease_until = 1 WHERE state = 'running' AND runner_id IN "
                f"(SELECT id FROM gridsearch_runners WHERE name = '{OWNERS[owner].name}')"
            )
        for row in self.model.values():
            if row.state is TrialState.RUNNING and row.owner == owner:
                row.lapsed = True

    @rule(owner=st.sampled_from(sorted(OWNERS)))
    def heartbeat(self, owner):
        """A runner that was paused goes on: what nobody took meanwhile is its own again."""
        self.store.heartbeat(OWNERS[owner], lease=3600)
        for row in self.model.values():
            if row.state is TrialState.RUNNING and row.owner == owner:
                row.lapsed = False

    @rule(seed=st.sampled_from(SEEDS))
    def somebody_deletes_a_trial(self, seed):
        row = self.model.pop(seed, None)
        if row is None:
            return
        storage = reader(self.store)
        with storage.scoped_session() as session:
            attributes = session.query(optuna_models.TrialUserAttributeModel)
            for attribute in attributes.filter_by(key="key", value_json=f'"{DRAFTS[seed].key}"').all():
                session.delete(attribute.trial)
            session.commit()
        storage.remove_session()
        storage.engine.dispose()

    def is_abandoned(self, row):
        return row.state is TrialState.RUNNING and ("ab".index(row.owner) in self.dead or row.lapsed)

    def shown(self, row):
        """A trial whose runner is gone waits, as far as readers see, and nobody has said where it goes on from."""
        if self.is_abandoned(row):
            return TrialState.WAITING, row.tries, 0
        return row.state, row.tries, row.epochs

    @invariant()
    def they_agree(self):
        if not hasattr(self, "store"):
            return
        data = self.store.study_data("digits")
        found = {t.seed: (t.state, t.attempts, t.epochs) for t in data.trials}
        assert found == {seed: self.shown(r) for seed, r in self.model.items()}
        counts = self.store.open_counts(self.study_id)
        assert sum(counts.values()) == len(self.model)
        with self.store._database.read() as connection:
            query = (
                "SELECT l.state, o.state FROM gridsearch_trials l JOIN trials o ON o.trial_id = l.optuna_id "
                "JOIN trial_user_attributes a ON a.trial_id = o.trial_id AND a.value_json = '\"' || l.key || '\"'"
            )
            pairs = connection.exec_driver_sql(query).all()
        same = {"diverged": "FAIL", "failed": "FAIL"}
        assert all(theirs == same.get(ours, ours.upper()) for ours, theirs in pairs)
        assert len(pairs) == len(self.model)
        for (
            row
        ) in self.model.values():  # what was recorded is what was trained up to the checkpoint, and after it
            if row.state is TrialState.WAITING:
                assert max(self.recorded(row), default=0) <= row.checkpoint

    def recorded(self, row):
        with self.store._database.read() as connection:
            query = f"SELECT epoch FROM gridsearch_epochs WHERE trial_id = {row.id}"
            return [epoch for (epoch,) in connection.exec_driver_sql(query)]


def check(new_store, examples):
    from hypothesis.stateful import run_state_machine_as_test

    Ledger.new_store = staticmethod(new_store)
    quickly = {"deadline": None, "suppress_health_check": list(HealthCheck)}
    run_state_machine_as_test(
        Ledger, settings=settings(max_examples=examples, stateful_step_count=20, **quickly)
    )


def test_the_ledger_agrees_with_its_model_whatever_happens(new_file):
    def new_store(folder):
        shutil.copy(new_file, folder / "gridsearch.db")
        return f"sqlite:///{folder}/gridsearch.db"

    check(new_store, 15)


@pytest.mark.postgresql
def test_the_ledger_in_postgresql_agrees_with_the_same_model(postgresql, one_store):
    def new_store(folder):
        emptied(postgresql, one_store)
        return postgresql.url(one_store)

    check(new_store, 8)
