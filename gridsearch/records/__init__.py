"""What travels between the stages: frozen values, JSON-able all of them.

Settings and trials go from the spec through the store to the worker, events come back, and records of trials and
studies go from the store to reporting.  Nothing here imports anything heavy.
"""

from gridsearch.records.axis import Value
from gridsearch.records.commands import (
    ExportRequest,
    LanesGiven,
    Leave,
    ProbeRequest,
    PruningDecision,
    Task,
    WorkerSetup,
)
from gridsearch.records.events import (
    Advance,
    EngineSays,
    EpochEnded,
    Event,
    Exported,
    FileRef,
    LanesTraining,
    LanesWanted,
    LogText,
    PackEnded,
    PackStarted,
    Probed,
    StepEnded,
    StillTraining,
    TrialFailed,
    TrialFinished,
    TrialResumed,
    Unwritable,
    WorkerDied,
    WorkerLeft,
    WorkerReady,
)
from gridsearch.records.function_settings import FunctionSettings
from gridsearch.records.image_facts import DataFacts
from gridsearch.records.image_settings import DATA_PREFIX, LATER, MODEL_PREFIX, ImageSettings
from gridsearch.records.results import (
    EpochRow,
    Part,
    StepRow,
    StudyData,
    TrialRecord,
    early_stop_words,
    stopped_early,
)
from gridsearch.records.settings import Settings, Shape, point_address, trial_key, trial_keys
from gridsearch.records.trials import Lane, Pack, Trial, TrialDraft, TrialState

__all__ = [
    "DataFacts",
    "Advance",
    "DATA_PREFIX",
    "EngineSays",
    "EpochEnded",
    "EpochRow",
    "Event",
    "ExportRequest",
    "Exported",
    "FileRef",
    "FunctionSettings",
    "ImageSettings",
    "LATER",
    "Lane",
    "LanesGiven",
    "Leave",
    "LanesTraining",
    "LanesWanted",
    "LogText",
    "MODEL_PREFIX",
    "Pack",
    "PackEnded",
    "PackStarted",
    "Part",
    "ProbeRequest",
    "Probed",
    "Settings",
    "Shape",
    "StepEnded",
    "StepRow",
    "StillTraining",
    "StudyData",
    "Task",
    "Trial",
    "TrialDraft",
    "TrialFailed",
    "TrialFinished",
    "TrialRecord",
    "TrialResumed",
    "TrialState",
    "Unwritable",
    "Value",
    "PruningDecision",
    "WorkerDied",
    "WorkerLeft",
    "WorkerReady",
    "WorkerSetup",
    "early_stop_words",
    "stopped_early",
    "point_address",
    "trial_key",
    "trial_keys",
]
