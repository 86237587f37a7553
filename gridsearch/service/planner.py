"""What a run would do, said before it does it: points, groups, time, memory, disk.  Writes nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gridsearch.planning import (
    Probe,
    ProbeCache,
    SettledQueue,
    WorkQueue,
    group_trials,
    makespan,
    packs_of,
    relative_cost,
)
from gridsearch.records import ProbeRequest, TrialDraft, TrialState
from gridsearch.service.methods import trainer_of
from gridsearch.service.prepare import prepare, prepare_stored, split_sizes
from gridsearch.service.running import device_name, resolve_devices, worker_setups
from gridsearch.service.sizing import settled_packs, sizes
from gridsearch.store import open_store, store_exists

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.executors.worker import PackTrainer
    from gridsearch.planning import CostModel
    from gridsearch.records import Settings, Trial
    from gridsearch.service.options import RunOptions
    from gridsearch.service.prepare import Prepared
    from gridsearch.service.replicates import MoreSeeds
    from gridsearch.spec import StudySpec

_ROW_BYTES = 6_000
"""Database rows, log and event file of a trial, beside its predictions; measured on a 10-epoch trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Trials that may share a pack.

    Attributes:
        method: how a pack of them trains: "stacked", "vmap" or "solo" (lane after lane).
        reason: why not a better method; "" for stacked.
        seconds: of all its new trials on one worker, None where nothing was measured.
    """

    model: str
    batch: int
    trials: int
    lanes: int
    method: str
    reason: str
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do; counts of trials, but for `points` and `excluded`.

    Attributes:
        pruned: trials that were ended early and, without pruning, train again.
        open: trials that wait or run already.
        seconds: wall time of what is missing, None where a group was never measured.
        memory_mb: of all workers beyond torch's own, None likewise.
        disk_mb: that the new trials will take, None where the data is not there to tell.
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
    memory_mb: float | None
    disk_mb: float | None
    workers: int
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the plan as schema 1."""
        content = asdict(self)
        shown = ("model", "batch", "trials", "lanes", "method", "reason", "seconds")
        groups = [{k: g[k] for k in shown} for g in content["groups"]]
        kept = ("study", "points", "trials", "new", "done", "failed", "pruned", "excluded")
        rest = {name: content[name] for name in ("seconds", "memory_mb", "disk_mb")}
        return {"schema": 1, **{name: content[name] for name in kept}, "groups": groups, **rest}


def plan(
    spec: StudySpec,
    options: RunOptions,
    *,
    probe: bool = False,
    say: Callable[[str], None] = lambda _: None,
    objects: Mapping[str, Any] | None = None,
    dataset: Any = None,
) -> Plan:
    """Say what `run` with the same arguments would do.

    Args:
        spec: what would be searched.
        options: how.
        probe: measure a few steps of each group of which no time is known yet; this fetches the data.
        say: takes a message.
        objects: as for `run`.
        dataset: as for `run`.

    Raises:
        GridsearchError: what `run` would refuse.
    """
    devices = resolve_devices(options.device)
    prepared = prepare(spec, options.places, objects=objects, dataset=dataset, fetch=probe, say=say)
    return _look_ahead(prepared, options, devices, probe=probe, say=say)


def plan_stored(
    study: str,
    options: RunOptions,
    *,
    probe: bool = False,
    say: Callable[[str], None] = lambda _: None,
    dataset: str | None = None,
    models: Sequence[str] = (),
    more: MoreSeeds | None = None,
) -> Plan:
    """Say what `resume` with the same arguments would do.

    Raises:
        GridsearchError: what `resume` would refuse.
    """
    devices = resolve_devices(options.device)
    prepared = prepare_stored(study, options.places, dataset=dataset, models=models, more=more, say=say)
    return _look_ahead(prepared, options, devices, probe=probe, say=say)


def _look_ahead(
    prepared: Prepared,
    options: RunOptions,
    devices: Sequence[str],
    *,
    probe: bool,
    say: Callable[[str], None],
) -> Plan:
    ledger = _ledger(options, prepared.name)
    known = {trial.key: trial.state for trial in ledger}
    states = Counter(known.get(draft.key) for draft in prepared.drafts)
    results = {TrialState.COMPLETE, TrialState.DIVERGED}
    if options.prune != "none":
        results.add(TrialState.PRUNED)
    missing = [
        draft for draft in prepared.drafts if known.get(draft.key) not in results | {TrialState.RUNNING}
    ]
    workers = len(worker_setups(prepared.catalog, options, devices, trials=max(len(missing), 1)))
    cost = _cost(prepared, options, devices[0], missing, probe=probe, say=say)
    most = max(sizes(devices[0]))
    packs = (
        _settled(ledger, missing, options)
        if options.settled
        else _packs(missing, options, cost, workers=workers, most=most)
    )
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
        groups=_groups(prepared, options, devices[0], packs, cost),
        seconds=_seconds(packs, cost, workers),
        memory_mb=_memory(missing, cost, workers),
        disk_mb=_disk(prepared, missing),
        workers=workers,
        warnings=prepared.warnings,
    )


def _ledger(options: RunOptions, study: str) -> Sequence[Trial]:
    if not store_exists(options.places.store):
        return ()
    with open_store(options.places.store, home=options.places.home, create=False) as store:
        return store.ledger(study)


def _cost(
    prepared: Prepared,
    options: RunOptions,
    device: str,
    missing: Sequence[TrialDraft],
    *,
    probe: bool,
    say: Callable[[str], None],
) -> CostModel | None:
    if prepared.images is None:
        return None
    probes = ProbeCache(options.places.probes)
    cost = prepared.cost(device_name(device), probes)
    if probe and _measure(prepared, device, missing, cost, probes, say):
        cost = prepared.cost(device_name(device), probes)
    return cost


