"""Functions that take their state go on from the last one that they yielded; what lies before is not computed again."""

from __future__ import annotations

import contextlib
import math

import pytest

from gridsearch import plugins
from gridsearch.checkpoints import Pace, checkpoints_in
from gridsearch.executors.function_trainer import FunctionRunner
from gridsearch.records import (
    FunctionSettings,
    Lane,
    Pack,
    StepEnded,
    Trial,
    TrialFailed,
    TrialFinished,
    TrialResumed,
    TrialState,
    WorkerSetup,
)


class Killed(KeyboardInterrupt):
    """Stands for a worker's sudden end: nothing but this passes a call of a user's function."""


class Calls:
    """A function's trials over several attempts, each in the folder that the one before left."""

    def __init__(self, folder, function, *, trials=1, checkpoint=0.0, settled=False):
        self.folder, self.trials, self.attempt = folder, trials, 0
        self.plugin = plugins.of_object(function, name="f.py:f")
        self.setup = WorkerSetup(
            name="w0",
            device="cpu",
            threads=1,
            objective="f.py:f",
            metric="value",
            checkpoint=checkpoint,
            settled=settled,
            takes_state=plugins.takes_state(self.plugin),
        )

    def lane(self, number):
        scratch = self.folder / str(number) / f".attempt-{self.attempt}"
        before = scratch.with_name(f".attempt-{self.attempt - 1}")
        before.rename(scratch) if before.exists() else scratch.mkdir(parents=True)
        settings = FunctionSettings(objective="f.py:f", objective_source=self.plugin.source, params={"x": 2})
        trial = Trial(
            id=number,
            number=number,
            key=f"key{number}",
            seed=number,
            settings=settings,
            params={},
            state=TrialState.RUNNING,
            attempt=self.attempt,
        )
        return Lane(trial, str(scratch))

    def run(self, *, kill=lambda _: False, leave=lambda: False):
        self.attempt += 1
        events = []

        def take(event):
            events.append(event)
            if kill(event):
                raise Killed

        runner = FunctionRunner(self.setup, take, {"f.py:f": self.plugin})
        lanes = tuple(self.lane(number) for number in range(self.trials))
        with contextlib.suppress(Killed):
            runner.train(Pack("p", lanes), stop=lambda: False, leave=leave)
        return events


def step(number, trial=0):
    return lambda event: isinstance(event, StepEnded) and (event.trial, event.step) == (trial, number)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def summing(made):
    """A function of six steps that says in `made` which it computes."""

    def f(params, seed, state=None):
        state = {"done": 0, "sum": seed / 10} if state is None else state
        while state["done"] < 6:
            made.append((seed, state["done"] + 1))
            total = state["sum"] + params["x"] / 3
            state = {"done": state["done"] + 1, "sum": total}
            yield {"value": total}, state

    return f


def told(events):
    ends = of(TrialFinished, events)
    return [(end.trial, end.state, end.epochs, dict(end.metrics)) for end in ends]


def test_a_call_that_was_killed_goes_on_from_its_last_state(tmp_path):
    made, whole = [], []
    unbroken = Calls(tmp_path / "a", summing(whole)).run()
    calls = Calls(tmp_path / "b", summing(made))
    for moment in (2, 5):
        calls.run(kill=step(moment))
    last = calls.run()
    (resumed,) = of(TrialResumed, last)
    assert (resumed.epoch, resumed.damaged) == (4, 0)
    assert [row.step for row in resumed.rows] == [1, 2, 3, 4]
    assert [e.step for e in of(StepEnded, last)] == [5, 6]
    assert told(last) == told(unbroken)
    assert whole == [(0, n) for n in range(1, 7)]
    assert made == [(0, n) for n in (1, 2, 2, 3, 4, 5, 5, 6)]  # what was under way, and nothing before


def test_a_state_may_be_bytes(tmp_path):
    def f(params, seed, state=b""):
        state = state or b""
        while len(state) < 4:
            state += bytes([255 - len(state)])
            yield {"value": sum(state)}, state

    calls = Calls(tmp_path, f)
    calls.run(kill=step(3))
    last = calls.run()
    assert [e.step for e in of(StepEnded, last)] == [3, 4]
    assert told(last) == [(0, TrialState.COMPLETE, 4, {"value": 255 + 254 + 253 + 252})]


def test_a_damaged_state_falls_back_to_the_one_before_it(tmp_path):
    made = []
    calls = Calls(tmp_path, summing(made))
    calls.run(kill=step(4))
    newest = checkpoints_in(tmp_path / "0" / ".attempt-1")[0]
    newest.path.write_bytes(newest.path.read_bytes()[:-1])
    (resumed,) = of(TrialResumed, calls.run())
    assert (newest.epoch, resumed.epoch, resumed.damaged) == (3, 2, 1)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ((1, 2), "a tuple"),
        ({"a": [1, {2: 3}]}, "the key 2"),
        ({"a": {1, 2}}, "a set"),
        (math, "a module"),
    ],
)
def test_a_state_that_would_not_come_back_as_it_is_fails_the_trial(tmp_path, state, words):
    def f(params, seed, state=None, bad=state):
        yield {"value": 1.0}, bad

    (end,) = of(TrialFailed, Calls(tmp_path, f).run())
    assert (
        end.message == f"f.py:f yielded at step 1 a state with {words}; a state is bytes, or what JSON holds"
    )


