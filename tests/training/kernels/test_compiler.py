"""Where compiled kernels are kept: compiled once, never loaded where others may write, and done without."""

from __future__ import annotations

import ctypes
import logging
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from gridsearch.training.kernels import compiler
from gridsearch.training.kernels.calling import REALS, SIZE, function
from tests.training.compilers import needs_compiler

SMALLEST = Path(compiler.__file__).with_name("vector_size.c")


def smallest(dtype=torch.float32):
    """Load the kernel that is compiled soonest; return what it says of the vectors of this machine."""
    library = compiler.load(SMALLEST, {"DOUBLE": REALS.index(dtype)})
    assert library is not None
    return function(library.vector_numbers, SIZE)()


@needs_compiler
def test_a_kernel_is_compiled_once_and_a_damaged_one_again(monkeypatch, tmp_path, caplog):
    folder = tmp_path / "kernels"
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(folder))
    said = smallest()
    (file,) = folder.iterdir()
    made = file.stat().st_mtime_ns
    compiler._load.cache_clear()
    smallest()
    assert file.stat().st_mtime_ns == made
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(file.stat().st_mode) == 0o700
    whole = file.read_bytes()
    for damage in (b"cut off", whole[: len(whole) // 2], whole[:-1] + b"x", b""):
        compiler._load.cache_clear()
        file.unlink()  # the old one is loaded and must not be written into
        file.write_bytes(damage)
        assert compiler.damaged_kernels() == [file]
        caplog.clear()
        assert smallest() == said
        assert f"{file} is damaged" in caplog.text
        (folder / f".partial-{file.name}").write_bytes(b"")  # another process makes it
        assert compiler.damaged_kernels() == []
        (folder / f".partial-{file.name}").unlink()
        assert [p.name for p in folder.iterdir()] == [file.name]


@needs_compiler
def test_what_several_want_at_the_same_time_is_compiled_by_one_of_them(monkeypatch, tmp_path):
    """Each compilation of this compiler takes a while, and leaves a line."""
    script, calls = tmp_path / "slow-cc", tmp_path / "calls"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *-shared*) echo "$*" >> {calls}; sleep .3;; esac\nexec cc "$@"\n'
    )
    script.chmod(0o700)
    monkeypatch.setenv("CC", str(script))
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(tmp_path / "kernels"))
    compiler.find_compiler()
    with ThreadPoolExecutor(4) as pool:
        kinds = list(pool.map(smallest, [torch.float32, torch.float64] * 2))
    assert kinds[0] == kinds[2] == 2 * kinds[1] == 2 * kinds[3]
    assert len(calls.read_text().splitlines()) == 2
    assert len(list((tmp_path / "kernels").iterdir())) == 2


@pytest.fixture
def loaded(monkeypatch):
    """The files that are loaded as libraries from now on."""
    found, load = [], ctypes.CDLL
    monkeypatch.setattr(
        compiler.ctypes, "CDLL", lambda path: (found.append(Path(path).resolve()), load(path))[1]
    )
    return found


@needs_compiler
def test_a_kernel_that_others_may_write_is_never_loaded(monkeypatch, tmp_path, caplog, loaded):
    folder = tmp_path / "kernels"
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(folder))
    smallest()
    (file,) = folder.iterdir()
    loaded.clear()
    for mode in (0o777, 0o720, 0o702):
        file.chmod(mode)
        compiler._load.cache_clear()
        caplog.clear()
        smallest()
        assert "not this user's alone" in caplog.text
        assert stat.S_IMODE(next(folder.iterdir()).stat().st_mode) == 0o700, "it was made again"
    loaded.clear()
    folder.chmod(0o777)
    compiler._load.cache_clear()
    smallest()
    own = tmp_path / f"kernels-{os.getuid()}"
    assert [path.parent for path in loaded] == [own], "a folder of this user's own is taken"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


@needs_compiler
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_a_kernel_of_another_user_is_never_loaded(monkeypatch, tmp_path, caplog, loaded):
    folder = tmp_path / "kernels"
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(folder))
    smallest()
    (file,) = folder.iterdir()
    os.chown(file, 12345, 12345)
    assert compiler.damaged_kernels() == [file]
    compiler._load.cache_clear()
    smallest()
    assert next(folder.iterdir()).stat().st_uid == 0
    os.chown(folder, 12345, 12345)
    compiler._load.cache_clear()
    loaded.clear()
    smallest()
    assert [path.parent for path in loaded] == [tmp_path / "kernels-0"]


