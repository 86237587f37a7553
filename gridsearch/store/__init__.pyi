from .artifacts import Home as Home
from .copying import copy_store as copy_store
from .database import may_return as may_return
from .dashboard import serve_dashboard as serve_dashboard
from .messages import (
    Added as Added,
    Artifact as Artifact,
    IdleRunner as IdleRunner,
    OpenStudy as OpenStudy,
    Reclaimed as Reclaimed,
    RunnerAtWork as RunnerAtWork,
    StudyDraft as StudyDraft,
    StudySummary as StudySummary,
    TrialCurve as TrialCurve,
)
from .opening import open_store as open_store, store_exists as store_exists, store_facts as store_facts
from .pruners import PruningStudy as PruningStudy
from .run_of import RunOf as RunOf
from .run_store import RunStore as RunStore
from .runner_identity import RunnerIdentity as RunnerIdentity
from .spool_replay import take_in as take_in, waiting as waiting
from .store import Store as Store
from .url import masked as masked
