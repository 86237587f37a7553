"""A study that trains now, looked at from another terminal: status, its time left, the live picture, the report."""

from __future__ import annotations

import io
import json
import os
import socket
import time

import pytest
from rich.console import Console
from rich.text import Text

from gridsearch import display
from gridsearch.records import EpochEnded, TrialDraft, TrialFailed, TrialFinished, TrialState, trial_key
from gridsearch.reporting.words.text import show_seconds
from gridsearch.service.queries import studies
from gridsearch.service.run.progress import Progress, Running
from gridsearch.spec import build, expand_study
from gridsearch.store import RunnerIdentity, StudyDraft, open_store

NAME = "a-study-whose-name-is-as-long-as-it-may-be." + 20 * "x"


class Plain:
    """Stands in for the catalog."""

    def model(self, name, options):
        return name, options, None

    def data(self, options):
        return "digits", options, "d" * 64


@pytest.fixture
def half_done(home):
    """Eight trials: two done, four in two packs at half their epochs, one failed, one waiting."""
    words = ["lr=.1,.01,.001,.0001", "norm=none,standard"]
    drafts: list[TrialDraft] = expand_study(build(words=words, options={"epochs": 4}), Plain()).drafts
    assert len({trial_key(d.settings, d.seed) for d in drafts}) == 8
    study = StudyDraft(name=NAME, dataset="digits", metric="val_accuracy", axes=("lr", "norm"), command="c")
    with open_store(f"sqlite:///{home / 'gridsearch.db'}", home=home, create=True) as store:
        added = store.add(study, drafts)
        us = RunnerIdentity.current()
        done = store.claim(added.ids[:2], owner=us, pack="a", lease=600)
        for trial in done:
            metrics = {"val_accuracy": 0.5, "val_loss": 1.0, "train_accuracy": 0.5, "train_loss": 1.0}
            result = TrialFinished(
                trial=trial.id,
                attempt=trial.attempt,
                state=TrialState.COMPLETE,
                epochs=4,
                seconds=8.0,
                metrics=metrics,
            )
            store.finish(result, epochs=[epoch(trial, n) for n in (1, 2, 3, 4)])
        running = [
            *store.claim(added.ids[2:4], owner=us, pack="b", lease=600),
            *store.claim(added.ids[4:6], owner=us, pack="c", lease=600),
        ]
        store.record_epochs([epoch(trial, n) for trial in running for n in (1, 2)])
        (bad,) = store.claim(added.ids[6:7], owner=us, pack="d", lease=600)
        store.requeue([(bad.id, bad.attempt)], retries=0)
        yield running


def epoch(trial, number: int) -> EpochEnded:
    return EpochEnded(
        trial=trial.id, attempt=trial.attempt, epoch=number, train_loss=1.0, train_accuracy=0.5, val_loss=1.0,
        val_accuracy=0.5, lr=0.1, seconds=2.0, images_per_second=9.0,
    )  # fmt: skip


def test_the_time_left_counts_packs_and_not_their_lanes(half_done, cli):
    """Four half trials and a whole one at 8 s of a pack each are 24 s; two packs train side by side."""
    found = cli("status", "--json").json["studies"][0]
    assert found["eta_seconds"] == pytest.approx(12.0, rel=0.01)
    assert (found["counts"]["running"], found["counts"]["failed"]) == (4, 1)


