"""gridsearch: hyperparameter grid search for image classifiers.

Every point exactly once, many trials per device, a ranking one can trust.  The public names below are imported
when they are first used (PEP 562), so that ``gridsearch --help`` answers at once.
"""

import lazy_loader

from gridsearch.as_imported import watch
from gridsearch.zoo.torchvision import admit

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

watch()  # what users' modules hold from the start shows what a session changes in them
admit()  # whoever imports torchvision from here on: users' own files, in every process of the program
