"""What a run says of a function's trials: the best so far by the study's direction, steps, and a share of trials."""

from __future__ import annotations

import io
import math

import pytest

from gridsearch import display
from gridsearch.records import FunctionSettings, ImageSettings, StepEnded, Trial, TrialFinished, TrialState
from gridsearch.reporting.figures.mpl_style import colours_for
from gridsearch.service.run.progress import PICTURED, Progress, Running


def progress(direction):
    counts = dict.fromkeys(TrialState, 0) | {TrialState.RUNNING: 2}
    return Progress(
        metric="loss", direction=direction, counts=counts, total_units=2.0, workers=1, device="cpu"
    )


def trial(params):
    settings = FunctionSettings(objective="f.py:f", params=params)
    return Trial(id=1, number=4, key="k", seed=0, settings=settings, params=params, state=TrialState.RUNNING)


@pytest.mark.parametrize(("direction", "best"), [("minimize", -2.0), ("maximize", 3.0)])
def test_the_best_so_far_is_the_best_in_the_studys_direction(direction, best):
    seen = progress(direction)
    for value in (1.0, -2.0, 3.0, math.nan, None, math.inf, -math.inf):
        seen.consider(value, {"x": value})
    assert seen.best == (best, {"x": best})


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_among_the_best_is_what_beats_the_twentieth_so_far(direction):
    seen, sign = progress(direction), 1.0 if direction == "maximize" else -1.0
    for value in range(PICTURED):
        assert seen.among_best(sign * -5.0)  # there are not yet as many
        seen.consider(sign * value, {})
    assert not any(map(seen.among_best, (None, math.nan, sign * math.inf, sign * 0.0, sign * -1.0)))
    assert seen.among_best(sign * 0.5)
    seen.consider(sign * 7.0, {})
    assert not seen.among_best(sign * 0.5)


def test_steps_say_how_far_a_trial_is_and_only_its_end_counts_as_work_done():
    seen, running = progress("minimize"), trial({"x": 1})
    seen.running[1] = Running(running, worker="w0")
    claimed = seen.running[1].since
    seen.epoch_ended(StepEnded(trial=1, attempt=1, step=7, metrics={"loss": 0.5}, seconds=1.0), 0.0)
    assert (seen.running[1].epoch, seen.running[1].value, seen.done_units) == (7, 0.5, 0.0)
    assert seen.running[1].since > claimed
    assert display.progress_text(7, running.settings) == "step 7"
    assert display.progress_text(7, ImageSettings(epochs=9)) == "epoch 7/9"
    seen.leave(running)
    assert (seen.running, seen.done_units, seen.total_units) == ({}, 1.0, 2.0)


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        ([3, 3], "trial 0 epoch 3/9, trial 1 epoch 3/9"),
        ([3] * 64, "64 trials epoch 3/9"),
        ([3, 1] + [2] * 70, "trial 0 epoch 3/9, trial 1 epoch 1/9, 70 trials epoch 2/9"),
        (
            [0, 1, 2, 3, 4, 4, 5],
            "trial 0 epoch 0/9, trial 1 epoch 1/9, trial 2 epoch 2/9, trial 3 epoch 3/9 and 3 more",
        ),
    ],
)
def test_off_a_terminal_how_far_trials_are_stays_one_short_line(epochs, words, capsys):
    seen, settings = progress("minimize"), ImageSettings(epochs=9)
    for number, epoch in enumerate(epochs):
        one = Trial(
            id=number, number=number, key="k", seed=0, settings=settings, params={}, state=TrialState.RUNNING
        )
        seen.running[number] = Running(one, worker="w0", epoch=epoch)
    display.Lines(no_color=True).updated(seen)
    assert capsys.readouterr().err.strip().partition("; ")[2] == words


def test_a_functions_result_is_told_as_a_number_and_not_in_per_cent(capsys):
    seen, ended = progress("maximize"), trial({"x": 1})
    seen.metric = "accuracy"
    result = TrialFinished(
        trial=1, attempt=1, state=TrialState.COMPLETE, epochs=0, seconds=1.0, metrics={"accuracy": 93.5}
    )
    display.Lines(no_color=True).trial_ended(seen, ended, result)
    assert "x=1 seed=0  accuracy 93.5  1.0 s" in capsys.readouterr().err


def test_better_values_are_brighter_whichever_way_is_better():
    from matplotlib import colormaps

    def brightness(name, share):
        return sum(colormaps[name](share)[:3])

    assert brightness(colours_for("maximize"), 1.0) > brightness(colours_for("maximize"), 0.0)
    assert brightness(colours_for("minimize"), 0.0) > brightness(colours_for("minimize"), 1.0)


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        ("of six words this message breaks between", 2),
        ("warn: run `gridsearch run --study digits-and-more` to go on", 1),
        ("the page is /home/somebody/runs/digits/report/index.html", 1),
        ("classes: T-shirt/top, Trouser, Pullover, Dress", 2),
    ],
)
def test_a_message_is_broken_between_words_and_what_is_copied_is_left_to_the_terminal(
    monkeypatch, message, lines
):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    display.Lines(no_color=True).say(message)
    shown = terminal.getvalue().rstrip().splitlines()
    assert len(shown) == lines
    assert " ".join(line.strip() for line in shown) == message
