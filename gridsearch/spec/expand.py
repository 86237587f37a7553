"""Expands a study into trials: every point, with every seed, as complete settings with a content address.

Last step of the spec; what only the plug-ins know (options with their defaults, fingerprints) comes through a
`Resolver`.  What points share is worked out once, so that 10,000 points expand in well under a second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gridsearch.errors import PluginError, SpecError
from gridsearch.records import (
    DATA_PREFIX,
    MODEL_PREFIX,
    FunctionSettings,
    ImageSettings,
    Settings,
    TrialDraft,
    Value,
    trial_keys,
)
from gridsearch.records.axis import identity
from gridsearch.spec.axes import find_axis
from gridsearch.spec.axis_values import plain_number
from gridsearch.spec.collector import ErrorCollector
from gridsearch.spec.grammar import write_scalar

if TYPE_CHECKING:
    from gridsearch.spec.grid import Grid, GridPoint
    from gridsearch.spec.study import StudySpec

MAX_TRIALS = 3_000_000

_T = TypeVar("_T")
_Options = Mapping[str, Value]


class Resolver(Protocol):
    """What the spec asks of those who know the plug-ins; asked once for each name with its options."""

    def model(self, name: str, options: Mapping[str, Value]) -> tuple[str, Mapping[str, Value], str | None]:
        """Return a model's display name, its options complete with defaults, and the hash of its source.

        Raises:
            PluginError: there is no such model.
            SpecError: it does not take these options.
        """
        ...

    def data(self, options: Mapping[str, Value]) -> tuple[str, Mapping[str, Value], str]:
        """Return the dataset's display name, its options complete with defaults, and its fingerprint.

        Raises:
            SpecError: it does not take these options.
            DataError: it cannot be read.
        """
        ...


class FunctionResolver(Protocol):
    """What the spec asks of those who know the function of a study of one."""

    def objective(self, name: str) -> tuple[str, str | None]:
        """Return a function's display name and the hash of its source.

        Raises:
            PluginError: there is no such function, or it cannot be called with params and a seed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """A study's trials.

    Attributes:
        drafts: in the grid's order, seeds innermost; no key twice.
        points: how many different points they are.
        excluded: points that the exclusions leave out.
        dropped: points that repeat an earlier one, since they differ in nothing that has an effect.
        warnings: what looks unintended, one line each.
    """

    drafts: tuple[TrialDraft, ...]
    points: int
    excluded: int
    dropped: int
    warnings: tuple[str, ...]


def expand_study(spec: StudySpec, resolve: Resolver | FunctionResolver) -> Expansion:
    """Expand a study into its trials.

    Args:
        spec: the study.
        resolve: knows models and datasets, or the function.

    Raises:
        SpecError: a plug-in does not take an option, every point is excluded, or there are too many trials.
        PluginError: a model cannot be found, and nothing else is wrong.
    """
    fixed = spec.fixed()
    points, excluded = spec.grid.survey(fixed)
    if not points:
        raise SpecError([f"the exclusions leave none of the {excluded:,} points"])
    seeds = spec.seed_list
    if len(points) * len(seeds) > MAX_TRIALS:
        count = len(points) * len(seeds)
        many = f"{len(points):,} points with {len(seeds):,} seeds are {count:,} trials"
        raise SpecError([f"{many}, and at most {MAX_TRIALS:,} are taken"])
    builder = _builder(spec, fixed, resolve)
    drafts: list[TrialDraft] = []
    seen: set[str] = set()
    for point in points:
        built = builder.settings(point)
        if built is None:
            continue
        settings, axes, inactive = built
        keys = trial_keys(settings, seeds)
        if keys[0] not in seen:
            seen.add(keys[0])
            drafts += [
                TrialDraft(key=key, seed=seed, settings=settings, axes=axes, inactive=inactive)
                for key, seed in zip(keys, seeds, strict=True)
            ]
    builder.check()
    dropped = len(points) - len(seen)
    warnings = [*spec.warnings, *_idle(spec.grid, fixed, drafts)]
    if spec.objective is None:
        warnings += _idle_recipe(spec, drafts)
        if "ema" in spec.grid.axes and all(draft.settings.trains_on_all for draft in drafts):
            warnings.append(
                "ema does not move this ranking: nothing is held out (val=0), and the train accuracy is that of the "
                "weights before they are averaged"
            )
    if spec.version is not None and all(draft.settings.code_version is None for draft in drafts):
        warnings.append("version stands for code of your own, and here is none: it has no effect")
    if dropped:
        repeat = "repeats another: it differs" if dropped == 1 else "repeat others: they differ"
        warnings.append(f"{dropped:,} of {len(points):,} points {repeat} in nothing that has an effect")
    return Expansion(
        drafts=tuple(drafts), points=len(seen), excluded=excluded, dropped=dropped, warnings=tuple(warnings)
    )


def without_effect(optimizer: Value, momentum: Value) -> tuple[str, ...]:
    """Return the settings that cannot matter for this optimizer, and so are set to their defaults."""
    if optimizer != "sgd":
        return ("momentum", "nesterov")
    return () if momentum else ("nesterov",)


def _builder(spec: StudySpec, fixed: Mapping[str, Value], resolve: Any) -> _Builder | _FunctionBuilder:
    if spec.objective is None:
        return _Builder(fixed, resolve, spec.version)
    return _FunctionBuilder(fixed, spec.version, *resolve.objective(spec.objective))


