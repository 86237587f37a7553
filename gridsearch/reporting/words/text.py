"""How values, settings, shares and times are put into words; below every table, figure and page of reporting.

Axis values, class names and errors come from users and may hold anything: `printable` makes them harmless for
a terminal, for matplotlib and for XML.  Escaping for HTML is done by the template.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Final

from gridsearch.errors import escaped
from gridsearch.records.image_metrics import RECALL
from gridsearch.spec.axes import AXES
from gridsearch.spec.axis_values import read_plain
from gridsearch.spec.collector import InvalidValue
from gridsearch.spec.words import exact, word

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gridsearch.records import Trial, TrialRecord, Value

NOTHING: Final = "\u2013"
"""Stands where there is no value."""

METRIC_NAMES: Final = {
    "val_accuracy": "validation accuracy",
    "train_accuracy": "train accuracy",
    "val_loss": "validation loss",
    "train_loss": "train loss",
    "macro_f1": "macro F1",
    "top3": "top-3 accuracy",
    "auc": "AUC",
    "ece": "expected calibration error",
}

SHARES: Final = frozenset(
    {
        *("val_accuracy", "train_accuracy", "test_accuracy", "balanced_accuracy"),
        *("macro_f1", "f1", "precision", "recall", "top3"),
    }
)
"""Our own metrics that are fractions; what a function calls "accuracy" may be in percent already."""

_BEYOND_FRACTIONS: Final = 1.5
"""No fraction, no tick of an axis of fractions, and no difference of two of them is larger."""

SIGNIFICANT: Final = 4
"""Digits of a number that nothing stands beside; `digits` says how many there are beside others."""
_LOGGED: Final = 8
"""Digits of a large number in a log."""
MOST_DIGITS: Final = 15
"""A float has no more significant digits than these."""
FIXED: Final = range(-4, 9)
"""Exponents of ten that are written out; others are written as 1.23e+45."""

_PLAIN: Final = re.compile(r"[ -~]*")
_NUMBER: Final = re.compile(r"\d+")
_WITHOUT_WIDTH: Final = re.compile("[\u00ad\u034f\u061c\u115f\u180e\u200b\u2060-\u2064\ufeff]")
"""Marks of no width that no script needs inside a word."""
_NO_CHARACTERS: Final = re.compile("[\ufffe\uffff]")
"""What XML does not take."""


def printable(text: str, limit: int | None = None) -> str:
    """Return text on one line without control characters, shortened in its middle to at most `limit`.

    Control characters (escape sequences of terminals), marks that turn the direction of text and lone surrogates
    are shown as escapes (`errors.escaped`), line ends become spaces; letters of any script stay.
    """
    text = " ".join(text.split())
    if not _PLAIN.fullmatch(text):
        text = _NO_CHARACTERS.sub("\ufffd", escaped(text))
    if limit is not None and len(text) > limit:
        head = limit // 2
        text = f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"
    return text


def show_value(value: Value) -> str:
    """Return an axis value as a user would type it: 0.001, 1e-05, true, none, standard."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return exact(value)
    return printable(str(value)) if isinstance(value, str) else str(value)


def show_param(params: Mapping[str, Value], name: str) -> str:
    """Return a param's value, in the word that its study uses for it; `NOTHING` where there is none."""
    if name not in params:
        return NOTHING
    value = params[name]
    if isinstance(value, str) and _unseen(value):
        return printable(_in_full(value))
    if isinstance(value, str) and name not in AXES and _reads_otherwise(value):
        return json.dumps(value)  # the word "3" beside the number 3
    return word(params, name) or show_value(value)


def _unseen(value: str) -> bool:
    """Whether a word has blanks or marks that nobody sees, or would be taken for two settings: "a b=2"."""
    blank = value != " ".join(value.split()) or (" " in value and "=" in value)
    return blank or _WITHOUT_WIDTH.search(value) is not None


def _in_full(value: str) -> str:
    r"""Return a word in quotes, with an escape for each blank or mark that is not seen: "a\nb", "\u200b"."""
    text = json.dumps(value, ensure_ascii=False)
    text = _WITHOUT_WIDTH.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    before = "x" + text
    return "".join(
        f"\\u{ord(c):04x}" if c.isspace() and (c != " " or before[i] == " ") else c
        for i, c in enumerate(text)
    )


def _reads_otherwise(value: str) -> bool:
    """Whether a word, typed as it is, would be a number, true, false or none, or nothing at all."""
    try:
        return not value or not isinstance(read_plain(value), str)
    except InvalidValue:
        return True


def show_params(
    params: Mapping[str, Value], axes: Sequence[str] | None = None, *, limit: int | None = None
) -> str:
    """Return params as "lr=0.001 batch=20"; those of `axes` alone where given."""
    names = params if axes is None else [a for a in axes if a in params]
    words = " ".join(f"{printable(a)}={show_param(params, a)}" for a in names)
    return printable(words, limit) if words else "all settings fixed"


def metric_name(metric: str) -> str:
    """Return a metric's name in words."""
    if metric.startswith(RECALL):
        return f"recall of {printable(metric.removeprefix(RECALL))}"
    return METRIC_NAMES.get(metric, printable(metric.replace("_", " ")))


