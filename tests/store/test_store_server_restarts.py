"""A PostgreSQL server that is restarted: it is waited for, by a run and by whoever needs it, and nothing is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from gridsearch.errors import StoreUnreachable
from gridsearch.store import database as database_module
from gridsearch.store import open_store, run_store
from tests.servers.postgresql import PASSWORD, Postgresql, programs
from tests.store.runs import Run

pytestmark = pytest.mark.postgresql


@pytest.fixture
def own_server():
    """A server that a test may end."""
    if programs() is None:
        pytest.skip("no PostgreSQL here")
    server = Postgresql.make()
    server.start(synchronous_commit="on")  # what was committed is there after a crash
    yield server
    server.remove()


def test_a_server_that_is_restarted_in_the_middle_of_a_run_loses_nothing(own_server, home, make, monkeypatch):
    for name in ("_AGAIN_SECONDS", "_CHECK_SECONDS", "_OTHERS_FIRST"):
        monkeypatch.setattr(run_store, name, 0.0)
    monkeypatch.setattr(run_store, "BUSY_SECONDS", 0.5)
    own_server.execute("CREATE DATABASE runs")
    with open_store(own_server.url("runs"), home=home, create=True) as store:
        run = Run(store, make)
        one, two, three = run.trials
        run.store.record_epochs([make.epoch(one, 1, 0.3)])
        own_server.stop()
        assert run.store.finish_many([make.finished(one, 0.7)], epochs=[make.epoch(one, 2, 0.7)]) == [True]
        assert run.store.away
        assert run.store.fail(make.failed(two))
        run.store.release([(three.id, three.attempt)])
        run.store.tend()
        assert run.store.away
        own_server.start(synchronous_commit="on")
        run.store.tend()
        assert not run.store.away
        assert [t.state for t in store.study_data("digits").trials] == ["complete", "failed", "waiting"]
        assert [row.epoch for row in store.study_data("digits").epochs[0]] == [1, 2]
        assert len(run.warned) == 1
        assert "does not answer" in run.warned[0]
        run.store.close()
        assert not list(home.glob(".spool/*"))
        impatient = Run(store, make, patience=0.0)
        own_server.stop()
        impatient.store.record_epochs([])
        with pytest.raises(StoreUnreachable, match="unavailable for more than 0 s") as caught:
            impatient.store.tend()
        assert caught.value.exit_code == 75
        impatient.store.close()


@pytest.mark.parametrize("through", ["socket", "network"])
def test_a_server_that_is_restarted_is_waited_for_by_whoever_needs_it(
    own_server, home, make, monkeypatch, caplog, through
):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setattr(database_module, "SILENT_SECONDS", 0.1)
    own_server.execute("CREATE DATABASE runs")
    url = own_server.url("runs") if through == "socket" else own_server.tcp_url("runs")

    def restarted(use):
        own_server.stop()
        caplog.clear()
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(use)
            while not caplog.messages:
                assert not found.done()
            own_server.start(synchronous_commit="on")
        (line,) = caplog.messages
        assert "does not answer: connection" in line
        assert "; waiting for up to 60 s" in line
        return found.result()

    with restarted(lambda: open_store(url, home=home, create=True)) as store:
        assert restarted(lambda: store.add(make.study(), make.drafts({"lr": [0.1]}))).new == 1
        assert len(restarted(lambda: store.study_data("digits")).trials) == 1