def test_status_fits_a_narrow_terminal_with_nothing_cut_off_but_what_repeats(half_done, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    lines = Text.from_ansi(cli("status").out).plain.splitlines()
    heads = lines[0].split()
    assert heads == ["study", "complete", "failed", "running", "waiting", "ETA"], "no empty states, no dots"
    table = [line for line in lines if "epoch" not in line and " trains trials " not in line]
    assert max(map(len, table)) <= 60
    assert "".join(line[: lines[0].index("complete")].strip() for line in table[1:]) == NAME


def test_the_live_picture_has_a_line_for_each_trial_and_room_for_no_more_than_the_terminal(half_done):
    progress = Progress(
        metric="val_accuracy", counts=dict.fromkeys(TrialState, 4), total_units=8.0, workers=2, device="cpu"
    )
    progress.running = {i: Running(half_done[i % 4], worker="w1", epoch=2, value=0.5) for i in range(30)}
    progress.best = (0.5, half_done[0].params)
    picture = display.Picture(no_color=True)
    for width, height in ((60, 20), (40, 24), (120, 50)):
        out = io.StringIO()
        picture._console = Console(file=out, width=width, height=height, force_terminal=False)
        picture._console.print(picture._draw(progress))
        lines = out.getvalue().splitlines()
        assert len(lines) < height
        assert lines[0].endswith("estimating"), "the first line is cut nowhere, and is one"
        trials = [line for line in lines if "trial " in line and "w1" in line]
        assert len(trials) == min(16, height - display._LINES_ABOVE)
        assert all("epoch 2/4" in line and "50.00 %" in line and "lr=" in line for line in trials)
        assert f"{30 - len(trials)} more" in out.getvalue()


def test_of_many_trials_the_picture_leaves_the_new_best_and_each_failure_once(half_done):
    progress = Progress(
        metric="val_accuracy", counts={TrialState.COMPLETE: 200}, total_units=8.0, workers=2, device="cpu"
    )
    picture = display.Picture(no_color=True)
    out = io.StringIO()
    picture._console = Console(file=out, width=100, force_terminal=False)
    for i in range(200):
        accuracy = 0.5 + 0.001 * (i // 50)
        if i % 10:
            result = TrialFinished(
                trial=3, attempt=1, state=TrialState.COMPLETE, epochs=4, seconds=0.028,
                metrics={"val_accuracy": accuracy},
            )  # fmt: skip
            progress.consider(accuracy, half_done[0].params)
        else:
            result = TrialFailed(
                trial=3, attempt=1, reason="error", message="ValueError: no such luck", traceback=""
            )
        picture.trial_ended(progress, half_done[0], result)
    lines = out.getvalue().splitlines()
    assert len(lines) == 4 + 1
    assert sum("failed: ValueError" in line for line in lines) == 1
    assert sum(line.endswith("  28 ms") for line in lines) == 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0000004, "1 µs"),
        (0.00002, "20 µs"),
        (0.0004, "0.4 ms"),
        (0.0028, "2.8 ms"),
        (0.028, "28 ms"),
        (0.436, "436 ms"),
        (0.9996, "1.0 s"),
        (8.44, "8.4 s"),
        (125, "2 min 05 s"),
        (3725, "1 h 02 min"),
        (None, "\u2013"),
    ],
)
def test_a_short_time_is_not_rounded_to_nothing(seconds, text):
    assert show_seconds(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.436, "436 ms"), (8.4, "8 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s")],
)
def test_a_time_that_is_left_has_whole_seconds(seconds, text):
    assert show_seconds(seconds, whole=True) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (12, "12 B"),
        (1_540, "1.5 kB"),
        (345_200_000, "345 MB"),
        (999_700, "1.0 MB"),
        (2_345_600_000_000, "2,346 GB"),
    ],
)
def test_a_size_has_two_or_three_digits_and_its_unit(count, text):
    assert display.size_text(count) == text


def test_progress_has_not_the_colour_of_failure():
    from rich.color import Color
    from rich.console import Console as Rich
    from rich.default_styles import DEFAULT_STYLES

    out = io.StringIO()
    console = Rich(file=out, width=40, force_terminal=True, color_system="truecolor", no_color=False)
    console.print(display.ProgressBar(total=10, completed=5, width=20, **display.BAR_STYLES))
    red, green, blue = DEFAULT_STYLES["bar.complete"].color.get_truecolor()
    assert f"{red};{green};{blue}" not in out.getvalue()
    for style in display.BAR_STYLES.values():
        red, green, blue = Color.parse(style).get_truecolor()
        assert red <= min(green, 255)


@pytest.mark.usefixtures("undrawn")
def test_a_report_of_a_running_study_says_how_much_is_missing(half_done, cli, home):
    shown = cli("report", "--study", NAME)
    assert shown.code == 0
    said = " ".join(shown.out.split())
    assert "not finished: 1 waiting and 4 running" in said
    assert "1 failed" in said
    page = (home / NAME / "report" / "index.html").read_text()
    assert "1 waiting and 4 running" in " ".join(page.split())
    counts = cli("report", "--study", NAME, "--json").json["counts"]
    assert {k: v for k, v in counts.items() if v} == {"complete": 2, "failed": 1, "running": 4, "waiting": 1}
    assert json.loads((home / NAME / "report" / "ranking.json").read_text())["counts"] == counts


def test_before_the_first_result_a_report_says_where_to_look(home, cli):
    drafts = expand_study(build(words=["lr=.1"], options={"epochs": 4}), Plain()).drafts
    study = StudyDraft(name="new", dataset="digits", metric="val_accuracy", axes=("lr",), command="c")
    with open_store(f"sqlite:///{home / 'gridsearch.db'}", home=home, create=True) as store:
        added = store.add(study, drafts)
        assert "gridsearch run --study new" in cli("report", "--study", "new").err
        store.claim(added.ids, owner=RunnerIdentity.current(), pack="a", lease=600)
        result = cli("report", "--study", "new")
    assert result.code == 4
    assert "1 running" in result.error
    assert "gridsearch status --study new --watch" in result.err


