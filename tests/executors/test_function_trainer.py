"""A function's trial: what it gives back is checked, its streams are its own, its steps come one by one."""

from __future__ import annotations

import math
import random
import signal
import subprocess
import sys
import textwrap
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from gridsearch import plugins
from gridsearch.executors.function_trainer import FunctionRunner
from gridsearch.random_streams import Streams
from gridsearch.records import (
    FunctionSettings,
    Lane,
    LanesTraining,
    LogText,
    Pack,
    PackEnded,
    PackStarted,
    StepEnded,
    Trial,
    TrialFailed,
    TrialFinished,
    TrialState,
    WorkerSetup,
)
from gridsearch.records.wire import decode, encode


def run(function, *trials, metric="value", stop=lambda: False, pruned=lambda: ()):
    """Call a function for trials given as (params, seed); returns all events."""
    plugin = plugins.of_object(function, name="f.py:f")
    events = []
    setup = WorkerSetup(
        name="w0", device="cpu", threads=1, kind="function", objective="f.py:f", metric=metric
    )
    lanes = tuple(
        Lane(
            Trial(
                id=i,
                number=i,
                key=str(i),
                seed=seed,
                settings=FunctionSettings(objective="f.py:f", objective_source=plugin.source, params=params),
                params=params,
                state=TrialState.RUNNING,
            ),
            "",
        )
        for i, (params, seed) in enumerate(trials)
    )
    FunctionRunner(setup, events.append, {"f.py:f": plugin}).train(Pack("p", lanes), stop=stop, pruned=pruned)
    assert isinstance(events[0], PackStarted)
    assert isinstance(events[-1], PackEnded)
    training = [event.trials for event in events if isinstance(event, LanesTraining)]
    assert training == [(lane.trial.id,) for lane in lanes[: len(training)]], "one after the other"
    return [event for event in events[1:-1] if not isinstance(event, LanesTraining)]


def ends(events):
    return [event for event in events if isinstance(event, TrialFinished | TrialFailed)]


def test_a_dict_of_numbers_is_the_result_also_out_of_numpy():
    def f(params, seed):
        return {
            "value": params["x"] + seed,
            "n": np.float32(2),
            "k": np.array(3),
            "half": Fraction(1, 2),
            "tenth": Decimal("0.1"),
            "long": np.longdouble(4),
            "yes": True,
            "off": math.nan,
        }

    (end,) = run(f, ({"x": 1}, 7))
    assert (end.state, end.epochs, end.message) == (TrialState.COMPLETE, 0, None)
    assert math.isnan(end.metrics.pop("off"))
    numbers = {"value": 8.0, "n": 2.0, "k": 3.0, "half": 0.5, "tenth": 0.1, "long": 4.0, "yes": 1.0}
    assert end.metrics == numbers


def test_each_dict_of_a_generator_is_a_step_and_the_last_one_the_result():
    def f(params, seed):
        for i in range(3):
            yield {"value": i, "seed": seed}

    *steps, end = run(f, ({}, 5))
    assert [(s.step, s.metrics) for s in steps] == [(i + 1, {"value": i, "seed": 5}) for i in range(3)]
    assert all(decode(encode(step)) == step for step in steps)
    assert (end.epochs, end.metrics) == (3, {"value": 2, "seed": 5})


def test_what_a_generator_returns_after_its_steps_is_its_result():
    def f(params, seed):
        yield {"value": 1}
        return {"value": 9, "best": 1} if params["x"] else "done"

    step, end, _, plain = run(f, ({"x": 1}, 0), ({"x": 0}, 0))
    assert (step.metrics, end.epochs, end.metrics) == ({"value": 1}, 1, {"value": 9, "best": 1})
    assert plain.metrics == {"value": 1}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_a_value_that_is_not_finite_has_diverged(value):
    (end,) = run(lambda params, seed: {"value": value}, ({}, 0))
    assert end.state is TrialState.DIVERGED
    assert end.message.startswith("value is ")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (5, "f.py:f returned an int, not a dict of metrics"),
        (None, "f.py:f returned None, not a dict of metrics"),
        ([{"value": 1}], "f.py:f returned a list, not a dict of metrics"),
        ({}, "f.py:f returned no 'value', and no other metric; --metric names what ranks"),
        ({"loss": 1, "b": 2}, "f.py:f returned no 'value', but 'loss', 'b'; --metric names what ranks"),
        ({"value": "12"}, "f.py:f returned 'value' as a str, not a number"),
        ({"value": 1, "x": None}, "f.py:f returned 'x' as None, not a number"),
        ({"value": np.ones(2)}, "f.py:f returned 'value' as an ndarray of shape (2,), not a number"),
        ({"value": 1j}, "f.py:f returned 'value' as a complex, not a number"),
        ({"value": np.ma.masked}, "f.py:f returned 'value' as a MaskedConstant, not a number"),
        ({"value": np.timedelta64(5, "ns")}, "f.py:f returned 'value' as a timedelta64, not a number"),
        ({3: 1}, "f.py:f returned a dict with the key 3, which is no name of a metric"),
    ],
)
def test_what_is_no_result_fails_in_one_line_that_says_what_came(found, message):
    (end,) = run(lambda params, seed: found, ({}, 0))
    assert isinstance(end, TrialFailed)
    assert (end.reason, end.message) == ("error", message)


