"""What PostgreSQL refuses or interrupts: one line that says what is wrong and where, and nothing half written."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading

import optuna
import psycopg
import pytest

from gridsearch import faults
from gridsearch.errors import StoreError, StoreUnreachable
from gridsearch.records import TrialState
from gridsearch.store import RunnerIdentity, claims, open_store, store_exists
from gridsearch.store import database as database_module
from gridsearch.store.database import StoreConflict, retried
from gridsearch.store.postgresql_dialect import PASSWORD_FILE
from tests.servers.postgresql import PASSWORD, free_port
from tests.store.readers import optuna_url, reader
from tests.store.runs import Run

pytestmark = pytest.mark.postgresql
ME = RunnerIdentity.current()
ELSEWHERE = dataclasses.replace(ME, host="elsewhere")


@pytest.fixture
def url(store_database):
    return store_database


@pytest.fixture
def other(url, home):
    """Another runner's connection to the store."""
    with open_store(url, home=home, create=False) as opened:
        yield opened


def refused(url, home, kind, match, *, create=False):
    with pytest.raises(kind, match=match) as caught:
        open_store(url, home=home, create=create)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_what_cannot_be_connected_to_is_told_in_one_line_with_its_place(postgresql, home, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.1)
    gone = free_port()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("gridsearch.store.postgresql_dialect._CONNECT_SECONDS", "1")
        port = silent.getsockname()[1]
        for place, kind, match in (
            (f"postgresql://me@127.0.0.1:{gone}/a", StoreUnreachable, "does not answer: .*[Rr]efused"),
            (f"postgresql://me@127.0.0.1:{port}/a", StoreUnreachable, "does not answer: .*timeout"),
            ("postgresql://me@database.invalid/a", StoreUnreachable, "does not answer"),
            (postgresql.tcp_url("nowhere"), StoreError, "is not there: .*nowhere"),
            (postgresql.tcp_url("postgres", user="stranger"), StoreError, "refuses this user"),
        ):
            error = refused(place, home, kind, match)
            assert place in error.message
            assert error.exit_code == (75 if kind is StoreUnreachable else 4)
    assert not home.exists()


def test_a_password_comes_from_the_environment_a_passfile_or_a_file_and_is_never_shown(
    postgresql, new_database, home, tmp_path, monkeypatch, cli, caplog
):
    url = postgresql.tcp_url(new_database)
    assert "PASSWORD" in refused(url, home, StoreError, "refuses this user: .*no password").hint
    passfile, file = tmp_path / "pass", tmp_path / "secret"
    passfile.write_text(f"127.0.0.1:*:*:*:{PASSWORD}\n")
    passfile.chmod(0o600)
    file.write_text(f"{PASSWORD}\n")
    monkeypatch.setenv("PGPASSWORD", f"{PASSWORD}-wrong")
    refused(url, home, StoreError, "refuses this user: .*authentication failed")
    said = [cli("status", "--store", url), cli("-v", "study", "list", "--store", url)]
    monkeypatch.setenv(PASSWORD_FILE, str(file))  # named by us, it counts before what libpq finds
    open_store(url, home=home, create=True).close()
    said.append(cli("status", "--store", url))
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.delenv(PASSWORD_FILE)
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    open_store(url, home=home, create=False).close()
    monkeypatch.setenv(PASSWORD_FILE, str(tmp_path / "nothing"))
    said.append(cli("status", "--store", url))
    assert said[-1].code == 2
    assert "nothing cannot be read" in said[-1].error
    said.append(cli("status", "--store", url.replace("@", f":{PASSWORD}@")))
    assert said[-1].code == 2
    assert not any(PASSWORD in text for each in said for text in (each.out, each.err))
    assert PASSWORD not in caplog.text


