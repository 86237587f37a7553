"""The cache folder and its lock."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from gridsearch import files, folders
from gridsearch.zoo.datasets import cache


def test_the_cache_lies_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "here"))
    assert folders.cache_root() == tmp_path / "here"
    assert cache.data_root() == tmp_path / "here" / "data"
    monkeypatch.setenv("GRIDSEARCH_CACHE", "~/there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders.cache_root() == tmp_path / "there"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
def test_without_a_word_it_lies_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("GRIDSEARCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folders.cache_root() == tmp_path / "gridsearch"


def test_no_two_hold_the_lock_at_once(tmp_path):
    inside, most = 0, 0
    guard = threading.Lock()

    def work():
        nonlocal inside, most
        for _ in range(3):
            with cache.exclusive(tmp_path / "x"):
                with guard:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.005)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert not list(tmp_path.glob("x/*"))


def test_the_lock_leaves_nothing_behind_that_was_not_there_before(tmp_path):
    with cache.exclusive(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / ".lock").exists()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), cache.exclusive(tmp_path / "a" / "b"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with cache.exclusive(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_a_holder_that_shows_no_sign_of_life_is_not_waited_for(tmp_path):
    told = []
    with cache.exclusive(tmp_path / "x"):
        with cache.exclusive(tmp_path / "x", patience=0.3, say=told.append):
            pass
        assert (tmp_path / "x" / ".lock").exists()  # the first one's
    assert len(told) == 1


def test_a_holder_that_shows_signs_of_life_is_waited_for_beyond_the_patience(tmp_path):
    order = []

    def second():
        with cache.exclusive(tmp_path / "x", patience=1.5):
            order.append("second")

    with cache.exclusive(tmp_path / "x") as beat:
        thread = threading.Thread(target=second)
        thread.start()
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            beat()
            time.sleep(0.02)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_the_lock_goes_with_its_process_and_what_that_left_is_cleaned_up(tmp_path):
    program = """
        import os, sys
        from pathlib import Path
        from gridsearch import files
        from gridsearch.zoo.datasets import cache
        folder = Path(sys.argv[1])
        with cache.exclusive(folder), files.private_folder(folder) as place:
            (place / "half").write_text("x")
            os.kill(os.getpid(), 9)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "x")]
    assert subprocess.run(command, check=False).returncode == -9
    assert len(list((tmp_path / "x").glob(".partial-*/half"))) == 1
    with cache.exclusive(tmp_path / "x", patience=60):
        assert not list((tmp_path / "x").glob(".partial-*"))


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_a_cache_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), cache.exclusive(Path(tmp_path / "file" / "x")):
        pass


def test_a_file_that_a_killed_process_was_writing_goes_with_its_folders(tmp_path):
    (tmp_path / f"{files.PARTIAL}0a1b2c3d4e5f.npz").write_bytes(b"images")
    (tmp_path / f"{files.PARTIAL}5f4e3d2c1b0a").mkdir()
    with cache.exclusive(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [files.LOCK]
