"""Records as lines: on the pipe between the coordinator and a worker, and in the spool of a run whose store is away."""

from __future__ import annotations

import json
from typing import Any, TypeAlias, get_args

import msgspec

from gridsearch.records.commands import (
    ExportRequest,
    LanesGiven,
    Leave,
    ProbeRequest,
    PruningDecision,
    WorkerSetup,
)
from gridsearch.records.events import Event
from gridsearch.records.settings import Settings
from gridsearch.records.trials import Pack

Command: TypeAlias = Pack | ProbeRequest | ExportRequest | LanesGiven | Leave | PruningDecision | WorkerSetup
"""What a worker is sent."""

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (*get_args(Event), *get_args(Command))}


def encode(record: Event | Command) -> bytes:
    """Turn an event or a command into one line of JSON, without the line's end."""
    content = msgspec.to_builtins(record, enc_hook=dict)  # of a mapping that is no dict
    # Not msgspec's own JSON, which writes NaN and infinity as null.
    return json.dumps((type(record).__name__, content), separators=(",", ":")).encode()


def decode(line: bytes) -> Any:
    """Read what `encode` wrote.

    Raises:
        ValueError: the line is not such a record.
    """
    try:
        kind, content = json.loads(line)
        return msgspec.convert(content, _KINDS[kind], str_keys=True, dec_hook=_settings)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"not a record: {line[:80]!r} ({error})") from error


def _settings(wanted: type[Any], content: Any) -> Any:
    if wanted is not Settings:
        raise NotImplementedError(wanted)  # as msgspec asks of a hook for a type that it does not read
    return Settings.from_json(content)
