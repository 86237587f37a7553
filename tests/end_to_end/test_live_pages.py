"""`gridsearch serve`: the reports of a home in a real browser, while trials run; and the button that stops them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest

from tests.browser import drawn

pytestmark = [
    pytest.mark.end_to_end,
    # Playwright's own threads close their loops late
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
OBJECTIVE = """
import pathlib, time

def f(params, seed):
    for step in range(1, 4):
        if params["x"] > 2:
            while not pathlib.Path("go").exists():
                time.sleep(0.05)
                yield {"loss": params["x"] / step}
        yield {"loss": params["x"] / step}
"""


def run_words(*grid):
    words = ["run", "--objective", "f.py:f", "--metric", "loss", "--direction", "minimize", "--study", "f"]
    return [*words, "--workers", "1", "--no-report", "-q", "--grid", *grid]


@pytest.fixture
def study(cli, tmp_path):
    """A study of a function, of which the trials beyond x=2 wait until they may go on."""
    (tmp_path / "f.py").write_text(OBJECTIVE)
    assert cli(*run_words("x=1,2", "y=1,2"), "--executor", "inline").code == 0


def get(url, **how):
    with urllib.request.urlopen(urllib.request.Request(url, **how), timeout=60) as answer:
        return answer.read().decode()


def test_a_page_follows_its_study_while_the_reader_stays_and_the_button_stops_the_run(
    study, serve, browse, tmp_path
):
    process, url = serve("serve")
    own = psutil.Process().nice()
    assert psutil.Process(process.pid).nice() == min(own + 10, 19), "those who train come first"
    page = browse.page
    page.goto(url)
    page.get_by_role("link", name="f", exact=True).click()
    page.get_by_role("checkbox", name="y 2: only this").press("Enter")
    page.locator("input[data-for=trials]").fill("seed=0")
    page.locator("#decides, #grid").first.evaluate("h => h.scrollIntoView()")
    top = page.locator("#grid").bounding_box()["y"]
    assert page.locator(".controls output").inner_text() == "2 of 4 points (y: 2)"
    run = subprocess.Popen(
        [sys.executable, "-m", "gridsearch", *run_words("x=0.5,3,4", "y=1,2")], stderr=subprocess.DEVNULL
    )
    try:
        page.locator(".strip", has_text=re.compile(r"[12] running\.")).wait_for()
        page.locator(".controls output", has_text="5 of 10 points (y: 2)").wait_for()
        assert page.locator("input[data-for=trials]").input_value() == "seed=0"
        drawn(page)
        page.wait_for_timeout(300)
        assert abs(page.locator("#grid").bounding_box()["y"] - top) < 3
        page.locator(".strip", has_text=f"process {run.pid} on ").wait_for()  # nobody's, between two trials
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Stop now").click()
        page.locator(".said", has_text=f"process {run.pid} on").wait_for()
        assert run.wait(timeout=60) == 0
    finally:
        run.kill()
        run.wait()
    page.get_by_text("continues").first.wait_for()
    page.locator("button[data-stop]").first.wait_for(state="detached")
    assert browse.problems == []
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130


def test_nobody_else_may_stop_a_run_and_all_else_is_for_reading(study, serve):
    _, url = serve("serve")
    page = f"{url}study/f/"
    text = get(page)
    token = text.partition('<meta name="gridsearch-token" content="')[2].partition('"')[0]
    assert len(token) > 20
    own = {"X-Gridsearch-Token": token}
    for headers in (
        {},
        {"X-Gridsearch-Token": "guessed"},
        {**own, "Origin": "http://evil.example"},
        {**own, "Host": "evil.example"},
        {**own, "Sec-Fetch-Site": "cross-site"},
    ):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            get(f"{page}stop", data=b"when=now", headers=headers)
    for method, address, status in (
        ("GET", f"{page}stop", "404"),
        ("POST", page, "405"),
        ("DELETE", page, "405"),
        ("GET", f"{url}study/none/", "404"),
        ("GET", f"{url}%2e%2e/gridsearch.db", "404"),
    ):
        with pytest.raises(urllib.error.HTTPError, match=status):
            get(address, method=method, headers=own)
    assert get(f"{page}stop", data=b"when=epoch", headers=own) == "no runner is training study 'f'\n"
    with urllib.request.urlopen(page, timeout=60) as answer:
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Cache-Control"] == "no-store"


def test_without_a_store_or_with_a_port_that_is_taken_there_is_one_line(cli, home, study):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        result = cli("serve", "--port", str(other.getsockname()[1]))
    assert (result.code, "serve cannot listen on 127.0.0.1" in result.error) == (2, True)
    elsewhere = cli("serve", "--home", str(home.parent / "elsewhere"))
    assert (elsewhere.code, "no store" in elsewhere.error) == (4, True)
    assert not (home.parent / "elsewhere").exists()


def test_a_page_is_made_again_only_when_its_study_has_changed(study, home, monkeypatch):
    from gridsearch.cli.commands import live_pages
    from gridsearch.service.prepare.options import Places
    from gridsearch.service.queries import studies

    made = []
    real = live_pages.live_report
    monkeypatch.setattr(live_pages, "live_report", lambda *a, **k: made.append(1) or real(*a, **k))
    monkeypatch.setattr(live_pages, "LOOK_SECONDS", 0.0)
    places = Places.find(home, None)
    with studies.existing(places) as store:
        pages = live_pages.LivePages(places, store, warn=pytest.fail)

        def asked(path):
            seen = []
            environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
            body = b"".join(pages(environ, lambda status, headers: seen.append(status)))
            assert seen == ["200 OK"]
            return body.decode()

        first = asked("/study/f/")
        assert asked("/study/f/") == first
        assert len(made) == 1
        mark = store.marks()["f"]
        assert f'data-token="{mark}"' in asked("/study/f/now")
        store.request_stop("f", at_once=False)
        assert store.marks()["f"] == mark, "no trial has changed"
        assert "All 4 trials have ended: 4 complete." in asked("/")
        assert json.loads(first.partition('data-figures="studies">')[2].partition("</script>")[0])
        monkeypatch.setattr(type(store), "marks", lambda self: {"f": "other"})
        assert asked("/study/f/") == first, "a page rests before it is made again"
        pages._kept["f"].due = time.monotonic()
        assert 'data-live="other"' in asked("/study/f/")
        assert len(made) == 2