def test_a_runner_that_is_gone_is_told_and_its_trials_wait(home, cli, monkeypatch):
    drafts = expand_study(build(words=["lr=.1,.2"], options={"epochs": 4}), Plain()).drafts
    study = StudyDraft(name="left", dataset="digits", metric="val_accuracy", axes=("lr",), command="c")
    us = RunnerIdentity.current()
    ended = RunnerIdentity(host=us.host, boot=us.boot, pid=us.pid, started=us.started - 1)
    with open_store(f"sqlite:///{home / 'gridsearch.db'}", home=home, create=True) as store:
        added = store.add(study, drafts)
        (trial,) = store.claim(added.ids[:1], owner=ended, pack="a", lease=600)
        store.record_epochs([epoch(trial, 1)])
    found = cli("status", "--json").json["studies"][0]
    assert (found["counts"]["running"], found["counts"]["waiting"], found["eta_seconds"]) == (0, 2, None)
    assert [(r["pid"], r["trials"], r["gone"]) for r in found["runners"]] == [(us.pid, [0], True)]
    assert found["runners"][0]["seen"].endswith("+00:00")
    said = cli("status").out
    assert f"its runner (process {us.pid} on " in said
    assert "is gone; trial 0 waits" in said
    assert "no runner is training it; `gridsearch run --study left` continues" in said
    assert "gridsearch run --study left" in cli("report", "--study", "left").err
    assert "\t2\t" in cli("study", "list").out.splitlines()[1], "two trials are open"
    monkeypatch.setattr("gridsearch.cli.commands.status._WATCH_SECONDS", 0.01)
    assert cli("status", "--watch").code == 0, "there is nothing to watch"


def test_status_says_who_trains_what_since_when_and_stop_asks_them_to_end(half_done, home, cli):
    us = RunnerIdentity.current()
    [runner] = cli("status", "--json").json["studies"][0]["runners"]
    assert (runner["pid"], runner["gone"]) == (us.pid, False)
    assert runner["since"].endswith("+00:00")
    host = us.host.partition("/")[0]
    numbers = ", ".join(map(str, runner["trials"]))
    assert f"process {us.pid} on {host} trains trials {numbers} since " in cli("status").out
    refused = cli("study", "delete", NAME, "--yes")
    assert refused.code == 4
    assert f"end that runner first: gridsearch stop --study {NAME}" in refused.err
    asked = cli("stop", "--study", NAME, "--json").json
    assert asked["runners"] == [{"host": host, "pid": us.pid, "trials": runner["trials"]}]
    assert "was asked to stop now" in cli("stop", "--study", NAME, "--now").out
    with open_store(f"sqlite:///{home / 'gridsearch.db'}", home=home, create=False) as store:
        store.release([(trial.id, trial.attempt) for trial in half_done])
    assert "no runner is training study" in cli("stop", "--study", NAME).out
    assert cli("stop", "--study", "nope").code == 4


def test_status_tells_of_a_trial_of_which_nothing_was_recorded_for_minutes(half_done, home, cli):
    [runner] = cli("status", "--json").json["studies"][0]["runners"]
    assert "no epoch or step has ended" not in cli("status").out
    number, study = runner["trials"][0], cli("status", "--json").json["studies"][0]["study"]
    run = home / study / "tensorboard" / str(number)
    run.mkdir(parents=True, exist_ok=True)
    for file in (run / "events", *run.glob("*")):
        file.touch()
        os.utime(file, (time.time() - 420, time.time() - 420))
    assert f"{study}: trial {number}: no epoch or step has ended for 7 min 0" in cli("status").out
    found = cli("status", "--json").json["studies"][0]
    assert found["quiet_seconds"].keys() == {str(number)}


def test_a_runner_that_holds_nothing_just_now_is_still_at_work(half_done, home, cli):
    with open_store(f"sqlite:///{home / 'gridsearch.db'}", home=home, create=False) as store:
        store.release([(trial.id, trial.attempt) for trial in half_done])
    found = cli("status", "--json").json["studies"][0]
    assert (found["counts"]["running"], found["runners"]) == (0, [])
    assert "nobody trains it" not in cli("status").out


def test_a_moment_is_written_as_the_clock_on_the_wall_with_its_zone(half_done, cli, monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert "made (IST)" in cli("study", "list").out
        made = cli("study", "list", "--json").json["studies"][0]["created"]
        assert made.endswith("+00:00")
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_the_dashboard_says_which_studies_a_report_shows_sooner(cli, half_done, home, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that it ends at once
        words = ("dashboard", "--home", str(home), "--port", str(taken.getsockname()[1]))
        assert "has 8 trials" not in cli(*words).err
        monkeypatch.setattr(studies, "DASHBOARD_TRIALS", 7)
        told = cli(*words).err
    assert f"study {NAME!r} has 8 trials" in told
    assert f"`gridsearch report --study {NAME}" in told
