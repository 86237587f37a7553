"""A trial's own random streams, for code that draws from `random`, numpy or torch without asking for a seed.

Below everything that runs a user's code.  The streams are the trial's while its code runs and the process's before
and after, so that neither the trials that ran before in this process nor the runner itself decide a result.
`random`, numpy and torch have one such stream a process, so threads that need it take turns.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import threading
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_NUMPY_SEEDS = 2**32

TURN = threading.RLock()
"""Held by the thread whose code has the process's streams, its standard output and its defaults."""

CHANCE = random.SystemRandom()
"""What the program itself draws from: the process's streams may be a trial's in another thread just now."""


@contextmanager
def undrawn() -> Iterator[None]:
    """Leave Python's stream as it is, whatever is imported meanwhile: rich draws from it when it is."""
    before = random.getstate()
    try:
        yield
    finally:
        random.setstate(before)


class Streams:
    """The streams of one trial.

    Args:
        seed: the trial's; all streams begin with it.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._own: dict[str, Any] | None = None

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Let the block draw from the trial's streams, from where its last block left them.

        Other threads wait for their turn meanwhile.
        """
        with TURN:
            yield from self._inside()

    def _inside(self) -> Iterator[None]:
        outer = states()
        if self._own is None:
            _begin(self._seed)
        else:
            restore(self._own)
        late = _LateTorch(self._seed)
        if "torch" not in sys.modules:
            sys.meta_path.insert(0, late)
        try:
            yield
        finally:
            if late in sys.meta_path:
                sys.meta_path.remove(late)
            self._own = states()
            restore(outer)


def _begin(seed: int) -> None:
    import numpy as np  # here alone: what only names datasets is quick without it

    random.seed(seed)
    np.random.seed(seed % _NUMPY_SEEDS)
    if torch := _torch():
        torch.manual_seed(seed)


def states() -> dict[str, Any]:
    """Return where the process's streams stand, for `restore`."""
    import numpy as np

    found = {"random": random.getstate(), "numpy": np.random.get_state()}
    if torch := _torch():
        found["torch"] = torch.get_rng_state()
    return found


def restore(before: dict[str, Any]) -> None:
    """Put the process's streams back to where they stood."""
    import numpy as np

    random.setstate(before["random"])
    np.random.set_state(before["numpy"])
    if "torch" in before and (torch := _torch()):
        torch.set_rng_state(before["torch"])


def _torch() -> Any:
    """Return torch if somebody has imported it; it takes a second, and many functions need none."""
    return sys.modules.get("torch")


class _LateTorch(MetaPathFinder):
    """Seeds torch when a function imports it in its body: in the first trial of a process as in all others."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def execute(module: ModuleType) -> None:
                run(module)
                module.manual_seed(self._seed)

            spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec
