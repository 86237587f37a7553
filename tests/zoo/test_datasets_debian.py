"""The Debian package as a source: built here, in a real repository of one package, through apt."""

import hashlib
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from gridsearch.errors import DataError
from gridsearch.zoo.datasets.download_sources import DebianPackage, Folder

INSIDE = "usr/share/datasets/tiny"

pytestmark = pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="needs apt-get and dpkg-deb"
)


@pytest.fixture
def repository(tiny, tmp_path):
    """A repository with the package `dataset-tiny`, and apt's options for knowing nothing else."""
    place = tmp_path / "repository"
    tiny.write(tmp_path / "package" / INSIDE, gz=True)
    control = tmp_path / "package" / "DEBIAN" / "control"
    control.parent.mkdir()
    about = "Package: dataset-tiny\nVersion: 1\nArchitecture: all\nMaintainer: none <none@example.org>\n"
    control.write_text(about + "Description: tiny images\n")
    place.mkdir()
    archive = place / "dataset-tiny_1_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", tmp_path / "package", archive],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    content = archive.read_bytes()
    index = (
        f"Filename: ./{archive.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
    )
    (place / "Packages").write_text(about + index + "Description: tiny images\n")
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{place} ./\n")
    (tmp_path / "apt" / "lists" / "partial").mkdir(parents=True)
    (tmp_path / "apt" / "cache" / "archives" / "partial").mkdir(parents=True)
    settings = {
        "Dir::Etc::SourceList": tmp_path / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": tmp_path / "apt" / "lists",
        "Dir::Cache": tmp_path / "apt" / "cache",
    }
    return place, tuple(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))


def package(options, **changes):
    return DebianPackage(**{"package": "dataset-tiny", "inside": INSIDE, "options": options} | changes)


def test_the_package_is_fetched_and_unpacked_though_the_systems_lists_are_empty(tiny, tmp_path, repository):
    dataset = tiny.dataset(sources=(package(repository[1]),))
    assert dataset.fetch(tmp_path / "root") == "Debian package dataset-tiny"
    assert dataset.verify(tmp_path / "root") == ()
    assert sorted(p.name for p in (tmp_path / "root" / "tiny").iterdir()) == sorted(tiny.contents)
    assert list((tmp_path / "apt" / "lists").rglob("*Packages*")) == []  # the system's state is as it was


def test_filled_lists_are_used_without_an_update(tiny, tmp_path, repository):
    subprocess.run(
        ["apt-get", *repository[1], "update"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{repository[0]} ./\n")
    (repository[0] / "Packages").unlink()  # an update would fail
    dataset = tiny.dataset(sources=(package(repository[1]),))
    assert dataset.fetch(tmp_path / "root") == "Debian package dataset-tiny"


def test_a_package_that_does_not_exist_is_told_in_apts_words(tiny, tmp_path, repository):
    dataset = tiny.dataset(sources=(package(repository[1], package="dataset-absent"),))
    with pytest.raises(DataError, match=r"Debian package dataset-absent: apt-get: E: .*dataset-absent"):
        dataset.fetch(tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_a_package_without_the_files_is_told(tiny, tmp_path, repository):
    dataset = tiny.dataset(sources=(package(repository[1], inside="usr/share/elsewhere"),))
    with pytest.raises(DataError, match="no train-images-idx3-ubyte"):
        dataset.fetch(tmp_path / "root")


def test_an_altered_package_is_refused_by_apt(tiny, tmp_path, repository):
    archive = repository[0] / "dataset-tiny_1_all.deb"
    content = bytearray(archive.read_bytes())
    content[-100] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="apt-get: E: "):
        tiny.dataset(sources=(package(repository[1]),)).fetch(tmp_path / "root")


def test_an_apt_that_hangs_is_given_up_and_ended(tiny, tmp_path, repository, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    hanging = programs / "apt-get"
    hanging.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    hanging.chmod(hanging.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    dataset = tiny.dataset(sources=(package((), timeout=2.0),))
    with pytest.raises(DataError, match=r"apt-get: no progress within 2 s"):
        dataset.fetch(tmp_path / "root")
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.02)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_where_there_is_no_apt_the_next_source_is_asked(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    installed = Folder(tiny.write(tmp_path / "installed", gz=True), "the installed package")
    told = []
    dataset = tiny.dataset(sources=(Folder(tmp_path / "absent", "absent package"), package(()), installed))
    assert dataset.fetch(tmp_path / "root", say=told.append) == "the installed package"
    assert "absent package: not there" in told[0]
    assert "apt-get and dpkg-deb are not on this machine" in told[1]
