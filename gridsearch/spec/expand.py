"""Expands a study into trials: every point, with every seed, as complete settings with a content address.

Last step of the spec; what only the plug-ins know (options with their defaults, fingerprints) comes through a
resolver.  What points share is worked out once, so that 10,000 points expand in well under a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from gridsearch.errors import SpecError
from gridsearch.records import TrialDraft, trial_key, trial_keys
from gridsearch.records.results import SAMPLED_FROM
from gridsearch.records.study_kinds import FUNCTION, IMAGES
from gridsearch.spec.function_points import FunctionPoints
from gridsearch.spec.image_points import DECIDED_BY, ImagePoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gridsearch.records import Settings, Value
    from gridsearch.spec.grid import Grid, GridPoint
    from gridsearch.spec.study import StudySpec

MAX_TRIALS = 3_000_000


class PointBuilder(Protocol):
    """Makes the settings of points; what a kind of study has for it."""

    def settings(self, point: GridPoint) -> tuple[Settings, tuple[str, ...], tuple[str, ...]] | None:
        """Return a point's settings, its axes and its inactive axes; None where the resolver refuses."""
        ...

    def check(self) -> None:
        """Raise what the resolver refused."""
        ...

    def warnings(self, drafts: Sequence[TrialDraft]) -> Iterator[str]:
        """Say what looks unintended, a line each."""
        ...


_BUILDERS: Mapping[str, Callable[[StudySpec, Any], PointBuilder]] = MappingProxyType(
    {IMAGES.name: ImagePoints, FUNCTION.name: FunctionPoints}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """A study's trials.

    Attributes:
        drafts: in the grid's order, seeds innermost; no key twice.
        points: how many different points they are.
        sampled_from: how many points the grid has, where they are a sample of it.
        excluded: points that the exclusions leave out.
        dropped: points that repeat an earlier one, since they differ only in settings without effect.
        warnings: what looks unintended, one line each.
    """

    drafts: tuple[TrialDraft, ...]
    points: int
    excluded: int
    dropped: int
    warnings: tuple[str, ...]
    sampled_from: int | None = None

    @property
    def noted(self) -> dict[str, int]:
        """What a study's spec keeps of it."""
        return {} if self.sampled_from is None else {SAMPLED_FROM: self.sampled_from}


def expand_study(spec: StudySpec, resolve: Any) -> Expansion:
    """Expand a study into its trials.

    Args:
        spec: the study.
        resolve: the `Resolver`, or the `FunctionResolver`, that such a study needs.

    Raises:
        SpecError: a plug-in does not take an option, every point is excluded, or there are too many trials.
        PluginError: a model cannot be found, and nothing else is wrong.
    """
    fixed = spec.fixed()
    points, excluded = spec.grid.survey(fixed)
    if not points:
        raise SpecError([f"the exclusions leave none of the {excluded:,} points"])
    seeds = spec.seed_list
    count = min(len(points), spec.sample or len(points))
    trials = count * len(seeds) * (spec.folds or 1)
    if trials > MAX_TRIALS:
        folds = f" and {spec.folds:,} folds" if spec.folds else ""
        many = f"{count:,} points with {len(seeds):,} seeds{folds} are {trials:,} trials"
        raise SpecError([f"{many}, and at most {MAX_TRIALS:,} are taken"])
    builder = _BUILDERS[spec.kind.name](spec, resolve)
    chosen = points if spec.sample is None else _sampled(spec.sample, points, builder)
    drafts: list[TrialDraft] = []
    seen: set[str] = set()
    for point in chosen:
        built = builder.settings(point)
        if built is None:
            continue
        settings, axes, inactive = built
        keys = trial_keys(settings, seeds)
        if keys[0] not in seen:
            seen.add(keys[0])
            drafts += [
                TrialDraft(key=key, seed=seed, settings=own, axes=axes, inactive=inactive)
                for own, seed, key in _replicates(settings, seeds, keys)
            ]
    builder.check()
    dropped = len(chosen) - len(seen)
    warnings = [*spec.warnings, *_idle(spec.grid, fixed, drafts), *builder.warnings(drafts)]
    if spec.version is not None and all(draft.settings.code_version is None for draft in drafts):
        warnings.append("version has no effect: it is for your own code, and there is none here")
    if dropped:
        repeat = "repeats another: it differs" if dropped == 1 else "repeat others: they differ"
        warnings.append(f"{dropped:,} of {len(points):,} points {repeat} only in settings without effect")
    return Expansion(
        drafts=tuple(drafts),
        points=len(seen),
        excluded=excluded,
        dropped=dropped,
        warnings=tuple(warnings),
        sampled_from=None if spec.sample is None else len(points),
    )


def _sampled(count: int, points: Sequence[GridPoint], builder: PointBuilder) -> list[GridPoint]:
    """Return so many different points, spread evenly over the grid, in the grid's order.

    Raises:
        SpecError: there are not so many.
    """
    from gridsearch.spec.spread import Spread  # with numpy, which a sample alone needs

    order = Spread([point.values for point in points])
    found: dict[str, int] = {}
    while len(found) < count and (index := order.propose()) is not None:
        if (built := builder.settings(points[index])) is None:
            continue
        settings, _, inactive = built
        if (key := trial_keys(settings, (0,))[0]) not in found:
            found[key] = index
            order.take(without=inactive)
    builder.check()
    if len(found) < count:
        raise SpecError([f"sample {count:,}: the grid has {len(found):,} points, and no more can be sampled"])
    return [points[index] for index in sorted(found.values())]


def _replicates(
    settings: Settings, seeds: Sequence[int], keys: Sequence[str]
) -> Iterator[tuple[Settings, int, str]]:
    """Give the settings, seed and key of each replicate of a point: fold after fold of each seed.

    Args:
        settings: of the point.
        seeds: of its replicates.
        keys: by seed, where there are no folds.
    """
    if settings.folds is None:
        yield from ((settings, seed, key) for seed, key in zip(seeds, keys, strict=True))
        return
    for seed in seeds:
        for own in settings.replicates(seed):
            yield own, seed, trial_key(own, seed)


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
            why = DECIDED_BY[name]
            because = "" if why in grid.axes else f" ({why}={fixed[why]})"
            yield f"{name} has no effect at any point{because}"
