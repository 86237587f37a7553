"""The executor that trains in this process: one pack at a time, in `poll`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.executors.worker import PackTrainer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gridsearch.plugins import Plugin
    from gridsearch.records import Event, Pack, WorkerSetup


class InlineExecutor:
    """Trains packs in this process.

    Args:
        setup: what a worker would be told.
        deliver: takes each event as it happens.
        interrupted: asked several times a second while a pack trains; True ends the pack.
        objects: plug-ins given as objects, by display name.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        deliver: Callable[[Event], None],
        *,
        interrupted: Callable[[], bool],
        objects: Mapping[str, Plugin] | None = None,
    ) -> None:
        self._trainer = PackTrainer(setup, deliver, objects)
        self._interrupted = interrupted
        self._pack: Pack | None = None

    @property
    def free(self) -> int:
        """1 between packs."""
        return int(self._pack is None)

    @property
    def busy(self) -> int:
        """1 while a pack waits for `poll`."""
        return int(self._pack is not None)

    def submit(self, pack: Pack) -> None:
        """Keep the pack for the next `poll`."""
        assert self._pack is None
        self._pack = pack

    def poll(self, timeout: float) -> None:  # noqa: ARG002 - the protocol's; here work takes as long as it takes
        """Train the pack that was submitted, to its end."""
        if self._pack is not None:
            pack, self._pack = self._pack, None
            self._trainer.train(pack, stop=self._interrupted)

    def stop(self) -> None:
        """Forget a pack that has not begun."""
        self._pack = None
