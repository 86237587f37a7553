"""The trials that this runner has claimed: which pack each trains in, and what is left when it loses them.

Stands between the coordinator and what must change together whenever a trial comes or goes: the ledger, the scratch
folders, the published runs and the counts that are shown.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridsearch.records import Lane, Pack, TrialState
from gridsearch.service.run.progress import Running

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from gridsearch.records import Settings, Trial
    from gridsearch.service.run.publisher import TrialPublisher
    from gridsearch.service.run.run_context import RunContext


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed trial.

    Attributes:
        trial: as it was claimed.
        pack: where it trains.
    """

    trial: Trial
    pack: str

    @property
    def ids(self) -> tuple[int, int]:
        """The trial's ledger id and the attempt, as the store knows a claim."""
        return self.trial.id, self.trial.attempt


class HeldTrials:
    """What this runner has claimed of one study.

    Args:
        run: the run that claims.
        publisher: starts the TensorBoard run of each trial.
    """

    def __init__(self, run: RunContext, publisher: TrialPublisher) -> None:
        self._run = run
        self._progress = run.progress
        self._publisher = publisher
        self._by_trial: dict[int, Claim] = {}
        self._by_pack: dict[str, dict[int, Claim]] = {}
        self._moved: dict[int, str] = {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._by_trial)

    def __iter__(self) -> Iterator[Claim]:
        """Go through them as they are now."""
        return iter(list(self._by_trial.values()))

    def __contains__(self, trial: int) -> bool:
        """Whether a trial, by its ledger id, is claimed."""
        return trial in self._by_trial

    def get(self, trial: int) -> Claim | None:
        """Return a trial's claim by its ledger id."""
        return self._by_trial.get(trial)

    def of(self, pack: str | None) -> list[Claim]:
        """Return a pack's."""
        return [] if pack is None else list(self._by_pack.get(pack, {}).values())

    def numbers_of(self, pack: str) -> list[int]:
        """Return the ledger ids of a pack's trials."""
        return list(self._by_pack.get(pack, ()))

    def claim(self, packs: Mapping[str, Sequence[Trial]]) -> list[Pack]:
        """Claim the trials of packs in one transaction; what somebody else has taken meanwhile is left out.

        Args:
            packs: what is wanted, by the packs' ids.

        Returns:
            The packs of which there is any trial left.
        """
        run = self._run
        wanted = {pack: [trial.id for trial in trials] for pack, trials in packs.items()}
        got = run.store.claim_packs(wanted, owner=run.owner, lease=run.options.lease)
        for pack, trials in got.items():
            for trial in trials:
                self._by_trial[trial.id] = self._by_pack.setdefault(pack, {})[trial.id] = Claim(trial, pack)
                self._publisher.start(trial)
                self._progress.move(TrialState.WAITING, TrialState.RUNNING)
                self._progress.running[trial.id] = Running(trial, worker="")
        return [
            Pack(pack, tuple(Lane(trial, self._make_scratch(trial)) for trial in trials))
            for pack, trials in got.items()
            if trials
        ]

    def move(self, trials: Iterable[int], pack: str) -> None:
        """Let trials that were claimed, by their ledger ids, train in another pack than was thought."""
        for trial in trials:
            claim = self._forget(trial)
            if claim.pack != pack:
                self._moved[trial] = pack
            self._by_trial[trial] = self._by_pack.setdefault(pack, {})[trial] = Claim(claim.trial, pack)

    @property
    def any_moved(self) -> bool:
        """Whether trials have moved to other packs since `write_moves`."""
        return bool(self._moved)

    def write_moves(self) -> None:
        """Let the store know to which packs trials have moved."""
        if self._moved:
            moved, self._moved = self._moved, {}
            self._run.store.move_claims(moved)

    def _make_scratch(self, trial: Trial) -> str:
        """Return an attempt's scratch folder, made where it is used: that takes longer than a short trial."""
        home, place = self._run.store.home, (self._run.study, trial.number, trial.attempt)
        if trial.attempt == 1:
            home.leave_log(self._run.study, trial.number)
        return str(home.make_scratch(*place) if self._run.leaves_files else home.scratch(*place))

    def end(self, trial: int) -> Trial:
        """Forget a trial that has a result, and return it."""
        return self._forget(trial).trial

    def _forget(self, trial: int) -> Claim:
        claim = self._by_trial.pop(trial)
        of_pack = self._by_pack[claim.pack]
        del of_pack[trial]
        if not of_pack:
            del self._by_pack[claim.pack]
        return claim

    def drop(self, claims: Sequence[Claim]) -> None:
        """Forget trials without a result; their checkpoints stay, for whoever tries them next."""
        for claim in claims:
            trial = claim.trial
            self._forget(trial.id)
            running = self._progress.running.pop(trial.id)
            self._progress.move(TrialState.RUNNING, TrialState.WAITING)
            units = self.epoch_units(trial.settings)
            self._progress.done_units -= (running.epoch - running.resumed) * units
            self._progress.total_units += running.resumed * units
            self._run.store.home.leave_scratch(self._run.study, trial.number, trial.attempt)

    def release(self, claims: Sequence[Claim]) -> None:
        """Give trials without a result back, for anybody to claim.

        What nobody needs any more goes first: where the disk is full, this frees the space that the store needs.
        """
        self.drop(claims)
        self._run.store.release([claim.ids for claim in claims])

    def heartbeat(self) -> list[Claim]:
        """Renew the leases; return the claims that were lost all the same."""
        lost = self._run.store.heartbeat(self._run.owner, lease=self._run.options.lease)
        return [claim for trial in lost if (claim := self.get(trial))]

    def ahead(self, *, but: Collection[str] = ()) -> list[float]:
        """Return how long each pack under way will still take, about, in seconds.

        Args:
            but: packs to leave out.
        """
        live = [list(claims.values()) for pack, claims in self._by_pack.items() if pack not in but]
        return [sum(self._left(claim, len(claims)) for claim in claims) for claims in live]

    def _left(self, claim: Claim, lanes: int) -> float:
        running = self._progress.running[claim.trial.id]
        elapsed = time.monotonic() - running.since
        return self._run.cost.left(claim.trial.settings, lanes=lanes, epochs=running.epoch, elapsed=elapsed)

    def epoch_units(self, settings: Settings) -> float:
        """Return what an epoch counts for in the progress; 0 where nobody knows how many there will be."""
        return self._run.cost.units(settings) / settings.length if settings.length is not None else 0.0
