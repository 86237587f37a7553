"""The words of ``run``, ``plan``, ``add`` and ``worker``: what to search, and how to run it; a part of `parser`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gridsearch.cli.argument_parser import add_open
from gridsearch.service.prepare.option_words import count
from gridsearch.service.prepare.options import DEFAULTS, RUN_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from gridsearch.cli.argument_parser import Parser


def _add_study_arguments(parser: argparse.ArgumentParser, *, hidden: Collection[str] = ()) -> None:
    _add_what_to_search(parser.add_argument_group("what to search"))
    add_run_options(parser.add_argument_group("how to run it"), hidden=hidden)


def _add_what_to_search(what: argparse._ActionsContainer) -> None:
    _add_points(what)
    _add_subject(what)
    _add_trials(what)
    what.add_argument(
        "--order",
        metavar="O",
        help="which points train first: given (default; the longest packs first, so that the run ends soonest), "
        "spread (evenly over the grid, so that the heatmap is readable early), cheap-first",
    )
    add_ignore(what, "and of this study from now on")
    what.add_argument(
        "--set",
        nargs="+",
        action="extend",
        metavar="KEY=VALUE",
        help="settings of the recipe, for all points: optimizer=sgd momentum=.9; its keys are listed below",
    )


def _add_points(what: argparse._ActionsContainer) -> None:
    """Add what says which points there are."""
    what.add_argument("file", nargs="?", metavar="STUDY.toml", help="a study file")
    what.add_argument(
        "--grid",
        nargs="+",
        action="extend",
        metavar="AXIS=VALUES",
        help="an axis and its values: lr=.01,.001  batch=10..50:10  lr=1e-4..1e-1:4log  "
        "lr,batch=.01/100,.001/20",
    )
    what.add_argument(
        "--exclude",
        nargs="+",
        action="append",
        metavar="AXIS=VALUE",
        help="leave out the points where all of these hold",
    )
    what.add_argument(
        "--when",
        action="append",
        metavar="'AXIS: AXIS=VALUE'",
        help="the axis exists only where the condition holds",
    )


def _add_subject(what: argparse._ActionsContainer) -> None:
    """Add what says what is trained, or called, and by which metric it ranks."""
    what.add_argument(
        "--study", metavar="NAME", help="the study's name (default: the dataset's or objective's)"
    )
    what.add_argument(
        "--dataset",
        metavar="NAME",
        help="fmnist (default), mnist, kmnist, cifar10, digits, folder:PATH, csv:FILE, npz:FILE, hf:NAME, or "
        "your_file.py:Name",
    )
    what.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="lenet (default), see `gridsearch models list`, timm:NAME, torchvision:NAME, or your_file.py:Name; with "
        "--study NAME alone, every model of your own that its trials need",
    )
    what.add_argument(
        "--code",
        action="append",
        metavar="FILE.py:NAME",
        help="with --study NAME alone: an optimizer or augmentation of your own that its trials need",
    )
    what.add_argument(
        "--objective",
        metavar="FILE.py:NAME",
        help="a function of your own instead of images and networks: f(params, seed) returns a dict of metrics, or "
        "yields one for each step; the grid's axes and --set are its params",
    )
    what.add_argument(
        "--metric",
        metavar="NAME",
        help="the metric to rank and prune by: of images accuracy (default), balanced_accuracy, macro_f1, loss, top3, "
        "auc, ece or recall:CLASS; of a function one that it returns (default: value)",
    )
    what.add_argument("--direction", metavar="D", help="maximize (default) or minimize it")
    what.add_argument(
        "--version",
        metavar="TEXT",
        help="a version of your own code: change it when something changes that the program cannot see, such as files "
        "that the code reads",
    )


def _add_trials(what: argparse._ActionsContainer) -> None:
    """Add what says how many trials a point has, on which images each, and how many points of the grid have any."""
    what.add_argument("--epochs", metavar="N", help="epochs of each trial (default: 10)")
    what.add_argument("--seeds", metavar="N", help="train each point with N seeds, 0 to N-1 (default: 1)")
    what.add_argument(
        "--more-seeds",
        type=count,
        metavar="N",
        help="with --study NAME alone: N more seeds for its best points",
    )
    what.add_argument(
        "--top", type=count, metavar="K", help="to how many points --more-seeds adds (default: 2)"
    )
    what.add_argument(
        "--val",
        metavar="F",
        help="fraction of train held out for the ranking (default: 1/6); 0 ranks by train accuracy",
    )
    what.add_argument(
        "--folds",
        metavar="K",
        help="stratified cross-validation in place of --val: K trials for each seed of a point, each with a "
        "different K-th held out; a point ranks by the mean over folds and seeds",
    )
    what.add_argument(
        "--group",
        metavar="NAME",
        help="keep images of one group in one split: a column of a csv: dataset, or 'subfolder' of a "
        "folder: dataset",
    )
    what.add_argument("--subset", metavar="N", help="train on N images only, stratified")
    what.add_argument(
        "--sample",
        metavar="N",
        help="only N of the grid's points, spread evenly over it; a larger N later adds to them",
    )


def add_ignore(group: argparse._ActionsContainer, beyond: str) -> None:
    """Add the option that silences findings of the report.

    Args:
        group: what to add it to.
        beyond: how long it holds.
    """
    group.add_argument(
        "--ignore",
        action="append",
        metavar="CODE",
        help=f"leave a finding out of this report, {beyond}: GS101 or edge-of-axis, several joined by commas "
        "(repeatable)",
    )


def add_run_options(
    group: argparse._ActionsContainer, names: Iterable[str] = RUN_OPTIONS, *, hidden: Collection[str] = ()
) -> None:
    """Add options of `RunOptions`, each as it is declared there.

    Args:
        group: what to add them to.
        names: which.
        hidden: those that are taken and not shown in the help.
    """
    for name in names:
        declared, default = RUN_OPTIONS[name], DEFAULTS[name]
        how: dict[str, Any] = {
            "dest": name,
            "default": default,
            "help": argparse.SUPPRESS if name in hidden else declared.help,
        }
        if isinstance(default, bool):
            how["action"] = "store_false" if default else "store_true"
        elif declared.many:
            how |= {"metavar": declared.metavar, "action": "append", "default": []}
        else:
            how |= {"metavar": declared.metavar, "type": declared.read, "choices": declared.choices or None}
        words = name.replace("_", "-")
        group.add_argument(f"--no-{words}" if default is True else f"--{words}", **how)


def _keys_of_the_recipe() -> str:
    from gridsearch.spec.key_table import help_text

    return help_text()


def add_search_commands(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    """Add what searches: ``run`` and ``plan``, and what shares it out: ``add`` and ``worker``."""
    run = commands.add_parser(
        "run",
        parents=common,
        help="train what is missing of a grid, and report",
        example=(
            "gridsearch run --grid lr=.01,.001 batch=10,20,50\n"
            "gridsearch run studies/fmnist.toml --seeds 3\n"
            "gridsearch run --study fmnist          (finish what the study still lacks)\n"
            "gridsearch run --study fmnist --more-seeds 4 --top 2"
        ),
        appendix=_keys_of_the_recipe,
    )
    _add_study_arguments(run)
    run.add_argument(
        "--dry-run", action="store_true", help="say what would be done, like `gridsearch plan` does"
    )
    run.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)
    add_open(run)

    plan = commands.add_parser(
        "plan",
        parents=common,
        help="say what run would do: points, groups, time, memory, disk",
        example="gridsearch plan --grid lr=.01,.001 batch=10,20,50 --probe",
        appendix=_keys_of_the_recipe,
    )
    _add_study_arguments(plan, hidden=("report", "notify"))
    plan.add_argument("--probe", action="store_true", help="measure a few steps where no time is known yet")

    add = commands.add_parser(
        "add",
        parents=common,
        help="add a grid to the store without training it; workers train it",
        example="gridsearch add --grid lr=.01,.001 batch=10,20,50\ngridsearch worker --until-empty",
        appendix=_keys_of_the_recipe,
    )
    _add_what_to_search(add.add_argument_group("what to search"))
    add_run_options(add.add_argument_group("which trials to train again"), ("prune",))
    _add_worker(commands, common)


def _add_worker(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    worker = commands.add_parser(
        "worker",
        parents=common,
        help="train the waiting trials of any study in the store",
        example=(
            "gridsearch worker --store postgresql://HOST/NAME --home /shared/runs\n"
            "gridsearch worker --until-empty --study fmnist --model my_net.py:Net"
        ),
    )
    worker.add_argument(
        "--until-empty",
        action="store_true",
        help="exit once no trial waits and none is training elsewhere",
    )
    worker.add_argument(
        "--study",
        action="append",
        metavar="NAME",
        help="only trials of this study (repeatable; default: any)",
    )
    worker.add_argument(
        "--model",
        action="append",
        metavar="FILE.py:NAME",
        help="a model of your own that may run here, if a study's trials need it (repeatable)",
    )
    worker.add_argument(
        "--code",
        action="append",
        metavar="FILE.py:NAME",
        help="an optimizer or augmentation of your own that may run here (repeatable)",
    )
    worker.add_argument(
        "--dataset",
        action="append",
        metavar="NAME",
        help="a dataset of your own that may run here, FILE.py:NAME, or where folder:PATH, csv:FILE, ... is here "
        "(repeatable)",
    )
    worker.add_argument(
        "--objective",
        action="append",
        metavar="FILE.py:NAME",
        help="a function of your own that may run here (repeatable)",
    )
    names = [name for name in RUN_OPTIONS if name not in ("report", "notify")]
    add_run_options(worker.add_argument_group("how to train"), names)
