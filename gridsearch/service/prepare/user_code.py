"""The user's own code in a study: what is said of it before it runs, what is kept of it, and what has changed since.

A trial's key holds one address for a model or a function.  Beside it the study keeps the addresses of the parts (files,
or functions and values), so that a later run can say which of them is another.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from gridsearch import plugins
from gridsearch.errors import UsageError
from gridsearch.reporting.words.text import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from gridsearch.plugins import Plugin
    from gridsearch.records import Settings, StudyData, TrialDraft, TrialRecord, Value
    from gridsearch.reporting import Ranking

CODE: Final = "code"
"""Under this key a stored spec holds the parts, by display name and address."""

_DIGITS: Final = 16
_KEPT: Final = 20
"""Addresses of one plug-in that are kept, the latest."""


def warnings(found: Iterable[Plugin], *, version: str | None) -> list[str]:
    """Say what of the user's code has no address, and what is not what its file says, a line each."""
    said = []
    for plugin in found:
        if plugin.edited:
            said.append(
                f"{plugin.name}: {plugin.edited} has changed since this session imported it; the imported "
                "version runs (reload the module to run the new one)"
            )
        if plugin.missing and version is None:
            said.append(
                f"{plugin.name} uses {_several(plugin.missing)}, which cannot be identified: its trials are computed "
                'again each time; version="..." keeps their results until you change it'
            )
    return said


def changed_meanwhile(found: Iterable[Plugin], *, version: str | None) -> list[str]:
    """Say so where objects of this session are others than before the run: it has changed them itself."""
    said = []
    for plugin in found:
        if plugin.missing or plugin.locator:
            continue
        now = plugins.identity(plugin.target, version=version)
        if plugin.source not in (now.source, now.older):
            said.append(
                f"{plugin.name} changes what it uses while it runs ({_difference(plugin.parts, now.parts)}), so the "
                "next run counts it as changed and computes it again; keep such state elsewhere"
            )
    return said


def own_words_first(
    data: StudyData, drafts: Iterable[TrialDraft], rank: Callable[[StudyData], Ranking]
) -> Ranking | None:
    """Rank what a grid describes, with what else differs from it on its axes alone; the rest of the study is apart.

    Args:
        data: the study, with the grid's trials.
        drafts: the grid's trials.
        rank: ranks a part of the study.

    Returns:
        The ranking; None where the study holds nothing else.
    """
    from gridsearch.reporting.ranking.ranking import with_others

    asked = list({id(d.settings): d.settings for d in drafts}.values())
    axes = {axis for draft in drafts for axis in draft.axes}
    kinds = {_kind(settings, axes) for settings in asked}
    sources = {s.code for s in asked}
    models = {model for model, _ in sources}
    own: list[TrialRecord] = []
    rest: list[TrialRecord] = []
    for trial in data.trials:
        s = trial.settings
        same = _kind(s, axes) in kinds and (s.code[0] not in models or s.code in sources)
        (own if same else rest).append(trial)
    if not own or not rest:
        return None
    first, others = (rank(replace(data, trials=tuple(part))) for part in (own, rest))
    return with_others(first, [others], data)


def _kind(settings: Settings, axes: Collection[str]) -> tuple[tuple[str, Value], ...]:
    left_out = {*axes, "dataset", "model_source"}
    return tuple(sorted((k, v) for k, v in settings.flat().items() if k not in left_out))


def kept(spec: Mapping[str, Any], earlier: Mapping[str, Any], found: Iterable[Plugin]) -> dict[str, Any]:
    """Return a spec with the parts of its own code, and of what earlier runs used."""
    known = {name: dict(sources) for name, sources in earlier.get(CODE, {}).items()}
    for plugin in found:
        if plugin.source is not None and plugin.parts:
            sources = known.setdefault(plugin.name, {})
            sources.pop(plugin.source, None)
            sources[plugin.source] = {name: part[:_DIGITS] for name, part in plugin.parts.items()}
            known[plugin.name] = dict(list(sources.items())[-_KEPT:])
    return {**spec, CODE: known} if known else dict(spec)


