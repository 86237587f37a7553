"""What the README says is so: its commands are accepted, its snippets run, its figures are those that were measured."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gridsearch import locators
from gridsearch.cli.parser import build_parser
from gridsearch.errors import GridsearchError
from gridsearch.plugins import DATASETS, installed
from gridsearch.records.axis import AxisScope
from gridsearch.records.image_metrics import METRICS
from gridsearch.reporting.ranking.pareto import COSTS
from gridsearch.service.prepare.options import RUN_OPTIONS
from gridsearch.service.queries.exporting import TARGETS
from gridsearch.spec import build
from gridsearch.spec.axes import AXES
from gridsearch.spec.study_options import DIRECTIONS, ORDERS
from tests.benchmarks import readme, serving

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), *sorted(ROOT.glob("docs/*.md"))]


def commands(text: str) -> list[str]:
    """Every command line of ours in code blocks and in code spans."""
    lines = [
        line
        for _, block in re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL)
        for line in block.splitlines()
    ]
    lines += re.findall(r"`(gridsearch [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [line.strip() for line in lines if line.strip().startswith("gridsearch ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_on_a_page_is_accepted_by_the_parser(page):
    for line in commands(page.read_text()):
        words = shlex.split(line.replace("NAME", "name"))[1:]
        words = words[: next((i for i, word in enumerate(words) if word in (">", "|", "#")), len(words))]
        build_parser().parse_args(words)


def test_the_readme_has_commands_to_check():
    assert len(commands(README)) > 12


def test_the_grid_tables_left_column_is_the_grammar():
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.*?) \|$", README, flags=re.MULTILINE))
    sizes = {"lr=.01,.001": 2, "batch=10..50:10": 5, "lr=1e-4..1e-1:4log": 4, "lr,batch=.01/100,.001/20": 2}
    for words, size in sizes.items():
        assert words in rows
        assert build(words=[words]).grid.size == size
    assert "--exclude 'lr=.01 batch=10'" in rows
    assert "--when 'momentum: optimizer=sgd'" in rows


def test_the_page_on_training_tells_of_every_pruner():
    page = (ROOT / "docs" / "training.md").read_text()
    assert set(re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)) == {
        "--prune",
        *RUN_OPTIONS["prune"].choices,
    }


def test_the_study_file_is_one(tmp_path):
    text = next(block for kind, block in BLOCKS if kind == "toml")
    (tmp_path / "s.toml").write_text(text)
    spec = build(file=tmp_path / "s.toml")
    assert spec.grid.size == 20
    assert spec.seed_list == (0, 1, 2)


@pytest.mark.end_to_end
def test_the_python_snippets_run(tmp_path, cli):
    here = ("--executor", "inline", "--no-report", "--json")
    net, function, script = (block for kind, block in BLOCKS if kind == "python")
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "val_accuracy" in done.stdout or "mean" in done.stdout
    (tmp_path / "my_net.py").write_text(net)
    line = next(line for line in commands(README) if "my_net.py" in line)
    result = cli(*shlex.split(line)[1:], "--dataset", "digits", "--epochs", "1", "--study", "mine", *here)
    assert result.code == 0, result.err
    assert len(result.json["points"]) == 4
    (tmp_path / "my_fit.py").write_text(function)
    line = next(line for line in commands(README) if "my_fit.py" in line)
    result = cli(*shlex.split(line)[1:], *here)
    assert result.code == 0, result.err
    assert len(result.json["points"]) == 15
    assert result.json["points"][0]["params"]["lr"] == 0.3


def test_the_pictures_and_links_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page, target)


def test_the_readmes_figures_are_the_measured_ones():
    measured = json.loads((ROOT / "tests" / "benchmarks" / "results" / "readme.json").read_text())
    (said,) = readme.PARAGRAPH.findall(README)
    assert said == readme.sentence(measured), "run `python -m tests.benchmarks.readme`, which writes both"


def test_the_readmes_picture_is_of_the_run_that_was_measured_and_of_todays_page():
    """By digests: a picture that is older than the page's templates, or of another run, is taken again."""
    figures = json.loads((ROOT / "tests" / "benchmarks" / "results" / "readme.json").read_text())["figures"]
    again = "run `python -m tests.benchmarks.readme`, which takes the picture of a run of today's code"
    assert figures["picture (last run)"] == readme.digest_of_picture(), again
    assert figures["templates of the picture"] == readme.digest_of_templates(), again


def test_the_readmes_factors_over_other_programs_are_the_measured_ones():
    measured = json.loads((ROOT / "tests" / "benchmarks" / "results" / "peers.json").read_text())
    figures = measured["figures"]
    section = " ".join(README.partition("## How fast")[2].partition("\n## ")[0].split())
    said = {
        "script": "people publish takes {} times",
        "ray": "Ray Tune {},",
        "optuna": "Optuna {},",
        "skorch": "skorch {} (which",
        "resident": "two processes {} times",
    }
    for peer, words in said.items():
        assert words.format(f"{figures[f'{peer} / gridsearch']['median']:.1f}") in section, peer
    assert f"(n={figures['gridsearch']['seconds']['n']})" in section
    assert f"{figures['epochs']} epochs" in section
    assert measured["hardware"]["cpu"] in section