def test_a_user_without_rights_is_told_so_and_nothing_is_made(postgresql, new_database, home, make):
    guest = f"guest_{new_database}"
    postgresql.execute(f"CREATE ROLE {guest} LOGIN")
    url = postgresql.url(new_database, user=guest)
    refused(url, home, StoreError, "refuses this user: permission denied for schema", create=True)
    assert not store_exists(url)
    with open_store(postgresql.url(new_database), home=home, create=True) as store:
        store.add(make.study(), make.drafts({"lr": [0.1]}))
    refused(url, home, StoreError, "refuses this user: permission denied for table")
    postgresql.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {guest}", database=new_database)
    with open_store(url, home=home, create=False) as readable:
        assert len(readable.study_data("digits").trials) == 1
        with pytest.raises(StoreError, match="refuses this user: permission denied") as caught:
            readable.add(make.study("more"), make.drafts({"lr": [0.1]}))
        assert caught.value.exit_code == 4
    postgresql.execute(f"DROP OWNED BY {guest}", f"DROP ROLE {guest}", database=new_database)


def test_a_store_that_is_read_only_can_be_read(postgresql, new_database, home, make):
    url = postgresql.url(new_database)
    with open_store(url, home=home, create=True) as store:
        store.add(make.study(), make.drafts({"lr": [0.1]}))
    postgresql.execute(f"ALTER DATABASE {new_database} SET default_transaction_read_only = on")
    with open_store(url, home=home, create=False) as store:
        assert len(store.waiting(store.study_id("digits"))) == 1
        with pytest.raises(StoreError, match=r"cannot be written: .*read-only"):
            store.claim([1], owner=ME, pack="p", lease=60)


@pytest.mark.parametrize(
    ("statement", "match", "hint"),
    [
        (
            "UPDATE gridsearch_schema SET revision = 99",
            "newer gridsearch .schema 99",
            "pip install --upgrade",
        ),
        ("UPDATE gridsearch_schema SET revision = 0", "older gridsearch .schema 0", "start a new store"),
        ("UPDATE alembic_version SET version_num = 'v3.0.0.d'", "an older Optuna", "postgresql.psycopg://"),
        (
            "DROP TABLE gridsearch_epochs",
            "is damaged: it has no table gridsearch_epochs",
            "restore a backup",
        ),
        ("ALTER TABLE trials DROP COLUMN number", "is damaged: it has no column trials.number", "backup"),
    ],
)
def test_a_store_of_another_schema_is_refused_with_what_fixes_it(
    postgresql, store, url, home, statement, match, hint
):
    database = "other_schema"
    postgresql.execute(f"DROP DATABASE IF EXISTS {database}")
    store.close()
    postgresql.execute(f"CREATE DATABASE {database} TEMPLATE {url.split('/')[3].split('?')[0]}")
    postgresql.execute(statement, database=database)
    assert hint.partition(".")[0] in refused(postgresql.url(database), home, StoreError, match).hint
    postgresql.execute(f"DROP DATABASE {database}")


def test_a_database_of_others_is_refused_and_left_as_it_is(postgresql, new_database, home):
    url = postgresql.url(new_database)
    refused(url, home, StoreError, "nothing in the store")
    postgresql.execute("CREATE VIEW recipes AS SELECT 1 AS id", database=new_database)
    refused(url, home, StoreError, "belongs to another program", create=True)
    theirs = f"{url}&options=-csearch_path%3Dtheirs"
    postgresql.execute("CREATE SCHEMA theirs", database=new_database)
    storage = optuna.storages.RDBStorage(optuna_url(theirs))
    optuna.create_study(storage=storage, study_name="theirs")
    storage.remove_session()
    storage.engine.dispose()
    refused(theirs, home, StoreError, "an Optuna database that gridsearch did not make", create=True)
    ours = f"{url}&options=-csearch_path%3Dours"
    postgresql.execute("CREATE SCHEMA ours", database=new_database)
    open_store(ours, home=home, create=True).close()  # beside them, in a schema of its own
    with open_store(ours, home=home, create=False) as store:
        assert store.studies() == []


