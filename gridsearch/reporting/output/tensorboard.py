"""From a trial's events to one TensorBoard run, written while the trial trains; beside the ranked report.

Every trial has the same tags, and its HParams once with the full set of keys; TensorBoard works out the
experiment (which values each key takes) from the runs, so that a growing grid leaves no stale one behind.
Records are written with the tensorboard package's own protobufs: neither torch nor TensorFlow is needed.
"""

from __future__ import annotations

import functools
import importlib
import io
import math
import os
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from gridsearch.records import EpochEnded, EpochRow, StepEnded, TrialState, Value
from gridsearch.reporting.words.text import printable, show_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SCALARS: Final = {
    "loss/train": "train_loss",
    "loss/val": "val_loss",
    "accuracy/train": "train_accuracy",
    "accuracy/val": "val_accuracy",
    "lr": "lr",
    "images_per_second": "images_per_second",
}
"""Tag of each scalar, and the attribute of an epoch that it shows."""

FINAL_PREFIX: Final = "final/"

_HEADER: Final = struct.Struct("<QI")
_FOOTER_BYTES: Final = 4
_PREFIX: Final = "events.out.tfevents."


class TensorBoardRun:
    """One trial's run; holds no open file, so ten thousand may exist at once.

    `start` begins the run anew, `epoch`, `finish` and `pictures` append.  A run that another process began is appended
    to without `start`; a record that was cut off by a crash is dropped first.

    Args:
        folder: the run's folder; made when something is appended.
    """

    __slots__ = ("_file", "_start", "folder")

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._file: Path | None = None
        self._start: list[bytes] = []

    def start(self, params: Mapping[str, Value]) -> None:
        """Begin the run: earlier events are removed, and HParams written, with what is appended first.

        The session names no group, so that TensorBoard has a row for each trial, replicates too, under its number.

        Args:
            params: every key of the study, for this trial ("none" stands for what it does not have).
        """
        protos = _protos()
        info = protos.plugin.SessionStartInfo(start_time_secs=time.time())
        for name, value in sorted(params.items()):
            held = info.hparams[printable(name)]
            if isinstance(value, bool):
                held.bool_value = value
            elif isinstance(value, int | float) and math.isfinite(value):
                held.number_value = value
            else:
                held.string_value = show_value(value)
        content = protos.plugin.HParamsPluginData(session_start_info=info)
        self._start = _events([_hparams_summary(protos.metadata.SESSION_START_INFO_TAG, content)], step=0)

    def epoch(self, row: EpochRow | EpochEnded | StepEnded) -> None:
        """Append the scalars of an epoch or a function's step at step `row.epoch`; absent ones are left out."""
        if isinstance(row, StepEnded):
            self._append(
                [_scalars({printable(name): value for name, value in row.metrics.items()})], step=row.step
            )
            return
        self._append([_scalars({tag: getattr(row, name) for tag, name in SCALARS.items()})], step=row.epoch)

    def finish(
        self,
        metrics: Mapping[str, float],
        *,
        epochs: int = 0,
        state: TrialState = TrialState.COMPLETE,
    ) -> None:
        """Append the final metrics and the session's end.

        Args:
            metrics: final metrics by name; shown as "final/NAME".
            epochs: the step at which they are shown.
            state: COMPLETE, DIVERGED and PRUNED end a session with success, anything else with failure.
        """
        protos = _protos()
        summaries = [_scalars({FINAL_PREFIX + name: value for name, value in sorted(metrics.items())})]
        good = state in (TrialState.COMPLETE, TrialState.DIVERGED, TrialState.PRUNED)
        end = protos.plugin.SessionEndInfo(
            status=protos.api.STATUS_SUCCESS if good else protos.api.STATUS_FAILURE, end_time_secs=time.time()
        )
        content = protos.plugin.HParamsPluginData(session_end_info=end)
        summaries.append(_hparams_summary(protos.metadata.SESSION_END_INFO_TAG, content))
        self._append(summaries, step=epochs)

    def pictures(self, images: Mapping[str, bytes], *, epochs: int = 0) -> None:
        """Append pictures, also to a run that has ended.

        Args:
            images: PNGs by tag ("confusion", "samples").
            epochs: the step at which they are shown.
        """
        summary = _protos().summary.Summary
        summaries = []
        for tag, png in images.items():
            width, height = struct.unpack(">II", png[16:24])  # the IHDR chunk comes first in every PNG
            image = summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
            summaries.append(summary(value=[summary.Value(tag=tag, image=image)]))
        self._append(summaries, step=epochs)

    def _event_files(self) -> list[Path]:
        return sorted(self.folder.glob(_PREFIX + "*")) if self.folder.is_dir() else []

    def _new_file(self, events: Iterable[bytes] = ()) -> Path:
        """Make an event file under a new name: a reader keeps its place by the name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        seconds, rest = divmod(time.time_ns(), 10**9)
        path = self.folder / f"{_PREFIX}{seconds:010d}.gridsearch.{os.getpid()}.{rest:09d}"
        version = _protos().event.Event(wall_time=time.time(), file_version="brain.Event:2")
        path.write_bytes(_records([version.SerializeToString(), *events]))
        return path

    def _open_file(self) -> Path:
        files = self._event_files()
        if not files:
            return self._new_file()
        whole = _whole_length(files[-1])
        if whole < files[-1].stat().st_size:
            os.truncate(files[-1], whole)
        return files[-1]

    def _append(self, summaries: Iterable[Any], *, step: int) -> None:
        events = _events(summaries, step=step)
        if self._start:
            for old in self._event_files():
                old.unlink(missing_ok=True)
            self._file, self._start = self._new_file([*self._start, *events]), []
            return
        if self._file is None or not self._file.exists():
            self._file = self._open_file()
        place, self._file = self._file, None  # looked for anew if this is cut off
        with place.open("ab") as file:
            file.write(_records(events))
        self._file = place


def _events(summaries: Iterable[Any], *, step: int) -> list[bytes]:
    now = time.time()
    return [
        _protos().event.Event(wall_time=now, step=step, summary=s).SerializeToString()
        for s in summaries
        if s.value
    ]


@functools.cache
def _protos() -> Any:
    """Return the tensorboard package's modules; protobufs are made at import, unknown to type checkers."""
    homes = {
        "api": "plugins.hparams.api_pb2",
        "event": "compat.proto.event_pb2",
        "metadata": "plugins.hparams.metadata",
        "plugin": "plugins.hparams.plugin_data_pb2",
        "record_writer": "summary.writer.record_writer",
        "summary": "compat.proto.summary_pb2",
    }
    return SimpleNamespace(**{k: importlib.import_module(f"tensorboard.{v}") for k, v in homes.items()})


def _records(messages: Iterable[bytes]) -> bytes:
    buffer = io.BytesIO()
    writer = _protos().record_writer.RecordWriter(buffer)
    for message in messages:
        writer.write(message)
    return buffer.getvalue()


def _scalars(values: Mapping[str, float | None]) -> Any:
    summary = _protos().summary
    present = {tag: value for tag, value in values.items() if value is not None}
    return summary.Summary(
        value=[summary.Summary.Value(tag=tag, simple_value=value) for tag, value in present.items()]
    )


def _hparams_summary(tag: str, content: object) -> Any:
    summary, metadata = _protos().summary, _protos().metadata
    value = summary.Summary.Value(
        tag=tag, metadata=metadata.create_summary_metadata(content), tensor=metadata.NULL_TENSOR
    )
    return summary.Summary(value=[value])


def _whole_length(path: Path) -> int:
    """Return the length of a file's whole records: each is a length, its check sum, the bytes, theirs."""
    content = path.read_bytes()
    place = 0
    while place + _HEADER.size <= len(content):
        length, _ = _HEADER.unpack_from(content, place)
        end = place + _HEADER.size + length + _FOOTER_BYTES
        if end > len(content):
            break
        place = end
    return place
