"""Planning turns waiting trials and the device's capacity into packs, longest first; it needs no torch.

`groups` says which trials may share a pack, `estimates` what a trial costs, `packing` which goes when.
"""

from gridsearch.planning.estimates import CostModel, Probe, ProbeCache, probe_key, relative_cost
from gridsearch.planning.groups import group_key, group_trials
from gridsearch.planning.packing import makespan, pack_trials

__all__ = [
    "CostModel",
    "Probe",
    "ProbeCache",
    "group_key",
    "group_trials",
    "makespan",
    "pack_trials",
    "probe_key",
    "relative_cost",
]
