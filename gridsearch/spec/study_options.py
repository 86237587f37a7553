"""The options of a study that are neither axes nor recipe: its name, dataset, model, seeds and splits.

Read the same way from the command line, from the top of a study file and from Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from gridsearch.errors import UsageError, nearest
from gridsearch.records.finding_codes import FINDINGS
from gridsearch.records.image_metrics import RECALL, image_metric
from gridsearch.records.study_kinds import FUNCTION, IMAGES, KINDS, StudyKind, kind_of
from gridsearch.spec.axes import AXES, canonical
from gridsearch.spec.axis_values import require_text, typed
from gridsearch.spec.collector import ErrorCollector, InvalidValue, shortened
from gridsearch.spec.grid_parts import MAX_SEEDS
from gridsearch.spec.study_names import good_name

OPTIONS = (
    *("study", *dict.fromkeys(option for kind in KINDS for option in kind.options), "seeds", "version"),
    *("sample", "order", "ignore"),
)
MAX_VERSION = 64
DIRECTIONS = ("maximize", "minimize")
ORDERS = ("given", "spread", "cheap-first")
"""In which order a run trains: the longest packs first, so that it ends soonest; evenly over the grid; the cheapest."""

_LESS_IS_BETTER = re.compile(r"(^|_)(loss|error|cost|mse|mae|rmse|nll)($|_)", re.IGNORECASE)
_METRIC = re.compile(r"[^\W\d][\w.\- ]{0,63}")


def read_option(name: str, value: object) -> Any:
    """Type one option of a study.

    Raises:
        InvalidValue: not a value of it.
    """
    if name == "seeds":
        return read_seeds(value)
    if name == "study":
        if not isinstance(value, str):
            raise InvalidValue(f"study must be a name, not {value!r}")
        return good_name(value)
    if name == "ignore":
        return read_codes(value)
    if isinstance(value, Mapping | list | tuple | set):
        raise InvalidValue(f"{name} takes one value" + "; several go into the grid" * (name == "model"))
    if name == "version":
        return _version(value)
    if name == "sample":
        return _sample(value)
    if name == "order":
        return _order(value)
    if name in FUNCTION.options:
        return _text_option(name, value)
    return typed(AXES[name], value)


def changes(given: Mapping[str, object]) -> dict[str, Any]:
    """Type options of a stored study that decide nothing about its trials; None is one that was not given.

    Raises:
        SpecError: a value that an option does not take.
    """
    problems = ErrorCollector()
    found = {}
    for name, value in given.items():
        if value is not None:
            with problems.at(f"--{name} {shortened(str(value))}"):
                found[name] = read_option(name, value)
    problems.check()
    return found


def _text_option(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidValue(f"{name} must be a name, not {value!r}")
    require_text(name, value)
    if name == "direction" and value not in DIRECTIONS:
        raise InvalidValue(f"direction must be maximize or minimize, not {shortened(value)!r}")
    if name == "metric" and not value.startswith(RECALL):
        _check_name(value)
    return value


def less_is_better(metric: str) -> bool:
    """Whether a function's metric sounds like one of which less is better: "loss", "val_rmse"."""
    return _LESS_IS_BETTER.search(metric) is not None


def _check_name(metric: str) -> None:
    if not _METRIC.fullmatch(metric):
        raise InvalidValue(
            f"metric {shortened(metric)!r} is no name: a letter, then at most 63 letters, digits, spaces or . _ -"
        )


def check_metric(metric: str, kind: StudyKind) -> None:
    """Refuse a metric that a study of this kind cannot have; which classes there are is not known here.

    Raises:
        InvalidValue: it is none of the metrics of images, or no name that a function could give one.
    """
    if not kind.classifies:
        _check_name(metric)
    else:
        try:
            image_metric(metric)
        except UsageError as error:
            more = f"; {error.hint}" if error.hint else ""
            raise InvalidValue(f"{error.message}{more}") from None


