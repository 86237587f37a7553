"""`gridsearch serve` in hostile hands, with a strange store, and around PostgreSQL: it answers in words, and goes on."""

from __future__ import annotations

import io
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from gridsearch import web_server
from gridsearch.cli.commands.live_pages import LARGEST_FORM, LivePages
from gridsearch.service.prepare.options import Places
from gridsearch.service.queries import studies

FUNCTION = """
import pathlib, time

def f(params, seed):
    for step in range(1, 4):
        while params["x"] > 2 and not pathlib.Path("go").exists():
            time.sleep(0.05)
            yield {"loss": params["x"]}
        yield {"loss": params["x"] / step}
"""


def words(command, *grid, study="f"):
    how = ("--executor", "inline", "--no-report", "-q") if command == "run" else ()
    what = ("--objective", "f.py:f", "--metric", "loss", "--direction", "minimize", "--study", study)
    return (command, *what, *how, "--grid", *grid)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home with a study of a function, and beside it the function's file."""
    from gridsearch.cli import main

    folder = tmp_path_factory.mktemp("made")
    (folder / "f.py").write_text(FUNCTION)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GRIDSEARCH_HOME", str(folder / "home"))
        patch.setenv("GRIDSEARCH_CACHE", str(folder / "cache"))
        assert main(words("run", "x=1,2")) == 0
    return folder


@pytest.fixture
def study(made, tmp_path):
    """A study of a function, of which the trials beyond x=2 wait until they may go on."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)


class Client:
    """Asks the pages as a browser does, without a browser or a port.

    Attributes:
        warned: what the server had to say on its terminal.
    """

    def __init__(self, places, store):
        self.warned = []
        self.pages = LivePages(places, store, warn=self.warned.append)

    def ask(self, path, method="GET", *, body=b"", **environ):
        """Return the status and the text of an answer."""
        seen = []
        environ = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), **environ}
        environ |= {"PATH_INFO": path.encode().decode("latin-1"), "REQUEST_METHOD": method}
        text = b"".join(self.pages(environ, lambda status, headers: seen.append((status, dict(headers)))))
        ((status, headers),) = seen
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert int(headers["Content-Length"]) == len(text) or method == "HEAD"
        return int(status.split()[0]), text.decode()

    def page(self, path="/"):
        status, text = self.ask(path)
        assert status == 200, text
        return text

    def token(self):
        return self.page().partition('<meta name="gridsearch-token" content="')[2].partition('"')[0]

    def stop(self, study, body=b"when=now", **environ):
        return self.ask(
            f"/study/{study}/stop", "POST", body=body, HTTP_X_GRIDSEARCH_TOKEN=self.token(), **environ
        )


@pytest.fixture
def client(home, monkeypatch):
    """The pages of the store of this test's home, which are never older than the question."""
    from gridsearch.cli.commands import live_pages

    monkeypatch.setattr(live_pages, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(live_pages, "SHORTEST_REST", 0.0)
    monkeypatch.setattr(live_pages, "REST", 0)
    opened = []

    def make(store=None):
        places = Places.find(home, store)
        opened.append(studies.existing(places))
        return Client(places, opened[-1])

    yield make
    for store in opened:
        store.close()


def test_no_path_leads_anywhere_but_to_the_pages(study, client, home):
    (home / "f" / "report").mkdir(exist_ok=True)
    (home / "f" / "report" / "index.html").symlink_to("/etc/passwd")
    asking = client()
    for path in (
        "/study/f/report/index.html",
        "/study/f/index.html",
        "/study/f/../../gridsearch.db",
        "/study/../",
        "/study/f/..",
        "/../../etc/passwd",
        "//etc/passwd",
        "/study/\0/",
        "/study/f\0/",
        "/study/none/now",
        "/study/\udcff/".encode("utf-8", "surrogateescape").decode("latin-1"),
        f"/study/{'x' * 60_000}/",
        f"/{'a/' * 30_000}",
        "f",
        "",
    ):
        status, text = asking.ask(path)
        assert status == 404, path
        assert len(text) < 300
        assert "root:" not in text
        assert asking.ask(path, "POST")[0] == (405 if not path.endswith("stop") else 404)
    assert asking.ask("/study/f")[0] == 308
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "get", "", "x" * 1000):
        assert asking.ask("/study/f/", method)[0] == 405
    assert asking.warned == []


