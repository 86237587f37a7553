"""Servers without a login answer their own pages and their own names, and nobody else's."""

from __future__ import annotations

import pytest

from gridsearch.web_guard import guarded

OWN = {"HTTP_HOST": "localhost:8080"}
LINK = {"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_SEC_FETCH_MODE": "navigate"}


def status(host="127.0.0.1", method="GET", **environ) -> int:
    """Return what a guarded application answers to a request with these headers."""

    def app(_environ, start_response):
        start_response("200 OK", [])
        return [b"secret"]

    seen = []
    body = guarded(app, host=host)(
        {"REQUEST_METHOD": method, **OWN, **environ}, lambda line, _: seen.append(int(line.partition(" ")[0]))
    )
    assert (b"".join(body) == b"secret") == (seen == [200])
    return seen[0]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"HTTP_ORIGIN": "http://localhost:8080"},
        {"HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_ORIGIN": "http://localhost:8080"},
        {"HTTP_SEC_FETCH_SITE": "none"},
        {"HTTP_HOST": "[::1]:8080"},
        {"HTTP_HOST": "LOCALHOST"},
    ],
)
def test_its_own_pages_and_programs_are_answered(method, headers):
    assert status(method=method, **headers) == 200


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("host", ["127.0.0.1", "192.168.1.5", "0.0.0.0"])
@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_ORIGIN": "http://evil.example"},
        {"HTTP_ORIGIN": "null"},
        {"HTTP_ORIGIN": "http://localhost:3000"},
        {"HTTP_ORIGIN": "http://localhost:8080.evil.example"},
        {"HTTP_SEC_FETCH_SITE": "cross-site"},
        {"HTTP_SEC_FETCH_SITE": "same-site", "HTTP_ORIGIN": "http://localhost:3000"},
        {"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_SEC_FETCH_MODE": "cors"},
    ],
)
def test_pages_of_other_sites_are_refused_wherever_it_listens(method, host, headers):
    assert status(host=host, method=method, **headers) == 403


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:8080", "localhost.evil.example", "", "10.0.0.1"]
)
def test_on_the_loopback_interface_only_its_own_names_are_answered(name):
    assert status(HTTP_HOST=name) == 403
    assert status(host="10.0.0.1", HTTP_HOST=name) == 200


def test_a_link_on_another_page_may_lead_here_and_do_nothing():
    assert status(**LINK) == 200
    assert status(method="POST", **LINK) == 403
