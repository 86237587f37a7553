"""Optuna's dashboard on a store of ours, really served and asked over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import threading

import pytest

from gridsearch.errors import StoreError, UsageError
from gridsearch.records import TrialState
from gridsearch.store import RunnerIdentity, serve_dashboard
from tests.store.readers import only_sqlite, reader

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


@contextlib.contextmanager
def served(store):
    """Serve the dashboard on a free port of the loopback interface; give a function that asks it."""
    urls, up, stop = [], threading.Event(), threading.Event()

    def ready(url):
        urls.append(url)
        up.set()

    thread = threading.Thread(
        target=serve_dashboard, args=(store,), kwargs={"port": 0, "ready": ready, "stop": stop}
    )
    thread.start()
    assert up.wait(60)
    port = int(urls[0].split(":")[2].split("/")[0])

    def ask(path, method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, headers={"Accept-Encoding": "identity", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())

    try:
        yield ask
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def test_the_dashboard_shows_studies_trials_files_and_may_delete(store, make, tmp_path):
    added = store.add(
        make.study(axes=("lr", "norm")), make.drafts({"lr": [0.1, 0.01], "norm": ["none", "standard"]})
    )
    done, bad, _ = store.claim(added.ids[:3], owner=RunnerIdentity.current(), pack="p", lease=60)
    store.record_epochs([make.epoch(done, e, e / 10) for e in (1, 2, 3)])
    (tmp_path / "confusion.png").write_bytes(PNG)
    store.add_artifact(study="digits", number=0, path=tmp_path / "confusion.png")
    store.finish(make.finished(done, 0.3))
    store.finish(
        make.finished(bad, state=TrialState.DIVERGED, metrics={"val_loss": float("nan")}, message="NaN")
    )
    (tmp_path / "per_class.csv").write_text("class,recall\n")
    store.add_artifact(study="digits", path=tmp_path / "per_class.csv")

    with served(store) as ask:
        status, page, _ = ask("/dashboard")
        assert status == 200
        assert b"<html" in page.lower()

        summary = json.loads(ask("/api/studies")[1])["study_summaries"][0]
        assert (summary["study_name"], summary["directions"]) == ("digits", ["maximize"])
        where = f"/api/studies/{summary['study_id']}"
        detail = json.loads(ask(where)[1])
        assert [t["state"] for t in detail["trials"]] == ["Complete", "Fail", "Running", "Waiting"]
        assert detail["objective_names"] == ["val_accuracy"]
        assert [v["value"] for v in detail["trials"][0]["intermediate_values"]] == [0.1, 0.2, 0.3]
        shown = {p["name"]: p["param_external_value"] for p in detail["trials"][0]["params"]}
        assert shown == {"lr": "0.1", "norm": "none"}
        assert detail["best_trials"][0]["number"] == 0
        assert "digits" in detail["note"]["body"]
        notes = [trial["note"]["body"] for trial in detail["trials"]]
        assert [re.search(r"^\| lr \| (\S+) \|$", note, flags=re.MULTILINE)[1] for note in notes] == [
            "0.1",
            "0.1",
            "0.01",
            "0.01",
        ]
        assert "gridsearch trial 3 --study digits" in notes[3]

        (picture,) = detail["trials"][0]["artifacts"]
        trial_id = detail["trials"][0]["trial_id"]
        path = f"/artifacts/{summary['study_id']}/{trial_id}/{picture['artifact_id']}"
        status, body, headers = ask(path)
        assert (status, body, headers["Content-Type"]) == (200, PNG, "image/png")
        (table,) = detail["artifacts"]
        assert ask(f"/artifacts/{summary['study_id']}/{table['artifact_id']}")[1] == b"class,recall\n"

        assert ask("/api/studies", Host="evil.example:80")[0] == 403, "a foreign name must not reach it"
        assert ask("/api/studies", Host="localhost:8080")[0] == 200

        store.claim(added.ids, owner=RunnerIdentity.current(), pack="q", lease=60)  # it does not hold a lock
        assert ask(where, "DELETE", **{"Content-Type": "application/json"})[0] == 204
    assert store.studies() == []
    with pytest.raises(StoreError, match="study deleted"):
        store.open_counts(added.study_id)


@only_sqlite
def test_a_file_of_the_same_name_replaces_the_one_shown_before(store, make, tmp_path):
    store.add(make.study(), make.drafts({"lr": [0.1]}))
    for content in (b"one", b"two"):
        (tmp_path / "a.png").write_bytes(content)
        store.add_artifact(study="digits", number=0, path=tmp_path / "a.png")
    (copy,) = (store.home.root / ".artifacts").iterdir()
    assert copy.read_bytes() == b"two"
    assert list(store.artifacts("digits", 0)) == ["a.png"]


@only_sqlite
def test_a_large_study_gives_its_trials_no_notes_since_the_dashboard_reads_all_for_each(store, make):
    store.add(make.study(), make.drafts({"lr": [i / 1000 for i in range(1, 202)]}))
    with served(store) as ask:
        detail = json.loads(ask("/api/studies/1")[1])
    assert len(detail["trials"]) == 201
    assert {trial["note"]["body"] for trial in detail["trials"]} == {""}
    assert detail["note"]["body"]


def test_files_given_with_a_result_are_there_when_a_viewer_first_sees_it_finished(store, make):
    from optuna.storages import get_storage

    added = store.add(make.study(), make.drafts({"lr": [0.1, 0.2]}))
    first, second = store.claim(added.ids, owner=RunnerIdentity.current(), pack="p", lease=60)
    cached = get_storage(reader(store))  # as a viewer: reads a finished trial once
    (study,) = cached.get_all_studies()
    assert [t.state.name for t in cached.get_all_trials(study._study_id)] == ["RUNNING"] * 2
    shown = {first.id: {"confusion.png": PNG, "per_class.csv": b"class\n"}, second.id: {"a.png": PNG}}
    assert store.finish_many([make.finished(first), make.finished(second)], shown=shown) == [True, True]
    seen = [
        [json.loads(v) for k, v in trial.system_attrs.items() if k.startswith("artifacts:")]
        for trial in cached.get_all_trials(study._study_id)
    ]
    assert [{a["filename"] for a in files} for files in seen] == [
        {"confusion.png", "per_class.csv"},
        {"a.png"},
    ]
    for files in seen:
        for each in files:
            assert (store.home.artifact_dir / each["artifact_id"]).is_file()
    assert set(store.artifacts("digits", 0)) == {"confusion.png", "per_class.csv"}


@only_sqlite
def test_files_of_a_result_that_lost_its_lease_are_shown_by_nobody(store, make):
    added = store.add(make.study(), make.drafts({"lr": [0.1]}))
    (trial,) = store.claim(added.ids, owner=RunnerIdentity.current(), pack="p", lease=60)
    store.release([(trial.id, trial.attempt)])
    assert store.finish_many([make.finished(trial)], shown={trial.id: {"a.png": PNG}}) == [False]
    assert store.artifacts("digits", 0) == {}
    assert not store.home.artifact_dir.exists()


@only_sqlite
def test_a_file_of_a_trial_or_study_that_is_not_there_is_refused(store, make, tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    store.add(make.study(), make.drafts({"lr": [0.1]}))
    with pytest.raises(StoreError, match="no study named 'other'"):
        store.add_artifact(study="other", path=tmp_path / "a.png")
    with pytest.raises(StoreError, match="no trial 7"):
        store.add_artifact(study="digits", number=7, path=tmp_path / "a.png")
    assert not (store.home.root / ".artifacts").exists(), "nothing is left behind"


@only_sqlite
def test_a_port_that_is_taken_is_a_wrong_usage(store):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UsageError, match=r"cannot listen on 127\.0\.0\.1"),
    ):
        serve_dashboard(store, port=taken.getsockname()[1])
    with pytest.raises(UsageError, match="cannot listen"):
        serve_dashboard(store, port=99999)


SERVER = """
import sys
from pathlib import Path
from gridsearch.store import open_store, serve_dashboard
home = Path(sys.argv[1])
with open_store(f"sqlite:///{home}/gridsearch.db", home=home, create=True) as store:
    for _ in range(2):
        print(serve_dashboard(store, port=0, ready=lambda url: print(url, flush=True)), flush=True)
