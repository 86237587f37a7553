"""Tab completion for bash, zsh and fish by argcomplete: what a word may become, by the parser and by the store.

`gridsearch completion SHELL` prints what a shell has to evaluate.  The shell then calls the program with what was typed
so far, and `complete` answers; nothing is imported here before that.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Completer: TypeAlias = "Callable[..., list[str]]"

SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """Return the code that a shell evaluates once, to ask this program from then on."""
    from argcomplete.shell_integration import shellcode

    return shellcode(["gridsearch"], shell=shell)


def show(shell: str) -> int:
    """Print what a shell has to evaluate; return the exit code."""
    print(script(shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks how a line may go on, and end the process; return where nobody asks."""
    import argcomplete

    for action in _actions(parser):
        for option in action.option_strings:
            if option in _COMPLETERS:
                action.completer = _COMPLETERS[option]  # type: ignore[attr-defined]
        if action.dest == "name":  # of `study delete`, `models show`, `data fetch`
            action.completer = _by_command  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options="long")


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def _studies(*, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Return the studies of the store that the words before name."""
    with suppress(Exception):  # whatever is wrong with a store, a shell is no place to say so
        from gridsearch.service.prepare.options import Places
        from gridsearch.service.queries import studies

        found = Places.find(getattr(parsed_args, "home", None), getattr(parsed_args, "store", None))
        return [summary.name for summary in studies.summaries(found)]
    return []


def _axes(*, prefix: str, **_: Any) -> list[str]:
    """Return ``lr=``, ``batch=`` and so on; after the sign, the words that an axis takes."""
    from gridsearch.records.axis import AxisScope
    from gridsearch.spec.axes import ALIASES, AXES

    typed = (AxisScope.GRID, AxisScope.RECIPE)
    name, equals, values = prefix.partition("=")
    if not equals:
        return [*(f"{axis.name}=" for axis in AXES.values() if axis.scope in typed), "model.", "data."]
    axis = AXES.get(ALIASES.get(name, name))
    if name == "model":
        words = _models(prefix="")
    elif axis is None or not axis.choices:
        return []
    else:
        words = [str(choice) for choice in axis.choices]
    return [f"{name}={word}" for word in _after_commas(values, words)]


def _models(**_: Any) -> list[str]:
    from gridsearch import locators
    from gridsearch.plugins import MODELS, installed

    return [*installed(MODELS), *(f"{name}:" for name in locators.LIBRARIES), *_python_files()]


def _datasets(*, prefix: str, **_: Any) -> list[str]:
    from gridsearch import locators
    from gridsearch.plugins import DATASETS, installed

    kind, colon, path = prefix.partition(":")
    if colon:  # folder:flo becomes folder:flowers/
        folder, _slash, start = path.rpartition("/")
        within = Path(folder or ("/" if path.startswith("/") else ".")).expanduser()
        with suppress(OSError):
            there = (entry for entry in within.iterdir() if entry.name.startswith(start))
            found = sorted(entry for entry in there if start or not entry.name.startswith("."))
            head = f"{folder}/" if "/" in path else ""
            return [f"{kind}:{head}{entry.name}{'/' * entry.is_dir()}" for entry in found]
        return []
    names = [name for name in installed(DATASETS) if name not in locators.DATASETS]
    return [*names, *(f"{name}:" for name in locators.DATASETS), *_python_files()]


def _metrics(**_: Any) -> list[str]:
    from gridsearch.records.image_metrics import METRICS, RECALL

    return [*(metric.word for metric in METRICS), RECALL]


def _quantities(*, prefix: str, **_: Any) -> list[str]:
    from gridsearch.reporting.ranking.pareto import COSTS

    return _after_commas(prefix, [*_metrics(), *COSTS])


def _findings(*, prefix: str, **_: Any) -> list[str]:
    from gridsearch.records.finding_codes import FINDINGS

    return _after_commas(prefix, [*FINDINGS, *FINDINGS.values()])


def _orders(**_: Any) -> list[str]:
    from gridsearch.spec.study_options import ORDERS

    return list(ORDERS)


def _directions(**_: Any) -> list[str]:
    from gridsearch.spec.study_options import DIRECTIONS

    return list(DIRECTIONS)


def _targets(**_: Any) -> list[str]:
    from gridsearch.service.queries.exporting import TARGETS

    return list(TARGETS)


def _after_commas(prefix: str, words: Iterable[str]) -> list[str]:
    """Return the words behind what was typed before them, up to its last comma."""
    before = f"{prefix.rpartition(',')[0]},".removeprefix(",")
    return [f"{before}{word}" for word in words]


def _by_command(*, parsed_args: argparse.Namespace, **how: Any) -> list[str]:
    """Complete what stands behind the action of `study`, `models` or `data`."""
    command = getattr(parsed_args, "command", "")
    found: dict[str, Completer] = {"study": _studies, "models": _models, "data": _datasets}
    return found[command](parsed_args=parsed_args, **how) if command in found else []


def _python_files() -> list[str]:
    return [f"{path.name}:" for path in sorted(Path().glob("*.py"))]


_COMPLETERS: dict[str, Completer] = {
    "--study": _studies,
    "--grid": _axes,
    "--exclude": _axes,
    "--where": _axes,
    "--when": _axes,
    "--set": _axes,
    "--model": _models,
    "--dataset": _datasets,
    "--metric": _metrics,
    "--by": _metrics,
    "--pareto": _quantities,
    "--ignore": _findings,
    "--order": _orders,
    "--direction": _directions,
    "--to": _targets,
}
