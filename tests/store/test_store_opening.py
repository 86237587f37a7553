"""What `open_store` finds, refuses and makes."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from gridsearch.errors import StoreError, StoreUnreachable
from gridsearch.store import database as database_module
from gridsearch.store import open_store, store_exists
from gridsearch.store.database import Database
from gridsearch.store.sqlite_dialect import SqliteDialect


@pytest.fixture
def url(home):
    """A file: what is tested here is what SQLite does."""
    return f"sqlite:///{home}/gridsearch.db"


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refused(url, home, *, match, create=True):
    with pytest.raises(StoreError, match=match) as caught:
        open_store(url, home=home, create=create)
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 4
    return caught.value


def everything_below(folder):
    return sorted(str(p) for p in folder.rglob("*"))


def test_a_new_store_is_one_file_in_a_new_folder(url, home):
    open_store(url, home=home, create=True).close()
    assert [p.name for p in home.iterdir()] == ["gridsearch.db"]
    assert store_exists(url)


def test_a_store_that_is_not_there_is_refused_and_not_made_without_create(url, home, tmp_path):
    error = refused(url, home, match="no store at", create=False)
    assert "gridsearch run" in error.hint
    assert everything_below(tmp_path) == []
    assert not store_exists(url)


def test_a_store_opens_again_with_what_was_in_it(url, home, make):
    with open_store(url, home=home, create=True) as store:
        store.add(make.study(), make.drafts({"lr": [0.1]}))
    with open_store(url, home=home, create=False) as store:
        assert [s.name for s in store.studies()] == ["digits"]
        assert store.problems() == ()


def test_an_empty_file_becomes_a_store_only_with_create(url, home):
    home.mkdir()
    (home / "gridsearch.db").touch()
    refused(url, home, match="nothing in the store", create=False)
    open_store(url, home=home, create=True).close()
    open_store(url, home=home, create=False).close()


def test_optuna_opens_a_new_store_without_complaint_and_without_changing_it(url, home):
    open_store(url, home=home, create=True).close()
    before = digest(home / "gridsearch.db")
    storage = optuna.storages.RDBStorage(url)
    assert storage.get_current_version() == storage.get_head_version()
    assert optuna.get_all_study_names(storage) == []
    storage.engine.dispose()
    assert digest(home / "gridsearch.db") == before


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"lr,batch\n.1,10\n", "not a SQLite database"),
        (b"SQLite format 3\0", "not a SQLite database"),
        (b"SQLite format 3\0" + b"\xff" * 4096, "not a SQLite database|damaged|truncated"),
    ],
)
def test_what_is_not_a_database_is_refused_and_left_as_it_is(url, home, content, match):
    home.mkdir()
    path = home / "gridsearch.db"
    path.write_bytes(content)
    refused(url, home, match=match)
    assert path.read_bytes() == content
    assert [p.name for p in home.iterdir()] == ["gridsearch.db"]


def test_a_truncated_store_is_refused_and_left_as_it_is(url, home):
    open_store(url, home=home, create=True).close()
    path = home / "gridsearch.db"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(url, home, match=f"truncated: {len(whole) // 2} bytes of {len(whole)}")
    assert path.read_bytes() == whole[: len(whole) // 2]


@pytest.mark.parametrize(("mode", "suffix", "kept"), [("DELETE", "-journal", 0), ("WAL", "-wal", 1)])
def test_a_write_of_which_the_end_is_missing_is_taken_back_or_completed(url, home, make, mode, suffix, kept):
    """As a kill or a power cut leaves it: a header that counts pages which are not there, and a journal."""
    with open_store(url, home=home, create=True) as store:
        store.add(make.study(), make.drafts({"batch": [1, 2]}))
    path, journal = home / "gridsearch.db", home / f"gridsearch.db{suffix}"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE more AS SELECT randomblob(100000) AS bytes")
        if mode == "DELETE":
            left = journal.read_bytes()
        connection.execute("COMMIT")
        if mode == "WAL":
            left = journal.read_bytes()
    path.write_bytes(path.read_bytes()[:-4096])
    refused(url, home, match="truncated")
    journal.write_bytes(left)
    with open_store(url, home=home, create=False) as store:
        assert len(store.study_data("digits").trials) == 2
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert len(connection.execute("SELECT * FROM sqlite_master WHERE name = 'more'").fetchall()) == kept


def test_a_page_that_was_overwritten_is_told_as_damage(url, home, make):
    with open_store(url, home=home, create=True) as store:
        store.add(make.study(), make.drafts({"batch": list(range(1, 200))}))
    path = home / "gridsearch.db"
    content = bytearray(path.read_bytes())
    content[4096 * 4 : -4096] = os.urandom(len(content) - 4096 * 5)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"), open_store(url, home=home, create=False) as store:
        store.study_data("digits")


def test_an_optuna_database_of_somebody_else_is_refused_and_left_as_it_is(url, home):
    home.mkdir()
    storage = optuna.storages.RDBStorage(url)
    optuna.create_study(storage=storage, study_name="theirs")
    storage.engine.dispose()
    before = digest(home / "gridsearch.db")
    error = refused(url, home, match="an Optuna database that gridsearch did not make")
    assert "--store" in error.hint
    assert digest(home / "gridsearch.db") == before


def test_a_database_of_another_program_is_refused_and_left_as_it_is(url, home):
    home.mkdir()
    with closing(sqlite3.connect(home / "gridsearch.db")) as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
    before = digest(home / "gridsearch.db")
    refused(url, home, match="belongs to another program")
    assert digest(home / "gridsearch.db") == before


@pytest.mark.parametrize(
    ("statement", "match", "hint"),
    [
        (
            "UPDATE gridsearch_schema SET revision = 99",
            "newer gridsearch .schema 99",
            "pip install --upgrade gridsearch",
        ),
        ("UPDATE gridsearch_schema SET revision = 0", "older gridsearch .schema 0", "start a new store"),
        (
            "UPDATE alembic_version SET version_num = 'v3.0.0.d'",
            "an older Optuna .revision v3.0.0.d",
            "optuna storage upgrade",
        ),
        (
            "UPDATE alembic_version SET version_num = 'v9.9.9.z'",
            "a newer Optuna .revision v9.9.9.z",
            "pip install",
        ),
    ],
)
def test_a_store_of_another_schema_is_refused_with_what_mends_it_and_left_as_it_is(
    url, home, statement, match, hint
):
    open_store(url, home=home, create=True).close()
    path = home / "gridsearch.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    before = digest(path)
    assert hint in refused(url, home, match=match).hint
    assert digest(path) == before


@pytest.mark.parametrize(
    ("statement", "missing"),
    [
        ("DROP TABLE gridsearch_epochs", "table gridsearch_epochs"),
        ("DROP TABLE trial_params", "table trial_params"),
        ("ALTER TABLE gridsearch_trials DROP COLUMN reason", "column gridsearch_trials.reason"),
        ("ALTER TABLE trials DROP COLUMN datetime_start", "column trials.datetime_start"),
    ],
)
def test_a_store_that_lacks_a_table_or_a_column_is_refused_and_left_as_it_is(
    url, home, make, statement, missing
):
    with open_store(url, home=home, create=True) as store:
        store.add(make.study(), make.drafts({"lr": [0.1]}))
    path = home / "gridsearch.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    before = digest(path)
    assert "restore a copy" in refused(url, home, match=f"is damaged: it has no {missing}").hint
    assert digest(path) == before


@pytest.mark.parametrize("table", ["gridsearch_data", "gridsearch_steps", "gridsearch_stops"])
def test_a_store_from_before_a_table_was_made_gets_it_when_it_is_opened(url, home, table):
    open_store(url, home=home, create=True).close()
    with closing(sqlite3.connect(home / "gridsearch.db")) as connection, connection:
        connection.execute(f"DROP TABLE {table}")
    open_store(url, home=home, create=False).close()
    with closing(sqlite3.connect(home / "gridsearch.db")) as connection:
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_a_store_whose_writer_was_killed_is_rolled_back_and_opens(url, home, python, make):
    with open_store(url, home=home, create=True) as store:
        store.add(make.study(), make.drafts({"batch": [1, 2, 3]}))
    writer = python(
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size = 1')\n"
        "c.execute('BEGIN IMMEDIATE')\n"
        'c.execute("UPDATE gridsearch_trials SET settings = hex(zeroblob(100000))")\n'
        "os.kill(os.getpid(), 9)\n",
        home / "gridsearch.db",
    )
    writer.communicate(timeout=60)
    assert (home / "gridsearch.db-journal").stat().st_size > 0, (
        "the kill must have come within the transaction"
    )
    with open_store(url, home=home, create=False) as store:
        assert len(store.study_data("digits").trials) == 3
        assert store.problems() == ()


def test_a_store_below_a_file_is_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("here first")
    below = tmp_path / "file" / "deep" / "er"
    refused(f"sqlite:///{below}/gridsearch.db", below, match="is not a folder|cannot be read")
    assert everything_below(tmp_path) == [str(tmp_path / "file")]


def test_a_folder_in_the_stores_place_is_refused(url, home):
    (home / "gridsearch.db").mkdir(parents=True)
    refused(url, home, match="is a folder")


def test_a_home_that_may_not_be_looked_into_is_not_taken_for_one_without_a_store(url, home, as_nobody):
    """`status` would say that there are no studies yet, and `plan` that nothing is trained."""
    open_store(url, home=home, create=True).close()
    home.chmod(0)
    try:
        with as_nobody():
            assert store_exists(url)
            refused(url, home, match="cannot be read: Permission denied", create=False)
    finally:
        home.chmod(0o755)


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        ("UPDATE gridsearch_trials SET settings = '{\"newer\": 1}'", "settings .*argument 'newer'"),
        ("UPDATE gridsearch_trials SET settings = '[]'", "settings .*not list"),
        ("UPDATE gridsearch_trials SET settings = '{'", "settings .*Expecting property name"),
        ("UPDATE gridsearch_trials SET state = 'paused'", "state .*'paused'"),
        ("UPDATE gridsearch_trials SET inactive = '{'", "what should be JSON is not"),
    ],
)
@pytest.mark.parametrize("read", ["study_data", "ledger"])
def test_a_trial_that_this_version_cannot_read_is_no_bug(url, home, make, statement, match, read):
    """A newer version has settings that this one does not know, in tables of the same schema."""
    with open_store(url, home=home, create=True) as store:
        store.add(make.study(), make.drafts({"lr": [0.1]}))
        with closing(sqlite3.connect(home / "gridsearch.db")) as connection, connection:
            connection.execute(statement)
        with pytest.raises(StoreError, match=match) as caught:
            getattr(store, read)("digits")
    assert caught.value.hint


READ_ONLY = """
import os, sys
from pathlib import Path
from gridsearch.errors import StoreError
from gridsearch.store import StudyDraft, open_store
base = Path(sys.argv[1])
warm = base / "warm"
open_store(f"sqlite:///{warm}/a.db", home=warm, create=True).close()  # what is imported late is imported now
closed, there = base / "closed", base / "there"
closed.mkdir()
open_store(f"sqlite:///{there}/gridsearch.db", home=there, create=True).close()
for each in (closed, there, there / "gridsearch.db"):
    each.chmod(0o555)
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for home in (closed, closed / "new" / "er", there):
    try:
        store = open_store(f"sqlite:///{home}/gridsearch.db", home=home, create=True)
        store.add(StudyDraft(name="a", dataset="a", metric="val_accuracy"), [])
    except StoreError as error:
        print(home.name, error.exit_code, str(home) in error.message, error.message)
