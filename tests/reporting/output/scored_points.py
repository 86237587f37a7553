"""Studies of one axis, from the results of each point and seed."""

from __future__ import annotations

import math

from gridsearch.records import TrialState


def scored(study, table, **how):
    """Return a study of one axis, by point and seed; a None is a failed trial, a NaN a diverged one."""
    builder = study({"batch": list(range(1, len(table) + 1))}, seeds=len(table[0]), **how)
    for number, value in enumerate(v for row in table for v in row):
        if value is None or math.isnan(value):
            builder.lose(number, TrialState.FAILED if value is None else TrialState.DIVERGED, "boom")
        else:
            builder.score(number, value)
    return builder


def losses(study, table, factor=1.0, offset=0.0, direction="minimize", **how):
    builder = study({"batch": list(range(1, len(table) + 1))}, seeds=len(table[0]), **how)
    for number, value in enumerate(v for row in table for v in row):
        builder.score(number, 0.5, val_loss=factor * value + offset)
    return builder.data(metric="val_loss", direction=direction)
