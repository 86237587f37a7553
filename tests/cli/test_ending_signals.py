"""SIGTERM and SIGHUP end any command in one line, with its exit code, and nothing half done is left."""

from __future__ import annotations

import atexit
import signal
import subprocess
import sys
import threading
import time

import pytest

from gridsearch.cli import main
from gridsearch.cli.ending_signals import interrupting
from gridsearch.service.queries import studies

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def as_in_a_shell():
    """Whatever the test runner itself was started with."""
    handlers = (signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL)
    before = {
        number: signal.signal(number, handler) for number, handler in zip(NUMBERS, handlers, strict=True)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("words", [("status",), ("status", "--watch"), ("study", "list"), ("report",)])
def test_a_signal_ends_a_command_in_a_line_with_its_exit_code(cli, monkeypatch, number, words):
    cleared = []

    def interrupted(*_, **__):
        try:
            signal.raise_signal(number)
        finally:
            cleared.append(True)

    for name in ("status", "summaries", "only"):
        monkeypatch.setattr(studies, name, interrupted)
    result = cli(*words)
    assert result.code == 128 + number
    assert cleared
    assert result.err in ("gridsearch: error: interrupted\n", "")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_hangup_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interrupting():
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


def test_outside_of_the_main_thread_signals_stay_as_they_are():
    found = []

    def look():
        with interrupting():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]


EARLY = """
import signal, sys
from gridsearch.cli import main

class Interrupts:
    def find_spec(self, name, *_):
        if name == "gridsearch.cli.parser":
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupts())
sys.argv = ["gridsearch", "status"]
sys.exit(main())
"""


def test_a_signal_while_a_command_is_still_imported_is_a_line_too():
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "gridsearch: error: interrupted\n")


def test_a_second_signal_while_the_process_ends_prints_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gridsearch", "--version"])
    monkeypatch.setattr(atexit, "register", lambda _: None)
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert main() == 0
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert capsys.readouterr().err == ""


class Falling:
    """Gets a signal where Python lets no exception out: as it does in callbacks, of imports too."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_that_comes_where_python_lets_no_exception_out_is_not_lost(cli, monkeypatch, number):
    def interrupted(*_, **__):
        Falling(number)
        time.sleep(60)

    monkeypatch.setattr(studies, "status", interrupted)
    result = cli("status")
    assert result.code == 128 + number
    assert result.err == "gridsearch: error: interrupted\n"
