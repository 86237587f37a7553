"""Planning turns waiting trials and the device's capacity into packs, longest first; it needs no torch.

`groups` says which trials may share a pack, `estimates` what a trial costs, `queue` which goes when, and `settled`
which packs a run makes whenever it is begun again.
"""

from gridsearch.planning.estimates import CostModel, Probe, ProbeCache, probe_key, relative_cost
from gridsearch.planning.groups import group_trials
from gridsearch.planning.packing import makespan
from gridsearch.planning.queue import Unsized, WorkQueue, packs_of
from gridsearch.planning.settled import SettledQueue, settle

__all__ = [
    "CostModel",
    "Probe",
    "ProbeCache",
    "SettledQueue",
    "Unsized",
    "WorkQueue",
    "group_trials",
    "makespan",
    "packs_of",
    "probe_key",
    "relative_cost",
    "settle",
]