def test_one_trial_that_raises_does_not_keep_the_others_from_running():
    def f(params, seed):
        if params["x"] == 1:
            raise ValueError("no\nsuch luck")
        if params["x"] == 2:
            sys.exit("bye")
        return {"value": params["x"]}

    first, second, third = ends(run(f, ({"x": 1}, 0), ({"x": 2}, 0), ({"x": 3}, 0)))
    assert (first.message, second.message) == ("ValueError: no such luck", "SystemExit: bye")
    assert "Traceback" in first.traceback
    assert third.metrics == {"value": 3.0}


def test_an_interrupt_that_code_raises_in_a_worker_fails_its_trial_and_ctrl_c_ends_the_run():
    def f(params, seed):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(f, ({}, 0))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a worker
        (end,) = run(f, ({}, 0))
    finally:
        signal.signal(signal.SIGINT, before)
    assert (type(end), end.message) == (TrialFailed, "KeyboardInterrupt")


def test_a_long_error_is_cut_in_its_message_and_whole_in_its_traceback():
    def f(params, seed):
        raise ValueError("no" * 1_000_000)

    (failed,) = ends(run(f, ({}, 0)))
    assert failed.message.startswith("ValueError: nono")
    assert failed.message.endswith("...")
    assert len(failed.message) == 300
    assert "no" * 1_000_000 in failed.traceback


def test_a_generator_without_a_step_and_one_that_breaks_off_say_so():
    def f(params, seed):
        if params["x"]:
            yield {"value": 1}
            yield {"other": 1}

    nothing, broken = ends(run(f, ({"x": 0}, 0), ({"x": 1}, 0)))
    assert nothing.message.startswith("f.py:f yielded nothing: ")
    assert broken.message == "f.py:f yielded at step 2 no 'value', but 'other'; --metric names what ranks"


def test_a_pruned_generator_ends_where_it_stands_and_may_tidy_up():
    tidied = []

    def f(params, seed):
        try:
            for i in range(10):
                yield {"value": i}
        finally:
            tidied.append(True)

    events = run(f, ({}, 0), pruned=lambda: {0})
    assert [type(event) for event in events] == [StepEnded, TrialFinished]
    assert (events[-1].state, events[-1].epochs, tidied) == (TrialState.PRUNED, 1, [True])


def test_an_interrupted_generator_has_no_result():
    def f(params, seed):
        yield {"value": 1}
        raise AssertionError

    answers = iter([False, True])
    assert [type(event) for event in run(f, ({}, 0), stop=lambda: next(answers))] == [StepEnded]


def test_what_is_printed_goes_to_the_log_of_its_trial_alone(capsys):
    def f(params, seed):
        print("hello from", params["x"])
        yield {"value": 1}
        print("bye", file=sys.stderr, end="")

    logs = [(e.trials, e.text) for e in run(f, ({"x": 1}, 0), ({"x": 2}, 0)) if isinstance(e, LogText)]
    assert logs == [((0,), "hello from 1\n"), ((0,), "bye\n"), ((1,), "hello from 2\n"), ((1,), "bye\n")]
    assert capsys.readouterr() == ("", "")


def drawn(params, seed):
    import torch

    for _ in range(2):
        yield {"value": random.random() + np.random.rand() + float(torch.rand(()))}


def test_the_streams_of_a_trial_depend_on_its_seed_and_on_nothing_that_ran_before():
    values = [
        [e.metrics["value"] for e in run(drawn, *trials) if isinstance(e, StepEnded)]
        for trials in ([({}, 3)], [({}, 1), ({}, 3)], [({}, 2**40)])
    ]
    assert values[0] == values[1][2:]
    assert values[0] != values[1][:2] != values[2]


def test_a_trial_leaves_the_streams_of_the_process_as_they_were():
    random.seed(9)
    np.random.seed(9)
    expected = [random.random(), np.random.rand()]
    random.seed(9)
    np.random.seed(9)
    run(drawn, ({}, 3))
    assert [random.random(), np.random.rand()] == expected


def test_blocks_of_one_trial_go_on_where_the_last_one_ended():
    streams, whole = Streams(4), Streams(4)
    parts = []
    for _ in range(3):
        with streams.inside():
            parts.append(random.random())
        random.random()
    with whole.inside():
        assert parts == [random.random() for _ in range(3)]


def test_torch_is_seeded_also_where_the_first_trial_of_a_process_is_what_imports_it():
    code = """
        import sys
        from gridsearch.random_streams import Streams
        assert "torch" not in sys.modules
        found = []
        for _ in range(2):
            with Streams(5).inside():
                import torch
                found.append(float(torch.rand(())))
        assert found[0] == found[1], found
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_a_function_whose_file_has_changed_is_not_called(tmp_path):
    file = tmp_path / "f.py"
    file.write_text("def f(params, seed):\n    return {'value': 1}\n")
    setup = WorkerSetup(
        name="w0", device="cpu", threads=1, kind="function", objective=f"{file}:f", metric="value"
    )
    settings = FunctionSettings(objective="f.py:f", objective_source="0" * 64)
    trial = Trial(id=1, number=0, key="k", seed=0, settings=settings, params={}, state=TrialState.RUNNING)
    events = []
    FunctionRunner(setup, events.append).train(Pack("p", (Lane(trial, ""),)), stop=lambda: False)
    (end,) = ends(events)
    assert end.message == "objective 'f.py:f': its file has changed since the run began"
