"""The worker's pipe: whole lines, and a sign of life where nothing else was said for long."""

from __future__ import annotations

import io

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
