"""The ledger of points and Optuna's record of them in one database, and the files under home.

It stands between the spec (which points are wanted) and the executors (who work on them): it claims, records
and gives back.  Names are imported on first use, so that a command which needs no database loads none.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
