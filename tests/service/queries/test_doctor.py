"""The doctor says what is installed, what is needed, and what to do."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gridsearch.errors import StoreUnreachable
from gridsearch.executors import ray, slurm
from gridsearch.service.queries import doctor, engines


@pytest.mark.parametrize(
    ("installed", "verdict", "detail", "fix"),
    [
        ("5.0.3", "ok", "5.0.3, within <5.1,>=5.0", None),
        ("5.1.0", "bad", "5.1.0, but <5.1,>=5.0 is needed", "pip install 'optuna<5.1,>=5.0'"),
    ],
)
def test_optuna_is_named_with_the_versions_whose_tables_are_known(
    monkeypatch, installed, verdict, detail, fix
):
    monkeypatch.setattr(doctor, "requires", lambda _: ["optuna>=5.0,<5.1", "torch>=2.10"])
    monkeypatch.setattr(doctor, "version", lambda package: installed if package == "optuna" else "9.9")
    found = {finding.subject: finding for finding in doctor._packages()}
    assert (found["optuna"].verdict, found["optuna"].detail, found["optuna"].mend) == (verdict, detail, fix)
    assert found["torch"].detail == "9.9", "a range without an end says nothing of it"


RANGES = ["optuna>=5.0", 'submitit>=1.5; extra == "slurm"', 'ray>=2.52; extra == "ray"']


@pytest.fixture
def installed(monkeypatch):
    """Say which versions of which packages are installed, and let no program be found but those that are named."""

    def set_up(versions: dict[str, str], *, programs: tuple[str, ...] = ()) -> None:
        def version(package: str) -> str:
            if package not in versions:
                raise PackageNotFoundError(package)
            return versions[package]

        monkeypatch.setattr(engines, "requires", lambda _: RANGES)
        monkeypatch.setattr(engines, "version", version)
        monkeypatch.setattr(engines.shutil, "which", lambda name: name if name in programs else None)
        monkeypatch.setattr(ray, "require_answer", lambda _: None)
        monkeypatch.setattr(slurm, "slurm_version", lambda: "slurm 22.05.8")
        monkeypatch.setattr(slurm, "partitions", lambda: ("main*", "high"))

    return set_up


def test_an_engine_that_is_there_is_shown_with_its_version_and_address(installed, monkeypatch):
    versions = {"ray": "2.60.0", "submitit": "1.5.3", "psycopg": "3.3.4"}
    installed(versions, programs=("sbatch", "squeue", "scancel"))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    found = {engine.name: engine for engine in engines.engines()}
    assert list(found) == ["local", "ray", "slurm", "postgresql"]
    assert all(engine.ready for engine in found.values())
    assert found["ray"].detail == "--executor ray, ray 2.60.0, at 10.0.0.1:6379, answers"
    assert found["slurm"].detail.endswith("submitit 1.5.3, slurm 22.05.8, partitions main*, high")


def test_what_an_engine_lacks_is_a_note_with_the_way_to_get_it(installed):
    installed({"ray": "2.40.0", "submitit": "1.5.3"}, programs=("squeue",))
    found = {finding.subject: finding for finding in doctor._engines()}
    of_ray, of_slurm = found["engine ray"], found["engine slurm"]
    assert "psycopg is not installed" in found["engine postgresql"].detail
    assert (of_ray.verdict, of_ray.mend) == ("note", "pip install 'gridsearch[ray]'")
    assert "ray 2.40.0, but >=2.52 is needed" in of_ray.detail
    assert (of_slurm.verdict, of_slurm.mend) == ("note", "run it on a node that submits jobs")
    assert "no sbatch, scancel on the search path" in of_slurm.detail


def test_the_package_of_each_engine_is_that_of_its_extra():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    for extra, package in engines._PACKAGES.items():
        assert Requirement(extras[extra][0]).name == package


def test_an_engine_that_does_not_answer_is_said_so(installed, monkeypatch):
    installed({"submitit": "1.5.3"}, programs=("sbatch", "squeue", "scancel"))

    def silent() -> str:
        raise StoreUnreachable("Slurm does not answer", hint="ask who runs it")

    monkeypatch.setattr(slurm, "slurm_version", silent)
    found = next(finding for finding in doctor._engines() if finding.subject == "engine slurm")
    assert (found.verdict, found.mend) == ("note", "ask who runs it")
    assert found.detail.endswith("Slurm does not answer")


@pytest.mark.postgresql
def test_a_store_in_postgresql_is_shown_with_its_version_and_rights(cli, postgresql, new_database, tmp_path):
    url = postgresql.url(new_database)
    assert cli("doctor", "--model", "mlp", "--store", url).code == 0, "there is none yet"
    (tmp_path / "f.py").write_text("def f(params, seed):\n    return {'value': params['x']}\n")
    words = ("--objective", "f.py:f", "--grid", "x=1,2", "--store", url)
    assert cli("add", *words).code == 0
    found = cli("doctor", "--model", "mlp", "--store", url).out
    assert "1 study, 2 trials; PostgreSQL 1" in found
    assert "as user postgres" in found
    postgresql.execute(
        "CREATE ROLE reader LOGIN",
        "GRANT USAGE ON SCHEMA public TO reader",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
        database=new_database,
    )
    try:
        reading = cli("doctor", "--model", "mlp", "--store", postgresql.url(new_database, user="reader")).out
        assert "as user reader: read-only here" in reading
    finally:
        postgresql.execute("DROP OWNED BY reader", "DROP ROLE reader", database=new_database)
