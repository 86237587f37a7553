"""The garbage collector rests while somebody asks for it, and then goes on as it was."""

import gc

import pytest

from gridsearch import garbage


@pytest.fixture(autouse=True)
def as_before():
    on = gc.isenabled()
    yield
    (gc.enable if on else gc.disable)()


def test_the_collector_goes_on_after_the_last_that_asked_it_to_rest():
    gc.enable()
    with garbage.resting():
        with garbage.resting():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_collector_that_its_owner_has_switched_off_stays_so():
    gc.disable()
    with garbage.resting():
        pass
    assert not gc.isenabled()


def test_an_error_does_not_leave_the_collector_at_rest():
    gc.enable()
    with pytest.raises(ValueError, match="broken"), garbage.resting():
        raise ValueError("broken")
    assert gc.isenabled()