def part_of(
    data: StudyData, trials: Sequence[TrialRecord], why: str, *, say: Callable[[str], None]
) -> StudyData:
    """Return the part of a study that goes on, and say what is left out.

    Args:
        data: the study.
        trials: those that go on.
        why: what the others were ("trained on other images").
        say: takes a message.
    """
    if left := len(data.trials) - len(trials):
        say(
            f"{plural(left, 'trial')} of study {data.name!r} {'was' if left == 1 else 'were'} {why}; "
            f"it continues with the other {len(trials):,}"
        )
    numbers = {t.number for t in trials}
    epochs = {number: rows for number, rows in data.epochs.items() if number in numbers}
    return replace(data, trials=tuple(trials), epochs=epochs)


def of_todays_code(
    data: StudyData, code_of: Callable[[Settings], Mapping[str, bool]], *, say: Callable[[str], None]
) -> StudyData:
    """Return the part of a study that goes on after its code was edited and its grid given again.

    Trials of before the edit are left out where others are of the same names and of today's code.  Where no trial is,
    all stay, and `check_same` refuses them.

    Args:
        data: the study.
        code_of: whether a trial's code is what it was, by the names of what was named again.
        say: takes a message on what is left out.
    """
    code = [code_of(trial.settings) for trial in data.trials]
    again = {frozenset(names) for names in code if all(names.values())}
    stays = [all(names.values()) or frozenset(names) not in again for names in code]
    edited = {
        n: None for names, stay in zip(code, stays, strict=True) if not stay for n in names if not names[n]
    }
    trials = [trial for trial, stay in zip(data.trials, stays, strict=True) if stay]
    return part_of(data, trials, f"made with other code of {_several(edited)} than there is now", say=say)


def check_same(
    kind: str,
    plugin: Plugin,
    identity: str | None,
    stored: str | None,
    *,
    study: str,
    spec: Mapping[str, Any],
    commands: Sequence[str],
) -> None:
    """Refuse another model or function than the one that stored trials were made with.

    Args:
        kind: "model" or "objective".
        plugin: what is there now.
        identity: its address with its options.
        stored: that of the trials.
        study: the study's name.
        spec: as it is stored, with the parts.
        commands: those that made the study, oldest first.

    Raises:
        UsageError: it is another one; says what of it, where that is known.
    """
    if identity == stored:
        return
    if plugin.missing:
        raise UsageError(
            f"{kind} {plugin.name!r} uses {_several(plugin.missing)}, which cannot be "
            f"identified: it may not be the one of study {study!r}",
            hint='run the grid with version="...", which identifies it',
        )
    before = spec.get(CODE, {}).get(plugin.name, {}).get(stored)
    what = "" if before is None else f": {_difference(before, plugin.parts)}"
    raise UsageError(
        f"{kind} {plugin.name!r} has changed since study {study!r} was made{what}",
        hint=f"{_grid_again(commands)}: the changed {kind} makes new trials beside the old"
        + (" (a file counts as a whole)" if what and ".py" in what else ""),
    )


def _grid_again(commands: Sequence[str]) -> str:
    """Return how the grid is run again: by the newest command that gave one, where there is one."""
    given = (line for line in reversed(commands) if "--grid" in line or ".toml" in line)
    command = next((line for line in given if line.startswith("gridsearch ")), None)
    return "run the grid again" if command is None else f"`{command}` runs the grid again"


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say which parts are others, new or gone."""
    words = []
    for what, names in (
        ("edited", [n for n in now if n in before and now[n][:_DIGITS] != before[n][:_DIGITS]]),
        ("new", [n for n in now if n not in before]),
        ("gone", [n for n in before if n not in now]),
    ):
        if names:
            words.append(f"{_several(names)} {'is' if len(names) == 1 else 'are'} {what}")
    return "; ".join(words) or "something that it uses has changed"


def _several(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
