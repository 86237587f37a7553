"""The doctor says what is installed, what is needed, and what to do."""

from __future__ import annotations

import pytest

from gridsearch.service.queries import doctor


@pytest.mark.parametrize(
    ("installed", "verdict", "detail", "fix"),
    [
        ("5.0.3", "ok", "5.0.3, within <5.1,>=5.0", None),
        ("5.1.0", "bad", "5.1.0, but <5.1,>=5.0 is needed", "pip install 'optuna<5.1,>=5.0'"),
    ],
)
def test_optuna_is_named_with_the_versions_whose_tables_are_known(
    monkeypatch, installed, verdict, detail, fix
):
    monkeypatch.setattr(doctor, "requires", lambda _: ["optuna>=5.0,<5.1", "torch>=2.10"])
    monkeypatch.setattr(doctor, "version", lambda package: installed if package == "optuna" else "9.9")
    found = {finding.subject: finding for finding in doctor._packages()}
    assert (found["optuna"].verdict, found["optuna"].detail, found["optuna"].mend) == (verdict, detail, fix)
    assert found["torch"].detail == "9.9", "a range without an end says nothing of it"
