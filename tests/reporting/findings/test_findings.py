"""A finding has a reason in the numbers, and none is made where there is none."""

from __future__ import annotations

import io
import shlex
from dataclasses import replace

import numpy as np
import pytest

from gridsearch.cli.commands.search import _spec
from gridsearch.cli.parser import build_parser
from gridsearch.records import TrialState
from gridsearch.records.finding_codes import FINDINGS
from gridsearch.reporting.findings.study_findings import find
from gridsearch.reporting.output.document import report_json
from gridsearch.reporting.output.page import render_page
from gridsearch.reporting.output.terminal import print_ranking
from gridsearch.reporting.ranking.ranking import rank

LR = [1e-4, 1e-3, 1e-2]


def valued(study, value, axes, *, noise=0.002, seeds=3, rng=0, **how):
    """Return a study whose trials have the value of their params, with noise by seed."""
    builder = study(axes, seeds=seeds, **how)
    chance = np.random.default_rng(rng)
    for record in list(builder.records):
        builder.score(record.number, float(value(record.params) + chance.normal(0, noise)))
    return builder


def found(data, code=None):
    all_of_them = find(data, rank(data))
    return [f for f in all_of_them if f.code == code] if code else {f.code for f in all_of_them}


def spec_of(command):
    """Return what a command asks for, as the command line reads it."""
    program, *words = shlex.split(command)
    assert program == "gridsearch"
    return _spec(build_parser().parse_args(words))


def rising(params):
    return 0.5 + 0.1 * np.log10(params["lr"] / 1e-4)


def test_a_winner_at_the_edge_of_an_axis_leads_to_the_values_beyond_it(study):
    data = valued(study, rising, {"lr": LR, "batch": [10, 20]}).data()
    edge = next(f for f in found(data, "GS101") if f.axis == "lr")
    assert edge.sentence.startswith(
        "The winner has the largest lr that was tried, 0.01, and is better with it than with 0.001 by "
    )
    assert "] against " in edge.sentence
    assert "more than chance explains, with 95 % confidence" in edge.sentence
    spec = spec_of(edge.command)
    assert spec.grid.values["lr"] == (0.1, 1.0)
    assert spec.grid.values["batch"] == (rank(data).best.params["batch"],)
    assert (spec.name, spec.seeds, spec.recipe.epochs) == ("fmnist", 3, 10)


@pytest.mark.parametrize(
    ("values", "upward", "next_ones"),
    [
        ([1000.5, 1001.5, 1002.5], True, (1003.5, 1004.5)),
        ([-1002.5, -1001.5, -1000.5], True, (-999.5, -998.5)),
        ([1000.5, 1001.5, 1002.5], False, (999.5, 998.5)),
        ([0.1, 0.2, 0.1 + 0.2], True, (0.4, 0.5)),
        ([1e200, 1e300], True, ()),
    ],
)
def test_the_values_beyond_an_edge_lie_beyond_it_however_close_the_values_are(
    study, values, upward, next_ones
):
    place = {v: i / 10 for i, v in enumerate(sorted(values, reverse=not upward))}
    data = valued(study, lambda p: 0.5 + place[p["model.x"]], {"model.x": values}).data()
    edges = found(data, "GS101")
    assert [spec_of(f.command).grid.values["model.x"] for f in edges] == ([next_ones] if next_ones else [])


def test_the_values_between_two_that_are_close_lie_between_them(study):
    value = {100000.5: 0.5, 100001.5: 0.9, 100002.5: 0.5}
    data = valued(study, lambda p: value[p["model.x"]], {"model.x": list(value)}).data()
    (between,) = found(data, "GS107")
    assert spec_of(between.command).grid.values["model.x"] == (100001.0, 100002.0)


def test_a_lead_is_that_over_the_seeds_by_which_two_points_are_compared(study):
    builder = study({"lr": [1e-3, 1e-2]}, seeds=5)
    few = [0.5, 0.6, 0.7]
    for number, value in enumerate([*few, 0, 0, *(v + 0.02 + v / 1000 for v in few), 0.3, 0.92]):
        builder.score(number, value)
    data = builder.data()
    data = replace(data, trials=tuple(t for t in data.trials if t.params["lr"] == 1e-2 or t.seed < 3))
    (edge,) = found(data, "GS101")
    assert (
        " by 2.06 percentage points over the 3 seeds that both have (62.06 % against 60.00 %; "
        in edge.sentence
    )


