"""The watch over a model's code, beside others who watch Python."""

from __future__ import annotations

import cProfile
import sys

import pytest
from torch import nn

from gridsearch.training.lanes.compile.source_checks import Watch


@pytest.fixture(autouse=True)
def _nobody_watches():
    before = sys.getprofile()
    sys.setprofile(None)
    yield
    sys.setprofile(before)


def after_the_watch():
    """Do nothing, so that somebody may see it."""


def test_a_profile_of_the_process_goes_on_after_a_model_was_watched():
    profile = cProfile.Profile()
    profile.enable()
    with Watch(nn.Linear(2, 2)):
        pass
    after_the_watch()
    profile.disable()
    assert after_the_watch.__code__ in {row.code for row in profile.getstats()}


def test_a_function_that_watches_is_told_again_after_a_model_was_watched():
    seen = []
    sys.setprofile(lambda frame, *_: seen.append(frame.f_code))
    with Watch(nn.Linear(2, 2)):
        pass
    after_the_watch()
    sys.setprofile(None)
    assert after_the_watch.__code__ in seen