def _version(value: object) -> str:
    """Type the version of a user's own code: a short text, or a number that stands for its text."""
    text = value if isinstance(value, str) else repr(value)
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not plain or not text.strip() or len(text) > MAX_VERSION or not text.isprintable():
        raise InvalidValue(
            f"version must be a text of 1 to {MAX_VERSION} letters, not {shortened(repr(value))}"
        )
    return text.strip()


def _sample(value: object) -> int:
    number = value if isinstance(value, int) else _number(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InvalidValue(f"sample must be a whole number of at least 1, not {shortened(str(value))}")
    return number


def _order(value: object) -> str:
    if not isinstance(value, str) or value not in ORDERS:
        raise InvalidValue(f"unknown order {shortened(str(value))!r}{nearest(str(value), ORDERS)}")
    return value


def read_codes(value: object) -> tuple[str, ...]:
    """Type the findings that a report leaves out: codes or names, one text of several or a list; returns codes.

    Raises:
        InvalidValue: no such finding.
    """
    texts = value if isinstance(value, list | tuple) else [value]
    names = {name: code for code, name in FINDINGS.items()}
    found: dict[str, None] = {}
    for text in texts:
        if not isinstance(text, str):
            raise InvalidValue(f"ignore takes codes of findings, not {shortened(repr(text))}")
        for word in re.split(r"[,\s]+", text.strip()):
            code = names.get(word.lower(), word.upper())
            if code not in FINDINGS:
                raise InvalidValue(f"unknown finding {shortened(word)!r}{nearest(word, [*FINDINGS, *names])}")
            found[code] = None
    return tuple(found)


_MISPLACED = {
    IMAGES.name: "{name} says something of images, and {subject} is a plain function",
    FUNCTION.name: "{name} belongs to a study of a plain function (objective); a metric of images has its own",
}


def misplaced(name: str, options: Mapping[str, Any]) -> str | None:
    """Return why an option makes no sense in such a study as the options ask for; None where it does.

    Args:
        name: the option.
        options: all that were given.
    """
    kind = kind_of(options)
    if name in kind.options:
        return None
    owner = next((each for each in KINDS if name in each.options), kind)
    if owner is kind or (name == owner.subject and options.get(name) is None):
        return None
    return _MISPLACED[owner.name].format(name=name, subject=options.get(kind.subject))


def read_seeds(value: object) -> int | tuple[int, ...]:
    """Type the seeds: how many replicates (N stands for 0 to N-1), or which.

    Raises:
        InvalidValue: no seed, too many, one that is not a whole number from 0 on, or one twice.
    """
    if getattr(value, "ndim", None) == 0 and callable(item := getattr(value, "item", None)):
        value = item()  # a scalar of numpy or torch
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        number = value if isinstance(value, int) else _number(value)
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InvalidValue(f"seeds must be a whole number of at least 1, not {shortened(str(value))}")
        if number > MAX_SEEDS:
            raise InvalidValue(f"{number:,} seeds, and at most {MAX_SEEDS:,} are taken")
        return number
    if isinstance(value, Mapping):
        raise InvalidValue("seeds must be a number or a list")
    seeds = tuple(int(str(typed(AXES["seed"], seed))) for seed in value)
    if not seeds:
        raise InvalidValue("seeds is an empty list")
    if len(seeds) > MAX_SEEDS:
        raise InvalidValue(f"{len(seeds):,} seeds, and at most {MAX_SEEDS:,} are taken")
    if len(set(seeds)) < len(seeds):
        raise InvalidValue("seeds names a seed twice")
    return seeds


def refusal(name: str, known: Iterable[str]) -> str:
    """Return why a name is not an option: it belongs elsewhere, or it is unknown."""
    if canonical(name) in AXES and canonical(name) not in OPTIONS:
        return f"{name!r} is a key of the recipe and stands there ([recipe])"
    return f"unknown key {shortened(name)!r}{nearest(name, known)}"


def _number(value: object) -> object:
    try:
        return typed(AXES["seed"], value)
    except InvalidValue:
        return None
