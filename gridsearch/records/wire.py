"""Records as lines: on the pipe between the coordinator and a worker, and in the spool of a run whose store is away."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from gridsearch.records import (
    EpochEnded,
    Event,
    Exported,
    ExportRequest,
    FileRef,
    Lane,
    LanesGiven,
    LanesWanted,
    LogText,
    Pack,
    PackEnded,
    PackStarted,
    Probed,
    ProbeRequest,
    PruningDecision,
    Settings,
    StepEnded,
    Trial,
    TrialFailed,
    TrialFinished,
    TrialState,
    Unwritable,
    WorkerDied,
    WorkerReady,
    WorkerSetup,
)

_KINDS: dict[str, type[Any]] = {
    c.__name__: c
    for c in (
        WorkerReady,
        PackStarted,
        EpochEnded,
        StepEnded,
        TrialFinished,
        TrialFailed,
        LogText,
        PackEnded,
        LanesWanted,
        Probed,
        Exported,
        Unwritable,
        WorkerDied,
        Pack,
        ProbeRequest,
        ExportRequest,
        LanesGiven,
        PruningDecision,
        WorkerSetup,
    )
}


Command: TypeAlias = Pack | ProbeRequest | ExportRequest | LanesGiven | PruningDecision | WorkerSetup
"""What a worker is sent."""


def encode(record: Event | Command) -> bytes:
    """Turn an event or a command into one line of JSON, without the line's end."""
    content = {
        "kind": type(record).__name__,
        **{f.name: _plain(getattr(record, f.name)) for f in dataclasses.fields(record)},
    }
    return json.dumps(content, separators=(",", ":")).encode()


def decode(line: bytes) -> Any:
    """Read what `encode` wrote.

    Raises:
        ValueError: the line is not such a record.
    """
    content = json.loads(line)
    kind = _KINDS.get(content.pop("kind", None))
    if kind is None:
        raise ValueError(f"not a record: {line[:80]!r}")
    if kind is ProbeRequest:
        content["lanes"] = tuple(content["lanes"])
        content["settings"] = Settings.from_json(content["settings"])
    elif "lanes" in content:
        content["lanes"] = tuple(Lane(_trial(lane["trial"]), lane["scratch"]) for lane in content["lanes"])
    if "files" in content:
        content["files"] = tuple(FileRef(**f) for f in content["files"])
    if "trials" in content:
        content["trials"] = tuple(content["trials"])
    for name in ("seconds_per_image", "memory_mb"):
        if name in content:
            content[name] = {int(lanes): v for lanes, v in content[name].items()}
    if "state" in content:
        content["state"] = TrialState(content["state"])
    return kind(**content)


def _trial(data: dict[str, Any]) -> Trial:
    return Trial(
        **data | {"settings": Settings.from_json(data["settings"]), "state": TrialState(data["state"])}
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value
