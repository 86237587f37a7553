"""The worker's other half: calls a plain function for each trial, where `PackTrainer` trains networks.

Between the pack and the events, like it; what the function returns or yields is checked here, and whatever is
wrong with it fails this trial alone.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import time
from collections.abc import Generator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

from gridsearch import plugins
from gridsearch.errors import PluginError, StoreError, traced, valid_text
from gridsearch.executors.borrowed_process import Printing, borrowed, from_keyboard
from gridsearch.executors.call_states import CallStates, Unusable, kind_of
from gridsearch.executors.logs import LogStream, one_line
from gridsearch.plugins.file_loader import renew
from gridsearch.random_streams import Streams
from gridsearch.records import (
    LanesTraining,
    LogText,
    PackEnded,
    PackStarted,
    StepEnded,
    TrialFailed,
    TrialFinished,
    TrialState,
    Unwritable,
)
from gridsearch.records.axis import scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from gridsearch.plugins import Plugin
    from gridsearch.records import Event, FunctionSettings, Lane, Pack, Trial, WorkerSetup

_SHOWN_NAMES = 8


class FunctionRunner:
    """Calls a function for the trials of a pack, one after another.

    Args:
        setup: the worker's name, the function's locator and the metric that ranks.
        emit: takes each event as it happens.
        objects: a function given as an object from Python, by its display name; stands for its locator.
    """

    def __init__(
        self, setup: WorkerSetup, emit: Callable[[Event], None], objects: Mapping[str, Plugin] | None = None
    ) -> None:
        self.setup = setup
        self.emit = emit
        self._objects = {} if objects is None else objects
        self._found: Plugin | None = None

    def train(
        self,
        pack: Pack,
        *,
        stop: Callable[[], bool],
        leave: Callable[[], bool] = lambda: False,
        given: Callable[[], Sequence[Lane]] = lambda: (),  # noqa: ARG002 - as `PackTrainer.train`; none is asked for
        pruned: Callable[[], Collection[int]] = lambda: (),
    ) -> None:
        """Call the function for each trial; whatever goes wrong becomes an event.

        Args:
            pack: the trials.
            stop: asked after each step whether to leave at once.
            leave: asked likewise; a function that takes its state is left once that is saved.
            given: not asked.
            pruned: asked after each step for the trials that shall end now.
        """
        self.emit(PackStarted(worker=self.setup.name, pack=pack.id, trials=pack.trial_ids))
        for lane in cast("Pack[FunctionSettings]", pack).lanes:
            if stop() or leave():
                break
            self.emit(LanesTraining(pack=pack.id, trials=(lane.trial.id,)))
            self._call(lane, stop=lambda: stop() or leave(), pruned=pruned)
        self.emit(PackEnded(worker=self.setup.name, pack=pack.id))

    def _call(
        self,
        lane: Lane[FunctionSettings],
        *,
        stop: Callable[[], bool],
        pruned: Callable[[], Collection[int]],
    ) -> None:
        trial = lane.trial
        log = LogStream(lambda text: self.emit(LogText(trials=(trial.id,), text=text)))
        states = CallStates(lane, self.setup)
        if (resumed := states.open()) is not None:
            self.emit(resumed)
        if (ended := states.result()) is not None:
            self.emit(ended)
            return
        call = _Call(trial, self.setup.metric, log, states)
        try:
            plugin = self._plugin(trial.settings)
            with borrowed(plugin.arithmetic):
                renew(plugin.target)  # what calls before this one have left in its module
                call.begin(plugin.target)
                for step in call.steps():
                    self.emit(step)
                    if trial.id in pruned():
                        call.prune()
                        continue
                    stopping = stop()
                    call.save(now=stopping)
                    if stopping:
                        call.close()
                        return
            log.end()
            self.emit(states.keep(call.result()))
        except StoreError as error:
            log.end()
            self.emit(Unwritable(worker=self.setup.name, message=error.message, hint=error.hint))
        except BaseException as error:  # a user's function may raise anything
            log.end()
            if from_keyboard(error):
                raise
            self.emit(_failed(trial, error))
        finally:
            log.end()

    def _plugin(self, settings: FunctionSettings) -> Plugin:
        name, source = settings.code
        if self._found is None:
            with Streams(0).inside():  # a module may draw numbers when it is imported
                self._found = self._objects.get(name) or plugins.find_objective(self.setup.objective)
        if self._found.source != source:
            raise PluginError(
                f"objective {name!r}: its file has changed since the run began",
                hint="run again",
            )
        return self._found


def _failed(trial: Trial[FunctionSettings], error: BaseException) -> TrialFailed:
    """Return what is reported of a function's error, which is being handled."""
    wrong = isinstance(error, Unusable)
    message = f"{trial.settings.code[0]} {error}" if wrong else one_line(error)
    return TrialFailed(
        trial=trial.id,
        attempt=trial.attempt,
        reason="error",
        message=message,
        traceback=message if wrong else traced(error),
    )


