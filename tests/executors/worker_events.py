"""What tests of executors wait for, and look for among what workers send."""

from __future__ import annotations

import time

from gridsearch.executors.local import LocalExecutor
from gridsearch.records import (
    LanesWanted,
    LogText,
    TrialFailed,
    TrialFinished,
    WorkerDied,
    WorkerReady,
)


def local_executor(setups, take, **rest) -> LocalExecutor:
    """Workers whose packs get no lanes beside their own."""

    def answer(event) -> None:
        take(event)
        if isinstance(event, LanesWanted):
            executor.send_lanes(event.pack, ())

    executor = LocalExecutor(setups, answer, **rest)
    return executor


def kinds(events) -> list[type]:
    return [type(event) for event in events if not isinstance(event, WorkerReady | LanesWanted)]


def log_before_the_end(events) -> str:
    """What was logged while the log was open: after its end a trial has none."""
    end = next(i for i, e in enumerate(events) if isinstance(e, TrialFinished | TrialFailed | WorkerDied))
    return "".join(e.text for e in events[:end] if isinstance(e, LogText))


def wait_for(found, seconds: float = 120):
    """Return what `found` gives once that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, "it did not come to this"
        time.sleep(0.05)
    return answer


def poll_until(executor, found, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        executor.poll(0.2)
        assert time.monotonic() < deadline
