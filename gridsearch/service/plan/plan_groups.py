"""Which trials of a plan may share a pack, and how a pack of them would train.

Stands beside `planner`, which says the rest of what a run would do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from gridsearch.errors import PluginError
from gridsearch.planning import group_trials
from gridsearch.records import ImageSettings
from gridsearch.records.axis import identity
from gridsearch.service.plan.methods import trainer_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gridsearch.executors.pack_trainer import PackTrainer
    from gridsearch.planning import SimulatedPack
    from gridsearch.records import Settings, TrialDraft, Value
    from gridsearch.service.plan.forecast import PlanForecast
    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.prepare.prepared import Prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Trials that may share a pack.

    Attributes:
        model: the model's name; of a study of a plain function, the function's.
        batch: None for a function.
        method: how a pack of them trains: "stacked", "vmap" or "solo" (lane after lane).
        reason: why not a better method; "" for stacked.
        seconds: of all its new trials on one worker, None where nothing was measured.
        params: values that all its trials have and that tell it from other groups, beside model and batch.
    """

    model: str
    batch: int | None
    trials: int
    lanes: int
    method: str
    reason: str
    seconds: float | None
    params: Mapping[str, Value] = field(default_factory=dict)


def params_of(trial: TrialDraft) -> dict[str, Value]:
    """Return a trial's values of the axes that it has."""
    return {axis: trial.settings.get(axis) for axis in trial.axes}


def groups_of(
    prepared: Prepared,
    options: RunOptions,
    device: str,
    forecast: PlanForecast,
    programs: Sequence[SimulatedPack[TrialDraft]],
) -> tuple[Group, ...]:
    """Return the groups.

    Raises:
        PluginError: none of them can run.
    """
    found = []
    methods = _Methods(prepared, options, device)
    groups = list(group_trials(programs, lambda program: program.trials[0].settings).values())
    apart = _apart([[params_of(trial) for program in group for trial in program.trials] for group in groups])
    for group, params in zip(groups, apart, strict=True):
        settings = group[0].trials[0].settings
        lanes = max(program.lanes for program in group)
        trials = sum(len(program.trials) for program in group)
        method, reason = methods.of(settings, trials, lanes)
        found.append(
            Group(
                model=settings.code[0],
                batch=cast("int | None", settings.get("batch")) if settings.kind.packs else None,
                trials=trials,
                lanes=lanes,
                method=method,
                reason=reason,
                seconds=sum(p.seconds for p in group) if forecast.measured(settings) else None,
                params=params,
            )
        )
    if found and methods.broken == len(found):
        raise methods.errors[0]
    return tuple(found)


class _Methods:
    """Finds the method, and why not a better one, of groups of trials.

    Attributes:
        broken: how many groups cannot run at all.
        errors: why not, the first first.
    """

    def __init__(self, prepared: Prepared, options: RunOptions, device: str) -> None:
        self.broken = 0
        self.errors: list[PluginError] = []
        self._prepared, self._options, self._device = prepared, options, device
        self._trainer: PackTrainer | None = None
        self._known: dict[tuple[object, ...], tuple[str, str] | PluginError] = {}

    def of(self, settings: Settings, trials: int, lanes: int) -> tuple[str, str]:
        """Return the method and the reason of a group with so many trials and lanes."""
        study = self._prepared.kind
        if not study.packs:
            return "solo", f"{study.noun} is called for one trial after another"
        if not self._prepared.loaded:
            return "solo", _why_alone(
                trials, self._options
            ) if lanes == 1 else "unknown until the data is fetched"
        settings = ImageSettings.of(settings)
        options = sorted(settings.model_options.items())
        kind = (lanes == 1, settings.model, *options, settings.dtype, settings.dropout is None)
        if kind not in self._known:
            self._known[kind] = self._ask(settings, alone=lanes == 1)
        known = self._known[kind]
        if isinstance(known, PluginError):
            self.broken += 1
            self.errors.append(known)
            return "solo", known.message
        if lanes == 1:
            return "solo", _why_alone(trials, self._options)
        method, reason = known
        return method, "; ".join(filter(None, (reason, *_lane_by_lane(settings))))

    def _ask(self, settings: ImageSettings, *, alone: bool) -> tuple[str, str] | PluginError:
        if alone and settings.model_source is None:
            return "solo", ""  # what comes with the program runs
        self._trainer = self._trainer or trainer_of(self._prepared.catalog, self._device)
        try:
            if not alone:
                return self._trainer.method(settings)
            self._trainer.try_out(settings)
        except PluginError as error:
            return error
        return "solo", ""


def _lane_by_lane(settings: ImageSettings) -> Iterator[str]:
    """Say what of a pack's step is done for one lane after the other."""
    for kind, name in settings.uses[2:]:
        if kind == "optimizer":
            yield f"optimizer {name} takes its steps one lane after the other"
        else:
            yield f"augment {name} is called for one lane after the other, once for lanes that see the same images"


def _why_alone(trials: int, options: RunOptions) -> str:
    if options.lanes == 1:
        return "--lanes 1"
    if trials == 1:
        return "no other trial shares its shape"
    return "every trial has a worker of its own, or packs were no faster"


def _apart(groups: Sequence[Sequence[Mapping[str, Value]]]) -> list[dict[str, Value]]:
    """Return for each group what tells it from others: params of which every group has one value, not all the same."""
    names = dict.fromkeys(name for group in groups for params in group for name in params)
    values = {
        name: [{identity(params.get(name)) for params in group} for group in groups]
        for name in names
        if name not in ("model", "batch")
    }
    telling = [
        name
        for name, each in values.items()
        if all(len(found) == 1 for found in each) and len(set.union(*each)) > 1
    ]
    return [{name: group[0][name] for name in telling if name in group[0]} for group in groups]
