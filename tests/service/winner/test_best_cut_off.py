"""A refit that fails, is ended or meets another leaves the study whole, and the test read once or not at all."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest

from tests.end_to_end.held_workers import held, workers_of
from tests.service.winner.winner_runs import BEST, FILES, NET, RUN, files_of

pytestmark = pytest.mark.end_to_end


@pytest.mark.usefixtures("no_graph")
def test_a_winner_that_cannot_be_trained_again_is_exit_3_and_leaves_nothing(cli, tmp_path, home):
    code = NET + "    def train(self, mode=True):\n        import pathlib\n"
    code += f"        if pathlib.Path({str(tmp_path / 'broken')!r}).exists(): raise RuntimeError('no more')\n"
    code += "        return super().train(mode)\n"
    (tmp_path / "net.py").write_text(code)
    assert cli(*RUN, "--grid", "lr=.01", "--model", "net.py:Net").code == 0
    before = files_of(home)
    (tmp_path / "broken").touch()
    result = cli(*BEST, "--model", "net.py:Net")
    assert result.code == 3
    assert "no more" in result.error
    assert files_of(home) == before
    (tmp_path / "broken").unlink()
    assert cli(*BEST, "--model", "net.py:Net", "--json").json["test"]["clean"] is True


def test_an_end_between_record_and_folder_is_made_good_by_the_next_call(cli, home, monkeypatch):
    from gridsearch.store import Home

    assert cli(*RUN, "--grid", "lr=.01").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(Home, "publish_best", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli(*BEST).code == 130
    assert not (home / "digits" / "best").exists()
    result = cli(*BEST, "--json")
    assert result.json["fresh"] is False
    assert result.json["test"]["reading"] == 1
    assert {p.name for p in (home / "digits" / "best").iterdir()} == FILES


@pytest.mark.usefixtures("no_graph")
def test_an_end_before_the_record_has_read_nothing(cli, home, monkeypatch):
    from gridsearch.store import Store

    assert cli(*RUN, "--grid", "lr=.01").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(Store, "record_test", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli(*BEST).code == 130
    assert not (home / "digits" / "best").exists()
    assert cli("export", "--study", "digits", "--format", "json").json["test"] is None
    assert cli(*BEST, "--json").json["test"]["clean"] is True
    assert not list((home / "digits" / ".best").glob("*"))


def best_that_gets(number):
    """Start `best` in a process of its own, and send it a signal while it trains."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gridsearch", "best", "--study", "digits"], stderr=subprocess.PIPE, text=True
    )
    while "training" not in process.stderr.readline():
        assert process.poll() is None
    with held(lambda: workers_of(process), lambda: True):
        process.send_signal(number)
    return process


def test_kill_9_in_the_midst_leaves_the_study_as_it_was(cli, home, tmp_path):
    assert cli(*RUN, "--grid", "lr=.01", "--epochs", "60").code == 0
    before = files_of(home)
    process = best_that_gets(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert cli("export", "--study", "digits", "--format", "json").json["test"] is None
    assert not (home / "digits" / "best").exists()
    result = cli(*BEST, "--json")
    assert result.json["test"]["clean"] is True
    left = set(files_of(home)) - set(before) - {"digits/.best"}
    assert left == {"digits/best", *(f"digits/best/{name}" for name in FILES)}


def test_sigint_ends_best_with_130_reads_nothing_and_keeps_what_was_trained(cli, home):
    assert cli(*RUN, "--grid", "lr=.01", "--epochs", "2000", "--subset", "60").code == 0
    process = best_that_gets(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "was not read" in err
    assert not (home / "digits" / "best").exists()
    kept = list((home / "digits").glob(".best/.refit-*/0/.attempt-1/checkpoint-*"))
    assert bool(kept) is bool(re.search(r"the same command continues from epoch \d+ of 2000", err))
    assert bool(kept) is (home / "digits" / ".best").exists()


def test_of_two_at_once_one_reads_and_the_other_shows(cli, home):
    assert cli(*RUN, "--grid", "lr=.01").code == 0
    words = [sys.executable, "-m", "gridsearch", *BEST, "--json"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"]
    found = [(*p.communicate(timeout=240), p.returncode) for p in both]
    assert [code for *_, code in found] == [0, 0], found
    told = [json.loads(out) for out, *_ in found]
    assert told[0]["test"] == told[1]["test"]
    assert sorted(one["fresh"] for one in told) == [False, True]
