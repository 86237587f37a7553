"""Networks drawn of what compiled steps are made of: packs, with whatever recipes, give what plain loops give.

`GRIDSEARCH_PLANS=2000 pytest tests/training/lanes/test_random_plans.py` goes through so many; `plan_fuzzer` does in
processes of their own.  Every run has the few whose numbers stand here: all types, and most layers.
"""

from __future__ import annotations

import os

import pytest

from tests.training.compilers import needs_compiler
from tests.training.held_plans import hold
from tests.training.random_plans import draw

SOME = (1, 3, 6, 7, 8, 13, 18, 24, 28, 142)
NUMBERS = range(int(os.environ["GRIDSEARCH_PLANS"])) if "GRIDSEARCH_PLANS" in os.environ else SOME


@needs_compiler
@pytest.mark.parametrize("number", NUMBERS)
def test_a_pack_of_what_can_be_planned_gives_what_plain_loops_give(number):
    hold(draw(number))