"""


def test_the_server_ends_cleanly_at_sigint_and_at_sigterm(home, python):
    server = python(SERVER, home)
    for number in (signal.SIGINT, signal.SIGTERM):
        assert server.stdout.readline().startswith("http://127.0.0.1:"), server.stderr.read()
        server.send_signal(number)
        assert server.stdout.readline().strip() == str(int(number))
    assert server.communicate(timeout=30) == ("", "")
    assert server.returncode == 0


@only_sqlite
def test_only_its_own_pages_may_ask_the_dashboard(store, make):
    store.add(make.study(axes=("lr",)), make.drafts({"lr": [0.1]}))
    with served(store) as ask:
        study = json.loads(ask("/api/studies")[1])["study_summaries"][0]["study_id"]
        foreign = {"Origin": "http://example.com"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}
        for headers in foreign:
            assert ask("/api/studies", **headers)[0] == 403
            assert ask(f"/api/studies/{study}", method="DELETE", **headers)[0] == 403
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert ask("/dashboard", **link)[0] == 200, "a link on another page may lead here"
        assert ask(f"/api/studies/{study}", method="DELETE", **link)[0] == 403
        own = {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}
        assert ask("/api/studies", **own)[0] == 200
    assert [s.name for s in store.studies()] == ["digits"]
