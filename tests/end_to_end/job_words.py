"""Words of the runs that end-to-end tests share."""

from __future__ import annotations

DIGITS = ("--dataset", "digits", "--model", "mlp")
GRID = ("--grid", "lr=.01,.001", "batch=25,50,100", *DIGITS, "--epochs", "3")
HERE = ("--executor", "inline")  # where workers are not what a test is about: they take seconds to start
QUICK = (*HERE, "--no-report")  # where the report is neither