print(sorted(p.name for p in closed.iterdir()))
"""


def test_a_read_only_home_is_refused_with_its_path_and_nothing_is_left(python):
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is closed to the other user whom root becomes
        base = Path(folder)
        base.chmod(0o755)
        out, err = python(READ_ONLY, base).communicate(timeout=60)
        for each in ("closed", "there"):
            (base / each).chmod(0o755)
    lines = out.splitlines()
    assert [line.split(maxsplit=3)[:3] for line in lines[:-1]] == [
        ["closed", "4", "True"],
        ["er", "4", "True"],
        ["there", "4", "True"],
    ], (out, err)
    assert lines[-1] == "[]"


def test_a_full_disk_is_told_and_loses_nothing(url, home, make):
    with open_store(url, home=home, create=True) as store:
        store.add(make.study(), make.drafts({"batch": [1, 2]}))
    database = Database(SqliteDialect(home / "gridsearch.db"))
    with pytest.raises(StoreError, match="no space left") as caught, database.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")  # as SQLite behaves on a full disk
        connection.exec_driver_sql(
            "INSERT INTO gridsearch_runners VALUES (1, hex(zeroblob(90000)), '', '', 1, 1, 1)"
        )
    database.close()
    assert "gridsearch.db" in caught.value.message
    with open_store(url, home=home, create=False) as store:
        assert len(store.study_data("digits").trials) == 2


def test_a_store_that_another_process_keeps_locked_is_unreachable(url, home, make, monkeypatch):
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.2)
    with (
        open_store(url, home=home, create=True) as store,
        closing(sqlite3.connect(home / "gridsearch.db")) as other,
    ):
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnreachable, match="locked") as caught:
            store.add(make.study(), [])
        assert caught.value.exit_code == 75
        other.rollback()
        store.add(make.study(), make.drafts({"lr": [0.1]}))


@pytest.mark.parametrize(
    "use",
    [
        lambda store, make: open_store(store.url, home=store.home.root, create=False).close(),
        lambda store, make: store.study_data("digits"),
        lambda store, make: store.add(make.study(), make.drafts({"lr": [0.2]})),
    ],
    ids=["open", "read", "write"],
)
def test_who_waits_for_a_lock_says_so_once_and_goes_on(use, url, home, make, monkeypatch, caplog):
    with (
        open_store(url, home=home, create=True) as store,
        closing(sqlite3.connect(home / "gridsearch.db")) as other,
    ):
        store.add(make.study(), make.drafts({"lr": [0.1]}))
        monkeypatch.setattr(database_module, "SILENT_SECONDS", 0.05)
        other.execute("BEGIN EXCLUSIVE")
        handler = logging.Handler()
        handler.emit = lambda _: other.rollback()
        with monkeypatch.context() as patch:
            patch.setattr(database_module._log, "handlers", [handler])
            use(store, make)
    (line,) = caplog.messages
    assert line == f"store {home / 'gridsearch.db'} is locked by another process; waiting for up to 60 s"


def test_connections_are_set_up_as_the_ledger_needs_them(store):
    with store._database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    assert mode == ("wal" if sqlite3.sqlite_version_info >= (3, 51, 3) else "delete")