def _measure(
    prepared: Prepared,
    device: str,
    missing: Sequence[TrialDraft],
    cost: CostModel,
    probes: ProbeCache,
    say: Callable[[str], None],
) -> int:
    """Probe each distinct kind of trial that was not probed; return how many there were."""
    wanted: dict[str, Settings] = {}
    for draft in missing:
        known = cost.probe(draft.settings)
        if known is None or not known.probed:
            wanted.setdefault(cost.key(draft.settings), draft.settings)
    trainer = trainer_of(prepared.catalog, device) if wanted else None
    for key, settings in wanted.items():
        say(f"probing {settings.model} at batch {settings.batch}")
        assert trainer is not None
        found = trainer.probe(ProbeRequest(key=key, settings=settings, lanes=sizes(device)))
        if found.seconds_per_image:
            probes.put(key, Probe(found.seconds_per_image, found.memory_mb, probed=True))
    return len(wanted)


def _packs(
    missing: Sequence[TrialDraft], options: RunOptions, cost: CostModel | None, *, workers: int, most: int
) -> list[tuple[TrialDraft, ...]]:
    """Return the packs that a run would make; groups of which nothing is known go lane after lane."""

    def lanes(draft: TrialDraft, _count: int) -> int:
        known = cost.probe(draft.settings) if cost is not None else None
        measured = known.best_lanes(most) if known is not None and known.probed else 1
        return options.lanes or measured

    queue = WorkQueue[TrialDraft](
        workers=workers, lanes=lanes, cost=lambda draft: relative_cost(draft.settings)
    )
    queue.fill(missing)
    return list(packs_of(queue))


def _settled(
    ledger: Sequence[Trial], missing: Sequence[TrialDraft], options: RunOptions
) -> list[tuple[TrialDraft, ...]]:
    """Return the packs that a run would make of these trials where its packs are settled beforehand."""
    known = {trial.key for trial in ledger}
    to_come = [draft for draft in missing if draft.key not in known]
    queue = SettledQueue[TrialDraft](settled_packs([*ledger, *to_come], options))
    queue.fill(missing)
    return list(packs_of(queue))


def _pack_seconds(pack: Sequence[TrialDraft], cost: CostModel | None) -> float | None:
    each = [cost.seconds(draft.settings, lanes=len(pack)) if cost else None for draft in pack]
    return None if None in each else sum(seconds for seconds in each if seconds is not None)


def _methods(
    prepared: Prepared, options: RunOptions, device: str
) -> Callable[[Settings, int, int], tuple[str, str]]:
    """Return what tells the method, and why not a better one, of a group with so many trials and lanes."""
    trainers: list[PackTrainer] = []
    known: dict[tuple[object, ...], tuple[str, str]] = {}

    def method_of(settings: Settings, trials: int, lanes: int) -> tuple[str, str]:
        if lanes == 1:
            return "solo", _why_alone(trials, options)
        if prepared.images is None:
            return "solo", "unknown until the data is fetched"
        kind = (settings.model, *sorted(settings.model_options.items()), settings.dtype)
        if kind not in known:
            if not trainers:
                trainers.append(trainer_of(prepared.catalog, device))
            known[kind] = trainers[0].method(settings)
        return known[kind]

    return method_of


def _why_alone(trials: int, options: RunOptions) -> str:
    if options.lanes == 1:
        return "--lanes 1"
    if trials == 1:
        return "no other trial shares its shape"
    return "every trial has a worker of its own, or packs were no faster"


def _groups(
    prepared: Prepared,
    options: RunOptions,
    device: str,
    packs: Sequence[tuple[TrialDraft, ...]],
    cost: CostModel | None,
) -> tuple[Group, ...]:
    found = []
    method_of = _methods(prepared, options, device)
    for group in group_trials(packs, lambda pack: pack[0].settings).values():
        settings = group[0][0].settings
        lanes = max(map(len, group))
        each = [_pack_seconds(pack, cost) for pack in group]
        known = [seconds for seconds in each if seconds is not None]
        trials = sum(map(len, group))
        method, reason = method_of(settings, trials, lanes)
        found.append(
            Group(
                model=settings.model,
                batch=settings.batch,
                trials=trials,
                lanes=lanes,
                method=method,
                reason=reason,
                seconds=sum(known) if len(known) == len(each) else None,
            )
        )
    return tuple(found)


def _seconds(packs: Sequence[tuple[TrialDraft, ...]], cost: CostModel | None, workers: int) -> float | None:
    each = [_pack_seconds(pack, cost) for pack in packs]
    known = [seconds for seconds in each if seconds is not None]
    return makespan(known, workers) if len(known) == len(each) else None


def _memory(missing: Sequence[TrialDraft], cost: CostModel | None, workers: int) -> float | None:
    if cost is None:
        return None
    probes = [cost.probe(draft.settings) for draft in missing]
    each = [probe.memory_mb if probe else None for probe in probes]
    known = sorted((mb for mb in each if mb is not None), reverse=True)
    if len(known) < len(each):
        return None
    return sum(known[:workers])


def _disk(prepared: Prepared, missing: Sequence[TrialDraft]) -> float | None:
    """Return megabytes: predictions (half-precision logits, label, index), rows, log and events of every trial."""
    images = prepared.images
    if images is None or not missing:
        return 0.0 if not missing else None
    _, val = split_sizes(images, missing[0].settings)
    predictions = val * (2 * len(images.class_names) + 16)
    return len(missing) * (predictions + _ROW_BYTES) / 1e6
