"""Commands about a study take the only one where none is named, and list them where there are several."""

from __future__ import annotations

import pytest

from gridsearch.cli import commands

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("undrawn")]

RUN = ("run", "--objective", "fit.py:f", "--grid", "x=1,2", "--executor", "inline")


@pytest.fixture
def studies(cli, tmp_path):
    """Make studies of a function by their names."""
    (tmp_path / "fit.py").write_text("def f(params, seed):\n    return {'value': params['x']}\n")

    def make(*names: str) -> None:
        for name in names:
            assert cli(*RUN, "--study", name, "--no-report").code == 0

    return make


def test_the_only_study_needs_no_name_and_of_several_one_has_to_be_named(cli, studies):
    studies("first")
    assert cli("trial", "0").out == cli("trial", "0", "--study", "first").out
    assert cli("export", "--format", "json").json["study"] == "first"
    assert "no runner is training study 'first'" in cli("stop").out
    assert cli("report", "--json").json["study"] == "first"
    more = cli(
        "run", "--more-seeds", "1", "--top", "1", "--objective", "fit.py:f", "--executor", "inline", "--json"
    )
    assert (more.code, more.json["study"], more.json["new"]) == (0, "first", 1)
    studies("second", "third")
    for command in commands._OF_ONE_STUDY:
        refused = cli(command, *(["0"] if command == "trial" else []))
        assert refused.code == 2
        assert refused.error == "which of 3 studies? first, second, third"
        assert "name one: --study first" in refused.err


def test_before_the_first_study_the_way_to_one_is_said(cli):
    refused = cli("best")
    assert refused.code == 4
    assert "gridsearch run --grid" in refused.err
