"""After a run the last lines say how to look at its report and what comes next; `--open` opens it where that can be."""

from __future__ import annotations

import shlex
import sys
import webbrowser
from typing import TYPE_CHECKING

import pytest

import gridsearch as gs
from gridsearch.cli import next_steps
from gridsearch.display import Lines

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.end_to_end

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")


@pytest.fixture
def page(tmp_path, monkeypatch) -> Path:
    for name in DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    found = tmp_path / "my runs" / "index.html"
    found.parent.mkdir()
    found.write_text("<p>here</p>")
    return found


def test_a_report_is_opened_by_the_systems_own_command_or_named_for_a_browser(page, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    assert next_steps.look_at(page) == "open 'my runs/index.html' in a browser"
    (tmp_path / "xdg-open").write_text("#!/bin/sh\n")
    (tmp_path / "xdg-open").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert next_steps.look_at(page).startswith("open "), "without a display nothing would open it"
    monkeypatch.setenv("DISPLAY", ":0")
    assert shlex.split(next_steps.look_at(page)) == ["xdg-open", "my runs/index.html"]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert shlex.split(next_steps.look_at(page)) == ["open", "my runs/index.html"]


def test_open_calls_the_users_browser_and_without_a_display_says_so(page, monkeypatch, capsys, tmp_path):
    lines = Lines(no_color=True)
    monkeypatch.setattr(sys, "platform", "linux")
    next_steps.open_page(lines, page)
    assert "no display here" in capsys.readouterr().err
    called = tmp_path / "called"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {shlex.quote(str(called))}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    monkeypatch.setattr(webbrowser, "_tryorder", None)  # it reads $BROWSER once
    next_steps.open_page(lines, page)
    assert called.read_text() == page.as_uri()
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("undrawn")
def test_a_run_ends_with_what_to_do_next(cli, tmp_path, monkeypatch):
    for name in DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    grid = ("--dataset", "digits", "--model", "mlp", "--epochs", "1", "--executor", "inline", "--lanes", "2")
    done = cli("run", "--grid", "lr=.01,.001", *grid, "--open")
    assert done.code == 0, done.err
    opened, best = done.err.splitlines()[-2:]
    assert opened.split()[:2] == ["next:", "open"]
    assert "home/digits/report/index.html" in opened
    assert best.split() == ["gridsearch", "best", "--study", "digits"]
    assert "--open: there is no display here" in done.err
    assert "next:" not in cli("run", "--study", "digits", "-q").err
    assert "next:" not in cli("run", "--study", "digits", "--json").err


@pytest.fixture
def opened(tmp_path, monkeypatch) -> list[str]:
    """The pages that the user's browser was asked to open."""
    pages: list[str] = []
    monkeypatch.setenv("BROWSER", "any")
    monkeypatch.setattr(webbrowser, "open", lambda address: pages.append(address) or True)
    return pages


def function(tmp_path) -> tuple[str, ...]:
    (tmp_path / "f.py").write_text("def f(params, seed):\n    return {'loss': params['x'] ** 2}\n")
    what = ("--objective", "f.py:f", "--metric", "loss", "--direction", "minimize", "--executor", "inline")
    return ("run", *what, "--grid", "x=1,2", "--study")


def test_every_form_of_a_report_is_opened_and_one_that_is_not_made_is_refused(cli, tmp_path, opened, home):
    assert cli(*function(tmp_path), "f", "--open", "--json").code == 0
    assert opened == [(home / "f" / "report" / "index.html").as_uri()]
    assert cli(*function(tmp_path), "g", "--no-report").code == 0
    assert cli("report", "--study", "f", "--study", "g", "--open").code == 0
    assert opened.pop() == (home / "f+g" / "index.html").as_uri()
    refused = cli(*function(tmp_path), "h", "--no-report", "--open")
    assert (refused.code, refused.error) == (2, "there would be no report to open")
    assert not (home / "h").exists()


def test_python_opens_the_report_of_a_run_and_of_what_is_loaded(cli, tmp_path, opened, home, monkeypatch):
    def f(params, seed):
        return {"loss": params["x"] ** 2}

    how = {"objective": f, "metric": "loss", "direction": "minimize", "executor": "inline", "quiet": True}
    page = home / "f" / "report" / "index.html"
    gs.run({"x": [1, 2]}, open=True, **how)
    gs.run({"x": [1, 2, 3]}, report=False, **how)
    before = page.stat().st_mtime_ns
    assert gs.load("f").show() == page
    assert opened == [page.as_uri()] * 2
    assert page.stat().st_mtime_ns > before, "the report that was there has one point less"
    with pytest.raises(gs.UsageError, match="no report to open"):
        gs.run({"x": [4]}, open=True, report=False, **how)
    for name in DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.warns(gs.GridsearchWarning, match="no display here.*index.html") as caught:
        assert gs.load("f").show() == page
    assert caught[0].filename == __file__
