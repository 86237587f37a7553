"""A home that was copied elsewhere holds all that a report needs."""

import json
import shutil

import pytest

pytestmark = pytest.mark.end_to_end


def test_a_report_is_made_again_from_a_copied_home_alone(exported, cli, tmp_path, monkeypatch):
    folder = exported.home / "digits" / "report"
    before = cli("report", "--study", "digits", "--home", str(exported.home), "--json").json
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(exported.home, elsewhere, ignore=shutil.ignore_patterns("report"))
    exported.home.rename(tmp_path / "gone")
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "empty"))
    after = cli("report", "--study", "digits", "--home", str(elsewhere), "--json")
    assert after.code == 0, after.err
    assert after.json["points"] == before["points"]
    assert after.json["effects"] == before["effects"]
    assert (elsewhere / "digits" / "report" / "index.html").exists()
    names = {path.name for path in (tmp_path / "gone" / "digits" / "report").iterdir()}
    assert {path.name for path in (elsewhere / "digits" / "report").iterdir()} == names
    ranking = json.loads((elsewhere / "digits" / "report" / "ranking.json").read_text())
    assert ranking["best"] == before["best"]
    assert not folder.exists()
