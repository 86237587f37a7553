"""A run in the session's own process gives everything back."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import gc
import io
import locale
import logging
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
import weakref

import numpy as np
import pytest
import torch

from gridsearch import plugins
from gridsearch.executors.borrowed_process import Printing, borrowed
from gridsearch.executors.function_trainer import FunctionRunner
from gridsearch.executors.logs import LogStream
from gridsearch.executors.pack_trainer import PackTrainer
from gridsearch.records import (
    LogText,
    Pack,
    TrialFailed,
    TrialFinished,
    WorkerSetup,
)
from tests.executors.function_calls import lane, setup


def call(function, params=None, *, trials=1):
    """Call a function inline, as the trials of one pack; returns the events."""
    plugin, events = plugins.of_object(function), []
    runner = FunctionRunner(setup(plugin), events.append, {plugin.name: plugin})
    runner.train(Pack("p", tuple(lane(i, plugin, params) for i in range(trials))), stop=lambda: False)
    return events


@contextlib.contextmanager
def unhandled():
    """Pytest's own handlers away, as in a session that has set up no logging."""
    handlers, logging.root.handlers = logging.root.handlers, []
    try:
        yield
    finally:
        logging.root.handlers = handlers


def umask() -> int:
    found = os.umask(0o022)
    os.umask(found)
    return found


def state():
    """All that a library could leave behind in a process."""
    return {
        "random": random.getstate()[1][:9],
        "numpy": np.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "processes": multiprocessing.get_start_method(allow_none=True),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "handlers": list(logging.root.handlers),
        "level": logging.root.level,
        "other handlers": list(logging.getLogger("theirs").handlers),
        "path": list(sys.path),
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
        "folder": os.path.realpath("."),
        "arguments": list(sys.argv),
        "depth": sys.getrecursionlimit(),
        "silenced": logging.root.manager.disable,
        "arithmetic": (np.geterr(), np.get_printoptions()),
        "decimal": str(decimal.getcontext()),
        "tuned": torch.backends.cudnn.benchmark,
        "streams": (sys.stdout, sys.stderr, sys.stdin),
        "hooks": (sys.excepthook, sys.displayhook, threading.excepthook),
        "signals": [signal.getsignal(number) for number in signal.Signals],
        "alarm": signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        "umask": umask(),
        "locale": locale.setlocale(locale.LC_ALL),
        "zone": time.tzname,
        "collects": gc.isenabled(),
        "sockets": socket.getdefaulttimeout(),
        "living": set(threading.enumerate()),
    }


def _meddles(params, seed):
    random.random()
    np.random.rand()
    torch.rand(1)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(3)
    torch.autograd.set_detect_anomaly(True)
    multiprocessing.set_start_method("spawn", force=True)
    logging.warning("a first record makes a handler")
    logging.getLogger("theirs").addHandler(logging.StreamHandler())
    logging.root.setLevel(logging.DEBUG)
    sys.path.insert(0, "/nowhere")
    warnings.simplefilter("ignore")
    os.environ["MEDDLED"] = "1"
    os.chdir("/")
    sys.argv.append("more")
    sys.setrecursionlimit(900)
    logging.disable(logging.CRITICAL)
    np.seterr(all="raise")
    np.set_printoptions(precision=1)
    decimal.getcontext().prec = 3
    torch.backends.cudnn.benchmark = True
    sys.stdout = io.StringIO()
    sys.stdin = io.StringIO()
    sys.excepthook = threading.excepthook = print
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, print)
    signal.alarm(100)
    os.umask(0o077)
    locale.setlocale(locale.LC_ALL, "C")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    gc.disable()
    socket.setdefaulttimeout(1)
    if params.get("raises"):
        raise ValueError("on purpose")
    return {"y": 1.0}


@pytest.mark.parametrize("raises", [False, True])
def test_an_inline_trial_leaves_the_session_as_it_was(raises):
    sys.modules["torch"].manual_seed(1)
    with unhandled():
        before = state()
        events = call(_meddles, {"raises": raises})
        assert state() == before
    assert isinstance(events[-2], TrialFailed) == raises
    assert any(isinstance(e, LogText) and "a first record" in e.text for e in events)


