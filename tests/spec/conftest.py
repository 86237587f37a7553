"""A resolver of two made-up models and a dataset that need no files: what the service is to the spec."""

import hashlib
import json
from collections import Counter

import pytest

from gridsearch.errors import PluginError, SpecError, nearest

MODELS = {"lenet": {"width": 1}, "mlp": {"hidden": 64, "slope": 1.0, "bias": True, "act": None}}


class TableResolver:
    """Knows the models of a table; counts what it is asked."""

    def __init__(self):
        self.asked = Counter()

    def model(self, name, options):
        self.asked["model", name, *sorted(options.items())] += 1
        known = MODELS.get(name.rpartition("/")[2])
        if known is None:
            raise PluginError(
                f"unknown model {name!r}{nearest(name, MODELS)}", hint="see gridsearch models list"
            )
        wrong = [option for option in options if option not in known]
        if wrong:
            raise SpecError(
                [f"model {name!r} takes no option {option!r}{nearest(option, known)}" for option in wrong]
            )
        return name.rpartition("/")[2], known | dict(options), "a" * 64 if "/" in name else None

    def data(self, options):
        self.asked["data", *sorted(options.items())] += 1
        full = {"size": 28} | dict(options)
        return "made-up", full, hashlib.sha256(json.dumps(full, sort_keys=True).encode()).hexdigest()


@pytest.fixture
def resolver():
    return TableResolver()
