"""Signals during a run: which of them end it, and which are passed over."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from gridsearch.errors import Ended
from gridsearch.service.run import interruption
from gridsearch.service.run.interruption import listening

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _handlers():
    """The handlers of a program that was started in a terminal; afterwards those that were there."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_asks_for_an_end_and_a_second_ends_at_once(number):
    before = [signal.getsignal(each) for each in NUMBERS]
    with listening(print) as interrupted:
        assert not interrupted
        signal.raise_signal(number)
        assert interrupted.signum == number
        with pytest.raises(Ended) as ended:
            signal.raise_signal(signal.SIGINT)
    assert ended.value.signum == number
    assert [signal.getsignal(each) for each in NUMBERS] == before


def test_a_terminal_that_closes_sends_more_than_one_signal_and_hurries_nobody():
    with listening(print) as interrupted:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert interrupted.signum == signal.SIGHUP
    with listening(print) as interrupted:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
        assert interrupted.signum == signal.SIGINT


def test_a_run_that_nohup_has_started_goes_on_without_its_terminal():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with listening(print) as interrupted:
        signal.raise_signal(signal.SIGHUP)
        assert not interrupted


WAITING = "interrupted: waiting for the code that runs now to return; Ctrl-C again stops at once"


def test_whoever_does_not_ask_soon_after_a_signal_is_said_to_be_waited_for(monkeypatch):
    monkeypatch.setattr(interruption, "UNHEARD_SECONDS", 0.01)
    said = []
    with listening(said.append):
        signal.raise_signal(signal.SIGTERM)
        while not said:
            time.sleep(0.01)
    assert said == [WAITING]


@pytest.mark.parametrize("asks", [True, False])
def test_nothing_is_said_where_somebody_asks_or_all_has_ended_in_time(asks, monkeypatch):
    began, ended = [], []

    def moment(_seconds):
        began.append(True)
        while not ended:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(interruption.time, "sleep", moment)
        said = []
        with listening(said.append) as interrupted:
            signal.raise_signal(signal.SIGINT)
            while not began:
                pass
            assert not asks or interrupted
            ended.extend([True] * asks)
        ended.append(True)
    time.sleep(0.05)
    assert said == []


LOOPS = """
import time
def calls(params, seed):
    open("called", "w").close()
    while True:
        try:
            time.sleep(1000) if params["sleeps"] else sum(range(100_000))
        except ValueError:
            pass
"""


@pytest.mark.end_to_end
@pytest.mark.parametrize(("sleeps", "number"), [("true", signal.SIGINT), ("false", signal.SIGTERM)])
def test_a_function_that_does_not_return_is_told_of_at_the_first_signal_and_ended_by_the_second(
    tmp_path, sleeps, number
):
    (tmp_path / "fit.py").write_text(LOOPS)
    words = ("run", "--objective", "fit.py:calls", "--grid", f"sleeps={sleeps}", "--executor", "inline")
    run = subprocess.Popen(
        [sys.executable, "-m", "gridsearch", *words, "--no-report"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "called").exists():
        assert run.poll() is None
    run.send_signal(number)
    guard = threading.Timer(60, run.kill)  # who says nothing now says nothing ever
    guard.start()
    line = "nothing yet"
    while line and line.strip() != WAITING:
        line = run.stderr.readline()
    guard.cancel()
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 128 + number, err
    assert line, "it was said before the second signal"
