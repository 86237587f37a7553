"""Settings of a server, a database or a user that are not the usual ones change nothing of what a store holds."""

from __future__ import annotations

import threading
import time
from urllib.parse import quote

import pytest

from gridsearch.errors import StoreError, StoreUnreachable
from gridsearch.records import TrialState
from gridsearch.store import RunnerIdentity, claims, open_store
from gridsearch.store import database as database_module

pytestmark = pytest.mark.postgresql
ME = RunnerIdentity.current()

ODD = {
    "DateStyle": "'SQL, DMY'",
    "IntervalStyle": "sql_standard",
    "TimeZone": "'Pacific/Apia'",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "client_encoding": "latin1",
    "client_min_messages": "debug1",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "row_security": "off",
}


@pytest.fixture
def odd(postgresql, monkeypatch):
    """The URL of a place with such settings, in a database that takes any bytes; its names need quotes."""
    name, schema = 'Zähl-Werk "2"', '"Träger %s; x"'
    quoted, escaped = '"Zähl-Werk ""2"""', quote(name, safe="")
    monkeypatch.setenv("PGCLIENTENCODING", "utf8")
    postgresql.execute(
        f"CREATE DATABASE {quoted} TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    try:
        postgresql.execute(*(f"ALTER DATABASE {quoted} SET {name} = {ODD[name]}" for name in ODD))
        postgresql.execute(f"CREATE SCHEMA {schema}", database=escaped)
        monkeypatch.delenv("PGCLIENTENCODING")
        path = schema.replace(" ", "\\ ")
        yield f"{postgresql.url(escaped)}&options={quote(f'-csearch_path={path}')}"
    finally:
        postgresql.execute(f"DROP DATABASE {quoted} WITH (FORCE)")


def test_what_is_read_is_what_was_written_whatever_is_set(odd, home, make, monkeypatch):
    monkeypatch.setattr(database_module, "_ATTEMPTS", 1)
    values = [0.1 + 0.2, 1 / 3, 1e-5 / 3, 2**-0.5]
    before = time.time()
    with open_store(odd, home=home, create=True) as store, open_store(odd, home=home, create=False) as other:
        added = store.add(make.study(dataset="Würde"), make.drafts({"lr": values}))
        waits = threading.Event()
        claimed = []

        def claim_too():
            waits.set()
            claimed.extend(other.claim(added.ids, owner=ME, pack="q", lease=60))

        second = threading.Thread(target=claim_too)
        with store._database.write() as connection:
            second.start()
            assert waits.wait(30)
            time.sleep(0.3)  # until it waits for us, with what it has seen before
            (first,) = claims.claim(connection, {"p": added.ids[:1]}, owner=ME, lease=60)["p"]
        second.join(30)
        assert [trial.id for trial in claimed] == list(added.ids[1:])
        trials = [first, *claimed]
        store.record_epochs([make.epoch(t, 1, value) for t, value in zip(trials, values, strict=True)])
        assert all(store.finish_many([make.finished(t, v) for t, v in zip(trials, values, strict=True)]))
        data = store.study_data("digits")
        assert [trial.params["lr"] for trial in data.trials] == values
        assert [trial.value for trial in data.trials] == values
        assert [data.epochs[n][0].val_accuracy for n in range(4)] == values
        assert {trial.state for trial in data.trials} == {TrialState.COMPLETE}
        (made,) = (each.created for each in store.studies())
        assert before - 5 < made.timestamp() < time.time() + 5


def test_a_server_that_ends_what_pauses_within_a_transaction_does_not_answer(store_database, home, make):
    paused = f"{store_database}&options=-cidle_in_transaction_session_timeout%3D50ms"
    with open_store(paused, home=home, create=False) as store:
        added = store.add(make.study(), make.drafts({"lr": [0.1, 0.2]}))
        with pytest.raises(StoreUnreachable, match="does not answer"), store._database.write() as connection:
            claims.claim(connection, {"p": added.ids[:1]}, owner=ME, lease=60)
            time.sleep(0.3)
            claims.claim(connection, {"p": added.ids[1:]}, owner=ME, lease=60)
        assert store.open_counts(added.study_id)[TrialState.WAITING] == 2


def test_an_option_that_a_pgbouncer_does_not_pass_on_is_told_with_what_does(pgbouncer, store_database, home):
    through = f"{pgbouncer.url(store_database.split('/')[3].split('?')[0])}?options=-csearch_path%3Dours"
    with pytest.raises(StoreError, match=r"takes no such option: .*options") as caught:
        open_store(through, home=home, create=True)
    assert "ALTER ROLE" in caught.value.hint
