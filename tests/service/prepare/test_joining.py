"""A grid joins a study knowingly: what it adds is said, and a number is the one that the study shows so."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("undrawn")]

FUNCTION = "def f(params, seed): return {'value': params.get('x', 1) * 1.0}\n"


@pytest.fixture
def run(cli, tmp_path):
    (tmp_path / "f.py").write_text(FUNCTION)

    def run(*words, command="run"):
        how = ("--executor", "inline", "--no-report") if command == "run" else ()
        result = cli(command, "--objective", "f.py:f", "--study", "s", *how, *words)
        assert result.code == 0, result.err
        return result.err

    return run


def extends(text):
    return [line for line in text.splitlines() if "extends" in line]


def test_a_grid_that_adds_to_points_of_other_words_says_so_and_how_to_begin_another(run):
    assert not extends(run("--grid", "x=1,2"))
    line = "this grid extends study 's', which has 2 points, by 1 point; to start another study: --study s-2"
    assert extends(run("--grid", "x=5", command="plan")) == [line]
    assert extends(run("--grid", "x=5")) == [line]
    assert not extends(run("--grid", "x=5"))


def test_the_same_words_a_larger_grid_and_more_seeds_join_without_a_word(run, cli):
    run("--grid", "x=1,2", "--seeds", "2")
    for words in (
        ("--grid", "x=1,2"),
        ("--grid", "x=1"),
        ("--grid", "x=1,2", "--seeds", "3"),
        ("--grid", "x=1,2,3"),
        ("--grid", "x=1..4:1"),
        ("--grid", "x=3"),
    ):
        assert not extends(run(*words)), words
    here = ("--executor", "inline", "--no-report")
    more = cli("run", "--objective", "f.py:f", "--study", "s", "--more-seeds", "1", *here)
    assert more.code == 0, more.err
    assert not extends(more.err)


def test_the_name_that_is_proposed_is_free(run, cli):
    run("--grid", "x=1")
    cli(
        "run",
        "--objective",
        "f.py:f",
        "--study",
        "s-2",
        "--grid",
        "x=1",
        "--executor",
        "inline",
        "--no-report",
    )
    assert "--study s-3" in run("--grid", "x=2")


def test_one_is_no_plural(run):
    assert "1 trial, 1 new" in run("--grid", "x=1")
    assert "training 1 of 1 trial with 1 worker" in run("--grid", "x=2")


def test_a_number_typed_as_the_study_shows_it_is_that_point(run, cli):
    run("--grid", "x=1e-4..1e-1:10log")
    said = run("--grid", "x=.0004642,.004642,.1")
    assert "3 trials, 3 done before" in said
    assert "x=0.004642 is the 0.00464158883361 that study 's' shows so" in said
    said = run("--grid", "x=.004642,.00464158883361")
    assert "2 trials, 1 new, 1 done before" in said  # both given: both meant


def test_settings_of_networks_play_no_part_in_a_study_of_a_function(run, tmp_path, monkeypatch):
    import numpy as np

    import gridsearch as gs

    run("--grid", "x=.1,1")
    monkeypatch.chdir(tmp_path)
    heard = []
    monkeypatch.setattr("gridsearch.display.Lines.say", lambda _, text: heard.append(text))
    gs.run(grid={"x": [np.float32(0.1)]}, objective="f.py:f", study="s", executor="inline", report=False)
    assert any("extends" in text for text in heard)
    assert not any("ema" in text or "varies" in text for text in heard), heard


def test_a_store_that_noted_settings_of_networks_for_a_function_forgets_them(run, cli, home):
    """Earlier versions noted "ema" when the same words came again, and called it an axis with the next new value."""
    import json
    import sqlite3

    run("--grid", "x=1,2")
    with sqlite3.connect(home / "gridsearch.db") as database:
        ((shown,),) = database.execute("SELECT shown FROM gridsearch_studies").fetchall()
        content = json.loads(shown)
        content["common"]["ema"] = 0.0
        database.execute("UPDATE gridsearch_studies SET shown = ?", [json.dumps(content)])
    database.close()
    assert "varies" not in run("--grid", "x=1,2")
    assert "varies" not in run("--grid", "x=1,2,3")
    (point, *_) = cli("export", "--study", "s", "--json").json["points"]
    assert set(point["params"]) == {"x"}


def test_values_of_a_log_range_are_shown_with_four_digits_that_select_their_point(run, cli):
    said = run("--grid", "x=1e-4..1e-1:10log", "y=1,2")
    assert "x=0.004642 y=1" in said
    shown = cli("report", "--study", "s")
    assert "x=0.004642 y=2" in shown.out
    assert "58883361" not in shown.out
    assert cli("report", "--study", "s", "--where", "x=0.004642", "--json").json["counts"]["complete"] == 2
    trial = cli("trial", "11", "--study", "s").out
    assert "x=0.004642 y=2" in trial
    point = cli("trial", "11", "--study", "s", "--json").json["trial"]["params"]
    assert point["x"] == 0.00464158883361  # what scripts read is exact


def test_values_that_differ_in_their_last_bits_are_told_apart(run, cli, tmp_path, monkeypatch):
    import numpy as np

    import gridsearch as gs

    monkeypatch.chdir(tmp_path)
    values = [0.1, float(np.float32(0.1)), 0.3, 0.1 + 0.2]
    run("--grid", "x=.1")
    gs.run(grid={"x": values}, objective="f.py:f", study="s", executor="inline", report=False, quiet=True)
    shown = cli("report", "--study", "s").out
    for text in ("0.1", "0.100000001", "0.3", "0.30000000000000004"):
        assert f"\tx={text}\t" in shown
        found = cli("report", "--study", "s", "--where", f"x={text}", "--json").json["points"]
        assert [p["params"]["x"] for p in found] == [min(values, key=lambda v: abs(v - float(text)))]


def test_a_runner_with_nothing_to_do_says_for_whom_it_waits(cli, home, monkeypatch):
    """Another runner holds one of the two trials, and gives it back when it has been named."""
    from gridsearch.service.run import coordinator, trial_source
    from gridsearch.store import RunnerIdentity, open_store

    words = (
        "run",
        "--dataset",
        "digits",
        "--model",
        "mlp",
        "--epochs",
        "1",
        "--no-report",
        "--executor",
        "inline",
    )
    assert cli(*words, "--grid", "lr=.1").code == 0
    us = RunnerIdentity.current()
    other = RunnerIdentity(host=us.host, boot=us.boot, pid=us.pid, started=us.started)
    said, hold = [], []
    add = coordinator.Coordinator.run

    def run(self, start):
        with open_store(f"sqlite:///{home / 'gridsearch.db'}", home=home, create=False) as store:
            waiting = store.waiting(1)
            hold.extend(
                store.claim([t.id for t in waiting if t.settings.lr == 0.2], owner=other, pack="x", lease=60)
            )
            say = self._run.observer.say

            def note(message):
                said.append(message)
                say(message)
                if message.startswith("waiting for"):
                    store.release([(t.id, t.attempt) for t in hold])

            monkeypatch.setattr(self._run.observer, "say", note)
            return add(self, start)

    monkeypatch.setattr(coordinator.Coordinator, "run", run)
    monkeypatch.setattr(trial_source, "LOOK_AGAIN_SECONDS", 0.05)
    done = cli(*words, "--grid", "lr=.2,.3")
    assert done.code == 0, done.err
    told = [message for message in said if message.startswith("waiting for")]
    assert told == [
        f"waiting for process {us.pid} on {us.host.partition('/')[0]}, which trains trial {hold[0].number}"
    ]
