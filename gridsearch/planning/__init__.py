"""Planning turns waiting trials and the device's capacity into packs, longest first; it needs no torch.

`groups` says which trials may share a pack, `probes` what was measured of them, `estimates` what a trial costs, `queue`
which goes when, `fixed_packs` which packs a run makes whenever it is started again, `order` which trials go first where
the user says so, `overheads` what a run costs besides, `simulation` when it ends.
"""

from gridsearch.planning.estimates import CostModel, FunctionCost, ImageCost, relative_cost
from gridsearch.planning.fixed_packs import SettledQueue, settle
from gridsearch.planning.groups import group_trials
from gridsearch.planning.order import rank_of
from gridsearch.planning.overheads import OverheadLog, Overheads
from gridsearch.planning.probes import Probe, ProbeCache, probe_key
from gridsearch.planning.queue import PackQueue, Unprobed, WorkQueue, packs_of
from gridsearch.planning.simulation import Forecast, SimulatedPack, simulate

__all__ = [
    "CostModel",
    "Forecast",
    "FunctionCost",
    "ImageCost",
    "OverheadLog",
    "Overheads",
    "PackQueue",
    "SimulatedPack",
    "Probe",
    "ProbeCache",
    "SettledQueue",
    "Unprobed",
    "WorkQueue",
    "simulate",
    "group_trials",
    "packs_of",
    "probe_key",
    "rank_of",
    "relative_cost",
    "settle",
]
