"""Plug-ins: what models, datasets and objectives are, how one is found, and what addresses its code.

`protocols` says what they are; `lookup` finds one by name, file or module, or takes an object; `files` loads files
with modules of their own; `shapes` says which arguments mean the data's shape; `objects` says what an object from
Python is, from its module's `sources`, where that is `loaded` as written, or from its code and `values`; `patched`
finds what the session has put into installed modules.
"""

from gridsearch.plugins.lookup import (
    AUGMENTATIONS,
    DATASETS,
    MODELS,
    OBJECTIVES,
    OPTIMIZERS,
    Plugin,
    as_augmentation,
    as_objective,
    as_optimizer,
    find,
    find_objective,
    installed,
    of_object,
    takes_state,
)
from gridsearch.plugins.objects import Identity, identity
from gridsearch.plugins.patched import patched
from gridsearch.plugins.protocols import Dataset, Fetchable, ImageData, Model, Objective, Reading
from gridsearch.plugins.shape_arguments import SHAPE_ARGUMENTS

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "MODELS",
    "OBJECTIVES",
    "OPTIMIZERS",
    "SHAPE_ARGUMENTS",
    "Dataset",
    "Fetchable",
    "Identity",
    "ImageData",
    "Model",
    "Objective",
    "Plugin",
    "Reading",
    "as_augmentation",
    "as_objective",
    "as_optimizer",
    "find",
    "find_objective",
    "identity",
    "installed",
    "of_object",
    "patched",
    "takes_state",
]