@dataclass(frozen=True, slots=True)
class _FunctionBuilder:
    """Makes settings of points that are called as a function's params."""

    fixed: Mapping[str, Value]
    version: str | None
    name: str
    source: str | None

    def settings(self, point: GridPoint) -> tuple[Settings, tuple[str, ...], tuple[str, ...]]:
        """Return a point's settings, its axes and its inactive axes."""
        params = {name: _plain(value) for name, value in {**self.fixed, **point.values}.items()}
        settings = FunctionSettings(
            objective=self.name, objective_source=self.source, params=params, code_version=self.version
        )
        return settings, tuple(point.values), point.inactive

    def check(self) -> None:
        """Find nothing: what a function thinks of its params it says when it is called."""


class _Builder:
    """Makes complete settings of points; asks the resolver once per question, and gathers its problems."""

    def __init__(self, fixed: Mapping[str, Value], resolve: Resolver, version: str | None) -> None:
        self._fixed = fixed
        self._version = version
        self._resolve = resolve
        self._answers: dict[tuple[object, ...], Any] = {}
        self._problems = ErrorCollector()
        self._first: PluginError | SpecError | None = None
        self._axes: dict[tuple[object, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {}

    def settings(self, point: GridPoint) -> tuple[Settings, tuple[str, ...], tuple[str, ...]] | None:
        """Return a point's settings, its axes and its inactive axes; None where the resolver refuses."""
        values = {**self._fixed, **point.values}
        plain, model_options, data_options = _sorted_out(values)
        model = self._ask(
            ("model", plain["model"], *model_options.items()),
            lambda: self._resolve.model(str(plain["model"]), model_options),
        )
        data = self._ask(("data", *data_options.items()), lambda: self._resolve.data(data_options))
        if model is None or data is None:
            return None
        idle = without_effect(plain["optimizer"], plain["momentum"])
        for name in idle:
            plain[name] = _DEFAULTS[name]
        plain["model"], plain["model_options"], plain["model_source"] = model
        if plain["model_source"] is not None:  # an installed model has no code of the user's
            plain["code_version"] = self._version
        plain["dataset"], plain["data_options"], plain["data_fingerprint"] = data
        return ImageSettings(**plain), *self._axes_of(point, idle)

    def check(self) -> None:
        """Raise what the resolver refused: its own error if it is the only one, else all at once."""
        try:
            self._problems.check()
        except SpecError as error:
            if self._first is not None and len(error.problems) == 1:
                raise self._first from None
            raise

    def _ask(self, question: tuple[object, ...], ask: Callable[[], tuple[str, _Options, _T]]) -> Any:
        # Options are compared with their types: 1 and True are different ones.
        key = tuple((part[0], identity(part[1])) if isinstance(part, tuple) else part for part in question)
        if key not in self._answers:
            try:
                name, options, extra = ask()
                self._answers[key] = (name, {k: _plain(v) for k, v in sorted(options.items())}, extra)
            except (PluginError, SpecError) as error:
                self._first = self._first or error
                for line in error.problems if isinstance(error, SpecError) else (error.message,):
                    self._problems.add("", line)
                self._answers[key] = None
        return self._answers[key]

    def _axes_of(self, point: GridPoint, idle: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        key = (point.inactive, tuple(point.values), idle)
        if key not in self._axes:
            axes = tuple(name for name in point.values if name not in idle)
            inactive = (*point.inactive, *(name for name in point.values if name in idle))
            self._axes[key] = axes, inactive
        return self._axes[key]


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(ImageSettings)}


def _sorted_out(values: Mapping[str, Value]) -> tuple[dict[str, Any], dict[str, Value], dict[str, Value]]:
    """Part settings from the options of the model and of the dataset."""
    plain: dict[str, Any] = {}
    model: dict[str, Value] = {}
    data: dict[str, Value] = {}
    for name, value in values.items():
        if name.startswith(MODEL_PREFIX):
            model[name.removeprefix(MODEL_PREFIX)] = value
        elif name.startswith(DATA_PREFIX):
            data[name.removeprefix(DATA_PREFIX)] = value
        else:
            plain[name] = value
    return plain, model, data


def _plain(value: Value) -> Value:
    """Return an option as a grid would hold it, so that a default of 1.0 and a given 1 are the same point."""
    return plain_number(value) if isinstance(value, float) else value


def _idle(grid: Grid, fixed: Mapping[str, Value], drafts: Sequence[TrialDraft]) -> Iterator[str]:
    """Warn of axes that exist at no point."""
    if not drafts:
        return
    used = {name for axes in {draft.axes for draft in drafts} for name in axes}
    for name in grid.axes:
        if name in used:
            continue
        rules = [str(c) for c in grid.parts.conditions if c.axis == name]
        if rules:
            yield f"{name} exists at no point: {' and '.join(map(repr, rules))} never holds"
        else:
            optimizer = "" if "optimizer" in grid.axes else f" (optimizer={fixed['optimizer']})"
            yield f"{name} has no effect at any point{optimizer}"


def _idle_recipe(spec: StudySpec, drafts: Sequence[TrialDraft]) -> Iterator[str]:
    """Warn of settings of the recipe that have no effect at any point."""
    shapes = {(draft.settings.get("optimizer"), draft.settings.get("momentum")) for draft in drafts}
    changed = spec.recipe.changes()
    for name in ("momentum", "nesterov"):
        if (
            name in changed
            and name not in spec.grid.axes
            and all(name in without_effect(*shape) for shape in shapes)
        ):
            text = write_scalar(find_axis(name), changed[name])
            yield f"{name}={text} of the recipe has no effect at any point"
