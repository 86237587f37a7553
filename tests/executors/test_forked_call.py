"""A call in a fork gives its text, and nothing where it ends the fork, raises or takes too long."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from gridsearch.executors.forked_call import called_in_fork

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")


def test_what_it_changes_stays_there_and_what_it_returns_comes_back():
    seen = []
    assert called_in_fork(lambda: seen.append(1) or "one line, ä", patience=30) == "one line, ä"
    assert called_in_fork(lambda: "", patience=30) == ""
    assert called_in_fork(lambda: "long" * 100_000, patience=30) == "long" * 100_000
    assert seen == []


def raises():
    raise RuntimeError("no")


@pytest.mark.parametrize(
    "call", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(0), lambda: sys.exit(1), raises]
)
def test_an_end_of_the_process_is_no_answer(call):
    assert called_in_fork(call, patience=30) is None


def test_what_never_returns_is_ended(tmp_path):
    def waits():
        (tmp_path / "process").write_text(str(os.getpid()))
        time.sleep(1000)
        return ""

    assert called_in_fork(waits, patience=1.0) is None
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "process").read_text()), 0)
