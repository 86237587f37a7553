"""Kill it anywhere, refuse it the disk, stop it: nothing is lost, nothing is doubled, and no byte is another."""

from __future__ import annotations

import pytest

from tests.benchmarks import chaos

pytestmark = pytest.mark.end_to_end


def test_twenty_kills_lose_nothing_double_nothing_and_change_no_byte(tmp_path):
    outcome = chaos.chaos(tmp_path, 20, seed=7)
    assert not outcome.damage, outcome.damaged
    assert outcome.kills >= 20
    assert outcome.happened["kill worker"]
    assert outcome.resumed, "starts that found a checkpoint"
