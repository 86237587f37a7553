"""A run tells how it ended to those who asked, by Apprise, to a real server; and nothing of it shows the URL."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import gridsearch as gs
from gridsearch.cli import main
from gridsearch.errors import GridsearchWarning, StoreError
from gridsearch.service.run import running
from gridsearch.service.run.notification import without_secrets

pytest.importorskip("apprise")

FIT = """
def fit(params, seed):
    if params["a"] == 9:
        raise ValueError("nine")
    if params["a"] == 8:
        raise KeyboardInterrupt
    return {"value": params["a"]}
"""
SECRET = "s3cret-token"


@pytest.fixture
def server():
    """An HTTP server on loopback that keeps what is posted to it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answer[0])
            self.end_headers()

        def log_message(self, *args):
            pass

    got, answer = [], [200]
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    server.got, server.answer = got, answer
    server.url = f"json://me:{SECRET}@127.0.0.1:{server.server_port}/"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRIDSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GRIDSEARCH_NOTIFY", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fit.py").write_text(FIT)
    return tmp_path


RUN = [
    "run",
    "--objective",
    "fit.py:fit",
    "--study",
    "s",
    "--executor",
    "inline",
    "--no-report",
    "-q",
    "--grid",
]


def assert_no_secret(home, *texts):
    assert not any(SECRET in text for text in texts)
    for path in home.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_a_run_that_ends_says_what_won_and_keeps_no_url(home, server, capfd):
    assert main([*RUN, "a=1,2", "--notify", server.url]) == 0
    (message,) = server.got
    assert message["title"] == "gridsearch: s has ended"
    assert message["message"].startswith("a=2 is best: 2 value")
    assert message["type"] == "success"
    assert_no_secret(home, *capfd.readouterr())
    assert gs.load("s").data.commands[0].endswith("--grid a=1,2 --notify '***'")


def test_failed_trials_are_said_so(home, server, capfd):
    assert main([*RUN, "a=1,9", f"--notify={server.url}"]) == 3
    assert server.got[0]["type"] == "warning"
    assert "1 trial failed." in server.got[0]["message"]
    assert_no_secret(home, *capfd.readouterr())


def test_a_run_that_breaks_off_says_so_and_the_error_stays_what_it_is(home, server, monkeypatch, capfd):
    def broken(*args, **how):
        raise StoreError("the disk is gone")

    monkeypatch.setattr(running, "train_waiting", broken)
    assert main([*RUN, "a=1,2", "--notify", server.url]) == 4
    assert (server.got[0]["title"], server.got[0]["message"]) == ("gridsearch: s failed", "the disk is gone")
    assert server.got[0]["type"] == "failure"
    assert_no_secret(home, *capfd.readouterr())


def test_an_interrupted_run_says_so(home, server, monkeypatch):
    def interrupted(*args, **how):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "train_waiting", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gs.run(
            grid={"a": [1]},
            objective="fit.py:fit",
            study="s",
            executor="inline",
            quiet=True,
            notify=server.url,
        )
    assert server.got[0]["title"] == "gridsearch: s was interrupted"


def test_a_message_that_cannot_be_delivered_is_a_warning_and_the_run_is_none_the_worse(home, server, capfd):
    server.answer[0] = 500
    assert main([*RUN, "a=1,2", "--notify", server.url]) == 0
    error = capfd.readouterr().err
    assert "--notify json://...: the message could not be delivered" in error
    assert SECRET not in error
    with pytest.warns(GridsearchWarning, match="could not be delivered"):
        gs.run(
            grid={"a": [3]},
            objective="fit.py:fit",
            study="s",
            executor="inline",
            quiet=True,
            report=False,
            notify=[server.url],
        )
    assert len(gs.load("s").points) == 3


def test_the_environment_may_name_where_to(home, server, monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_NOTIFY", f"{server.url} {server.url}x")
    assert main([*RUN, "a=1"]) == 0
    assert (
        main(
            ["run", "--study", "s", "--objective", "fit.py:fit", "--executor", "inline", "--no-report", "-q"]
        )
        == 0
    )
    assert len(server.got) == 4


@pytest.mark.parametrize(
    ("url", "line"),
    [
        (f"jsn://{SECRET}", "--notify jsn://...: Apprise knows no such service; did you mean 'json'?"),
        (f"slack://{SECRET}", "--notify slack://...: something that this service needs is missing"),
        (SECRET, "--notify (a text that is no URL): Apprise knows no such service"),
    ],
)
def test_a_wrong_url_is_refused_before_the_run_in_words_that_do_not_show_it(home, capfd, url, line):
    assert main([*RUN, "a=1", "--notify", url]) == 2
    error = capfd.readouterr().err
    assert line in error
    assert SECRET not in error
    assert len(error.strip().splitlines()) <= 2
    assert not (home / "home").exists()


def test_without_apprise_the_extra_is_named(home, capfd, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "apprise", None)
    assert main([*RUN, "a=1", "--notify", "json://localhost"]) == 2
    assert "pip install 'gridsearch[notify]'" in capfd.readouterr().err


def test_no_word_after_notify_is_kept():
    words = ["run", "--notify", "json://a", "--grid", "lr=1", "--notify=json://b", "--notify", "--notify"]
    assert without_secrets(words) == [
        "run",
        "--notify",
        "***",
        "--grid",
        "lr=1",
        "--notify=***",
        "--notify",
        "***",
    ]
