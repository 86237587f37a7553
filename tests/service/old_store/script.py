"""A function of a script."""

import math

import gridsearch as gs


def f(params, seed):
    return {"loss": math.cos(params["x"]) + seed}


kinds = {"metric": "loss", "direction": "minimize", "study": "script", "home": "h"}
found = gs.run(objective=f, grid={"x": [1, 2]}, quiet=True, report=False, **kinds)
