"""What the system refuses is no bug of ours: one line with the place, exit 4, and how to go on."""

from __future__ import annotations

import errno
import os

import pytest

from gridsearch.cli import commands

TEXT = {number: os.strerror(number) for number in errno.errorcode}


def refused(number, *names):
    return OSError(number, TEXT[number], *names)


@pytest.mark.parametrize(
    ("error", "said", "hint"),
    [
        (refused(errno.EAGAIN), "the system starts no more processes", "ulimit -u"),
        (RuntimeError("can't start new thread"), "the system starts no more threads", "ulimit -u"),
        (MemoryError(), "not enough memory", "--workers 1"),
        (refused(errno.ENOMEM), TEXT[errno.ENOMEM], "--workers 1"),
        (refused(errno.EMFILE, "/a/b"), "/a/b: the system refuses", "ulimit -n"),
        (refused(errno.EFBIG), TEXT[errno.EFBIG], "ulimit -f"),
        (refused(errno.EIO), TEXT[errno.EIO], "look at the disk"),
        (refused(errno.ENOLCK, "/a/.lock"), "/a/.lock: the system refuses", "with locks"),
        (refused(errno.EROFS), TEXT[errno.EROFS], "look at the disk"),
        (refused(errno.EACCES, "/a/b"), "/a/b: Permission denied", "--home"),
        (refused(errno.ENOSPC, "/from", None, "/to"), "no space left for /to", "free some space"),
        (refused(errno.ENOSPC), "no space left for the output", "free some space"),
    ],
)
def test_what_the_system_refuses_is_one_line_exit_4(cli, monkeypatch, error, said, hint):
    monkeypatch.setattr(commands, "dispatch", lambda *_, **__: (_ for _ in ()).throw(error))
    done = cli("status")
    assert done.code == 4
    assert said in done.error
    assert hint in done.err
    assert len(done.err.strip().splitlines()) == 2


@pytest.mark.parametrize(
    "error", [refused(errno.EINVAL), refused(errno.ENOTDIR, "/a"), RuntimeError("other")]
)
def test_anything_else_is_a_bug(cli, monkeypatch, error):
    monkeypatch.setattr(commands, "dispatch", lambda *_, **__: (_ for _ in ()).throw(error))
    done = cli("status")
    assert done.code == 1
    assert "a bug in gridsearch" in done.error


def test_a_process_that_cannot_be_started_ends_a_run_in_one_line(cli, tmp_path, monkeypatch):
    (tmp_path / "fit.py").write_text("def fit(params, seed):\n    return {'loss': params['x']}\n")

    def refuse(*_, **__):
        raise refused(errno.EAGAIN)

    monkeypatch.setattr("subprocess.Popen", refuse)
    done = cli("run", "--objective", "fit.py:fit", "--grid", "x=1,2", "--no-report", "--workers", "2")
    assert done.code == 4, done.err
    assert "the system starts no more processes" in done.error
    counts = cli("status", "--json").json["studies"][0]["counts"]
    assert (counts["waiting"], counts["running"], counts["failed"]) == (2, 0, 0)
