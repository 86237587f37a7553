"""Signals during a run: which of them end it, and which are passed over."""

from __future__ import annotations

import signal

import pytest

from gridsearch.errors import Ended
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
    with listening() as interrupted:
        assert not interrupted
        signal.raise_signal(number)
        assert interrupted.signum == number
        with pytest.raises(Ended) as ended:
            signal.raise_signal(signal.SIGINT)
    assert ended.value.signum == number
    assert [signal.getsignal(each) for each in NUMBERS] == before


def test_a_terminal_that_closes_sends_more_than_one_signal_and_hurries_nobody():
    with listening() as interrupted:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert interrupted.signum == signal.SIGHUP
    with listening() as interrupted:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
        assert interrupted.signum == signal.SIGINT


def test_a_run_that_nohup_has_started_goes_on_without_its_terminal():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with listening() as interrupted:
        signal.raise_signal(signal.SIGHUP)
        assert not interrupted
