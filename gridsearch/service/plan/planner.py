"""What a run would do, said before it does it: points, groups, time, memory, disk.  Writes nothing."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gridsearch.records import TrialState
from gridsearch.records.image_metrics import ACCURACY
from gridsearch.records.study_kinds import IMAGES, StudyKind
from gridsearch.service.plan.forecast import Memory, PlanForecast
from gridsearch.service.plan.plan_groups import Group, groups_of, params_of
from gridsearch.service.prepare.joining import join
from gridsearch.service.prepare.preparation import joined_data, prepare, prepare_stored, require_prunable
from gridsearch.service.prepare.prepared import Given
from gridsearch.service.run.workers import arithmetic_cautions, devices_for, worker_setups
from gridsearch.spec.study_options import ORDERS
from gridsearch.store import open_store, store_exists

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.planning import SimulatedPack
    from gridsearch.records import Trial, TrialDraft, Value
    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.prepare.prepared import Prepared
    from gridsearch.service.prepare.replicates import MoreSeeds
    from gridsearch.spec import StudySpec

_FIRST = 4
"""Packs that are shown."""

_ROW_BYTES = 6_000
"""Database rows, log and event file of a trial, beside its predictions; measured on a 10-epoch trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do; counts of trials, but for `points` and `excluded`.

    Attributes:
        pruned: trials that were ended early and, without pruning, train again.
        open: trials that wait or run already.
        seconds: wall time of what is missing, None where a group was never measured.
        memory: what the workers need at most, None likewise.
        disk_mb: that the new trials will take, None where the data is not there.
        kind: what the study is of.
        data: the images in one line, as they were understood; "" where they are not there yet.
        notes: where memory makes packs smaller than they would be otherwise.
        order: in which order the trials go.
        first: the trial that each of the first packs begins with, and how many lanes that pack has.
        sampled_from: how many points the grid has, where these are a sample of it.
        metric: which metric ranks it, likewise `direction`.
        folds: of each seed of a point; None where there is no cross-validation, or not everywhere the same.
    """

    study: str
    points: int
    trials: int
    new: int
    done: int
    failed: int
    pruned: int
    open: int
    excluded: int
    groups: tuple[Group, ...]
    seconds: float | None
    memory: Memory | None
    disk_mb: float | None
    workers: int
    kind: StudyKind = IMAGES
    data: str = ""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    order: str = ORDERS[0]
    first: tuple[tuple[Mapping[str, Value], int], ...] = ()
    sampled_from: int | None = None
    folds: int | None = None
    metric: str = ACCURACY
    direction: str = "maximize"

    @property
    def unmeasured(self) -> int:
        """How many trials are in groups of which no time is known."""
        return sum(group.trials for group in self.groups if group.seconds is None)

    @property
    def least_seconds(self) -> float | None:
        """The time of the groups that were measured, shared out evenly: a run takes at least that long."""
        known = [group.seconds for group in self.groups if group.seconds is not None]
        return sum(known) / max(1, self.workers) if known else None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as schema 1."""
        content = asdict(self)
        shown = ("model", "batch", "params", "trials", "lanes", "method", "reason", "seconds")
        groups = [{k: g[k] for k in shown} for g in content["groups"]]
        kept = ("study", "points", "trials", "new", "done", "failed", "pruned", "excluded")
        memory = self.memory
        rest: dict[str, Any] = {
            "seconds": self.seconds,
            "least_seconds": self.seconds if self.seconds is not None else self.least_seconds,
            "unmeasured_trials": self.unmeasured,
            "memory_mb": None if memory is None else memory.beyond_torch_mb,
            "worker_mb": None if memory is None else memory.worker_mb,
            "disk_mb": self.disk_mb,
        }
        rest |= {
            "order": self.order,
            "first": [{"params": dict(params), "lanes": lanes} for params, lanes in self.first],
            "sampled_from": self.sampled_from,
            "metric": self.metric,
            "direction": self.direction,
            **({} if self.folds is None else {"folds": self.folds}),
        }
        some = {name: content[name] for name in ("data", "notes") if content[name]}
        return {"schema": 1, **{name: content[name] for name in kept}, "groups": groups, **rest, **some}


def plan(
    spec: StudySpec,
    options: RunOptions,
    *,
    probe: bool = False,
    say: Callable[[str], None] = lambda _: None,
    objects: Mapping[str, Any] | None = None,
    dataset: Any = None,
    objective: Any = None,
) -> Plan:
    """Say what `run` with the same arguments would do.

    Args:
        spec: what would be searched.
        options: how.
        probe: measure a few steps of each group of which no time is known yet; this fetches the data.
        say: takes a message.
        objects: as for `run`.
        dataset: as for `run`.
        objective: as for `run`.

    Raises:
        GridsearchError: what `run` would refuse.
    """
    began = time.monotonic()
    require_prunable(spec.image_metric, options.prune)
    devices = devices_for(options, spec.kind)
    given = Given(objects=objects or {}, dataset=dataset, objective=objective)
    prepared = prepare(spec, options.places, given, fetch=probe, say=say)
    return _plan(prepared, options, devices, probe=probe, say=say, began=began)


