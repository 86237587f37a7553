"""A home in object storage: what one machine writes another reads, and what is removed is gone for all.

The storage is fsspec's own in this process's memory; machines are caches of their own, which share nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import fsspec
import pytest

from gridsearch.errors import StoreError, StoreUnreachable, UsageError
from gridsearch.service.prepare.options import Places
from gridsearch.store import open_store
from gridsearch.store.object_storage import storage_at

if TYPE_CHECKING:
    from pathlib import Path

HOME = "memory://bucket/runs"


@pytest.fixture
def objects():
    """The names of all objects below the home."""
    system = fsspec.filesystem("memory")

    def names() -> list[str]:
        return sorted(name.partition("/bucket/runs/")[2] for name in system.find("/bucket"))

    yield names
    system.rm("/", recursive=True)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Become another machine: with another cache."""

    def become(name: str) -> Path:
        monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / name))
        return Places.find(HOME, f"sqlite:///{tmp_path}/s.db").home

    return become


@pytest.fixture
def where(tmp_path):
    return ("--home", HOME, "--store", f"sqlite:///{tmp_path}/s.db")


GRID = ("--dataset", "digits", "--model", "mlp", "--epochs", "1", "--grid", "lr=.1,.01")
HERE = ("--executor", "inline", "--no-report")


def test_what_one_machine_trains_another_reports_with_all_files(cli, where, machine, objects):
    machine("a")
    assert cli("run", *GRID, *HERE, *where).code == 0
    kinds = {name.partition(".safetensors.")[0] for name in objects() if "safetensors" in name}
    assert {"digits/trials/0/predictions", "digits/trials/1/weights"} <= kinds
    there = machine("b")
    assert not (there / "digits").exists()
    report = cli("report", "--study", "digits", *where)
    assert report.code == 0, report.err
    assert "warning" not in report.err
    assert "95 % interval [" in report.out
    assert (there / "digits/trials/0/predictions.safetensors").exists()
    assert "digits/report/index.html" in objects()
    machine("c")
    assert cli("report", "--study", "digits", "--trial", "0", *where).code == 0


def test_the_dashboards_copies_and_logs_are_read_from_any_machine(cli, where, machine, objects, tmp_path):
    (tmp_path / "f.py").write_text("def f(params, seed):\n    print('so it goes')\n    return {'value': 1}\n")
    machine("a")
    assert cli("run", "--objective", "f.py:f", "--grid", "x=1", *HERE, *where).code == 0
    machine("b")
    assert "so it goes" in cli("trial", "0", "--study", "f", *where).out
    places = Places.find(HOME, where[-1])
    with open_store(places.store, home=places.home, create=False) as store:
        (shown := tmp_path / "shown.txt").write_text("a picture")
        store.add_artifact(study="f", number=0, path=shown)
    other = machine("c")
    from gridsearch.store.artifacts import Home
    from gridsearch.store.dashboard_copies import DashboardCopies

    (copy,) = [name for name in objects() if name.startswith(".artifacts/")]
    with DashboardCopies(Home(other)).open_reader(copy.partition("/")[2]) as file:
        assert file.read() == b"a picture"


def test_a_study_that_is_deleted_leaves_nothing(cli, where, machine, objects):
    machine("a")
    assert cli("run", *GRID, *HERE, *where).code == 0
    assert objects()
    machine("b")
    assert cli("study", "delete", "digits", "--yes", *where).code == 0
    assert objects() == []


def test_weights_that_are_not_kept_are_removed_for_all(cli, where, machine, objects):
    machine("a")
    assert cli("run", *GRID, *HERE, *where).code == 0
    places = Places.find(HOME, where[-1])
    with open_store(places.store, home=places.home, create=False) as store:
        assert store.prune_weights("digits", keep=1) == 1
    assert sum("weights" in name for name in objects()) == 1


def test_bytes_that_are_not_those_of_the_store_are_refused(cli, where, machine, objects):
    machine("a")
    assert cli("run", *GRID, *HERE, *where).code == 0
    system = fsspec.filesystem("memory")
    for name in objects():
        if "predictions" in name:
            system.pipe_file(f"/bucket/runs/{name}", b"something else")
    machine("b")
    assert "has changed since it was written" in cli("report", "--study", "digits", *where).err


def test_a_command_that_is_advised_names_the_home_in_object_storage(cli, where, machine, objects, tmp_path):
    (tmp_path / "f.py").write_text("def f(params, seed):\n    return {'value': 1}\n")
    machine("a")
    said = cli("add", "--objective", "f.py:f", "--grid", "x=1", *where).err
    assert f"gridsearch worker --objective f.py:f --home {HOME} --store" in said


@pytest.mark.parametrize(
    ("home", "store", "message"),
    [
        (HOME, None, "object storage holds files, and no ledger"),
        ("nosuch://bucket", "sqlite:///s.db", "nosuch"),
        (
            "s3://me:secret@bucket/runs",
            "sqlite:///s.db",
            "--home s3://me:***@bucket/runs: a password in a URL",
        ),
    ],
)
def test_a_home_that_cannot_be_is_one_line(cli, home, store, message):
    done = cli("status", "--home", home, *(("--store", store) if store else ()))
    assert done.code == 2
    assert message in done.error
    assert "secret" not in done.err


def test_a_storage_that_does_not_answer_or_refuses_us_is_said_so(machine, objects, monkeypatch, tmp_path):
    storage = storage_at(HOME)

    def fails(error: Exception):
        def put_file(*_args: object) -> None:
            raise error

        monkeypatch.setattr(storage._system, "put_file", put_file)

    fails(TimeoutError("timed out"))
    with pytest.raises(
        StoreUnreachable, match="memory://bucket/runs does not answer: TimeoutError: timed out"
    ):
        storage.put(tmp_path, "x")
    fails(PermissionError("AccessDenied"))
    with pytest.raises(StoreError, match="refuses us: AccessDenied"):
        storage.put(tmp_path, "x")


def test_a_storage_without_its_package_names_it(monkeypatch):
    from fsspec import core

    def missing(_address: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(core, "url_to_fs", missing)
    with pytest.raises(UsageError, match="Install s3fs to access S3"):
        storage_at("s3://a-bucket-of-this-test/runs")
