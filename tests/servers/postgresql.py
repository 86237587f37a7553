"""A PostgreSQL of the tests' own, in a folder of its own, and a PgBouncer before it.

One server serves all processes of a test session.  A keeper, a process of its own, starts it and ends it as soon as
nobody holds the lock of its folder any more, however the tests have ended.  `python postgresql.py FOLDER` is the keeper.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "correct-horse-battery"
USER = "postgres"
_QUICK = {  # nothing of it outlives the tests
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "deadlock_timeout": "100ms",
    "lc_messages": "C",
    "listen_addresses": "127.0.0.1",
}


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, of the newest version that is here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("postgres")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def pgbouncer_program() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _user() -> dict[str, object]:
    """How a process is started that refuses to be root's."""
    if os.getuid() != 0:
        return {}
    entry = pwd.getpwnam(USER)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


_DIES_WITH_US = ("setpriv", "--pdeathsig", "QUIT", "--")  # of util-linux; to PostgreSQL, its immediate end


def _own_folder(prefix: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=prefix))  # with a short path: that of a socket has 107 bytes
    if os.getuid() == 0:
        entry = pwd.getpwnam(USER)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    folder.chmod(0o755)
    return folder


@dataclass
class Postgresql:
    """A server of one's own: it may be stopped, started again, and made as poor as a test wants."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def make(cls) -> Postgresql:
        folder = _own_folder("pg-")
        made = cls(folder, free_port())
        bin_dir = programs()
        assert bin_dir is not None
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        command = [
            bin_dir / "initdb",
            "--pgdata",
            folder / "data",
            "--username",
            USER,
            "--no-sync",
            "--no-instructions",
        ]
        command += ["--auth-local", "trust", "--auth-host", "scram-sha-256", "--pwfile", secret]
        command += ["--encoding", "UTF8", "--locale", "C.UTF-8"]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **_user())
        return made

    def start(self, **settings: str) -> None:
        bin_dir = programs()
        options = _QUICK | {"port": str(self.port), "unix_socket_directories": str(self.folder)} | settings
        command = [*_DIES_WITH_US, bin_dir / "postgres", "-D", self.folder / "data"]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **_user())
        until = time.monotonic() + 60
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            lines = (self.folder / "data/postmaster.pid").read_text().splitlines()
            return lines[-1:] == ["ready   "]
        return False

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it: SIGQUIT at once, SIGINT with its clients told, SIGTERM when they have gone."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=60)
            self.process = None
            (self.folder / "data/postmaster.pid").unlink(missing_ok=True)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str = "postgres", user: str = USER) -> str:
        """The database through the socket, where everybody is trusted."""
        return f"postgresql://{user}@/{database}?host={quote(str(self.folder), safe='')}&port={self.port}"

    def tcp_url(self, database: str = "postgres", user: str = USER) -> str:
        """The database through the network, where a password is asked for."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def execute(self, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Execute statements as the superuser, each by itself; return the rows of the last."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@dataclass
class PgBouncer:
    """Gives each transaction any connection that is free: what a session keeps is nobody's."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def remove(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)


def start_pgbouncer(server: Postgresql, *, pool_size: int = 3) -> PgBouncer:
    folder, port = _own_folder("pgb-"), free_port()
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={server.folder} port={server.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = transaction\ndefault_pool_size = {pool_size}\nlogfile = {folder}/log\n"
        "server_round_robin = 1\n".replace(
            "auth_type = any", f"auth_type = trust\nauth_file = {folder}/users"
        )
    )
    (folder / "users").write_text(f'"{USER}" ""\n')
    process = subprocess.Popen(
        [*_DIES_WITH_US, str(pgbouncer_program()), "-q", folder / "pgbouncer.ini"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        **_user(),
    )
    until = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return PgBouncer(folder, port, process)
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError((folder / "log").read_text())
        time.sleep(0.02)


def _start_keeper(shared: Path, ready: Path) -> None:
    """Start the process that starts the server; it outlives us where others use the server still."""
    with (shared / "log").open("wb") as log:
        keeper = os.posix_spawn(
            sys.executable,
            [sys.executable, __file__, str(shared)],
            os.environ,
            setsid=True,
            file_actions=[(os.POSIX_SPAWN_DUP2, log.fileno(), 1), (os.POSIX_SPAWN_DUP2, log.fileno(), 2)],
        )
    while not ready.exists():
        if os.waitpid(keeper, os.WNOHANG) != (0, 0):
            raise RuntimeError((shared / "log").read_text())
        time.sleep(0.02)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgresql]:
    """The server that all tests share."""
    if programs() is None:
        pytest.skip("no PostgreSQL here (Debian: apt-get install postgresql)")
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "postgresql"
    shared.mkdir(exist_ok=True)
    with (shared / "users").open("w") as users, (shared / "starting").open("w") as starting:
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(starting, fcntl.LOCK_EX)
        ready = shared / "ready.json"
        if not ready.exists():
            _start_keeper(shared, ready)
        fcntl.flock(starting, fcntl.LOCK_UN)
        found = json.loads(ready.read_text())
        yield Postgresql(Path(found["folder"]), found["port"])


@pytest.fixture(scope="session")
def pgbouncer(postgresql: Postgresql) -> Iterator[PgBouncer]:
    """A PgBouncer in transaction mode before that server."""
    if pgbouncer_program() is None:
        pytest.skip("no PgBouncer here (Debian: apt-get install pgbouncer)")
    started = start_pgbouncer(postgresql)
    yield started
    started.remove()


_numbers = itertools.count(1)


@pytest.fixture
def new_database(postgresql: Postgresql) -> Iterator[str]:
    """The name of a database without tables, which goes after the test."""
    name = f"new_{os.getpid()}_{next(_numbers)}"
    postgresql.execute(f"CREATE DATABASE {name}")
    yield name
    postgresql.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def one_store(postgresql: Postgresql, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database that holds a store: to make one takes longer than most tests."""
    from gridsearch.store import open_store

    name = f"store_{os.getpid()}"
    postgresql.execute(f"CREATE DATABASE {name}")
    open_store(postgresql.url(name), home=tmp_path_factory.mktemp("store"), create=True).close()
    return name


@pytest.fixture
def store_database(postgresql: Postgresql, one_store: str) -> str:
    """The URL of an empty store."""
    emptied(postgresql, one_store)
    return postgresql.url(one_store)


def emptied(server: Postgresql, name: str) -> None:
    """Take everything out of a store."""
    kept = "('gridsearch_schema', 'alembic_version', 'version_info')"
    of_ours = f"FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname NOT IN {kept}"
    server.execute(
        "SET session_replication_role = replica",  # no foreign key has to be followed where all goes
        f"DO $$ DECLARE each text; BEGIN FOR each IN SELECT relname {of_ours} AND relkind = 'r' "
        "LOOP EXECUTE format('DELETE FROM %I', each); END LOOP; END $$",
        f"SELECT setval(oid::regclass, 1, false) {of_ours} AND relkind = 'S'",
        database=name,
    )


def _keep(shared: Path) -> None:
    """Start the server, and end it when nobody uses it."""
    server = Postgresql.make()
    try:
        server.start()
        draft = shared / "ready.tmp"
        draft.write_text(json.dumps({"folder": str(server.folder), "port": server.port}))
        draft.rename(shared / "ready.json")
        with (shared / "users").open("w") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
    finally:
        server.remove()


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
