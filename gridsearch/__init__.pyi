from ._version import __version__ as __version__
from .api import best as best, compare as compare, load as load, predict as predict, run as run
from .api.arguments import (
    BestArguments as BestArguments,
    RunArguments as RunArguments,
    SearchArguments as SearchArguments,
)
from .api.result import StudyResult as StudyResult
from .errors import (
    ArtifactError as ArtifactError,
    DataError as DataError,
    DeviceError as DeviceError,
    EngineUnreachable as EngineUnreachable,
    FolderTaken as FolderTaken,
    GridsearchError as GridsearchError,
    GridsearchWarning as GridsearchWarning,
    PluginError as PluginError,
    SpecError as SpecError,
    StoreError as StoreError,
    StoreUnreachable as StoreUnreachable,
    StudyDeleted as StudyDeleted,
    StudyNotFound as StudyNotFound,
    TrainingFailed as TrainingFailed,
    UnusableError as UnusableError,
    UsageError as UsageError,
)
from .plugins import ImageData as ImageData
from .spec import Grid as Grid, StudySpec as StudySpec