def test_the_words_on_the_plan_are_the_measured_ones():
    measured = json.loads((ROOT / "tests" / "benchmarks" / "results" / "plan.json").read_text())["figures"]
    small, large = (measured[name] for name in ("the README's 6 trials", "16 trials"))

    def ratios(when: str) -> str:
        found = [f"{grid[when]['predicted / actual']:.2f}".removeprefix("0") for grid in (small, large)]
        return " and ".join(found)

    page = (ROOT / "docs" / "training.md").read_text()
    section = " ".join(page.partition("## What plan predicts")[2].partition("\n## ")[0].split())
    assert f"from probes alone {ratios('nothing known but probes')} times" in section
    assert f"after a first run {ratios('after one run')} times" in section
    assert f"n={measured['n']}" in section


def test_the_axes_and_their_values_in_the_readme_are_those_of_the_program():
    (named,) = re.findall(r"^Axes are `([^`]+)`", README, flags=re.MULTILINE)
    assert all(AXES[name].scope is AxisScope.GRID for name in named.split())
    written = [
        word
        for span in SPANS
        for word in re.split(r"[\s']+", span)
        if word.partition("=")[0] in AXES and "=" in word
    ]
    assert len(written) > 12
    for word in written:
        name, _, values = word.partition("=")
        if AXES[name].choices and not values.startswith("my_"):
            assert set(values.split(",")) <= set(AXES[name].choices), word
        else:
            assert build(words=[word]).grid.size


@pytest.mark.parametrize(
    ("row", "before", "known"),
    [
        ("| to rank by what matters |", "report --by ", (*(m.word for m in METRICS), "recall:CLASS")),
        ("| less time on poor trials |", "--prune ", RUN_OPTIONS["prune"].choices),
        ("| part of a large grid first |", "--order ", ORDERS),
        ("| `gridsearch export --to csv` |", "gridsearch export --to ", TARGETS),
    ],
    ids=["metrics", "pruners", "orders", "exports"],
)
def test_a_list_of_words_in_the_readme_has_all_that_the_program_takes(row, before, known):
    (line,) = (line for line in README.splitlines() if line.startswith(row))
    said = {span.removeprefix(before) for span in re.findall("`([^`]+)`", line)}
    usual = {"accuracy", "none", "given"}  # the defaults, which nobody has to write
    assert set(known) - usual <= said
    assert {word for word in said if re.fullmatch(r"[\w:]+", word)} <= set(known) | {"asha"}


def test_every_kind_of_dataset_and_every_engine_is_in_the_readme():
    for kind in (*locators.DATASETS, *locators.LIBRARIES):
        assert re.search(rf"\b{kind}:\w+", README), kind
    for name in RUN_OPTIONS["executor"].choices:
        assert name in ("local", "inline") or f"--executor {name}" in README


def test_every_command_is_in_the_readme():
    found = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, parser in found.choices.items():
        action = next((a for a in parser._actions if a.dest == "action"), None)
        forms = [name] if action is None else [f"{name} {choice}" for choice in action.choices]
        assert any(re.search(rf"gridsearch {form}\b|`{form}\b", README) for form in forms), name


def test_the_exit_codes_in_the_readme_are_those_of_the_errors():
    (said,) = re.findall(r"Exit codes: (.*?)\.\n", README, flags=re.DOTALL)
    kinds = [GridsearchError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    codes = {kind.exit_code for kind in kinds} - {1}  # 1 is a bug
    assert set(map(int, re.findall(r"\b\d+\b", said))) == codes | {0, 129, 130, 143}


def test_the_page_on_ranking_has_every_metric_with_its_direction():
    page = (ROOT / "docs" / "ranking.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| .*? \| (higher|lower) \| (yes)? ?\|$", page, flags=re.MULTILINE)
    told = {name: (better == "lower", bool(each)) for name, better, each in rows}
    known = {metric.word: (metric.smaller, metric.each_epoch) for metric in METRICS}
    assert told == known | {"recall:CLASS": (False, False)}


def test_the_lists_in_the_help_are_what_the_program_takes():
    found = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))

    def words(command, option):
        action = next(a for a in found.choices[command]._actions if option in a.option_strings)
        return set(re.findall(r"[\w:.+-]+", action.help))

    metrics = {*(metric.word for metric in METRICS), "recall:CLASS"}
    for command, option, known in (
        ("report", "--by", metrics),
        ("run", "--metric", metrics),
        ("run", "--order", ORDERS),
        ("export", "--to", TARGETS),
        ("run", "--direction", DIRECTIONS),
        (
            "run",
            "--dataset",
            {*installed(DATASETS), *(f"{kind}:" for kind in locators.DATASETS)} - {"folder"},
        ),
        ("report", "--pareto", COSTS),
    ):
        said = {word.rstrip(".") for word in words(command, option)}
        said |= {f"{word.partition(':')[0]}:" for word in said if ":" in word}
        assert set(known) <= said, option


def test_extras_and_variables_that_a_page_names_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    source = "\n".join(path.read_text() for path in (ROOT / "gridsearch").rglob("*.py"))
    for page in PAGES:
        text = page.read_text()
        assert set(re.findall(r"gridsearch\[(\w+)\]", text)) <= set(extras), page
        for name in set(re.findall(r"\bGRIDSEARCH_[A-Z_]+\b", text)):
            assert f'"{name}"' in source, (page, name)


def test_the_readme_is_no_longer_than_it_may_be():
    assert len(README.splitlines()) <= 220


def test_the_words_on_serving_are_the_measured_ones():
    measured = json.loads((ROOT / "tests" / "benchmarks" / "results" / "serving.json").read_text())["figures"]
    page = " ".join((ROOT / "docs" / "page.md").read_text().split())
    assert serving.sentence(measured) in page, "write what `serving.sentence` returns into docs/page.md"
