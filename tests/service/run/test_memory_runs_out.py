"""A worker that the kernel ends for lack of memory: its trials go on in smaller packs, then fewer at a time."""

from __future__ import annotations

import pytest

from gridsearch.records import Pack, PackEnded, PackStarted, TrialFinished, TrialState, WorkerDied

WORDS = (
    *("run", "--dataset", "digits", "--model", "mlp", "--grid", "lr=1e-4..1e-1:8log", "--epochs", "1"),
    *("--no-report", "--json"),
)


class Scripted:
    """An executor of two workers in which packs above a number of lanes at a time die of memory.

    Args:
        room: so many lanes fit, of all packs that are under way.
    """

    def __init__(self, deliver, room):
        self.deliver, self.room = deliver, room
        self.packs: list[Pack] = []
        self.sizes: list[int] = []
        self.most = 2

    @property
    def busy(self):
        return len(self.packs)

    @property
    def free(self):
        return max(0, self.most - self.busy)

    def submit(self, task):
        self.packs.append(task)
        self.sizes.append(len(task.lanes))
        self.deliver(PackStarted(worker="w", pack=task.id, trials=task.trial_ids))

    def use_fewer(self):
        fewer = self.most > 1
        self.most -= fewer
        return fewer

    def expect(self, *, more):
        pass

    def poll(self, _timeout):
        if sum(len(pack.lanes) for pack in self.packs) > self.room:
            pack = self.packs.pop(0)
            return self.deliver(WorkerDied(worker="w", pack=pack.id, message="killed", memory=True))
        pack = self.packs.pop(0)
        for lane in pack.lanes:
            metrics = {"val_accuracy": 0.5, "val_loss": 1.0, "train_accuracy": 0.5, "train_loss": 1.0}
            trial = lane.trial
            self.deliver(
                TrialFinished(
                    trial=trial.id,
                    attempt=trial.attempt,
                    state=TrialState.COMPLETE,
                    epochs=1,
                    seconds=1.0,
                    metrics=metrics,
                )
            )
        return self.deliver(PackEnded(worker="w", pack=pack.id))

    def stop(self):
        pass


@pytest.fixture
def scripted(monkeypatch):
    made = []

    def with_room(room):
        def starter(*_, **__):
            def start(deliver, _interrupted):
                made.append(Scripted(deliver, room))
                return made[-1]

            return start

        monkeypatch.setattr("gridsearch.service.run.study_training.starter", starter)
        return made

    return with_room


def test_packs_are_halved_until_they_fit_and_no_trial_has_lost_a_try(cli, scripted):
    made = scripted(3)
    done = cli(*WORDS, "--retries", "0", "--lanes", "4")
    assert done.code == 0, done.err
    assert done.json["counts"]["complete"] == 8
    assert made[0].sizes[:2] == [4, 4]
    assert max(made[0].sizes[4:]) <= 2
    assert "packs of mlp get 2 lanes at most" in done.err


def test_trials_that_fit_alone_are_trained_one_after_the_other(cli, scripted):
    scripted(1)
    done = cli(*WORDS, "--retries", "0", "--lanes", "4")
    assert done.code == 0, done.err
    assert done.json["counts"]["complete"] == 8
    assert "packs of mlp get 1 lane at most" in done.err
    assert "one worker fewer runs from now on" in done.err


def test_a_trial_that_does_not_fit_alone_fails(cli, scripted):
    scripted(0)
    done = cli(*WORDS, "--retries", "1", "--lanes", "4")
    assert done.code == 3
    assert done.json["counts"]["failed"] == 8


def test_settled_packs_stay_as_the_user_settled_them(cli, scripted):
    made = scripted(3)
    done = cli(*WORDS, "--retries", "0", "--lanes", "4", "--workers", "1")
    assert done.code == 3
    assert set(made[0].sizes) == {4}


def test_run_and_plan_say_where_memory_makes_packs_smaller(cli, scripted, monkeypatch):
    monkeypatch.setattr("gridsearch.service.run.backends.LocalBackend.free_megabytes", lambda *_: 400.0)
    short = "memory is short: packs of mlp at batch 64 get 1 lane at most, not 4: of 400 MB for each worker, "
    made = scripted(8)
    plan = cli("plan", *WORDS[1:-2])
    assert f"\n{short}" in plan.out
    assert cli("plan", *WORDS[1:-2], "--json").json["notes"] == [plan.out.splitlines()[-1]]
    done = cli(*WORDS)
    assert done.err.count(short) == 1
    assert set(made[0].sizes) == {1}
