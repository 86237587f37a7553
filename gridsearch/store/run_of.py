"""Which run uses a store, and how long it may do without.

Handed by the run to `run_store`, which is its view of the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridsearch.store.runner_identity import RunnerIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOf:
    """The run that uses a store.

    Attributes:
        study: the study's name.
        study_id: its ledger id.
        owner: who claims.
        lease: seconds that a claim holds without a heartbeat.
        patience: seconds that the store may be away.
        warn: is called with what may not be as the user thinks.
        say: is called with what is worth a line.
    """

    study: str
    study_id: int
    owner: RunnerIdentity
    lease: float
    patience: float
    warn: Callable[[str], None]
    say: Callable[[str], None]