def test_at_an_edge_beyond_which_an_axis_takes_no_value_nothing_is_found(study):
    data = valued(study, lambda p: 0.9 - p["weight_decay"], {"weight_decay": [0.0, 0.1, 0.2]}).data()
    assert not found(data, "GS101")
    upward = valued(study, lambda p: 0.5 + p["dropout"] / 2, {"dropout": [0.5, 0.6, 0.7]}).data()
    assert spec_of(found(upward, "GS101")[0].command).grid.values["dropout"] == (0.8, 0.9)


def test_where_nothing_says_how_sure_a_ranking_is_no_axis_is_said_to_matter(study):
    data = valued(study, rising, {"lr": LR}, seeds=1).data()
    ranking = rank(data, predictions=lambda number: None)
    assert ranking.uncertainty.basis == "nothing" and not ranking.tied
    assert not [f for f in find(data, ranking) if f.code in ("GS101", "GS102", "GS107")]


def test_a_winner_at_the_edge_by_chance_is_no_finding(study):
    few = sum(
        bool(found(valued(study, lambda p: 0.9, {"lr": LR}, noise=0.01, seeds=4, rng=i).data(), "GS101"))
        for i in range(60)
    )
    assert few <= 6  # 5 % of 60, and the winner is the pick of three


def test_a_value_that_is_better_than_both_beside_it_leads_between_them(study):
    data = valued(
        study, lambda p: 0.9 - 0.1 * abs(np.log10(p["lr"]) + 3), {"lr": LR, "batch": [10, 20]}
    ).data()
    between = found(data, "GS107")[0]
    assert (between.axis, between.value) == ("lr", 1e-3)
    assert spec_of(between.command).grid.values["lr"] == (0.000316, 0.00316)
    assert not [f for f in found(data, "GS101") if f.axis == "lr"]


def test_an_axis_without_effect_is_one_whose_values_are_shown_to_be_alike(study):
    axes = {"lr": LR, "batch": [10, 20, 40], "norm": ["none", "standard"]}
    data = valued(study, rising, axes, noise=0.01).data()
    idle = {f.axis for f in found(data, "GS102")}
    assert "norm" in idle
    assert "lr" not in idle
    spec = spec_of(next(f for f in found(data, "GS102") if f.axis == "norm").command)
    assert spec.grid.values["lr"] == tuple(LR)
    assert len(spec.grid.values["norm"]) == 1
    assert spec.seeds == 5
    loose = valued(study, rising, {"lr": LR[:2], "norm": ["none", "standard"]}, noise=0.01, seeds=1).data()
    assert not found(loose, "GS102")  # two pairs show nothing


def test_no_seeds_are_advised_for_two_points_that_differ_in_an_axis_without_effect_alone(study):
    axes = {"lr": LR, "batch": [10, 20, 40], "norm": ["none", "standard"]}
    data = valued(study, lambda p: rising(p) - p["batch"] / 200, axes, noise=0.01).data()
    first, second = (point.params for point in rank(data).points[:2])
    assert {name for name in axes if first[name] != second[name]} == {"norm"}
    assert {"GS102"} <= found(data)
    assert "GS104" not in found(data), "one says to leave the axis out, the other to tell its values apart"
    assert "GS104" in found(replace(data, spec={"ignore": ["GS102"]}))


def test_poor_points_that_scatter_do_not_hide_an_effect_of_the_good_ones(study):
    """The first axis has an effect of .01 where points scatter by .001; a point beside them scatters by .3."""
    axes = {"norm": ["none", "standard"], "batch": [10, 20, 40]}
    builder = valued(study, lambda p: 0.9 + 0.01 * (p["norm"] == "standard"), axes, noise=0.001)
    wild = valued(study, lambda p: 0.4, {"norm": ["none"], "batch": [80]}, noise=0.3)
    for record in wild.records:
        builder.records.append(replace(record, number=len(builder.records)))
    data = replace(builder.data(), axes=("norm", "batch"))
    assert max(p.spread for p in rank(data).points) > 0.05
    assert "norm" not in {f.axis for f in found(data, "GS102")}


def test_an_axis_has_an_effect_or_none(study):
    axes = {"batch": [1, 2], "lr": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    data = valued(study, lambda p: 0.9 + 0.0025 * p["batch"], axes, noise=0.004, seeds=30).data()
    assert [f.code for f in find(data, rank(data)) if f.axis == "batch"] == ["GS101"]


def test_curves_that_still_rise_lead_to_more_epochs_and_level_ones_do_not(study):
    builder = study({"lr": LR}, seeds=3, epochs=12)
    assert found(builder.data(), "GS103")
    spec = spec_of(found(builder.data(), "GS103")[0].command)
    assert (spec.grid.values["epochs"], spec.grid.values["lr"]) == (
        (24,),
        (rank(builder.data()).best.params["lr"],),
    )
    level = {
        n: tuple(replace(row, val_accuracy=0.9 + 0.001 * (-1) ** row.epoch) for row in rows)
        for n, rows in builder.epochs.items()
    }
    assert not found(builder.data(epochs=level), "GS103")
    annealed = study({"lr": LR}, seeds=3, epochs=12, schedule="cosine").data()
    assert not found(annealed, "GS103")
    varied = study({"lr": LR, "epochs": [8, 12]}, seeds=2).data()
    assert not found(varied, "GS103")


def test_one_rising_curve_is_judged_by_its_own_scatter(study):
    builder = study({"lr": [0.01]}, epochs=20, noise=0)
    rows = builder.epochs[0]
    chance = np.random.default_rng(0)
    rises = tuple(replace(row, val_accuracy=0.5 + 0.01 * row.epoch + chance.normal(0, 0.002)) for row in rows)
    levels = tuple(replace(row, val_accuracy=0.9 + chance.normal(0, 0.02)) for row in rows)
    (one,) = found(builder.data(epochs={0: rises}), "GS103")
    assert one.sentence.endswith("with 95 % confidence; the winner's trial). More epochs would help.")
    assert not found(builder.data(epochs={0: levels}), "GS103")


def test_a_winner_that_has_everything_right_is_not_said_to_need_more_epochs(study):
    builder = study({"lr": [0.01, 0.1]}, seeds=3, epochs=12)
    for record in list(builder.records):
        builder.score(record.number, 1.0)
    for last, advised in ((1.0, False), (0.99, True)):
        rises = curves_of(builder, val_accuracy=lambda e, last=last: min(last, 0.4 + 0.05 * e))
        assert bool(found(builder.data(epochs=rises), "GS103")) is advised


def curves_of(builder, **values):
    """Return the epochs of a study with other values, each a function of the epoch."""
    return {
        n: tuple(replace(row, **{name: value(row.epoch) for name, value in values.items()}) for row in rows)
        for n, rows in builder.epochs.items()
    }


def by(builder, metric, direction):
    for record in list(builder.records):
        builder.change(record.number, metrics={**record.metrics, metric: 0.5 + record.number / 1000})
    return builder.data(metric=metric, direction=direction)


def test_the_curve_is_that_of_the_metric_that_ranks_or_its_sentence_says_what_stands_for_it(study):
    builder = study({"lr": LR[:1]}, seeds=3, epochs=12)
    rises, falls = (lambda e: 0.5 + 0.01 * e), (lambda e: 2 - 0.01 * e)
    improves = curves_of(builder, val_accuracy=rises, val_loss=falls)
    overfits = curves_of(builder, val_accuracy=rises, val_loss=rises)

    def says(metric, direction, epochs):
        return [f.sentence for f in found(replace(by(builder, metric, direction), epochs=epochs), "GS103")]

    assert says("val_accuracy", "maximize", overfits)[0].startswith(
        "Validation accuracy still rises: by 1.00 perc"
    )
    assert says("val_loss", "minimize", improves)[0].startswith(
        "Validation loss still falls: by 0.01 per epoch"
    )
    assert not says("val_loss", "minimize", overfits), "it becomes worse"
    assert says("macro_f1", "maximize", improves)[0].endswith("More epochs may help macro F1 too.")
    assert not says("ece", "minimize", improves)


def test_a_trial_that_was_stopped_early_says_nothing_of_more_epochs(study):
    builder = study({"lr": LR[:1]}, seeds=3, epochs=12)
    rising_ones = curves_of(builder, val_accuracy=lambda e: 0.5 + 0.01 * e)
    assert found(builder.data(epochs=rising_ones), "GS103")
    assert not found(builder.data(epochs={n: rows[:8] for n, rows in rising_ones.items()}), "GS103")


@pytest.mark.parametrize(("state", "code"), [(TrialState.FAILED, "GS105"), (TrialState.DIVERGED, "GS106")])
def test_a_value_at_which_trials_are_lost_alike_is_named_with_its_evidence(study, state, code):
    builder = study({"lr": LR, "model.hidden": [12, 13, 14]}, seeds=2)
    for record in list(builder.records):
        if record.params["model.hidden"] == 13:
            builder.lose(record.number, state, f"ValueError: {record.number} rows do not fit 13")
    lost = found(builder.data(), code)
    assert [(f.axis, f.value) for f in lost] == [("model.hidden", 13)]
    assert "6 of 6 trials" in lost[0].sentence
    assert "0 of 12 without it (Fisher's exact test, p below 0.001" in lost[0].sentence
    spec = spec_of(lost[0].command)
    assert (spec.grid.values["model.hidden"], spec.grid.values["lr"]) == ((12, 14), tuple(LR))


def partly_lost(study, lost):
    """Return a study whose axes batch and norm have no effect, in which most trials of some values are lost."""
    axes = {"lr": LR, "batch": [10, 20, 40], "norm": ["none", "standard"]}
    builder = valued(study, lambda p: rising(p) - 0.004 * (p["batch"] == 40), axes, noise=0.01, seeds=10)
    for record in list(builder.records):
        for state, error, hit in lost:
            if hit(record.params) and record.seed > 1:
                builder.lose(record.number, state, error)
    return builder.data()


def test_an_axis_with_a_value_that_fails_is_not_said_to_have_no_effect(study):
    data = partly_lost(study, [(TrialState.FAILED, "ValueError: too wide", lambda p: p["batch"] == 40)])
    assert [(f.axis, f.value) for f in found(data, "GS105")] == [("batch", 40)]
    assert {f.axis for f in found(data, "GS102")} == {"norm"}
    idle = spec_of(found(data, "GS102")[0].command)
    assert idle.grid.values["batch"] == (10, 20), "no command runs what another finding advises against"


def test_no_command_of_a_value_that_is_lost_runs_another_one_that_is(study):
    lost = [
        (TrialState.FAILED, "ValueError: too wide", lambda p: p["batch"] == 40),
        (TrialState.DIVERGED, None, lambda p: p["lr"] == 1e-4),
    ]
    data = partly_lost(study, lost)
    assert {f.code for f in find(data, rank(data))} >= {"GS105", "GS106"}
    for code in ("GS105", "GS106"):
        grid = spec_of(found(data, code)[0].command).grid.values
        assert (grid["batch"], grid["lr"]) == ((10, 20), (1e-3, 1e-2))


def test_trials_lost_here_and_there_are_no_finding(study):
    builder = study({"lr": LR, "model.hidden": [12, 13, 14]}, seeds=2)
    for number in (0, 7, 14):
        builder.lose(number, TrialState.FAILED, "ValueError: now and then")
    assert not found(builder.data(), "GS105")


def test_findings_stand_in_json_terminal_and_page_and_go_silent_by_their_codes(study):
    data = valued(study, rising, {"lr": LR, "batch": [10, 20]}, name="a-study").data()
    ranking = rank(data)
    content = report_json(data, ranking=ranking)["findings"]
    assert {"code", "name", "axis", "sentence", "command"} == set(content[0])
    assert content[0]["name"] == FINDINGS[content[0]["code"]] == "edge-of-axis"
    assert "--study a-study" in content[0]["command"]
    page = render_page(data, ranking)
    assert "GS101 edge-of-axis" in page
    assert "What next" in page
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    print_ranking(data, console=console, ranking=ranking)
    assert "GS101 edge-of-axis: The winner has the largest lr" in console.export_text()
    silent = replace(data, spec={"ignore": ["GS101"]})
    assert "GS101" not in found(silent)
    assert found(silent) == found(data) - {"GS101"}


def test_names_of_a_user_cannot_act_on_the_page_or_in_a_command(study, hostile):
    axis = f"model.{'x' * 3}"
    values = [*hostile[:4], "a b; rm -rf /"]
    builder = study({axis: values, "lr": LR[:2]}, seeds=3)
    for record in list(builder.records):
        if record.params[axis] == values[0]:
            builder.lose(record.number, TrialState.FAILED, hostile[0])
    data = builder.data()
    finding = found(data, "GS105")[0]
    assert spec_of(finding.command).grid.values[axis] == tuple(values[1:])
    assert "<script>alert" not in render_page(data, rank(data))


def test_every_code_has_a_section_in_the_docs():
    from pathlib import Path

    text = (Path(__file__).parents[3] / "docs" / "findings.md").read_text()
    for code, name in FINDINGS.items():
        assert f"## {code} {name}\n" in text