def test_a_trial_does_not_depend_on_what_the_session_has_set():
    def measures(params, seed):
        weights = torch.ones(2, requires_grad=True)
        (weights.sum() ** 2).backward()
        return {
            "y": weights.grad.sum().item(),
            "bytes": weights.element_size(),
            "autocast": torch.is_autocast_enabled("cpu"),
            "anomalies": torch.is_anomaly_enabled(),
            "third": float(decimal.Decimal(1) / 3),
            "too small": float(np.float64(1e-300) * 1e-300),
        }

    plain = [e.metrics for e in call(measures) if isinstance(e, TrialFinished)]
    torch.set_default_dtype(torch.float64)
    try:
        with (
            torch.inference_mode(),
            torch.autocast("cpu"),
            torch.autograd.set_detect_anomaly(True),
            np.errstate(all="raise"),
            decimal.localcontext(prec=3),
        ):
            inside = [e.metrics for e in call(measures) if isinstance(e, TrialFinished)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert inside == plain
    assert plain[0] == {
        "y": 8.0,
        "bytes": 4.0,
        "autocast": 0.0,
        "anomalies": 0.0,
        "third": 1 / 3,
        "too small": 0.0,
    }


def test_what_a_generator_sets_holds_for_all_its_steps_and_not_for_the_next_trial():
    def steps(params, seed):
        yield {"y": torch.ones(1).element_size()}
        torch.set_default_dtype(torch.float64)
        logging.warning("from step 2")
        yield {"y": torch.ones(1).element_size()}
        logging.warning("from step 3")
        yield {"y": torch.ones(1).element_size()}

    with unhandled():
        events = call(steps, trials=2)
    assert [e.metrics["y"] for e in events if type(e).__name__ == "StepEnded"] == [4.0, 8.0, 8.0] * 2
    assert sum(e.text.count("from step 3") for e in events if isinstance(e, LogText)) == 2


def test_a_handler_that_was_made_in_a_trial_does_not_swallow_the_session_s_records(capsys):
    logging.getLogger().manager.loggerDict.pop("made in a trial", None)

    def logs(params, seed):
        made = logging.getLogger("made in a trial")
        made.addHandler(logging.StreamHandler())
        made.warning("inside")
        return {"y": 1.0}

    with unhandled():
        call(logs)
        logging.getLogger("made in a trial").warning("after")
    assert capsys.readouterr().err == "after\n"


def test_what_other_threads_print_meanwhile_goes_where_it_always_went(capsys):
    lines, here, there = [], threading.Event(), threading.Event()

    def other():
        here.wait(10)
        print("from the session")
        there.set()

    thread = threading.Thread(target=other)
    thread.start()
    with Printing(LogStream(lines.append)).inside():
        print("from the trial")
        here.set()
        there.wait(10)
        started = threading.Thread(target=lambda: print("from the trial's own thread"))
        started.start()
        started.join()
    thread.join()
    assert "".join(lines) == "from the trial\nfrom the trial's own thread\n"
    assert capsys.readouterr().out == "from the session\n"


def test_a_trial_s_standard_streams_have_what_python_s_own_have():
    def prints(params, seed):
        sys.stdout.reconfigure(line_buffering=True)
        sys.stdout.buffer.write("bytes é\n".encode())
        io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8", write_through=True).write("detached\n")
        sys.stderr.close()
        yield {"y": len(sys.stdout.errors)}
        print("still open", file=sys.stderr)
        yield {"y": 1.0}

    events = call(prints)
    assert isinstance(events[-2], TrialFinished)
    assert "".join(e.text for e in events if isinstance(e, LogText)) == "bytes é\ndetached\nstill open\n"


def test_two_threads_take_turns_so_that_each_trial_draws_its_own_numbers():
    def draws(params, seed):
        return {"y": sum(random.random() + float(np.random.rand()) for _ in range(2000))}

    found = {}

    def go(name):
        found[name] = [e.metrics["y"] for e in call(draws, trials=3) if isinstance(e, TrialFinished)]

    go("alone")
    threads = [threading.Thread(target=go, args=(name,)) for name in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found["x"] == found["y"] == found["alone"]


def test_a_trial_runs_inside_a_running_event_loop():
    async def main():
        return call(lambda params, seed: {"y": 2.0})

    assert any(isinstance(e, TrialFinished) for e in asyncio.run(main()))


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, GeneratorExit, StopIteration])
def test_whatever_a_function_raises_fails_its_trial_alone(error):
    def raises(params, seed):
        raise error("no")

    events = call(raises, trials=2)
    assert [e.message for e in events if isinstance(e, TrialFailed)] == [f"{error.__name__}: no"] * 2


