"""What an engine says while the winner is trained again comes once, and a warning as a warning."""

from __future__ import annotations

from gridsearch.records import EngineSays
from gridsearch.service.run.interruption import Interruption
from gridsearch.service.winner.refit import Refit


class Heard:
    def __init__(self):
        self.lines = []

    def say(self, message):
        self.lines.append(("said", message))

    def warn(self, message):
        self.lines.append(("warned", message))


def test_what_an_engine_says_again_is_said_once_and_a_warning_is_one(tmp_path):
    heard = Heard()
    refit = Refit(
        settings=None, seeds=[0, 1], params={}, export=tmp_path, scratch=lambda seed: (tmp_path, seed), retries=0,
        observer=heard, interruption=Interruption(), beat=lambda: None, device="cpu",
    )  # fmt: skip
    for message, warning in (("compiling", False), ("no compiler", True), ("compiling", False)):
        refit._take(EngineSays(message=message, warning=warning))
    assert heard.lines == [("said", "compiling"), ("warned", "no compiler")]
