"""What the missing trials will cost: measured where asked, then simulated as a run would go.

Stands between the plan and `planning`, and is the one place where what a run does is predicted: the same queue,
sizes, limits and costs.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from gridsearch.planning import (
    OverheadLog,
    ProbeCache,
    SettledQueue,
    WorkQueue,
    group_trials,
    rank_of,
    relative_cost,
    simulate,
)
from gridsearch.records import Probed
from gridsearch.service.run.sizing import Sizing, settled_packs, sizes
from gridsearch.service.run.timing import Timing
from gridsearch.service.run.workers import (
    hardware,
    lanes_at_most,
    room_for_packs,
    starter,
    worker_setups,
)
from gridsearch.zoo import datasets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.planning import CostModel, Forecast, Overheads, SimulatedPack
    from gridsearch.records import Event, Settings, Trial, TrialDraft
    from gridsearch.service.prepare.options import RunOptions
    from gridsearch.service.prepare.prepared import Prepared

_POLL_SECONDS = 0.25

_KERNELS_MB = 100.0
"""What a worker loads at its first training step, beside tensors; measured 92 to 105."""

_INDEX_BYTES = 8
"""Of an image in a split, or in an epoch's order."""

_TORCH_MB = 250.0
"""A worker without a pack and images, where that was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the workers of a run need at most, in megabytes.

    Attributes:
        worker_mb: of the largest one, with its torch and the images; None where packs are on a device of their own.
        shared_mb: of images that all workers share, and that count once.
        beyond_torch_mb: of all workers, beyond what torch takes in each.
    """

    worker_mb: float | None
    shared_mb: float
    beyond_torch_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanForecast:
    """The missing trials of a plan, and what is known of their costs.

    Attributes:
        missing: the trials that a run would train.
        workers: how many would train side by side.
        cost: None where the data is not there.
    """

    prepared: Prepared
    options: RunOptions
    devices: Sequence[str]
    missing: Sequence[TrialDraft]
    workers: int
    ledger: Sequence[Trial]
    cost: CostModel | None
    sizing: Sizing | None

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        options: RunOptions,
        devices: Sequence[str],
        missing: Sequence[TrialDraft],
        *,
        workers: int,
        ledger: Sequence[Trial] = (),
    ) -> Self:
        """Gather what is known; `ledger` are all trials of the study that the store holds."""
        probes, sizing = ProbeCache(options.places.probes), None
        if (cost := prepared.cost(hardware(prepared, devices, options), probes)) is not None:
            sizing = Sizing(
                lanes=lanes_at_most(options, prepared.kind),
                device=devices[0],
                cost=cost,
                probes=probes,
                room=room_for_packs(options, devices, workers, prepared.kind),
            )
        return cls(
            prepared=prepared,
            options=options,
            devices=devices,
            missing=missing,
            workers=workers,
            ledger=ledger,
            cost=cost,
            sizing=sizing,
        )

    def measured(self, settings: Settings) -> bool:
        """Whether the seconds of such a trial rest on a measurement."""
        return self.cost is not None and self.cost.seconds(settings) is not None

    def measure(self, began: float, say: Callable[[str], None]) -> None:
        """Probe each kind of trial of which the best size is not known, as a run would: in its workers.

        Args:
            began: when the command began (monotonic), for the time that a start takes.
            say: takes a message.
        """
        assert self.cost is not None
        assert self.sizing is not None
        wanted: dict[str, tuple[Settings, int]] = {}
        for group in group_trials(self.missing, lambda draft: draft.settings).values():
            settings, count = group[0].settings, max(len(group), self.options.lanes or 1)
            known = self.cost.probe(settings)
            if known is None or not known.knows(min(count, max(sizes(self.devices[0])))):
                key = self.cost.key(settings)
                wanted[key] = (settings, max(count, wanted.get(key, (settings, 0))[1]))
        if not wanted:
            return
        timing = Timing(began)
        sizing = self.sizing

        def take(event: Event) -> None:
            timing.observe(event)
            if isinstance(event, Probed):
                sizing.record(event)

        setups = worker_setups(self.prepared.catalog, self.options, self.devices, trials=len(self.missing))
        of_missing = [draft.settings for draft in self.missing]
        start = starter(self.prepared.catalog, self.options, setups, settings=of_missing)
        executor = start(take, lambda: False)
        waiting = list(reversed(wanted.values()))
        try:
            while waiting or executor.busy:
                while waiting and executor.free:
                    settings, count = waiting.pop()
                    say(f"measuring packs of {settings.code[0]} at batch {settings.get('batch')}")
                    executor.submit(sizing.request(settings, count))
                executor.poll(_POLL_SECONDS)
        finally:
            executor.stop()
        OverheadLog(self.options.places.overheads).add(
            hardware(self.prepared, self.devices, self.options), timing.parts
        )

    def simulate(self) -> Forecast[TrialDraft]:
        """Return how the run goes: its packs, and its time in measured or guessed seconds."""
        queue = self._settled() if self.options.settled else self._free()
        queue.fill(self.missing)
        return simulate(queue, workers=self.workers, cost=self._guess, overheads=self._overheads())

    def _overheads(self) -> Overheads:
        return OverheadLog(self.options.places.overheads).load(
            hardware(self.prepared, self.devices, self.options)
        )

    def _guess(self, draft: Trial | TrialDraft, lanes: int) -> float:
        if self.cost is None:
            return relative_cost(draft.settings)
        return self.cost.guess(draft.settings, lanes=lanes)

    def _settled(self) -> SettledQueue[TrialDraft]:
        """Return the packs of a run whose packs are settled beforehand."""
        known = {trial.key for trial in self.ledger}
        to_come = [draft for draft in self.missing if draft.key not in known]
        known_ones: list[Trial | TrialDraft] = [*self.ledger, *to_come]
        return SettledQueue(settled_packs(known_ones, self.options, self._rank()))

    def _rank(self) -> Callable[[Trial | TrialDraft], float] | None:
        """Return what says which trials go first, as a run has it; None where the longest do."""
        known = {trial.key for trial in self.ledger}
        return rank_of(
            self.prepared.order,
            lambda: [*self.ledger, *(draft for draft in self.missing if draft.key not in known)],
            cost=lambda trial: self._guess(trial, 1),
        )

    def _free(self) -> WorkQueue[TrialDraft]:
        """Return the queue of a run that makes its packs as it goes."""
        cost, sizing = self.cost, self.sizing
        asked: set[str] = set()

        def lanes(draft: TrialDraft, count: int) -> int | None:
            if cost is None or sizing is None:
                return self.options.lanes or 1
            size = sizing.lanes(draft.settings, count)
            if size is None and (key := cost.key(draft.settings)) not in asked:
                asked.add(key)
                return None
            return size or sizing.unmeasured(draft.settings, count)

        return WorkQueue(
            workers=self.workers,
            lanes=lanes,
            cost=lambda draft: self._guess(draft, 1),
            share=lambda draft, n: self._guess(draft, n) / self._guess(draft, 1),
            rank=self._rank(),
        )

    def wall(self, simulated: Forecast[TrialDraft]) -> float | None:
        """Return the seconds of the whole run, from the command to the report; None if a group was never measured."""
        if not self.missing:
            return 0.0
        if not all(self.measured(program.trials[0].settings) for program in simulated.programs):
            return None
        overheads = self._overheads()
        return overheads.start + simulated.seconds + (overheads.report if self.options.report else 0.0)

    def memory(self, simulated: Forecast[TrialDraft]) -> Memory | None:
        """Return what the workers need at most; None if a group was never probed."""
        if self.cost is None or not self.prepared.loaded:
            return None
        packs, own = [], []
        for program in simulated.programs:
            known = self.cost.probe(program.trials[0].settings)
            size = known.megabytes(program.lanes) if known is not None else None
            if known is None or size is None:
                return None
            measured = known.worker_mb is not None  # then the kernels are in the size of the pack
            size += self._index_mb(program)
            packs.append(size if measured else size + _KERNELS_MB)
            own.append(known.worker_mb if known.worker_mb is not None else _TORCH_MB)
        if not packs:
            return None
        shared, copies = self._images()
        largest = heapq.nlargest(self.workers, packs)
        on_host = self.devices[0] == "cpu"
        return Memory(
            worker_mb=max(own) + largest[0] + shared + copies if on_host else None,
            shared_mb=shared,
            beyond_torch_mb=sum(largest) + shared + len(largest) * copies,
        )

    def _index_mb(self, program: SimulatedPack[TrialDraft]) -> float:
        """Return the megabytes of the lanes' own index sets, and of their orders, where each holds out its own fold."""
        first = program.trials[0].settings
        if first.folds is None or first.data_fingerprint not in self.prepared.loaded:
            return 0.0
        images = len(self.prepared.loaded[first.data_fingerprint].train_labels)
        return 2 * _INDEX_BYTES * images * program.lanes / 1e6

    def _images(self) -> tuple[float, float]:
        """Return the megabytes of images that all workers share, and of those that each of them copies."""
        shared = copies = 0.0
        for fingerprint, images in self.prepared.loaded.items():
            train = images.train_images.nbytes / 1e6
            test = 0.0 if images.test_images is None else images.test_images.nbytes / 1e6
            if datasets.key_of(images, fingerprint) is not None:
                shared += train
            else:
                copies += 2 * train + test  # as the dataset gives them, and as training reads them
            shared += self.prepared.feature_bytes(len(images.train_images)) / 1e6
        return shared, copies
