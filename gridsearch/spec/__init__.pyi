from .axes import (
    ALIASES as ALIASES,
    AXES as AXES,
    FUSIBLE as FUSIBLE,
    SHAPING as SHAPING,
    axis_of as axis_of,
    canonical as canonical,
    varying as varying,
)
from .expand import Expansion as Expansion, expand_study as expand_study
from .grid import Grid as Grid, GridPoint as GridPoint
from .recipe import Recipe as Recipe
from .study import StudySpec as StudySpec
from .study_builder import build as build
from .study_file import StudyFile as StudyFile, load_toml as load_toml
from .study_names import default_name as default_name
