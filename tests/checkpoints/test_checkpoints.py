"""Checkpoints as files: named by their bytes, whole or not there, two at a time, and never dear."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy

from gridsearch import checkpoints
from gridsearch.checkpoints import (
    METADATA,
    Damaged,
    Pace,
    as_events,
    as_lines,
    checkpoints_in,
    facts_of,
    write_checkpoint,
)
from gridsearch.records import StepEnded, TrialFinished, TrialState


def content(**facts):
    return safetensors.numpy.save({"state": np.arange(9)}, {METADATA: json.dumps(facts)})


def test_the_two_newest_are_kept_and_read_back_by_their_hash(tmp_path):
    for epoch in (3, 7, 12):
        write_checkpoint(tmp_path, content(epoch=epoch), epoch=epoch)
    found = checkpoints_in(tmp_path)
    assert [file.epoch for file in found] == [12, 7]
    assert [facts_of(file.read())["epoch"] for file in found] == [12, 7]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(file.path.name for file in found)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: bytes(len(b)), lambda b: b + b"\0"]
)
def test_bytes_that_are_not_those_that_were_written_are_refused(tmp_path, damage):
    file = write_checkpoint(tmp_path, content(epoch=1), epoch=1)
    file.path.write_bytes(damage(file.path.read_bytes()))
    with pytest.raises(Damaged, match="is not what was written"):
        file.read()
    file.path.unlink()
    with pytest.raises(Damaged, match="cannot be read"):
        file.read()


@pytest.mark.parametrize("wrong", [b"", b"\xff" * 8, b"\x02" + bytes(7) + b"{}", content()[:20], b"[" * 99])
def test_what_is_no_checkpoint_has_no_facts(wrong):
    with pytest.raises(Damaged, match="no checkpoint"):
        facts_of(wrong)


def test_drafts_links_folders_and_other_files_are_no_checkpoints(tmp_path):
    file = write_checkpoint(tmp_path, content(), epoch=1)
    (tmp_path / ".partial-12.safetensors").write_bytes(b"")
    (tmp_path / "weights.safetensors").write_bytes(b"")
    (tmp_path / file.path.name.replace("-000001-", "-000002-")).symlink_to(file.path)
    (tmp_path / file.path.name.replace("-000001-", "-000003-")).mkdir()
    assert [each.path for each in checkpoints_in(tmp_path)] == [file.path]


def test_a_folder_that_is_gone_is_left_alone(tmp_path):
    assert write_checkpoint(tmp_path / "gone", content(), epoch=1) is None
    assert checkpoints_in(tmp_path / "gone") == []
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_others_as_they_are(tmp_path, monkeypatch):
    before = write_checkpoint(tmp_path, content(), epoch=1)

    def full(path, _content):
        (path.parent / ".partial-x").write_bytes(b"half")
        (path.parent / ".partial-x").unlink()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.files, "write_whole", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path, content(epoch=2), epoch=2)
    assert [file.path for file in checkpoints_in(tmp_path)] == [before.path]


def test_events_come_back_as_those_of_another_attempt():
    step = StepEnded(trial=3, attempt=1, step=2, metrics={"value": 0.1, "odd": float("inf")}, seconds=1.5)
    end = TrialFinished(
        trial=3, attempt=1, state=TrialState.DIVERGED, epochs=2, seconds=3.0, metrics={}, message="loss nan"
    )
    back = as_events(json.loads(json.dumps(as_lines([step, end]))), 4)
    assert [event.attempt for event in back] == [4, 4]
    assert (back[0].metrics, back[1].state, back[1].message) == (step.metrics, end.state, end.message)


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(checkpoints.time, "monotonic", lambda: self.now)


def test_checkpoints_come_after_the_interval_and_cost_a_hundredth_at_most(monkeypatch):
    clock = Clock(monkeypatch)
    pace = Pace(60.0)
    assert not pace.due
    clock.now += 60
    assert pace.due
    with pace.writing():
        clock.now += 0.1
    clock.now += 59
    assert not pace.due
    clock.now += 1
    assert pace.due
    with pace.writing():
        clock.now += 5  # a slow disk: now 500 seconds must pass
    clock.now += 499
    assert not pace.due
    clock.now += 1
    assert pace.due


def test_off_is_never_and_every_epoch_is_always(monkeypatch):
    clock = Clock(monkeypatch)
    never, always = Pace(None), Pace(0.0)
    with always.writing():
        clock.now += 50
    assert (never.due, always.due) == (False, True)