class _Call:
    """One call of a function, from its start to its result."""

    def __init__(
        self, trial: Trial[FunctionSettings], metric: str, log: LogStream, states: CallStates
    ) -> None:
        self._trial = trial
        self._states = states
        self._metric = metric
        self._printing = Printing(log)
        self._streams = Streams(trial.seed)
        self._generator: Generator[Any, Any, Any] | None = None
        self._last: Mapping[str, float] | None = states.rows[-1].metrics if states.rows else None
        self._steps = len(states.rows)
        self._pruned = False
        self._began = time.monotonic()

    def begin(self, function: Callable[..., Any]) -> None:
        """Call the function; one that is no generator has then done all it does."""
        self._began = time.monotonic() - self._states.seconds
        given = {"state": self._states.state} if self._states.wanted else {}
        with self._inside():
            found = function(dict(self._trial.settings.params), self._trial.seed, **given)
        if inspect.isgenerator(found):
            self._generator = found
        else:
            self._last = self._checked(found, "returned")

    def steps(self) -> Iterator[StepEnded]:
        """Give the steps of a generator as it makes them, until it ends or is ended.

        The last one is its result, unless it returns metrics besides.
        """
        while self._generator is not None:
            began = time.monotonic()
            with self._inside():
                try:
                    found = next(self._generator)
                except StopIteration as end:
                    self._generator = None
                    if isinstance(end.value, Mapping):
                        self._last = self._checked(end.value, "returned")
                    break
            if self._states.wanted and isinstance(found, tuple) and len(found) == 2:
                found, state = found
                self._states.take(state, step=self._steps + 1, seconds=time.monotonic() - self._began)
            self._last = self._checked(found, "yielded")
            self._steps += 1
            step = StepEnded(
                trial=self._trial.id,
                attempt=self._trial.attempt,
                step=self._steps,
                metrics=self._last,
                seconds=time.monotonic() - began,
            )
            self._states.rows.append(step)
            yield step

    def save(self, *, now: bool) -> None:
        """Save the last state that is not saved yet, if it is time, or `now`.

        Raises:
            StoreError: it cannot be written.
        """
        if now or self._states.due:
            self._states.save()

    def prune(self) -> None:
        """End the call here; what it has shown so far is its result."""
        self._pruned = self._generator is not None
        self.close()

    def close(self) -> None:
        """End a generator where it stands."""
        if self._generator is not None:
            with self._inside():
                self._generator.close()
            self._generator = None

    def result(self) -> TrialFinished:
        """Return how the trial ended.

        Raises:
            Unusable: nothing was yielded.
        """
        if self._last is None:
            raise Unusable(
                "yielded nothing: each step yields a dict of metrics, and the last one is the result"
            )
        value, message = self._last[self._metric], None
        state = TrialState.PRUNED if self._pruned else TrialState.COMPLETE
        if not math.isfinite(value):
            state = TrialState.DIVERGED
            message = f"{self._metric} is {value}" + (f" after step {self._steps}" if self._steps else "")
        return TrialFinished(
            trial=self._trial.id,
            attempt=self._trial.attempt,
            state=state,
            epochs=self._steps,
            seconds=time.monotonic() - self._began,
            metrics=self._last,
            message=message,
        )

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """Run the user's code: it prints to the trial's log and draws from the trial's streams."""
        with self._streams.inside(), self._printing.inside():
            yield

    def _checked(self, found: object, verb: str) -> dict[str, float]:
        """Return what came back as metrics.

        Raises:
            Unusable: it is no dict of numbers by name, or lacks the metric that ranks.
        """
        place = f"{verb} " if verb == "returned" else f"{verb} at step {self._steps + 1} "
        if not isinstance(found, Mapping):
            raise Unusable(f"{place}{kind_of(found)}, not a dict of metrics")
        metrics = {}
        for name, value in found.items():
            if not isinstance(name, str) or not name.strip():
                raise Unusable(f"{place}a dict with the key {name!r:.60}, which is no name of a metric")
            number = _number(value)
            if number is None:
                raise Unusable(f"{place}{name!r} as {kind_of(value)}, not a number")
            if name != valid_text(name):
                raise Unusable(f"{place}a metric named {name!r:.60}, which is no valid text")
            metrics[name] = number
        if self._metric not in metrics:
            names = [repr(name) for name in list(metrics)[:_SHOWN_NAMES]]
            more = ", ..." if len(metrics) > _SHOWN_NAMES else ""
            there = f"but {', '.join(names)}{more}" if names else "and no other metric"
            raise Unusable(f"{place}no {self._metric!r}, {there}; --metric names what ranks")
        return metrics


def _number(value: Any) -> float | None:
    """Return a number, also out of a scalar of numpy or torch; None for anything else."""
    if not isinstance(value, bool | int | float | Decimal | Fraction):
        value = scalar(value)
    if value is None or isinstance(value, str):
        return None
    try:
        return float(value)
    except OverflowError:  # beyond what 64 bits hold
        return math.inf if value > 0 else -math.inf
