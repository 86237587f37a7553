"""The ledger against a model of it in a dict: whatever happens, in whatever order, they agree."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import optuna
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from optuna.storages._rdb import models as optuna_models

from gridsearch.records import (
    EpochEnded,
    ImageSettings,
    TrialDraft,
    TrialFailed,
    TrialFinished,
    TrialState,
    trial_key,
)
from gridsearch.store import RunnerIdentity, StudyDraft, open_store

RETRIES = 1
SEEDS = tuple(range(4))
SETTINGS = ImageSettings(dataset="digits")
DRAFTS = {s: TrialDraft(key=trial_key(SETTINGS, s), seed=s, settings=SETTINGS, axes=()) for s in SEEDS}
STUDY = StudyDraft(name="digits", dataset="digits", metric="val_accuracy")
OWNERS = {
    name: dataclasses.replace(RunnerIdentity.current(), started=float(i)) for i, name in enumerate("ab")
}


@dataclasses.dataclass
class Row:
    """What the model knows of a trial."""

    id: int
    state: TrialState = TrialState.WAITING
    attempt: int = 0
    tries: int = 0
    owner: str | None = None
    epochs: int = 0


class Ledger(RuleBasedStateMachine):
    """Adds, claims, finishes, fails, kills, reclaims, releases, deletes."""

    claims = Bundle("claims")
    template: Path

    @initialize()
    def open(self):
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(self.template, self.folder / "gridsearch.db")
        self.dead = set()
        self.store = open_store(f"sqlite:///{self.folder}/gridsearch.db", home=self.folder, create=False)
        self.store._dead = lambda owner: int(owner.started) in self.dead
        self.model: dict[int, Row] = {}
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
        return [(t.id, t.attempt) for t in taken]

    def holds(self, claim):
        return next(
            (r for r in self.model.values() if (r.id, r.attempt) == claim and r.state is TrialState.RUNNING),
            None,
        )

    @rule(claims=claims, epoch=st.integers(1, 3))
    def record(self, claims, epoch):
        events = [
            EpochEnded(
                trial=t,
                attempt=a,
                epoch=epoch,
                train_loss=1.0,
                train_accuracy=0.5,
                val_loss=1.0,
                val_accuracy=0.5,
                lr=0.1,
                seconds=1.0,
                images_per_second=1.0,
            )
            for t, a in claims
        ]
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
            row.state, row.epochs = state, 3

    @rule(claims=claims)
    def fail(self, claims):
        for trial, attempt in claims[:1]:
            row = self.holds((trial, attempt))
            event = TrialFailed(trial=trial, attempt=attempt, reason="error", message="no", traceback="")
            assert self.store.fail(event) == (row is not None)
            if row:
                row.state = TrialState.FAILED

    @rule(claims=consumes(claims))
    def release(self, claims):
        held = [row for claim in claims if (row := self.holds(claim))]
        assert self.store.release(claims) == len(held)
        for row in held:
            row.state, row.owner, row.epochs = TrialState.WAITING, None, 0
            row.tries -= 1

    def died(self, rows):
        for row in rows:
            spent = row.tries > RETRIES
            row.state = TrialState.FAILED if spent else TrialState.WAITING
            row.epochs = row.epochs if spent else 0

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
        lost = [
            r
            for r in self.model.values()
            if r.state is TrialState.RUNNING and "ab".index(r.owner) in self.dead
        ]
        back = self.store.reclaim(self.study_id)
        assert sorted(r.trial for r in back) == sorted(r.id for r in lost)
        for row in lost:  # a runner that died is no try of its trials
            row.state, row.tries, row.epochs = TrialState.WAITING, row.tries - 1, 0

    @rule(seed=st.sampled_from(SEEDS))
    def somebody_deletes_a_trial(self, seed):
        row = self.model.pop(seed, None)
        if row is None:
            return
        storage = optuna.storages.RDBStorage(
            self.store.url, skip_compatibility_check=True, skip_table_creation=True
        )
        with storage.scoped_session() as session:
            attributes = session.query(optuna_models.TrialUserAttributeModel)
            for attribute in attributes.filter_by(key="key", value_json=f'"{DRAFTS[seed].key}"').all():
                session.delete(attribute.trial)
            session.commit()
        storage.remove_session()
        storage.engine.dispose()

    def shown(self, row):
        """A trial whose runner is dead waits, as far as readers see."""
        abandoned = row.state is TrialState.RUNNING and "ab".index(row.owner) in self.dead
        return TrialState.WAITING if abandoned else row.state

    @invariant()
    def they_agree(self):
        if not hasattr(self, "store"):
            return
        data = self.store.study_data("digits")
        found = {t.seed: (t.state, t.attempts, t.epochs) for t in data.trials}
        assert found == {seed: (self.shown(r), r.tries, r.epochs) for seed, r in self.model.items()}
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


def test_the_ledger_agrees_with_its_model_whatever_happens(new_file):
    from hypothesis.stateful import run_state_machine_as_test

    Ledger.template = new_file
    run_state_machine_as_test(
        Ledger,
        settings=settings(
            max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
