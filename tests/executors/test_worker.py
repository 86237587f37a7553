"""The worker's pipe: whole lines, and a sign of life where nothing else was said for long."""

from __future__ import annotations

import io
import os

import pytest

from gridsearch.executors import worker
from gridsearch.executors.worker import EventPipe
from gridsearch.records import PackEnded, StillTraining
from gridsearch.records.wire import decode


@pytest.mark.parametrize("after", [-1.0, 0.0])
def test_a_pack_that_takes_steps_gives_a_sign_of_life_once_nothing_was_said_for_long(monkeypatch, after):
    clock = [100.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: clock[0])
    stream = io.BytesIO()
    pipe = EventPipe(stream)
    pipe.send(PackEnded(worker="w0", pack="before"))
    clock[0] += worker._SIGN_SECONDS + after
    assert [pipe.still_training("p") for _ in range(3)] == [False] * 3, "it is never left for that"
    said = [decode(line) for line in stream.getvalue().splitlines()]
    assert said == [PackEnded(worker="w0", pack="before"), *([] if after else [StillTraining(pack="p")])]


def test_a_child_that_the_users_code_forked_and_that_comes_back_says_nothing():
    incoming, outgoing = os.pipe()
    with os.fdopen(incoming, "rb") as read, os.fdopen(outgoing, "wb") as write:
        pipe = EventPipe(write)
        child = os.fork()
        if child == 0:
            try:
                pipe.send(StillTraining(pack="p1"))
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        pipe.send(StillTraining(pack="p2"))
        assert decode(read.readline()) == StillTraining(pack="p2")