def test_a_function_that_takes_state_may_yield_metrics_alone_and_then_begins_again(tmp_path):
    def f(params, seed, state=None):
        for n in range(3):
            yield {"value": float(n)}

    calls = Calls(tmp_path, f)
    calls.run(kill=step(2))
    assert checkpoints_in(tmp_path / "0" / ".attempt-1") == []
    last = calls.run()
    assert [e.epoch for e in of(TrialResumed, last)] == [0]
    assert [e.step for e in of(StepEnded, last)] == [1, 2, 3]


def test_a_function_without_a_state_is_called_as_ever(tmp_path):
    def f(params, seed):
        yield {"value": 1.0}
        yield {"value": 2.0}

    calls = Calls(tmp_path, f)
    assert not calls.setup.takes_state
    calls.run(kill=step(2))
    assert told(calls.run()) == [(0, TrialState.COMPLETE, 2, {"value": 2.0})]


def test_a_call_that_has_yielded_all_ends_with_its_last_metrics(tmp_path):
    made = []
    calls = Calls(tmp_path, summing(made))
    calls.run(kill=lambda event: isinstance(event, TrialFinished))
    last = calls.run()
    assert of(StepEnded, last) == []
    assert told(last) == [(0, TrialState.COMPLETE, 6, {"value": pytest.approx(4.0)})]


def test_asked_to_leave_a_call_saves_its_state_though_it_is_not_time_yet(tmp_path):
    made, seen = [], []
    calls = Calls(tmp_path, summing(made), checkpoint=3600.0)
    first = calls.run(kill=seen.append, leave=lambda: len(of(StepEnded, seen)) >= 2)
    assert of(TrialFinished, first) == []
    assert [e.epoch for e in of(TrialResumed, calls.run())] == [2]


def test_asked_to_leave_a_call_without_a_state_ends_at_its_step_and_one_without_steps_at_its_end(tmp_path):
    def steps(params, seed):
        for value in range(5):
            yield {"value": value}

    seen = []
    calls = Calls(tmp_path / "steps", steps, trials=2)
    first = calls.run(kill=seen.append, leave=lambda: len(of(StepEnded, seen)) >= 2)
    assert [event.step for event in of(StepEnded, first)] == [1, 2]
    assert not of(TrialFinished, first)
    assert not of(TrialFailed, first)

    began = []
    calls = Calls(tmp_path / "whole", lambda params, seed: began.append(seed) or {"value": 1}, trials=2)
    whole = calls.run(leave=lambda: bool(began))
    assert [event.trial for event in of(TrialFinished, whole)] == [0]


def test_results_of_a_settled_pack_are_kept_until_it_has_ended(tmp_path):
    made = []
    calls = Calls(tmp_path, summing(made), trials=3, settled=True)
    calls.run(kill=step(2, trial=1))
    last = calls.run()
    assert [(end[0], end[2]) for end in told(last)] == [(0, 6), (1, 6), (2, 6)]
    assert [seed for seed, _ in made].count(0) == 6


def test_off_saves_nothing(tmp_path):
    calls = Calls(tmp_path, summing([]), checkpoint=None)
    calls.run(kill=step(3))
    assert list(tmp_path.rglob("checkpoint*")) == []


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("checkpoint", [None, 0.0])
def test_where_a_worker_leaves_no_files_the_scratch_folder_need_not_be_there(
    tmp_path, with_state, settled, checkpoint
):
    function = summing([]) if with_state else lambda params, seed: {"value": params["x"]}
    calls = Calls(tmp_path, function, settled=settled, checkpoint=checkpoint)
    if not calls.setup.leaves_files:
        calls.lane = lambda number: Lane(Calls.lane(calls, number).trial, str(tmp_path / "nowhere"))
    calls.attempt = 1  # the next one looks for what it goes on from
    (end,) = of(TrialFinished, calls.run())
    assert end.state is TrialState.COMPLETE
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert bool(written) == (checkpoint is not None and (with_state or settled))
    assert calls.setup.leaves_files or not (tmp_path / "nowhere").exists()


def sometimes(made):
    """A function of eight steps that yields its state with every third of them, one list that it goes on changing."""

    def f(params, seed, state=None):
        done = [] if state is None else state
        for number in range(len(done), 8):
            made.append(number + 1)
            done.append(number / params["x"])
            metrics = {"value": sum(done)}
            yield (metrics, done) if number % 3 == 2 else metrics

    return f


@pytest.mark.parametrize("kill", [4, 5, 6, 8])
def test_steps_after_the_last_state_are_computed_again_and_counted_once(tmp_path, monkeypatch, kill):
    unbroken = Calls(tmp_path / "a", sometimes([])).run()
    due = iter([False, False, False, True] + [False, True] * 9)  # never at the step of a state
    monkeypatch.setattr(Pace, "due", property(lambda _: next(due)))
    made = []
    calls = Calls(tmp_path / "b", sometimes(made))
    calls.run(kill=step(kill))
    last = calls.run()
    (resumed,) = of(TrialResumed, last)
    before = resumed.epoch
    assert before == (kill - 2) // 3 * 3
    assert [row.step for row in resumed.rows] == list(range(1, before + 1))
    assert [e.step for e in of(StepEnded, last)] == list(range(before + 1, 9))
    assert made == [*range(1, kill + 1), *range(before + 1, 9)]
    assert told(last) == told(unbroken)
