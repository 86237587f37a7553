"""Plug-ins: what models, datasets and objectives are, how one is found, and what addresses its code.

`protocols` says what they are; `lookup` finds one by name, file or module, or takes an object, and `callables` says
which can be called as what; `file_loader` loads files with modules of their own, and `arithmetic` notes how these set
the process to compute; `shape_arguments` says which arguments mean the data's shape; `objects` says what an object from
Python is, from its module's `source_files`, where that is loaded as written (`loaded_source`), or from its code and
values (`value_address`); `asked` finds what code reads of them besides; `patched` what the session has put into
installed modules.
"""

from gridsearch.plugins.callables import (
    as_augmentation,
    as_objective,
    as_optimizer,
    check_called,
    find_objective,
    takes_state,
)
from gridsearch.plugins.lookup import (
    AUGMENTATIONS,
    DATASETS,
    MODELS,
    OBJECTIVES,
    OPTIMIZERS,
    Plugin,
    find,
    installed,
    of_object,
    parameters_of,
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
    "check_called",
    "find",
    "find_objective",
    "identity",
    "installed",
    "of_object",
    "parameters_of",
    "patched",
    "takes_state",
]
