"""A Ray cluster whose head is gone: nothing is asked of it, since Ray would wait and then end the process."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from gridsearch.errors import EngineUnreachable
from gridsearch.executors import ray as cluster
from gridsearch.executors import ray_workers
from gridsearch.records import WorkerSetup


@pytest.fixture
def head(monkeypatch):
    """A socket that stands for the head; nothing of Ray is there."""
    server = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(cluster, "head", lambda: f"127.0.0.1:{server.getsockname()[1]}")
    yield server
    server.close()


def test_a_head_that_goes_and_comes_back_is_noticed(head):
    found = ray_workers._Head()
    port = head.getsockname()[1]
    assert found.is_there()
    head.close()
    assert not found.is_there()
    since = found.gone_since
    assert not found.is_there()
    assert since is not None
    assert found.gone_since == since
    with socket.create_server(("127.0.0.1", port)):
        assert found.is_there()
    assert found.gone_since is None


def test_a_run_lasts_a_while_without_the_head_and_asks_nothing_of_it(head, monkeypatch):
    monkeypatch.setattr(ray_workers, "_LOOK_SECONDS", 0.01)
    left = []
    asked = lambda *_, **__: pytest.fail("it would wait for the head")  # noqa: E731
    ray = SimpleNamespace(
        put=lambda content: content, remote=lambda **_: lambda keeper: keeper, kill=asked, wait=asked
    )
    monkeypatch.setattr(cluster, "connect", lambda: ray)
    monkeypatch.setattr(cluster, "places", asked)
    monkeypatch.setattr(cluster, "abandon", lambda: left.append(True))
    packed = SimpleNamespace(contents={}, setup=WorkerSetup(name="w", device="cpu", threads=1))
    transport = ray_workers.RayTransport(packed, workers=1, most=1)
    head.close()
    assert list(transport.poll(0.02)) == []
    monkeypatch.setattr(ray_workers, "_HEAD_SECONDS", 0.0)
    with pytest.raises(EngineUnreachable, match="the head of the Ray cluster has not answered") as caught:
        list(transport.poll(0.02))
    assert caught.value.exit_code == 75
    transport.close()
    assert left == [True]
