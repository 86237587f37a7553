"""Which trials this runner trains next: what waits in the store, in packs, until there is nothing left to begin.

Between the coordinator, which asks for work, and the planner's queue; what is handed out is claimed.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from typing import TYPE_CHECKING

from gridsearch.planning import SettledQueue, Unprobed, WorkQueue, rank_of
from gridsearch.random_streams import CHANCE
from gridsearch.records import Pack, TrialFinished, TrialState
from gridsearch.service.run.claim_pace import ClaimPace
from gridsearch.service.run.same_failure import FirstTrials
from gridsearch.service.run.sizing import settled_packs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.planning import PackQueue
    from gridsearch.records import Lane, LanesWanted, Probed, ProbeRequest, Settings, Trial, TrialFailed
    from gridsearch.service.run.held_trials import HeldTrials
    from gridsearch.service.run.run_context import RunContext
    from gridsearch.service.run.sizing import Sizing

LOOK_AGAIN_SECONDS = 2.0
"""How often to look for trials that came back, and for runners that died."""

_CROWDED_SECONDS = 0.5
"""How often to look for what others have left, where they take what this runner wants."""

_ROUGH = 64
"""So many trials in a row are as good as one another to a runner that others get in the way of."""

_SHOWN = 12
"""So many numbers of trials are named in one line."""


def _pack_id() -> str:
    return uuid.uuid4().hex[:12]


class TrialSource:
    """The waiting trials of one run.

    Args:
        run: what is to be done.
        held: claims what is handed out.
        sizing: says how many lanes a pack gets.
        write: writes the results that came in; called before the store is asked what waits.
    """

    def __init__(
        self, run: RunContext, *, held: HeldTrials, sizing: Sizing, write: Callable[[], None]
    ) -> None:
        self._run = run
        self._write = write
        self._held = held
        self._sizing = sizing
        self._queue = self._make_queue()
        self._first = FirstTrials(keep_going=run.options.keep_going, waiting=self._not_begun)
        self._groups: dict[str, Settings] = {}
        self._pace, self._refill_pace = ClaimPace(), ClaimPace()
        self._ready: deque[Pack] = deque()
        self._named = ""
        self._last_look = float("-inf")
        self._crowded = False

    def _make_queue(self) -> PackQueue[Trial]:
        """Return what says which trials go together: the settled packs, or whatever suits at the moment."""
        run = self._run
        rank = rank_of(
            run.order, lambda: run.store.ledger(run.study), cost=lambda trial: run.cost.guess(trial.settings)
        )
        if run.options.settled:
            return SettledQueue(settled_packs(run.store.ledger(run.study), run.options, rank))
        return WorkQueue(
            workers=run.progress.workers,
            lanes=lambda trial, count: self._sizing.lanes(trial.settings, count),
            cost=lambda trial: run.cost.guess(trial.settings),
            share=lambda trial, lanes: run.cost.share(trial.settings, lanes),
            rank=None if rank is None else lambda trial: self._rank(rank(trial)),
        )

    def _rank(self, rank: float) -> float:
        """Return a trial's rank, a rough one where runners that begin alike want the same trials."""
        return rank // _ROUGH if self._crowded and self._run.order == "spread" else rank

    # What to train

    def next(self) -> Pack | ProbeRequest | None:
        """Return the next pack, claimed, or a request to measure; None if there is nothing to begin now."""
        while not self._run.store.away and not self.exhausted:
            if (pack := self._next_ready()) is not None:
                return pack
            if not self._queue and not self.look():
                break
            wanted, unprobed = self._next_packs()
            for line in self._sizing.news():
                self._run.observer.say(line)
            claimed = self._held.claim(wanted) if wanted else ()
            self._ready.extend(claimed)
            if wanted and not claimed:
                self._begin_elsewhere()
            if unprobed is not None:
                settings = unprobed.trial.settings
                self._run.observer.say(
                    f"measuring packs of {settings.code[0]} at batch {settings.get('batch')}"
                )
                return self._sizing.request(settings, unprobed.count)
            if not wanted:
                break
        return None

    def _not_begun(self) -> list[Trial]:
        """Return the trials that wait, in the store or claimed."""
        return [*self._run.waiting(), *(lane.trial for pack in self._ready for lane in pack.lanes)]

    def _next_ready(self) -> Pack | None:
        """Return a pack that is claimed and still ours, if there is one."""
        while self._ready:
            pack = self._ready.popleft()
            lanes = tuple(lane for lane in pack.lanes if lane.trial.id in self._held)
            if lanes:
                self._groups[pack.id] = lanes[0].trial.settings
                return Pack(pack.id, lanes)
        return None

    def _next_packs(self) -> tuple[dict[str, tuple[Trial, ...]], Unprobed[Trial] | None]:
        """Take packs of what waits, as many as are claimed at a time; stop at a group that must be measured first."""
        wanted: dict[str, tuple[Trial, ...]] = {}
        for _ in range(self._pace.next(len(self._queue), self._run.progress.workers)):
            work = self._queue.next(self._held.ahead)
            if isinstance(work, Unprobed):
                return wanted, work
            if work is None:
                break
            wanted[_pack_id()] = work
        return wanted, None

    def refill(self, event: LanesWanted) -> tuple[Lane, ...]:
        """Return trials for the free lanes of a pack, claimed before or now."""
        if self._run.options.settled or self.exhausted or self._run.store.away:
            return ()
        lanes = self._ready_lanes(event)
        if not lanes and self._queue:
            self._claim_for_refills(event)
            lanes = self._ready_lanes(event)
        self._held.move((lane.trial.id for lane in lanes), event.pack)
        self._run.progress.assign((lane.trial.id for lane in lanes), event.worker)
        return lanes

    def _claim_for_refills(self, event: LanesWanted) -> None:
        """Claim what goes into free lanes next; for several times where trials take milliseconds."""
        group, ids = self._groups[event.pack], [event.pack]
        times = self._refill_pace.next(len(self._queue) // event.count, self._run.progress.workers)
        ids += [_pack_id() for _ in range(times - 1)]
        others = {event.pack, *(pack.id for pack in self._ready)}
        wanted = {
            pack: self._queue.refill(group, event.count, lambda: self._held.ahead(but=others)) for pack in ids
        }
        if wanted := {pack: trials for pack, trials in wanted.items() if trials}:
            self._ready.extend(self._held.claim(wanted))

    def _ready_lanes(self, event: LanesWanted) -> tuple[Lane, ...]:
        """Take lanes for a pack's free places out of what is claimed and was not handed out."""
        shape = self._groups[event.pack].shape()
        taken: list[Lane] = []
        for _ in range(len(self._ready)):
            pack = self._ready.popleft()
            lanes = [lane for lane in pack.lanes if lane.trial.id in self._held]
            if lanes and lanes[0].trial.settings.shape() == shape:
                free = event.count - len(taken)
                taken, lanes = taken + lanes[:free], lanes[free:]
            if lanes:
                self._ready.append(Pack(pack.id, tuple(lanes)))
        return tuple(taken)

    def pack_ended(self, pack: str) -> None:
        """Forget a pack."""
        self._groups.pop(pack, None)

    def probed(self, event: Probed) -> None:
        """Take note of what was measured: the group's trials may go."""
        self._queue.sized(self._sizing.record(event))

    def smaller_packs(self, trial: Trial, lanes: int) -> int:
        """Give packs of a trial's group no more lanes than this from now on, at least one; return how many."""
        return self._sizing.cap(trial.settings, lanes)

    # Whether to begin more

    @property
    def stopped_because(self) -> str | None:
        """Why no more trials shall begin, in one sentence, where they would fail as the first have."""
        return self._first.reason

    @property
    def exhausted(self) -> bool:
        """Whether no more trials shall begin: they would fail as the first have."""
        return self._first.reason is not None

    def went_on(self) -> None:
        """Take note that a trial got somewhere."""
        self._first.went_on()

    def ended(self, trial: Trial, event: TrialFinished | TrialFailed) -> None:
        """Take note of how a trial ended."""
        if isinstance(event, TrialFinished):
            self._first.went_on()
        elif event.reason == "error":
            self._first.failed(trial.settings, event.message)

    def more(self) -> bool:
        """Look whether trials wait that have not been handed out, those of groups that are being measured included."""
        if self._run.store.away or self.exhausted:
            return False
        return bool(self._queue or self._ready or self.look())

    def worth_waiting(self) -> bool:
        """Whether anything of our grid waits, or may come back to us from another runner that works on it."""
        if self._run.store.away:  # what waits in the spool is to be written
            return True
        if self.exhausted:
            return False
        if self._queue:
            return True
        self._write()
        self._run.count()
        counts = self._run.progress.counts
        return bool(counts[TrialState.WAITING] or (self._run.stays and counts[TrialState.RUNNING]))

    # What waits

    def look_soon(self) -> None:
        """Look at the store again when the next trial is wanted: something waits that did not."""
        self._last_look = float("-inf")

    def _begin_elsewhere(self) -> None:
        """Others took what was wanted: look at what they have left, from another place in it than theirs."""
        self._crowded = True
        if time.monotonic() - self._last_look > _CROWDED_SECONDS:
            self.look_soon()
            self.look()

    def look(self) -> bool:
        """Fill the queue with what waits now; the store is asked every other second at most."""
        now = time.monotonic()
        if now - self._last_look < LOOK_AGAIN_SECONDS:
            return False
        self._last_look = now
        self._write()
        self._reclaim()
        self._queue.fill(self._in_own_order(self._run.waiting()))
        self._run.count()
        self._name_other_runners()
        return bool(self._queue)

    def _in_own_order(self, waiting: Sequence[Trial]) -> Sequence[Trial]:
        """Return trials as they are, or begun anywhere where runners that begin alike want the same ones."""
        if not self._crowded or not waiting or self._run.options.settled:
            return waiting
        first = CHANCE.randrange(len(waiting))
        return [*waiting[first:], *waiting[:first]]

    def _reclaim(self) -> None:
        run = self._run
        for back in run.store.reclaim(run.study_id):
            run.store.home.leave_scratch(run.study, back.number, back.attempt)
            run.observer.say(f"trial {back.number}: its runner is gone; it is trained again")

    def _name_other_runners(self) -> None:
        """Name the runners that hold what is left of our grid, once, while we have nothing to do."""
        if self._queue or self._held or not self._run.stays:
            self._named = ""
            return
        others = [runner for runner in self._run.store.runners(self._run.study) if not runner.gone]
        named = ", ".join(f"process {runner.pid} on {runner.host}" for runner in others)
        if named and named != self._named:
            numbers = sorted(number for runner in others for number in runner.trials)
            shown = ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")
            trains = "trains" if len(others) == 1 else "train"
            self._run.observer.say(
                f"waiting for {named}, which {trains} trial{'s' * (len(numbers) > 1)} {shown}"
            )
        self._named = named