def test_a_full_disk_of_the_server_is_told_and_loses_nothing(store, make):
    store.add(make.study(), make.drafts({"batch": [1, 2]}))
    faults.plan("commit:ENOSPC:1")
    try:
        with pytest.raises(StoreError, match="has no space left") as caught:
            store.add(make.study(), make.drafts({"batch": [1, 2, 3]}))
    finally:
        faults.plan("")
    assert caught.value.exit_code == 4
    assert len(store.study_data("digits").trials) == 2


def test_a_connection_is_waited_for_where_there_are_too_many(postgresql, store_database, home, monkeypatch):
    postgresql.execute("DROP ROLE IF EXISTS one", "CREATE ROLE one LOGIN SUPERUSER CONNECTION LIMIT 0")
    postgresql.execute("ALTER ROLE one NOSUPERUSER", "GRANT pg_read_all_data TO one")
    url = store_database.replace("postgres@", "one@")
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.1)
    error = refused(url, home, StoreUnreachable, "has no connection left: .*too many connections")
    assert error.exit_code == 75
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 30.0)
    later = threading.Timer(0.2, lambda: postgresql.execute("ALTER ROLE one CONNECTION LIMIT 5"))
    later.start()
    open_store(url, home=home, create=False).close()
    later.join()


def test_a_connection_that_the_server_ended_while_nobody_used_it_is_made_anew(postgresql, store, url, make):
    store.add(make.study(), make.drafts({"lr": [0.1]}))
    end_all(postgresql, url)
    assert len(store.study_data("digits").trials) == 1
    end_all(postgresql, url)
    assert store.add(make.study(), make.drafts({"lr": [0.1, 0.2]})).new == 1


def end_all(server, url):
    name = url.split("/")[3].split("?")[0]
    server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


def test_a_transaction_in_which_the_connection_is_lost_is_not_done_in_part(postgresql, store, url, make):
    added = store.add(make.study(), make.drafts({"lr": [0.1, 0.2]}))
    with pytest.raises(StoreUnreachable, match="does not answer"), store._database.write() as connection:
        claims.claim(connection, {"p": added.ids[:1]}, owner=ME, lease=60)
        end_all(postgresql, url)
        claims.claim(connection, {"p": added.ids[1:]}, owner=ME, lease=60)
    assert store.open_counts(added.study_id)[TrialState.WAITING] == 2


def test_a_claim_passes_over_what_another_claims_at_this_moment(store, other, make):
    added = store.add(make.study(), make.drafts({"lr": [0.1, 0.2, 0.3]}))
    with store._database.write_rows() as connection:
        assert len(claims.claim(connection, {"p": added.ids[:2]}, owner=ME, lease=60)["p"]) == 2
        taken = other.claim(added.ids, owner=ELSEWHERE, pack="q", lease=60)  # it would have to wait for us
        assert [t.id for t in taken] == [added.ids[2]]


def test_of_two_that_take_back_a_claim_at_once_one_does(store, other, make):
    added = store.add(make.study(), make.drafts({"lr": [0.1, 0.2]}))
    store.claim(added.ids, owner=ME, pack="p", lease=-1)
    with store._database.write_rows() as connection:
        first = claims.reclaim(connection, added.study_id, dead=RunnerIdentity.is_dead, home=store.home)
        assert other.reclaim(added.study_id) == []
    assert [each.trial for each in first] == list(added.ids)
    assert other.reclaim(added.study_id) == []


def test_a_trial_that_others_delete_while_its_epoch_is_written_refuses_it(store, make, monkeypatch):
    added = store.add(make.study(), make.drafts({"lr": [0.1, 0.2]}))
    one, two = store.claim(added.ids, owner=ME, pack="p", lease=60)
    held, deleted = claims.held, []

    def held_and_deleted(connection, pairs, **how):
        rows = held(connection, pairs, **how)
        if not deleted:
            deleted.append(True)
            models = optuna.storages._rdb.models
            storage = reader(store)
            with storage.scoped_session() as session:
                session.delete(session.query(models.TrialModel).filter_by(number=0).one())
                session.commit()
            storage.remove_session()
        return rows

    monkeypatch.setattr("gridsearch.store.result_writer.held", held_and_deleted)
    assert store.record_epochs([make.epoch(one, 1), make.epoch(two, 1)]) == 1
    assert [row.epoch for row in store.study_data("digits").epochs[1]] == [1]


