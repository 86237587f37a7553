"""The terminal's ranking: whole at 80 columns without colour, limited, honest about what was lost."""

import io

import pytest
from rich.console import Console

from gridsearch.records import TrialState
from gridsearch.reporting import print_ranking


def printed(data, *, width=80, limit=20):
    out = io.StringIO()
    print_ranking(
        data,
        console=Console(file=out, width=width, no_color=True, force_terminal=True, color_system=None),
        limit=limit,
    )
    return out.getvalue()


def test_a_row_shows_rank_params_n_mean_interval_train_accuracy_and_time(study):
    builder = study({"lr": [0.01, 0.001]}, seeds=2, noise=0.0)
    text = printed(builder.score(2, 0.905).score(3, 0.907).data())
    row = next(line for line in text.splitlines() if line.split()[:1] == ["1"])
    assert row.split() == [
        "1",
        "lr=0.001",
        "2",
        "90.60",
        "%",
        "[89.33,",  # 90.6 -+ 12.706 * 0.1
        "91.87]",
        "94.14",
        "%",
        "15.0",
        "s",
    ]


def test_one_seed_shows_no_spread_and_says_what_that_means(study):
    text = printed(study({"lr": [0.01, 0.001]}).data())
    assert "±" not in text
    assert "how much another seed would change" in " ".join(text.split())


def test_nothing_is_wider_than_80_columns_and_there_are_no_escape_codes(study, hostile):
    axes = {"lr": [0.01, 0.001], "model.activation": list(hostile[:6]), "batch": [1, 2]}
    builder = study(axes, seeds=2).lose(0, TrialState.FAILED, "\x1b[2J\x1b]0;evil\x07 " + "x" * 500)
    text = printed(builder.data())
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text and "\x07" not in text


def test_rows_beyond_the_limit_are_counted(study):
    text = printed(study({"batch": list(range(1, 31))}).data(), limit=5)
    assert "… and 25 more" in text
    assert sum("batch=" in line and "%" in line and "±" not in line for line in text.splitlines()[3:]) == 5


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.DIVERGED])
def test_lost_trials_are_listed_below_with_their_reasons(study, state):
    text = printed(study({"lr": [0.1, 0.2]}).lose(0, state, "loss is nan at step 7").data())
    assert f"1 trial {state.value}:" in text
    assert "#0 lr=0.1 seed=0: loss is nan at step 7" in text


def test_lost_trials_with_one_reason_stand_on_one_line_with_what_they_share(study):
    builder = study({"lr": [0.1, 0.2], "batch": [10, 20, 30], "norm": ["none", "standard"]})
    broken = [i for i, trial in enumerate(builder.data().trials) if trial.params["batch"] == 20]
    for i in broken[1:]:
        builder.lose(i, TrialState.FAILED, "ValueError: 20 is no size")
    builder.lose(broken[0], TrialState.DIVERGED, "loss is nan at step 7")
    builder.lose(0, TrialState.DIVERGED, "loss is inf at step 12")
    text = printed(builder.data())
    first = builder.data().trials[broken[1]].number
    assert (
        f"3 trials failed:\n  3 trials, all batch=20: ValueError: 20 is no size (first: #{first})\n" in text
    )
    assert "2 trials diverged:" in text
    assert text.count("loss is ") == 2, "reasons that differ in more than numbers stand apart"


def test_a_ranking_by_train_accuracy_says_so_first(study):
    text = printed(study({"lr": [0.1, 0.2]}, val=0.0).data())
    assert text.startswith("! Nothing was held out (val=0): this ranking is by TRAIN accuracy")


def test_names_are_printed_as_they_are_not_as_markup(study):
    assert "model.act=[red]x[/red]" in printed(study({"model.act": ["[red]x[/red]", "y"]}).data())


def test_an_empty_study_is_said_to_be_empty(study):
    text = printed(study({"lr": [0.1]}).without(0).data())
    assert "No point has a result yet" in text
    assert "no trials yet" in text
