"""gridsearch: hyperparameter grid search for image classifiers."""

from gridsearch._version import __version__

__all__ = ["__version__"]
