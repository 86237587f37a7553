"""The Python functions, beside the command line: `run`, `load`, `compare`, `best`, `predict`; results as pandas frames.

import gridsearch as gs

result = gs.run(grid={"lr": [0.01, 0.001], "batch": "10..50:10"}, dataset="digits", epochs=5)
result.points.head()
"""

from gridsearch.random_streams import undrawn

with undrawn():
    from gridsearch.api.searches import run
    from gridsearch.api.stored_studies import best, compare, load, predict

__all__ = ["best", "compare", "load", "predict", "run"]