def test_two_writers_that_wait_for_each_other_both_write_in_the_end(store, other, make):
    """The server ends one of them as a deadlock; begun anew it finds the way free."""
    added = store.add(make.study(), make.drafts({"lr": [0.1, 0.2]}))
    both_hold = threading.Barrier(2, timeout=30)
    begun = []

    class Writer:
        def __init__(self, store, ids):
            self.store, self.ids = store, ids

        @retried
        def write(self):
            begun.append(self)
            with self.store._database.write_rows() as connection:
                for each in self.ids:
                    connection.exec_driver_sql(
                        f"UPDATE gridsearch_trials SET tries = tries + 1 WHERE id = {each}"
                    )
                    if len(begun) <= 2 and each == self.ids[0]:
                        both_hold.wait()

    writers = Writer(store, added.ids), Writer(other, added.ids[::-1])
    threads = [threading.Thread(target=writer.write) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(begun) == 3
    assert [t.attempts for t in store.study_data("digits").trials] == [2, 2]


def test_who_is_in_the_way_again_and_again_is_told_and_may_go(store, monkeypatch):
    monkeypatch.setattr(database_module, "_FIRST_PAUSE", 0.0)
    tried = []

    @retried
    def write(store):
        tried.append(True)
        with store._database.write_rows():
            raise psycopg.errors.SerializationFailure("could not serialize access")

    with pytest.raises(StoreConflict, match="others write the same rows"):
        write(store)
    assert len(tried) == database_module._ATTEMPTS


def test_behind_a_pgbouncer_in_transaction_mode_a_study_is_run(pgbouncer, url, home, make):
    through = pgbouncer.url(url.split("/")[3].split("?")[0])
    with contextlib.ExitStack() as stack:
        stores = [stack.enter_context(open_store(through, home=home, create=False)) for _ in range(6)]
        added = stores[0].add(make.study(), make.drafts({"batch": list(range(1, 41))}))
        taken = []

        def work(store):
            while waiting := [t.id for t in store.waiting(added.study_id)][:3]:
                mine = store.claim(waiting, owner=ME, pack="p", lease=60)
                assert store.record_epochs([make.epoch(t, 1) for t in mine]) == len(mine)
                assert all(store.finish_many([make.finished(t) for t in mine]))
                taken.extend(t.id for t in mine)

        threads = [threading.Thread(target=work, args=[store]) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
        assert sorted(taken) == sorted(added.ids)
        assert stores[0].study_data("digits").counts()["complete"] == 40


def test_who_takes_connections_and_ends_them_may_be_a_server_that_starts(home, monkeypatch):
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.1)
    tried = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def end_all_connections():
            with contextlib.suppress(OSError):
                while True:
                    tried.append(proxy.accept()[0].close())

        ends = threading.Thread(target=end_all_connections)
        ends.start()
        url = f"postgresql://me@127.0.0.1:{proxy.getsockname()[1]}/a?sslmode=disable"
        error = refused(url, home, StoreUnreachable, "does not answer: ")
        proxy.shutdown(socket.SHUT_RDWR)
        ends.join(timeout=60)
    assert error.exit_code == 75
    assert len(tried) > 1


def test_a_run_keeps_one_connection_and_says_whose_it_is(postgresql, new_database, home, make):
    with open_store(postgresql.url(new_database), home=home, create=True) as store:
        run = Run(store, make)
        run.store.record_epochs([make.epoch(run.trials[0], 1)])
        store.study_data("digits")
        query = f"SELECT application_name FROM pg_stat_activity WHERE datname = '{new_database}'"
        ((name,),) = postgresql.execute(query)
        assert name.startswith("gridsearch ")
        assert name.endswith(f" {ME.pid}")
        run.store.close()