@needs_compiler
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the names of open files")
def test_a_folder_that_is_exchanged_after_the_check_is_not_loaded_from(monkeypatch, tmp_path):
    """In a cache that others may write to, they may rename a folder of ours and put theirs in its place."""
    folder = tmp_path / "kernels"
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(folder))
    smallest()
    (file,) = folder.iterdir()
    ours, load, files = file.stat().st_ino, ctypes.CDLL, []

    def exchanges(path):
        folder.rename(tmp_path / "away")
        folder.mkdir()
        (folder / file.name).write_bytes(b"of another user")
        files.append(Path(path).stat().st_ino)
        return load(path)

    compiler._load.cache_clear()
    monkeypatch.setattr(compiler.ctypes, "CDLL", exchanges)
    smallest()
    assert files == [ours]


@needs_compiler
def test_a_linked_kernel_or_folder_is_not_followed(monkeypatch, tmp_path, loaded):
    folder = tmp_path / "kernels"
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(folder))
    smallest()
    (file,) = folder.iterdir()
    elsewhere = file.rename(tmp_path / "elsewhere.so")
    file.symlink_to(elsewhere)
    assert compiler.damaged_kernels() == [file]
    compiler._load.cache_clear()
    smallest()
    assert not file.is_symlink()
    target = folder.rename(tmp_path / "target")
    folder.symlink_to(target)
    compiler._load.cache_clear()
    loaded.clear()
    smallest()
    assert [path.parent for path in loaded] == [tmp_path / f"kernels-{os.getuid()}"]


@needs_compiler
def test_in_a_cache_that_others_share_the_folder_bears_the_users_number(monkeypatch, tmp_path):
    monkeypatch.delenv("GRIDSEARCH_KERNELS")
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o1777)
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(cache))
    smallest()
    assert [path.name for path in cache.iterdir()] == [f"kernels-{os.getuid()}"]
    (folder,) = cache.iterdir()
    folder.chmod(0o755)
    compiler._load.cache_clear()
    smallest()
    smallest(torch.float64)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())} == {0o700}


def test_processors_of_the_same_features_are_told_apart(monkeypatch, tmp_path):
    """Two ARM cores may have one list of features and be treated differently by `-mcpu=native`."""
    told = []
    for part in ("0xd0c", "0xd40"):
        text = f"processor\t: 0\nFeatures\t: fp asimd sve\nCPU implementer\t: 0x41\nCPU part\t: {part}\n"
        monkeypatch.setattr(Path, "read_text", lambda *_, text=text, **__: text)
        compiler._processor.cache_clear()
        told.append(compiler._processor())
    compiler._processor.cache_clear()
    assert told[0] != told[1]
    assert all("sve" in text for text in told)


@needs_compiler
def test_what_a_killed_compilation_left_goes_with_the_next(monkeypatch, tmp_path):
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(tmp_path))
    for name, age in ((".partial-old.so", 3600), (".partial-new.so", 0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    smallest()
    assert [p.name for p in tmp_path.glob(".partial*")] == [".partial-new.so"]


@needs_compiler
def test_a_place_that_cannot_be_written_is_done_without(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(tmp_path / "file" / "kernels"))
    with caplog.at_level(logging.WARNING):
        smallest()
    assert "not kept" in caplog.text


@needs_compiler
@pytest.mark.parametrize("value", ["", "on", "ON", "1"])
def test_the_cache_folder_is_their_place_unless_another_is_named(monkeypatch, tmp_path, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDSEARCH_KERNELS", value)
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))
    smallest()
    assert len(list((tmp_path / "cache" / "kernels").iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize("value", ["off", "Off", "0", "false"])
def test_nothing_is_compiled_where_that_is_not_wanted(monkeypatch, value):
    monkeypatch.setenv("GRIDSEARCH_KERNELS", value)
    assert compiler.find_compiler() is None
    assert compiler.describe() == "off: torch computes everything"
