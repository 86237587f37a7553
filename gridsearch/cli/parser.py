"""The command line's grammar: what the words are called and what they mean; nothing is decided here."""

from __future__ import annotations

import argparse

from gridsearch._version import __version__
from gridsearch.cli.argument_parser import COMMON, Parser, add_open
from gridsearch.cli.argument_types import port_number
from gridsearch.cli.completion import SHELLS
from gridsearch.cli.search_parser import add_ignore, add_run_options, add_search_commands
from gridsearch.service.prepare.option_words import natural


def _common(*, default: str | None = None) -> Parser:
    """Return the options of every command; they may stand before the command as well as behind it.

    Args:
        default: `argparse.SUPPRESS` behind the command, so that what was not said there leaves what stands before.
    """
    parser = Parser(add_help=False, argument_default=default)
    flag = False if default is None else default
    group = parser.add_argument_group(COMMON)
    group.add_argument(
        "--home",
        metavar="DIR",
        help="folder of the store and of all files of the studies (default: runs, or $GRIDSEARCH_HOME)",
    )
    group.add_argument(
        "--store",
        metavar="URL",
        help="the database: sqlite:///PATH or postgresql://USER@HOST/DATABASE (default: gridsearch.db in home, or "
        "$GRIDSEARCH_STORE)",
    )
    group.add_argument(
        "--json",
        action="store_true",
        default=flag,
        help="print one JSON object on standard output and nothing else",
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


def _add_study_name(parser: argparse.ArgumentParser, default: str = "the only one") -> None:
    parser.add_argument("--study", metavar="NAME", help=f"the study's name (default: {default})")


def _add_server(parser: argparse.ArgumentParser, port: int) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument(
        "--port", type=port_number, default=port, help=f"port to listen on (default: {port}; 0: any free one)"
    )


_BY = (
    "rank by another metric, from the stored predictions, in a separate report: "
    "accuracy, balanced_accuracy, macro_f1, loss, top3, auc, ece (calibration error), or recall:CLASS; of a function "
    "any metric that it returned, NAME:minimize where less of it is better"
)


def _add_report(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    report = commands.add_parser(
        "report",
        parents=common,
        help="rank, draw, write the report",
        example=(
            "gridsearch report --study fmnist\n"
            "gridsearch report --study fmnist --by macro_f1         (by another metric)\n"
            "gridsearch report --study fmnist --study fmnist2       (compare studies)\n"
            "gridsearch report --study fmnist --trial 3 --trial 7   (confusion matrices)"
        ),
    )
    report.add_argument(
        "--study",
        action="append",
        metavar="NAME",
        help="the study's name (default: the only one); twice or more: compare these studies on a page of their own",
    )
    report.add_argument(
        "--trial",
        action="append",
        type=natural,
        metavar="N",
        help="only this trial, on a page with its confusion matrix; twice or more: side by side",
    )
    report.add_argument(
        "--where",
        nargs="+",
        action="extend",
        metavar="AXIS=VALUE",
        help="only trials where all of these hold, in a separate report; "
        "x='\"3\"' is the word 3, x=none no value, x=absent a point without x",
    )
    add_ignore(report, "and of no other")
    report.add_argument("--by", metavar="METRIC", help=_BY)
    report.add_argument(
        "--pareto",
        nargs="+",
        action="extend",
        metavar="QUANTITIES",
        help="also show the points that no other beats in all of these: accuracy,parameters,latency, or any metric of "
        "--by, parameters, latency (by ONNX Runtime on this machine, one image) and seconds",
    )
    report.add_argument(
        "--model",
        action="append",
        metavar="FILE.py:NAME",
        help="your own model again (your_file.py:Name), to measure its latency (repeatable)",
    )
    add_open(report)


def _add_study_commands(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    """Add what is about a study, or one of its trials: ``status``, ``stop``, ``study``, ``trial``."""
    status = commands.add_parser(
        "status",
        parents=common,
        help="show counts by state, running trials, time left",
        example="gridsearch status --watch",
    )
    _add_study_name(status, "all")
    status.add_argument("--watch", action="store_true", help="refresh every two seconds until interrupted")

    stop = commands.add_parser(
        "stop",
        parents=common,
        help="end the runs of a study on any machine; their unfinished trials stay waiting",
        example="gridsearch stop --study fmnist",
    )
    _add_study_name(stop)
    stop.add_argument("--now", action="store_true", help="at once, not at the end of the current epoch")

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
    study.add_argument("--yes", action="store_true", help="do not ask for confirmation")

    trial = commands.add_parser(
        "trial",
        parents=common,
        help="show one trial: params, every epoch, log, error",
        example="gridsearch trial 3 --study fmnist",
    )
    trial.add_argument("number", type=natural, metavar="NUMBER", help="the trial's number, as in the report")
    _add_study_name(trial)


def _add_export(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    export = commands.add_parser(
        "export",
        parents=common,
        help="export a study: CSV, JSON, a table for a paper, MLflow, W&B",
        example=(
            "gridsearch export --study fmnist --to csv > trials.csv\n"
            "gridsearch export --study fmnist --to latex    (the ranking, for a paper)\n"
            "gridsearch export --study fmnist --to mlflow   (into mlflow.db in the home)\n"
            "gridsearch export --study fmnist --to wandb-offline"
        ),
    )
    _add_study_name(export)
    export.add_argument(
        "--by", metavar="METRIC", help="as for report: value, and the ranking in JSON, by that metric"
    )
    export.add_argument(
        "--to",
        metavar="T",
        help="csv (default), json, latex, markdown; mlflow (extra), wandb-offline (extra; no network): the study as an "
        "experiment, each trial as a run, written once however often it is exported",
    )
    export.add_argument(
        "--output",
        metavar="WHERE",
        help="a file for a table (default: standard output), MLflow's tracking URI, or the folder for W&B's",
    )
    export.add_argument("--format", choices=["csv", "json"], help="as --to csv (default) or json")


def _add_winner_commands(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    """Add what comes after the search: ``best`` and ``predict``."""
    best = commands.add_parser(
        "best",
        parents=common,
        help="retrain the winner on training and validation images, test it once, export it",
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
        "--again",
        action="store_true",
        help="use the test set again; the result no longer counts as a clean test",
    )
    best.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="name your_file.py:Name again, if the winner is a model of your own",
    )
    best.add_argument(
        "--code",
        action="append",
        metavar="FILE.py:NAME",
        help="name an optimizer or augmentation of your own again",
    )
    best.add_argument(
        "--dataset",
        metavar="NAME",
        help="name your_file.py:Name again, or say where its folder or file is now",
    )
    add_run_options(best, ("device", "executor", "slurm"))

    predict = commands.add_parser(
        "predict",
        parents=common,
        help="predict the class of images, with an exported model",
        example="gridsearch predict runs/fmnist/best shoe.jpg shirt.png",
    )
    predict.add_argument("model", metavar="MODEL_DIR", help="a folder that `gridsearch best` exported")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="image files of any size")


def _add_server_commands(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    """Add what serves until it is interrupted: ``dashboard``, ``serve`` and ``tensorboard``."""
    dashboard = commands.add_parser(
        "dashboard",
        parents=common,
        help="open Optuna's dashboard on the store",
        example="gridsearch dashboard --port 8080",
    )
    _add_server(dashboard, 8080)
    serve = commands.add_parser(
        "serve",
        parents=common,
        help="serve live report pages of all studies",
        example="gridsearch serve --port 8090",
    )
    _add_server(serve, 8090)
    board = commands.add_parser(
        "tensorboard",
        parents=common,
        help="open TensorBoard on the trials of a study",
        example="gridsearch tensorboard --port 6006",
    )
    _add_server(board, 6006)
    board.add_argument("--study", metavar="NAME", help="the study's name (default: the newest)")
    board.add_argument("--all", action="store_true", help="all studies of the home")


def _add_data_commands(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    """Add the commands about images and the store: ``data`` and ``store``."""
    data = commands.add_parser(
        "data",
        parents=common,
        help="list, show, fetch or verify datasets",
        example="gridsearch data list\ngridsearch data show csv:labels.csv --set data.label=kind\n"
        "gridsearch data fetch mnist --from DIR",
    )
    data.add_argument("action", choices=["list", "show", "fetch", "verify"])
    data.add_argument("name", nargs="?", metavar="NAME", help="the dataset (for show, fetch and verify)")
    data.add_argument(
        "--set", nargs="+", action="extend", metavar="KEY=VALUE", help="data.NAME=VALUE (for show)"
    )
    data.add_argument("--from", dest="source", metavar="DIR", help="a folder that already holds the files")

    store = commands.add_parser(
        "store",
        parents=common,
        help="copy a store from SQLite to PostgreSQL or back, whole and verified",
        example="gridsearch store copy sqlite:///runs/gridsearch.db postgresql://me@host/grids",
    )
    store.add_argument("action", choices=["copy"])
    store.add_argument("source", metavar="FROM", help="the URL of a store that no run is using")
    store.add_argument(
        "target", metavar="TO", help="the URL of an empty database, or of a file that does not exist yet"
    )


def _add_model_commands(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    """Add the commands about models and the machine: ``models`` and ``doctor``."""
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
        help="check versions, accelerators, data, store and models; say what is wrong and how to fix it",
        example="gridsearch doctor\ngridsearch doctor --model my_net.py:Net",
    )
    doctor.add_argument(
        "--model",
        metavar="NAME",
        help="the model, or your_file.py:Name, whose packs are checked (default: all built-in ones)",
    )
    doctor.add_argument(
        "--dataset",
        metavar="NAME",
        help="on the images of this dataset (default: made-up grey images of 28x28)",
    )


def _add_completion(commands: argparse._SubParsersAction[Parser], common: list[Parser]) -> None:
    completion = commands.add_parser(
        "completion",
        parents=common,
        help="print shell code for Tab completion of commands, options, studies and axes",
        example='eval "$(gridsearch completion bash)"        (in ~/.bashrc)\n'
        'eval "$(gridsearch completion zsh)"         (in ~/.zshrc, after compinit)\n'
        "gridsearch completion fish | source         (in ~/.config/fish/config.fish)",
    )
    completion.add_argument("shell", choices=SHELLS, help="the shell")


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
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="command", required=True, parser_class=Parser
    )
    common = [_common(default=argparse.SUPPRESS)]
    for add in (
        add_search_commands,
        _add_report,
        _add_study_commands,
        _add_export,
        _add_winner_commands,
        _add_server_commands,
        _add_data_commands,
        _add_model_commands,
        _add_completion,
    ):
        add(commands, common)
    for (
        listed
    ) in commands._choices_actions:  # what the list of commands says, the command's own help says too
        words = listed.help or ""
        commands.choices[listed.dest].description = f"{words[:1].upper()}{words[1:]}."
    return parser
