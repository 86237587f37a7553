"""A run whose workers do as a test says: the real coordinator and a real store, with an executor that trains nothing."""

from __future__ import annotations

from collections import Counter

from gridsearch.planning import ProbeCache
from gridsearch.planning.estimates import ImageCost
from gridsearch.records import (
    EpochEnded,
    ImageSettings,
    LanesTraining,
    LanesWanted,
    PackEnded,
    PackStarted,
    TrialDraft,
    TrialFailed,
    TrialFinished,
    TrialState,
    WorkerDied,
    WorkerLeft,
    trial_key,
)
from gridsearch.service.prepare.options import Places, RunOptions
from gridsearch.service.run.coordinator import Coordinator
from gridsearch.service.run.ending import Ending
from gridsearch.service.run.final_metric import FinalMetric
from gridsearch.service.run.interruption import Interruption
from gridsearch.service.run.progress import Progress, Silent
from gridsearch.service.run.publisher import TrialPublisher
from gridsearch.service.run.run_context import RunContext
from gridsearch.service.run.sizing import Sizing
from gridsearch.store import RunnerIdentity, RunOf, RunStore, StudyDraft

METRICS = {"val_accuracy": 0.5, "val_loss": 1.0, "train_accuracy": 0.5, "train_loss": 1.0}


class Workers:
    """An executor whose packs each get on by one call of `work(workers, pack)` in a `poll`.

    Attributes:
        packs: under way, by id; `made` are the sizes of all that were handed over.
        trained: ledger ids of all trials that were handed over, in order.
        given: what each `LanesWanted` was answered with.
        polls: how often there was time to work.
        decided: the trials that were to end, in order; `left` after all packs were to be left at an epoch's end.
        stopped: how often it was stopped.
    """

    def __init__(self, count, deliver, work):
        self.count, self.deliver, self.work = count, deliver, work
        self.packs, self.made = {}, []
        self.trained, self.given, self.polls, self.stopped = [], [], 0, 0
        self.decided, self.left, self.ended = [], False, []

    @property
    def busy(self):
        return len(self.packs)

    @property
    def free(self):
        return self.count - self.busy

    def submit(self, task):
        assert self.free > 0
        self.packs[task.id] = list(task.lanes)
        self.made.append(len(task.lanes))
        self.trained += task.trial_ids
        self.deliver(PackStarted(worker="w0", pack=task.id, trials=task.trial_ids))

    def send_lanes(self, pack, lanes):
        self.given.append(len(lanes))
        self.packs[pack] += lanes
        self.trained += [lane.trial.id for lane in lanes]

    def send_decision(self, _pack, decision):
        self.decided += [decision.trial] if decision.prune else []

    def leave(self):
        self.left = True
        return False

    def end_worker(self, pack):
        self.ended.append(pack)

    def use_fewer(self):
        return False

    def expect(self, *, more):
        self.more = more

    def poll(self, _timeout):
        self.polls += 1
        for pack in list(self.packs):
            if pack in self.ended:
                self.die(pack)
            else:
                self.work(self, pack)

    def stop(self):
        self.stopped += 1
        self.packs.clear()

    # What workers do

    def advance(self, lane, epoch=1):
        row = {"lr": 0.1, "seconds": 0.1, "images_per_second": 1.0}
        trial = lane.trial
        self.deliver(EpochEnded(trial=trial.id, attempt=trial.attempt, epoch=epoch, **METRICS, **row))

    def finish(self, pack):
        """End one lane of a pack with a result."""
        trial = self.packs[pack].pop(0).trial
        done = {"state": TrialState.COMPLETE, "epochs": 1, "seconds": 0.1, "metrics": METRICS}
        self.deliver(TrialFinished(trial=trial.id, attempt=trial.attempt, **done))

    def fail(self, pack):
        trial = self.packs[pack].pop(0).trial
        message = f"ValueError: of {trial.id}"
        how = {"reason": "error", "message": message, "traceback": f"Traceback\n{message}"}
        self.deliver(TrialFailed(trial=trial.id, attempt=trial.attempt, **how))

    def train(self, pack, *lanes):
        """Say that these lanes of a pack train, and no others of it."""
        self.deliver(LanesTraining(pack=pack, trials=tuple(lane.trial.id for lane in lanes)))

    def prune(self, pack, lane):
        self.packs[pack].remove(lane)
        done = {"state": TrialState.PRUNED, "epochs": 1, "seconds": 0.1, "metrics": METRICS}
        self.deliver(TrialFinished(trial=lane.trial.id, attempt=lane.trial.attempt, **done))

    def refill(self, pack):
        self.deliver(LanesWanted(worker="w0", pack=pack, count=1))

    def end(self, pack):
        del self.packs[pack]
        self.deliver(PackEnded(worker="w0", pack=pack))

    def die(self, pack, message="killed by SIGKILL", *, place_gone=False):
        del self.packs[pack]
        self.deliver(WorkerDied(worker="w0", pack=pack, message=message, place_gone=place_gone))

    def leave_place(self, pack, message):
        del self.packs[pack]
        self.deliver(WorkerLeft(worker="w0", pack=pack, message=message))


