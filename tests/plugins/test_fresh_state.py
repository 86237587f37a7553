"""A trial finds the user's modules as their import leaves them, whatever trials before it have left there."""

from __future__ import annotations

import pytest

from gridsearch.plugins.file_loader import load_file, renew

MODULE = """
import random
import numpy as np
import torch
from helper import SEEN

CALLS = 0
LIMITS = {"low": [1, 2]}
TABLE = list(range(5000))
DRAWS, NUMPY, OLD, TORCH = random.Random(1), np.random.default_rng(1), np.random.RandomState(1), torch.Generator()

class Net:
    made = 0
    kinds = []

def build():
    global CALLS, LATER
    CALLS += 1
    LATER = getattr(Net, "later", 0) + 1
    Net.made += 1
    Net.later = LATER
    Net.kinds.append(CALLS)
    LIMITS["low"].append(CALLS)
    SEEN.append(CALLS)
    TABLE.append(0)
    draws = DRAWS.random(), NUMPY.random(), OLD.random_sample(), float(torch.rand(1, generator=TORCH))
    return CALLS, LATER, Net.made, list(Net.kinds), list(LIMITS["low"]), list(SEEN), draws
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "helper.py").write_text("SEEN = []\n")
    (tmp_path / "own.py").write_text(MODULE)
    return load_file(tmp_path / "own.py").module


def test_what_one_trial_leaves_in_a_module_the_next_one_does_not_find(own):
    first = own.build()
    assert own.build() != first
    for _ in range(2):
        renew(own.build)
        assert own.build() == first


def test_what_a_module_has_read_stays_with_what_says_that_it_is_read(tmp_path):
    (tmp_path / "data.py").write_text(
        "import torch\nIMAGES, count, is_read = [], 0, False\n"
        "def read():\n"
        "    global count, is_read\n"
        "    if not is_read:\n"
        "        IMAGES.extend(torch.zeros(4, 2))\n"
        "        count, is_read = len(IMAGES), True\n"
        "    return count, len(IMAGES)\n"
    )
    read = load_file(tmp_path / "data.py").module.read
    for _ in range(2):
        assert read() == (4, 4)
        renew(read)


def test_a_name_that_is_given_another_object_has_its_own_again(own):
    seen = own.Net.kinds
    own.build()
    own.LIMITS = 3
    del own.CALLS
    renew(own.build)
    assert own.LIMITS == {"low": [1, 2]}
    assert own.CALLS == 0
    assert own.Net.kinds is seen
    assert seen == []


def test_modules_that_are_not_of_a_users_file_are_left_alone():
    import json

    json.gridsearch_test = 1
    try:
        renew(json.dumps)
        assert json.gridsearch_test == 1
    finally:
        del json.gridsearch_test


def test_the_results_of_a_function_do_not_depend_on_the_calls_before(cli, tmp_path):
    code = "calls = []\ndef f(params, seed):\n    calls.append(1)\n    return {'value': len(calls)}\n"
    (tmp_path / "f.py").write_text(code)
    words = ("--executor", "inline", "--no-report", "--json")
    done = cli("run", "--objective", "f.py:f", "--grid", "x=1,2,3", *words)
    assert [trial["value"] for trial in done.json["trials"]] == [1, 1, 1]