def test_a_strange_form_stops_nothing_and_is_refused_in_a_line(study, client):
    asking = client()
    for length, body, status in (
        ("many", b"when=now", 400),
        ("-1", b"when=now", 400),
        ("\N{SUPERSCRIPT TWO}", b"when=now", 400),
        ("9" * 5000, b"when=now", 413),
        (str(LARGEST_FORM + 1), b"when=now", 413),
        ("10", b"when=later", 400),
        ("9", b"when=\xff\x00\x1b", 400),
        ("", b"", 200),
        ("40", b"when=now&when=x&study=g", 200),
    ):
        answered, text = asking.stop("f", body, CONTENT_LENGTH=length)
        assert (answered, text.count("\n")) == (status, 1), length
        assert "\x1b" not in text
    assert asking.warned == []


def test_names_of_others_are_text_on_the_pages(study, client, cli, home):
    evil = "<img src=x onerror=alert(1)>"
    asking = client()
    store = asking.pages._store
    assert cli(*words("add", "x=5")).code == 0
    database = sqlite3.connect(home / "gridsearch.db")
    with database:
        database.execute("UPDATE studies SET study_name = ?", (evil,))
        for table, column in _texts(database):
            database.execute(f"UPDATE {table} SET {column} = ?", (evil,))
    database.close()
    for path in ("/", "/study/f/", "/study/f/now"):
        status, text = asking.ask(path)
        assert evil not in text, path
        assert status == 200, text
    assert "&lt;img src=x" in asking.page("/")
    assert store.names() == ["f"]


def _texts(database):
    """Give what of the ledger may hold any text."""
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        for _, column, *_ in database.execute(f"PRAGMA table_info({table})"):
            if column in ("dataset", "error", "host"):
                yield table, column


def test_a_store_that_breaks_while_it_is_served_is_a_line_and_is_served_again_when_it_is_back(
    study, client, home
):
    asking = client()
    assert "All 2 trials have ended" in asking.page()
    database, aside = home / "gridsearch.db", home / "aside.db"
    database.rename(aside)
    for path in ("/", "/study/f/", "/study/f/now"):
        status, text = asking.ask(path)
        assert (status, text.count("\n")) == (503, 1), text
    aside.rename(database)
    assert "All 2 trials have ended" in asking.page()
    assert asking.warned == []


def test_a_study_that_is_damaged_is_a_line_and_the_others_are_shown(study, client, cli, home):
    assert cli(*words("add", "x=5", study="g")).code == 0
    database = sqlite3.connect(home / "gridsearch.db")
    with database:
        database.execute(
            "UPDATE gridsearch_trials SET settings = 'no JSON' "
            "WHERE study_id = (SELECT id FROM gridsearch_studies WHERE name = 'g')"
        )
    database.close()
    asking = client()
    text = asking.page()
    assert "the store holds a trial whose settings this gridsearch cannot read" in text
    assert "All 2 trials have ended: 2 complete." in text
    assert asking.ask("/study/g/")[0] == 503
    assert cli("status").code == 4
    assert asking.warned == []


def test_a_page_that_cannot_be_made_is_a_line_and_is_said_once_and_the_list_stays(study, client, monkeypatch):
    from gridsearch.cli.commands import live_pages

    def fail(*_args, **_how):
        raise ValueError("bad\ncell")

    asking = client()
    monkeypatch.setattr(live_pages, "live_report", fail)
    for _ in range(2):
        assert asking.ask("/study/f/") == (500, "a bug in gridsearch: ValueError: bad cell\n")
    assert asking.warned == ["a bug in gridsearch: ValueError: bad cell (at '/study/f/')"]
    assert "All 2 trials have ended" in asking.page()


class Served:
    """The server itself, in a thread, and bytes sent to it."""

    def __init__(self, app):
        self.stop, ready, self.address = threading.Event(), threading.Event(), ()

        def begin(url):
            self.address = ("127.0.0.1", int(url.rpartition(":")[2]))
            ready.set()

        how = {"name": "serve", "host": "127.0.0.1", "port": 0, "ready": begin, "stop": self.stop}
        self.thread = threading.Thread(target=web_server.serve_application, args=(app,), kwargs=how)
        self.thread.start()
        assert ready.wait(60)

    def send(self, request):
        """Return the status of the answer to these bytes, 0 where it has none."""
        with socket.create_connection(self.address, timeout=60) as client:
            client.sendall(request)
            answer = b""
            while b"\r\n" not in answer and (more := client.recv(4096)):
                answer += more
        return int(answer.split()[1]) if answer.startswith(b"HTTP/") else 0

    def end(self):
        self.stop.set()
        self.thread.join()


