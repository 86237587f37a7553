"""Renames and deletes studies for Optuna's dashboard, each in one transaction.

The dashboard itself renames by copying every trial and deleting the old study, and deletes over several
transactions; a run beside it would lose what it writes meanwhile, or keep the deletion waiting.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gridsearch.errors import GridsearchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from gridsearch.store.store import Store

_STUDY = re.compile(r"/api/studies/(\d+)(/rename)?/?")
_LONGEST = 512
"""Optuna's column holds so many letters of a study's name."""


def changing(app: WSGIApplication, store: Store) -> WSGIApplication:
    """Return the dashboard's application with our own way to rename and delete a study."""

    def handle(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        found = _STUDY.fullmatch(environ.get("PATH_INFO", ""))
        wanted = (environ["REQUEST_METHOD"], bool(found and found[2]))
        if not found or wanted not in (("POST", True), ("DELETE", False)):
            return app(environ, start_response)
        study_id = int(found[1])
        try:
            status, content = _rename(store, study_id, environ) if found[2] else _delete(store, study_id)
        except UsageError as error:
            status, content = HTTPStatus.BAD_REQUEST, {"reason": error.message}
        except GridsearchError as error:
            status, content = HTTPStatus.INTERNAL_SERVER_ERROR, {"reason": error.message}
        body = json.dumps(content).encode() if content else b""  # no content has no body
        start_response(
            f"{status.value} {status.phrase}",
            [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
        )
        return [body]

    return handle


def _rename(store: Store, study_id: int, environ: WSGIEnvironment) -> tuple[HTTPStatus, dict[str, Any]]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    try:
        asked = json.loads(environ["wsgi.input"].read(length) or "{}")
    except ValueError:
        asked = None
    title = asked.get("study_name") if isinstance(asked, dict) else None
    if not isinstance(title, str) or not 0 < len(title) <= _LONGEST:
        raise UsageError(f"study_name: a name of 1 to {_LONGEST} letters is needed")
    study = store.retitle(study_id, title)
    return _missing(study_id) if study is None else (HTTPStatus.CREATED, study)


def _delete(store: Store, study_id: int) -> tuple[HTTPStatus, dict[str, Any]]:
    there = store.delete_optuna_study(study_id)
    return (HTTPStatus.NO_CONTENT, {}) if there else _missing(study_id)


def _missing(study_id: int) -> tuple[HTTPStatus, dict[str, Any]]:
    return HTTPStatus.NOT_FOUND, {"reason": f"study_id={study_id} is not found"}