def to_the_end(workers, pack):
    """Train every lane of a pack by one epoch to its end."""
    for lane in list(workers.packs[pack]):
        workers.advance(lane)
        workers.finish(pack)
    workers.end(pack)


class Lines(Silent):
    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)

    warn = say


class Run:
    """A study of some trials in a store of its own, and the means to run it."""

    def __init__(self, store, trials):
        self.store, self.lines = store, Lines()
        found = [
            ImageSettings(
                dataset="digits", data_fingerprint="d" * 64, model="mlp", epochs=1, lr=0.1 / (i + 1)
            )
            for i in range(trials)
        ]
        drafts = [TrialDraft(key=trial_key(s, 0), seed=0, settings=s, axes=("lr",)) for s in found]
        draft = StudyDraft(name="digits", dataset="digits", metric="val_accuracy", command="gridsearch run")
        self.added = store.add(draft, drafts)
        self.interruption = Interruption()
        self.workers = None
        self.options = {}

    def __call__(self, work=to_the_end, *, workers=1, lanes=2, **options):
        """Run a coordinator to its end; packs get at most so many lanes."""
        home = self.store.home.root
        places = Places(home=home, store="", cache=home / "cache")
        probes = ProbeCache(places.probes)
        cost = ImageCost({}, device="cpu", shape=(1, 8, 8), classes=10, train_images=100)
        owner = RunnerIdentity.current()
        options = RunOptions(places=places, report=False, **self.options | options)
        this_run = RunOf(
            study="digits",
            study_id=self.added.study_id,
            owner=owner,
            lease=options.lease,
            patience=60.0,
            warn=self.lines.warn,
            say=self.lines.say,
        )
        with RunStore(self.store, this_run) as store:
            counts = store.open_counts(self.added.study_id, self.added.ids)
            self.context = RunContext(
                study="digits",
                study_id=self.added.study_id,
                ids=self.added.ids,
                owner=owner,
                options=options,
                store=store,
                cost=cost,
                probes=probes,
                progress=Progress(
                    metric="val_accuracy",
                    counts=dict.fromkeys(TrialState, 0) | counts,
                    total_units=1.0,
                    workers=workers,
                    device="cpu",
                ),
                observer=self.lines,
                final_metric=FinalMetric("val_accuracy", home=self.store.home, study="digits", facts={}),
                order="given",
            )
            self.ending = Ending(self.context, self.interruption)
            coordinator = Coordinator(
                self.context,
                sizing=Sizing(lanes=lanes, device="cpu", cost=cost, probes=probes),
                publisher=TrialPublisher(self.store.home, "digits"),
                ending=self.ending,
            )

            def start(deliver, _interrupted):
                self.workers = Workers(workers, deliver, work)
                return self.workers

            try:
                coordinator.run(start)
            finally:
                assert self.workers.stopped == 1
        return self.states

    @property
    def trials(self):
        return self.store.study_data("digits").trials

    @property
    def states(self):
        return {state.value: n for state, n in Counter(trial.state for trial in self.trials).items()}

    @property
    def leftovers(self):
        return [p.name for p in (self.store.home.root / "digits").rglob(".attempt*")]
