"""The command line's grammar: what the words are called and what they mean; nothing is decided here."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gridsearch._version import __version__
from gridsearch.cli.argument_types import Parser, port_number
from gridsearch.service.prepare.option_words import count, natural
from gridsearch.service.prepare.options import DEFAULTS, RUN_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def _common(*, default: str | None = None) -> Parser:
    """Return the options of every command; they may stand before the command as well as behind it.

    Args:
        default: `argparse.SUPPRESS` behind the command, so that what was not said there leaves what stands before.
    """
    parser = Parser(add_help=False, argument_default=default)
    flag = False if default is None else default
    group = parser.add_argument_group("on every command")
    group.add_argument(
        "--home",
        metavar="DIR",
        help="where the store and all files of the studies live (default: runs, or $GRIDSEARCH_HOME)",
    )
    group.add_argument(
        "--store", metavar="URL", help="the database (default: gridsearch.db in home, or $GRIDSEARCH_STORE)"
    )
    group.add_argument(
        "--json",
        action="store_true",
        default=flag,
        help="one JSON object on standard output, nothing else there",
    )
    group.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=flag,
        help="no progress, no messages; warnings and errors only",
    )
    group.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=flag,
        help="more detail; tracebacks of expected errors",
    )
    group.add_argument("--no-color", action="store_true", default=flag, help="no colour (also $NO_COLOR)")
    return parser


def _add_study_arguments(parser: argparse.ArgumentParser, *, hidden: Collection[str] = ()) -> None:
    _add_what_to_search(parser.add_argument_group("what to search"))
    _add_run_options(parser.add_argument_group("how to run it"), hidden=hidden)


def _add_what_to_search(what: argparse._ActionsContainer) -> None:
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
    what.add_argument(
        "--study", metavar="NAME", help="the study's name (default: the dataset's or objective's)"
    )
    what.add_argument(
        "--dataset",
        metavar="NAME",
        help="fmnist (default), mnist, kmnist, cifar10, digits, folder:PATH, or your_file.py:Name",
    )
    what.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="lenet (default), see `gridsearch models list`, or your_file.py:Name; with --study NAME alone, every "
        "model of your own that its trials need",
    )
    what.add_argument(
        "--objective",
        metavar="FILE.py:NAME",
        help="a function of your own instead of images and networks: f(params, seed) returns a dict of metrics, or "
        "yields one for each step; the grid's axes and --set are its params",
    )
    what.add_argument("--metric", metavar="NAME", help="which of its metrics ranks (default: value)")
    what.add_argument("--direction", metavar="D", help="maximize (default) or minimize it")
    what.add_argument(
        "--version",
        metavar="TEXT",
        help="version of your own code, for what of it has no address: files that it reads, say",
    )
    what.add_argument("--epochs", metavar="N", help="epochs of each trial (default: 10)")
    what.add_argument("--seeds", metavar="N", help="replicates of each point: seeds 0 to N-1 (default: 1)")
    what.add_argument(
        "--more-seeds",
        type=count,
        metavar="N",
        help="with --study NAME alone: N more replicates for its best points",
    )
    what.add_argument("--top", type=count, metavar="K", help="for how many points (default: 2)")
    what.add_argument(
        "--val",
        metavar="F",
        help="fraction of train held out for the ranking (default: 1/6); 0 ranks by train accuracy",
    )
    what.add_argument("--subset", metavar="N", help="train on N images only, stratified")
    what.add_argument(
        "--set",
        nargs="+",
        action="extend",
        metavar="KEY=VALUE",
        help="settings of the recipe, for all points: optimizer=sgd momentum=.9; its keys are listed below",
    )


def _add_run_options(
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
        else:
            how |= {"metavar": declared.metavar, "type": declared.read, "choices": declared.choices or None}
        words = name.replace("_", "-")
        group.add_argument(f"--no-{words}" if default is True else f"--{words}", **how)


def _add_study_name(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument("--study", metavar="NAME", required=required, help="the study's name")


def _add_server(parser: argparse.ArgumentParser, port: int) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument(
        "--port", type=port_number, default=port, help=f"port to listen on (default: {port}; 0: any free one)"
    )


def _keys_of_the_recipe() -> str:
    from gridsearch.spec.key_table import help_text

    return help_text()


def _add_search_commands(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    """Add what searches: ``run`` and ``plan``."""
    run = commands.add_parser(
        "run",
        parents=common,
        help="expand a grid, train what is missing, report",
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
        "--dry-run", action="store_true", help="say what would be done, as `gridsearch plan` does"
    )
    run.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)

    plan = commands.add_parser(
        "plan",
        parents=common,
        help="what run would do: points, groups, time, memory, disk",
        example="gridsearch plan --grid lr=.01,.001 batch=10,20,50 --probe",
        appendix=_keys_of_the_recipe,
    )
    _add_study_arguments(plan, hidden=("report",))
    plan.add_argument("--probe", action="store_true", help="measure a few steps where no time is known yet")


def _add_result_commands(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    """Add what shows results: ``report``, ``status``, ``stop``, ``study``, ``trial``, ``export``."""
    report = commands.add_parser(
        "report",
        parents=common,
        help="rank, draw, write the report",
        example=(
            "gridsearch report --study fmnist\n"
            "gridsearch report --study fmnist --study fmnist2       (compare studies)\n"
            "gridsearch report --study fmnist --trial 3 --trial 7   (their confusion matrices side by side)"
        ),
    )
    report.add_argument(
        "--study",
        action="append",
        metavar="NAME",
        required=True,
        help="the study's name; twice or more: these studies compared, on a page of their own",
    )
    report.add_argument(
        "--trial",
        action="append",
        type=natural,
        metavar="N",
        help="only the confusion matrix of this trial; twice or more: side by side",
    )
    report.add_argument(
        "--where",
        nargs="+",
        action="extend",
        metavar="AXIS=VALUE",
        help="only the trials where all of these hold, in a report of their own beside the whole; "
        "x='\"3\"' is the word 3, x=none no value, x=absent a point without x",
    )

    status = commands.add_parser(
        "status",
        parents=common,
        help="counts by state, running trials, ETA",
        example="gridsearch status --watch",
    )
    _add_study_name(status, required=False)
    status.add_argument("--watch", action="store_true", help="again every two seconds, until interrupted")

    stop = commands.add_parser(
        "stop",
        parents=common,
        help="end the runs of a study, on any machine; what they hold waits",
        example="gridsearch stop --study fmnist",
    )
    _add_study_name(stop)
    stop.add_argument("--now", action="store_true", help="at once, not at the next epoch's end")

    study = commands.add_parser(
        "study",
        parents=common,
        help="list, delete or clean studies",
        example="gridsearch study list\ngridsearch study delete fmnist --yes",
    )
    study.add_argument(
        "action", choices=["list", "delete", "clean"], help="clean: remove left-over files, keep results"
    )
    study.add_argument("name", nargs="?", metavar="NAME", help="the study's name (for delete and clean)")
    study.add_argument("--yes", action="store_true", help="do not ask")

    trial = commands.add_parser(
        "trial",
        parents=common,
        help="one trial: params, curves in figures, log, error",
        example="gridsearch trial 3 --study fmnist",
    )
    trial.add_argument("number", type=natural, metavar="NUMBER", help="the trial's number, as in the report")
    _add_study_name(trial)

    export = commands.add_parser(
        "export",
        parents=common,
        help="all trials as CSV or JSON",
        example="gridsearch export --study fmnist --format csv > trials.csv",
    )
    _add_study_name(export)
    export.add_argument("--format", choices=["csv", "json"], default="csv", help="csv (default) or json")


def _add_winner_commands(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    """Add what comes after the search: ``best`` and ``predict``."""
    best = commands.add_parser(
        "best",
        parents=common,
        help="refit the winner on train and validation, read the test set once, export the model",
        example="gridsearch best --study fmnist",
    )
    _add_study_name(best)
    best.add_argument(
        "--where",
        nargs="+",
        action="extend",
        metavar="AXIS=VALUE",
        help="the winner among the trials where all of these hold",
    )
    best.add_argument(
        "--again", action="store_true", help="read the test set once more: no clean test any longer"
    )
    best.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="your_file.py:Name again, if the winner is your own",
    )
    best.add_argument(
        "--dataset", metavar="NAME", help="your_file.py:Name again, or where folder:PATH is now"
    )
    _add_run_options(best, ("device", "executor"))

    predict = commands.add_parser(
        "predict",
        parents=common,
        help="class and probability for images, from an exported model",
        example="gridsearch predict runs/fmnist/best shoe.jpg shirt.png",
    )
    predict.add_argument("model", metavar="MODEL_DIR", help="a folder that `gridsearch best` exported")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="image files of any size")


def _add_server_commands(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    """Add what serves until it is interrupted: ``dashboard`` and ``tensorboard``."""
    dashboard = commands.add_parser(
        "dashboard",
        parents=common,
        help="Optuna dashboard on the store",
        example="gridsearch dashboard --port 8080",
    )
    _add_server(dashboard, 8080)
    board = commands.add_parser(
        "tensorboard",
        parents=common,
        help="TensorBoard on the trials",
        example="gridsearch tensorboard --port 6006",
    )
    _add_server(board, 6006)
    board.add_argument("--study", metavar="NAME", help="only this study (default: all)")


def _add_tool_commands(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    """Add the commands about data, models and the machine."""
    data = commands.add_parser(
        "data",
        parents=common,
        help="list, fetch or verify datasets",
        example="gridsearch data list\ngridsearch data fetch fmnist\ngridsearch data fetch mnist --from DIR",
    )
    data.add_argument("action", choices=["list", "fetch", "verify"])
    data.add_argument("name", nargs="?", metavar="NAME", help="the dataset (for fetch and verify)")
    data.add_argument("--from", dest="source", metavar="DIR", help="a folder that holds the files already")

    models = commands.add_parser(
        "models",
        parents=common,
        help="list models, or show one's layers",
        example="gridsearch models list\ngridsearch models show lenet --dataset mnist --set model.width=2",
    )
    models.add_argument("action", choices=["list", "show"])
    models.add_argument("name", nargs="?", metavar="NAME", help="the model (for show), or your_file.py:Name")
    models.add_argument(
        "--dataset", metavar="NAME", help="shape the network for this dataset (default: fmnist)"
    )
    models.add_argument("--set", nargs="+", action="extend", metavar="KEY=VALUE", help="model.NAME=VALUE")

    doctor = commands.add_parser(
        "doctor",
        parents=common,
        help="versions, accelerators, data, store, models: what is wrong and how to fix it",
        example="gridsearch doctor\ngridsearch doctor --model my_net.py:Net",
    )
    doctor.add_argument(
        "--model",
        metavar="NAME",
        help="say how this model's lanes would train, or your_file.py:Name (default: all built-in ones)",
    )
    doctor.add_argument(
        "--dataset", metavar="NAME", help="on these images (default: made-up grey ones of 28x28)"
    )


def build_parser() -> Parser:
    """Return the parser of the whole program; `command` and `action` say what was asked for."""
    parser = Parser(
        prog="gridsearch",
        description="Hyperparameter grid search for image classifiers.",
        example=(
            "gridsearch run --grid lr=.01,.001 batch=10,20,50\n"
            "gridsearch report --study fmnist\n"
            "gridsearch dashboard"
        ),
        parents=[_common()],
    )
    parser.add_argument("--version", action="version", version=f"gridsearch {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True, parser_class=Parser)
    common = [_common(default=argparse.SUPPRESS)]
    for add in (
        _add_search_commands,
        _add_result_commands,
        _add_winner_commands,
        _add_server_commands,
        _add_tool_commands,
    ):
        add(commands, common)
    return parser