def capitalized(words: str) -> str:
    """Return words as a title begins, none of their own letters changed: "Macro F1", "AUC", "Recall of Bag", "mAP"."""
    first = words.partition(" ")[0]
    return words[:1].upper() + words[1:] if first == first.lower() else words


def is_share(metric: str, values: Iterable[float | None] = ()) -> bool:
    """Whether a metric is a fraction that is shown in percent.

    Args:
        metric: its name.
        values: of it, where there are any: a function's own "f1" may be in percent already, or anything else.
    """
    named = metric in SHARES or metric.startswith(RECALL)
    return named and not any(v is not None and abs(v) > _BEYOND_FRACTIONS for v in values)


def written(value: float, place: int | None = None) -> str:
    """Return a number up to a decimal place; one that is smaller than that place keeps digits of its own.

    Args:
        value: finite.
        place: decimals; None for `SIGNIFICANT` digits.
    """
    if value == 0:
        return f"{0:.{place}f}" if place is not None and 0 <= place <= MOST_DIGITS // 2 else "0"
    exponent = exponent_of(value)
    if place is not None and not 1 <= exponent + place + 1 <= MOST_DIGITS + 1:
        place = None
    if place is None:
        large = exponent in FIXED and exponent >= SIGNIFICANT
        short = f"{value:.{SIGNIFICANT}g}"
        if large or math.isclose(float(short), value, rel_tol=1e-12):
            return f"{value:.0f}" if large else short
        return f"{value:#.{SIGNIFICANT}g}".rstrip(".")  # 1.99997 is 2.000, and 2 is 2
    if exponent in FIXED:
        return f"{value:.{max(0, place)}f}"
    return f"{value:.{max(SIGNIFICANT - 1, exponent + place)}e}"


def exponent_of(value: float) -> int:
    """Return the power of ten of a number's first digit; it must not be 0."""
    return int(f"{abs(value):.15e}".partition("e")[2])


def show_metric(value: float | None, metric: str, *, unit: bool = True, digits: int = 2) -> str:
    """Return a metric's value by itself: accuracies in percent ("93.71 %"), others with four significant digits.

    Values that follow each other in a log are told apart: a large one has up to eight ("12345.51").
    `digits.Digits` is for values that stand beside others.
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if is_share(metric, [value]):
        return f"{100 * value:.{digits}f}" + (" %" if unit else "")
    exponent = exponent_of(value) if value else 0
    if exponent in FIXED and exponent >= SIGNIFICANT - 1:
        return f"{value:.{max(_LOGGED, exponent + 1)}g}"
    return written(value)


def show_seconds(seconds: float | None, *, whole: bool = False) -> str:
    """Return a duration: "80 µs", "12 ms", "12.3 s", "4 min 10 s", "2 h 05 min", "3 d 4 h".

    Args:
        seconds: its length; None for one that nobody knows.
        whole: no fractions of seconds beside seconds ("12 s"), for a time that has passed or is estimated.
    """
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if 0 < seconds < 0.0000995:
        return f"{max(1e6 * seconds, 1.0):.0f} µs"
    if 0 < seconds < 0.9995:
        return f"{1000 * seconds:.{0 if seconds >= 0.00995 else 1}f} ms"
    if seconds < (59.5 if whole else 99.95):
        return f"{seconds:.{0 if whole or seconds == 0 else 1}f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def plural(count: int, noun: str) -> str:
    """Return "1 trial", "2 trials", "1,200 studies"."""
    several = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else several}"


def show_replicate(trial: Trial | TrialRecord) -> str:
    """Return which replicate of its point a trial is: "seed=0", of a cross-validation "seed=0 fold=2/5"."""
    settings = trial.settings
    fold = "" if settings.fold is None else f" fold={settings.fold}/{settings.folds}"
    return f"seed={trial.seed}{fold}"


def show_replicates(count: int, *, seeds: int, folds: int | None) -> str:
    """Return how many replicates there are: "3 seeds", "5 folds", "5 folds x 3 seeds", "14 folds of 3 seeds".

    Args:
        count: of all replicates.
        seeds: of how many seeds.
        folds: of a seed; None without a cross-validation.
    """
    if folds is None:
        return plural(count, "seed")
    if count == folds * seeds:
        return plural(folds, "fold") + (f" x {plural(seeds, 'seed')}" if seeds > 1 else "")
    return f"{plural(count, 'fold')} of {plural(seeds, 'seed')}" if seeds > 1 else f"{count} of {folds} folds"


def alike(messages: Iterable[str]) -> dict[str, list[str]]:
    """Return messages by what they say but for the numbers in it, in their order: trials name files of their own."""
    found: dict[str, list[str]] = {}
    for message in messages:
        found.setdefault(_NUMBER.sub("0", message), []).append(message)
    return found


def each_once(messages: Iterable[str]) -> tuple[str, ...]:
    """Return of messages that are alike but for numbers the first, and how many more there are."""
    groups = (list(dict.fromkeys(group)) for group in alike(messages).values())
    return tuple(
        f"{first} (and {plural(len(more), 'other')} like it)" if more else first for first, *more in groups
    )


def listed(words: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