def test_whatever_bytes_come_the_server_answers_the_next_request_and_leaves_the_terminal_alone(
    study, client, monkeypatch, capsys
):
    monkeypatch.setattr(web_server._QuietHandler, "timeout", 0.2)
    served = Served(client().pages)
    own = f"Host: 127.0.0.1:{served.address[1]}\r\n"
    many = "A: b\r\n" * 200
    good = f"GET / HTTP/1.1\r\n{own}\r\n".encode()
    capsys.readouterr()
    try:
        for request, status in (
            (good, 200),
            (b"GET / HTTP/1.1\r\n\r\n", 403),
            (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
            (f"GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example:{served.address[1]}\r\n\r\n".encode(), 403),
            (f"GET / HTTP/1.1\r\n{own}Origin: http://evil.example\r\n\r\n".encode(), 403),
            (f"POST /study/f/stop HTTP/1.1\r\n{own}Sec-Fetch-Site: cross-site\r\n\r\n".encode(), 403),
            (f"POST /study/f/stop HTTP/1.1\r\n{own}Content-Length: 9\r\n\r\n".encode(), 403),
            (f"GET /{'a' * 70_000} HTTP/1.1\r\n{own}\r\n".encode(), 414),
            (f"GET /study/{'%00' * 20_000}/ HTTP/1.1\r\n{own}\r\n".encode(), 404),
            (f"GET / HTTP/1.1\r\n{own}{many}\r\n".encode(), 431),
            (f"GET http://evil.example/ HTTP/1.1\r\n{own}\r\n".encode(), 404),
            (f"GET /study/%2e%2e/%2e%2e/gridsearch.db HTTP/1.1\r\n{own}\r\n".encode(), 404),
            (b"\x16\x03\x01\x02\x00\x01\x00\r\n", 0),
            (b"GET\r\n\r\n", 0),
            (b"GET / HTTP/9.9\r\n\r\n", 0),
            (b"", 0),
            (b"GET / HT", 0),
        ):
            assert served.send(request) == status, request[:80]
        for _ in range(20):  # clients that leave before the answer
            with socket.create_connection(served.address) as client_:
                client_.sendall(good)
                client_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert served.send(good) == 200
    finally:
        served.end()
    assert capsys.readouterr() == ("", "")


@pytest.mark.postgresql
def test_around_postgresql_workers_are_shown_and_stopped_from_the_page(
    cli, client, store_database, tmp_path, home
):
    (tmp_path / "f.py").write_text(FUNCTION)
    where = ("--store", store_database)
    assert cli(*words("run", "x=1,2"), *where).code == 0
    assert cli(*words("add", "x=3,4", study="g"), *where).code == 0
    asking = client(store_database)
    assert asking.ask("/study/\0/")[0] == 404
    assert asking.ask("/study/\0/stop", "POST")[0] == 403
    assert store_database.partition("?")[0] in asking.page()
    assert "no runner is training it" in asking.page("/study/g/now")
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gridsearch",
            "worker",
            *where,
            "--objective",
            "f.py:f",
            "--executor",
            "inline",
        ],
        cwd=tmp_path,
        env={**os.environ, "GRIDSEARCH_HOME": str(home)},
        stderr=subprocess.DEVNULL,
    )
    try:
        trains = f"process {worker.pid} on {socket.gethostname()} trains trial"
        _await(lambda: trains in asking.page("/study/g/now"))
        assert trains in asking.page()
        assert asking.page("/study/g/now").count("data-stop") == 2
        assert "Stop after this step" in asking.page("/study/g/now"), "a function has no epochs"
        assert f"process {worker.pid}" in asking.stop("g")[1]
        _await(lambda: trains not in asking.page("/study/g/now"))
        waits = f"process {worker.pid} on {socket.gethostname()} waits for trials"
        _await(lambda: waits in asking.page())
        assert asking.stop("f") == (200, "no runner is training study 'f'\n")
    finally:
        worker.kill()
        worker.wait()
    assert "All 2 trials have ended: 2 complete." in asking.page("/study/f/now")
    assert '"x"' in asking.page("/study/f/")


def _await(holds):
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)