def test_an_error_without_text_and_a_metric_without_a_name_fail_alone_and_can_be_stored():
    class Odd(Exception):
        def __str__(self):
            return self.args[5]

    def odd(params, seed):
        raise Odd("x")

    def surrogate(params, seed):
        print("half a pair: \ud83d")
        return {"y": 1.0, "\ud800": 2.0}

    (failed,) = (e for e in call(odd) if isinstance(e, TrialFailed))
    assert failed.message == "Odd: (its __str__ raised IndexError)"
    events = call(surrogate)
    (failed,) = (e for e in events if isinstance(e, TrialFailed))
    assert failed.message.endswith(r"a metric named '\ud800', which is no valid text")
    for event in events:
        if isinstance(event, LogText):
            event.text.encode()


def test_a_trainer_that_nobody_needs_is_freed_with_all_its_data():
    trainer = PackTrainer(
        WorkerSetup(name="w0", device="cpu", threads=1, dataset="digits"), lambda event: None
    )
    with pytest.raises(KeyError):
        trainer._material._find("nothing")
    gone = weakref.ref(trainer), weakref.ref(trainer._material)
    del trainer
    gc.collect()
    assert [each() for each in gone] == [None, None]


def test_the_session_is_given_back_after_an_error_too():
    before = state()
    with pytest.raises(ValueError, match="out"), borrowed():
        _meddles({}, 0)
        sys.stdout = before["streams"][0]
        raise ValueError("out")
    assert state() == before


def test_a_child_process_takes_the_descriptor_behind_what_is_printed_to(capfd):
    with Printing(LogStream(lambda text: None)).inside():
        subprocess.run([sys.executable, "-c", "print('from a child')"], stdout=sys.stdout, check=True)
    assert capfd.readouterr().out == "from a child\n"


@pytest.mark.parametrize("around", [False, True], ids=["alone", "inside the user's own block"])
def test_weights_that_change_are_rounded_anew_under_autocast(around):
    """torch keeps what it has rounded until the outermost block ends; ours must not be one around a trial."""
    layer = torch.nn.Linear(4, 2, bias=False)
    x_BF = torch.ones(3, 4)

    def outputs():
        with torch.autocast("cpu", torch.bfloat16):
            return layer(x_BF).float()

    with torch.autocast("cpu", torch.bfloat16) if around else contextlib.nullcontext():
        with borrowed():
            assert not torch.is_autocast_enabled("cpu")
            with torch.no_grad():
                layer.weight.fill_(1.0)
            assert torch.equal(outputs(), torch.full((3, 2), 4.0))
            with torch.no_grad():
                layer.weight.fill_(2.0)
            assert torch.equal(outputs(), torch.full((3, 2), 8.0))
        assert torch.is_autocast_enabled("cpu") is around
        assert torch.equal(outputs(), torch.full((3, 2), 8.0))
        with torch.no_grad():
            layer.weight.fill_(3.0)
        # inside of the user's own block torch keeps what it has rounded, as it does without us
        assert torch.equal(outputs(), torch.full((3, 2), 8.0 if around else 12.0))
    assert torch.equal(outputs(), torch.full((3, 2), 12.0))


def test_what_the_python_functions_import_draws_nothing_from_the_session_s_stream():
    code = (
        "import random, sys; random.seed(1); before = random.getstate(); import gridsearch; gridsearch.run; "
        "sys.exit(random.getstate() != before or 'rich.style' not in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
