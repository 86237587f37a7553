"""Files are there whole or not at all, and what several processes write is all there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gridsearch import files
from gridsearch.planning import OverheadLog, Probe, ProbeCache

PROCESSES, ROUNDS = 3, 20


def at_once(program: str, *words: object) -> None:
    """Run a program in several processes that begin together; each is given its number first."""
    head = "import sys\nwhoami = int(sys.argv[1])\nprint(flush=True)\nsys.stdin.readline()\n"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", head + textwrap.dedent(program), str(number), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for process in started:
        process.stdout.readline()
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=120)
        assert process.returncode == 0


def test_of_processes_that_change_the_caches_at_once_none_loses_anything(tmp_path):
    program = f"""
        from pathlib import Path
        from gridsearch.planning import OverheadLog, Probe, ProbeCache
        folder = Path(sys.argv[2])
        for turn in range({ROUNDS}):
            ProbeCache(folder / "probes.json").put(f"{{whoami}}-{{turn}}", Probe({{1: 1.0}}, upto=1))
            OverheadLog(folder / "overheads.json").add(f"{{whoami}}-{{turn}}", {{"start": [1.0 + turn]}})
    """
    at_once(program, tmp_path)
    names = {f"{who}-{turn}" for who in range(PROCESSES) for turn in range(ROUNDS)}
    assert ProbeCache(tmp_path / "probes.json").load() == dict.fromkeys(names, Probe({1: 1.0}, upto=1))
    log = OverheadLog(tmp_path / "overheads.json")
    assert {name: log.load(name).start for name in names} == {
        n: 1.0 + int(n.partition("-")[2]) for n in names
    }
    assert not list(tmp_path.glob(f"{files.PARTIAL}*"))


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '{"a": 1', "[" * 100_000, "\x00"])
def test_a_json_file_that_is_damaged_counts_as_empty_and_heals(tmp_path, content):
    path = tmp_path / "deep" / "x.json"
    path.parent.mkdir()
    path.write_text(content)
    assert files.read_json(path) == {}
    files.update_json(path, lambda known: {**known, "b": 2})
    files.update_json(path, lambda known: {**known, "c": 3})
    assert files.read_json(path) == {"b": 2, "c": 3}


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path, monkeypatch, fails):
    path = tmp_path / "x.json"
    files.write_whole(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync" if fails == "fsync" else "pathlib.Path.replace", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        files.write_whole(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_who_may_read_a_file_is_what_the_user_has_set(tmp_path):
    before = os.umask(0o077)
    try:
        files.write_whole(tmp_path / "x", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_several_files_get_their_names_all_at_the_end(tmp_path):
    with files.private_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "a").write_text("1")
        (folder / "b").write_text("2")
        assert [p for p in tmp_path.iterdir() if p.is_file()] == []
        files.put_all_in_place([(folder / "a", tmp_path / "a"), (folder / "b", tmp_path / "b")])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_files_are_on_the_disk_before_one_gets_its_name_and_their_folder_once_afterwards(
    tmp_path, monkeypatch
):
    happened = []
    flush, replace = os.fsync, Path.replace

    def flushed(handle):
        happened.append(("flushed", os.fstat(handle).st_ino))
        flush(handle)

    def replaced(draft, target):
        happened.append(("named", draft.stat().st_ino))
        return replace(draft, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", replaced)
    (tmp_path / "made").mkdir()
    drafts = [tmp_path / f"{n}.draft" for n in range(5)]
    for draft in drafts:
        draft.write_bytes(b"x")
    numbers = [draft.stat().st_ino for draft in drafts]
    files.put_all_in_place([(draft, tmp_path / "made" / draft.stem) for draft in drafts])
    assert sorted(happened[:5]) == sorted(("flushed", number) for number in numbers)
    assert happened[5:10] == [("named", number) for number in numbers]
    assert happened[10:] == [("flushed", (tmp_path / "made").stat().st_ino)]


def test_no_file_gets_its_name_where_one_of_several_cannot_be_flushed(tmp_path, monkeypatch):
    drafts = [tmp_path / f"{n}.draft" for n in range(3)]
    for draft in drafts:
        draft.write_bytes(b"x")
    bad = drafts[1].stat().st_ino

    def full(handle):
        if os.fstat(handle).st_ino == bad:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        files.put_all_in_place([(draft, tmp_path / draft.stem) for draft in drafts])
    assert sorted(tmp_path.iterdir()) == drafts


def test_a_lock_that_may_not_be_looked_at_is_not_taken_for_one_that_is_held(tmp_path, as_nobody):
    """`study delete` would say that `best` is at work, and to wait until it ends."""
    work = tmp_path / "work"
    work.mkdir()
    work.chmod(0)
    try:
        with as_nobody(), pytest.raises(PermissionError), files.if_free(work / "lock"):
            pass
    finally:
        work.chmod(0o755)
