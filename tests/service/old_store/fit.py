"""A function that imports nothing of its author's own."""

import math


def f(params, seed):
    return {"loss": math.cos(params["x"]) + seed}