def plan_stored(
    study: str,
    options: RunOptions,
    *,
    probe: bool = False,
    say: Callable[[str], None] = lambda _: None,
    dataset: str | None = None,
    models: Sequence[str] = (),
    objective: str | None = None,
    more: MoreSeeds | None = None,
) -> Plan:
    """Say what `resume` with the same arguments would do.

    Raises:
        GridsearchError: what `resume` would refuse.
    """
    began = time.monotonic()
    given = Given(dataset=dataset, models=models, objective=objective)
    prepared = prepare_stored(study, options.places, given, more=more, changed=options.changed, say=say)
    devices = devices_for(options, prepared.kind)
    return _plan(prepared, options, devices, probe=probe, say=say, began=began)


def _plan(
    prepared: Prepared,
    options: RunOptions,
    devices: Sequence[str],
    *,
    probe: bool,
    say: Callable[[str], None],
    began: float,
) -> Plan:
    require_prunable(prepared.metric if prepared.kind.classifies else None, options.prune)
    cautions = arithmetic_cautions(prepared, options, devices)
    ledger, studies = _ledger(options, prepared)
    joined = join(prepared, ledger, studies)
    prepared = joined.prepared
    for note in joined.notes:
        say(note)
    known = {trial.key: trial.state for trial in ledger}
    states = Counter(known.get(draft.key) for draft in prepared.drafts)
    results = _results(options)
    missing = [
        draft for draft in prepared.drafts if known.get(draft.key) not in results | {TrialState.RUNNING}
    ]
    workers = len(worker_setups(prepared.catalog, options, devices, trials=max(len(missing), 1)))
    forecast = PlanForecast.of(prepared, options, devices, missing, workers=workers, ledger=ledger)
    if probe and prepared.kind.packs:
        forecast.measure(began, say)
    elif probe:
        say(f"{prepared.kind.noun} is not measured beforehand; its time is known once some trials have run")
    simulated = forecast.simulate()
    folds = {draft.settings.folds for draft in prepared.drafts}
    return Plan(
        study=prepared.name,
        points=prepared.points,
        trials=len(prepared.drafts),
        new=states[None],
        done=sum(states[state] for state in results),
        failed=states[TrialState.FAILED],
        pruned=0 if TrialState.PRUNED in results else states[TrialState.PRUNED],
        open=states[TrialState.WAITING] + states[TrialState.RUNNING],
        excluded=prepared.excluded,
        groups=groups_of(prepared, options, devices[0], forecast, simulated.programs),
        seconds=forecast.wall(simulated),
        memory=forecast.memory(simulated),
        disk_mb=_disk(prepared, missing),
        workers=workers,
        kind=prepared.kind,
        data=prepared.described,
        warnings=(*prepared.warnings, *cautions),
        notes=() if forecast.sizing is None else tuple(forecast.sizing.news()),
        order=prepared.order,
        first=tuple(_begins_with(program) for program in simulated.programs[:_FIRST]),
        sampled_from=prepared.sampled_from,
        metric=prepared.metric,
        direction=prepared.direction,
        folds=folds.pop() if len(folds) == 1 else None,
    )


def _results(options: RunOptions) -> set[TrialState]:
    """Return the states of trials that a run leaves as they are: they have a result."""
    pruned = {TrialState.PRUNED} if options.prune != "none" else set()
    return {TrialState.COMPLETE, TrialState.DIVERGED} | pruned


def _begins_with(pack: SimulatedPack[TrialDraft]) -> tuple[Mapping[str, Value], int]:
    """Return the params of a pack's first trial, and how many lanes it has."""
    first = pack.trials[0]
    return params_of(first), pack.lanes


def _ledger(options: RunOptions, prepared: Prepared) -> tuple[Sequence[Trial], set[str]]:
    """Return the trials that a study has, and the names of all studies; refuse what a run would refuse."""
    if not store_exists(options.places.store):
        return (), set()
    with open_store(options.places.store, home=options.places.home, create=False) as store:
        joined_data(store, prepared, options.places)
        return store.ledger(prepared.name), set(store.names())


def _disk(prepared: Prepared, missing: Sequence[TrialDraft]) -> float | None:
    """Return megabytes: predictions, rows, log and events of each trial."""
    kept = prepared.bytes_kept() if missing else 0
    return None if kept is None else len(missing) * (kept + _ROW_BYTES) / 1e6
