"""What all tests share: a home and a cache of their own, and the command line in this process or in another."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import sqlite3
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import event
from sqlalchemy.pool import Pool

from tests.browser import chromium, executable
from tests.servers.postgresql import new_database, one_store, pgbouncer, postgresql, store_database  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from collections.abc import Iterator

# No test asserts a time: on a machine that has other work, drawing an example may take seconds.
settings.register_profile("gridsearch", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gridsearch")

REAL_CACHE = os.environ.get("GRIDSEARCH_CACHE")
LAST_COMPILED = Path(__file__).parent / "zoo" / "__pycache__"
"""Is there where all that tests import was compiled before."""


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Let one process compile what a new clone imports, while those beside it wait instead of doing the same."""
    with Path(__file__).open() as file:
        if not sys.dont_write_bytecode and not LAST_COMPILED.exists():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(file, fcntl.LOCK_SH)
        gc.disable()  # what is imported stays, and to look through it again and again takes seconds
        try:
            return (yield)
        finally:
            gc.enable()


LONG = ("end_to_end", "thorough", "fashion", "browser", "ray", "slurm", "postgresql")
"""Marks of tests that take long, by the second of a core or by what they wait for."""


def pytest_collection_modifyitems(items):
    """Begin with the files of long tests: those of short ones then fill the end, and no core has to wait for one."""
    long = {item.path for item in items if any(map(item.get_closest_marker, LONG))}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish():
    """Leave what was imported out of garbage collections: each took half a second, and found nothing of it."""
    gc.freeze()


MANY_MODULES = 200


@pytest.fixture(autouse=True, scope="module")
def _imported_left_out() -> Iterator[None]:
    """Leave out likewise what the tests of a module have imported, where that is much."""
    before = len(sys.modules)
    yield
    if len(sys.modules) > before + MANY_MODULES:
        gc.collect()
        gc.freeze()


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of an expected error, without what goes before it."""
        lines = [line for line in self.err.splitlines() if line.startswith("gridsearch: error: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("gridsearch: error: ")


@pytest.fixture(autouse=True, scope="session")
def kernels(tmp_path_factory) -> Iterator[Path]:
    """Where all tests keep what they compile, and the fixtures that a module shares: seconds for each anew."""
    folder = tmp_path_factory.getbasetemp().parent / "kernels"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRIDSEARCH_KERNELS", str(folder))
        yield folder


@pytest.fixture
def as_nobody():
    """Let a block run as a user without rights, whom root becomes; anybody else has none over a closed folder."""

    @contextlib.contextmanager
    def run() -> Iterator[None]:
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)

    return run


@pytest.fixture(autouse=True)
def _own_places(tmp_path, monkeypatch, kernels):
    """No test touches the user's home, cache or environment, or where others find modules."""
    for name in [
        n for n in os.environ if n.startswith("GRIDSEARCH_") and not n.startswith("GRIDSEARCH_TEST_")
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GRIDSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(kernels))
    monkeypatch.setattr(sys, "path", [*sys.path])  # the program adds its working folder
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(
        urllib.request, "_opener", None
    )  # made at first use, it keeps the proxies of that test


@pytest.fixture(autouse=True, scope="session")
def _nobody_waits_for_a_disk():
    """Let this process and its SQLite connections not wait until what they write is on the disk.

    No test ends by a loss of power, and the waits are longer than most of what waits; the tests' PostgreSQL does
    without them too.  A connection's first transaction is as ever: before it SQLite would have to read the file.
    """

    def relax(connection, record):
        if isinstance(connection, sqlite3.Connection) and "relaxed" not in record.info:
            record.info["relaxed"] = True
            with contextlib.suppress(sqlite3.Error):
                connection.execute("PRAGMA synchronous = OFF")

    event.listen(Pool, "checkin", relax)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
    event.remove(Pool, "checkin", relax)


@pytest.fixture(autouse=True, scope="session")
def _tests_stay_as_written():
    """Sending objects compares each own module with its file; here these are all test modules, seconds each time.

    No test changes a test module, so that one comparison of each does.
    """
    from gridsearch.executors import shipping

    tests, compare, known = str(Path(__file__).parent), shipping.as_written, {}

    def as_written(module) -> bool:
        if not str(getattr(module, "__file__", "")).startswith(tests):
            return compare(module)
        if module not in known:
            known[module] = compare(module)
        return known[module]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipping, "as_written", as_written)
        yield


@pytest.fixture(autouse=True, scope="session")
def _workers_have_one_parent():
    """All tests' workers are forked from one process: nothing in it looks at pytest's own variable."""
    from gridsearch.executors.warm_parent import WarmParent

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WarmParent, "late", (*WarmParent.late, "PYTEST_CURRENT_TEST"))
        yield


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Run the program in this process, in a folder of its own."""
    from gridsearch.cli import main
    from gridsearch.cli.commands import early_start

    monkeypatch.chdir(tmp_path)
    # What loads torch for the workers starts where they are needed: words that are refused would start it for nothing.
    monkeypatch.setattr(early_start, "load_early", lambda _: None)
    # `serve` steps back for those who train; this process would never come forward again, nor what it starts.
    monkeypatch.setattr(os, "nice", lambda _: 0)

    def run(*words: str) -> Result:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """Let reports have empty figures, where a test looks at none: to draw them takes longer than all else."""
    from gridsearch.reporting.figures import pictures

    def add(self, stem, figure, *, title, alt):
        self.by_stem[stem] = pictures.Picture(title=title, alt=alt, png=b"", svg=b"")

    monkeypatch.setattr(pictures.Pictures, "add", add)


@pytest.fixture
def no_graph(monkeypatch):
    """Let `best` export no graph, where a test looks at none: it takes seconds."""
    monkeypatch.setattr("gridsearch.training.export._graph", lambda *_: (None, {"error": "not asked for"}))


@pytest.fixture
def program(tmp_path):
    """Run the program as a user does, as a process."""

    def run(*words: str, timeout: float = 300, env: dict[str, str] | None = None) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "gridsearch", *words],
            capture_output=True,
            check=False,
            text=True,
            timeout=timeout,
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def fashion_cache() -> str:
    """The cache that holds the real Fashion-MNIST, or a skip."""
    import platformdirs

    cache = Path(REAL_CACHE or platformdirs.user_cache_dir("gridsearch", appauthor=False))
    from gridsearch.zoo import datasets

    if datasets.verify(datasets.open_dataset("fmnist"), cache / "data"):
        pytest.skip("Fashion-MNIST is not here: `gridsearch data fetch fmnist` brings it")
    return str(cache)


@pytest.fixture(scope="session")
def mnist_cache(tmp_path_factory) -> str:
    """A cache into which the real MNIST was fetched from a folder that holds its files, or a skip."""
    from gridsearch.errors import DataError
    from gridsearch.zoo import datasets

    given = os.environ.get("GRIDSEARCH_TEST_MNIST")
    source = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not source.is_dir():
        pytest.skip("no MNIST here; GRIDSEARCH_TEST_MNIST names a folder that holds its files")
    cache = tmp_path_factory.mktemp("mnist")
    try:
        assert datasets.fetch(datasets.open_dataset("mnist"), cache / "data", source) == str(source)
    except DataError as error:
        if given:
            raise
        pytest.skip(f"no MNIST here: {error}")
    return str(cache)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, or a skip. One a module: Playwright's event loop stays in the thread while it runs."""
    path = executable()
    if path is None:
        pytest.skip("no chromium here (Debian: apt-get install chromium)")
    with chromium(path) as found:
        yield found
