"""Files under home: where they may lie, that they are whole, and that they are what was written."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest

from gridsearch.errors import ArtifactError, StoreError, UsageError
from gridsearch.records import FileRef
from gridsearch.store import Home


@pytest.fixture
def files(home):
    return Home(home)


def ref_of(content, name="predictions.safetensors"):
    return FileRef(name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def test_everything_lies_where_the_interface_says(files):
    root = files.root
    assert files.database == root / "gridsearch.db"
    assert files.trial_file("s", 7, "predictions.safetensors") == root / "s/trials/7/predictions.safetensors"
    assert files.log("s", 7) == root / "s/trials/7/log"
    assert files.tensorboard_dir("s", 7) == root / "s/tensorboard/7"
    assert files.report_dir("s") == root / "s/report"
    assert files.best_dir("s") == root / "s/best"
    assert not root.exists(), "to ask where something is makes nothing"


@pytest.mark.parametrize(
    "name", ["..", "../x", "/etc", "a/b", "", ".artifacts", "gridsearch.db", "x\0y", "a\n"]
)
def test_a_name_of_a_study_never_leads_elsewhere(files, name):
    with pytest.raises(UsageError, match="not allowed"):
        files.study_dir(name)


@pytest.mark.parametrize("name", ["..", "../x", "/etc/passwd", "a/b", "", ".hidden", "-rf", "x\0y"])
def test_a_name_of_a_file_never_leads_elsewhere(files, name):
    with pytest.raises(ArtifactError, match="not a file name"):
        files.trial_file("s", 1, name)


def test_a_number_is_never_negative(files):
    with pytest.raises(ValueError, match="not negative"):
        files.trial_dir("s", -1)


@pytest.mark.parametrize("outside", ["../elsewhere.txt", "/tmp/elsewhere.txt", "s/../../elsewhere.txt", "."])
def test_nothing_is_written_or_read_outside_of_home(files, outside):
    with pytest.raises(ArtifactError, match="does not lie below"):
        files.write_atomic(Path(outside), b"x")
    with pytest.raises(ArtifactError, match="does not lie below"):
        files.read_verified(Path(outside), "0" * 64)


def test_links_below_home_are_not_followed(files, tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "secret").write_bytes(b"secret")
    files.root.mkdir()
    (files.root / "s").symlink_to(target)
    with pytest.raises(ArtifactError, match="is a link"):
        files.write_atomic(files.root / "s" / "x", b"x")
    with pytest.raises(ArtifactError, match="is a link"):
        files.read_verified(files.root / "s" / "secret", hashlib.sha256(b"secret").hexdigest())
    with pytest.raises(ArtifactError, match="is a link"):
        files.remove_study("s")
    assert [p.name for p in target.iterdir()] == ["secret"]


def test_a_home_that_is_itself_a_link_is_the_users_choice(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    Home(tmp_path / "link").write_atomic(tmp_path / "link" / "s" / "x", b"x")
    assert (tmp_path / "real/s/x").read_bytes() == b"x"


def test_a_written_file_is_whole_and_alone_in_its_folder(files):
    path = files.report_dir("s") / "index.html"
    ref = files.write_atomic(path, b"one")
    assert (ref.name, ref.size, ref.sha256) == ("index.html", 3, hashlib.sha256(b"one").hexdigest())
    files.write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(files, monkeypatch):
    path = files.report_dir("s") / "index.html"
    files.write_atomic(path, b"old")

    def half(draft, content):
        with draft.open("wb") as file:
            file.write(content[:7])
        raise RuntimeError("stop")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(RuntimeError, match="stop"):
        files.write_atomic(path, b"new but half")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(files, python):
    path = files.trial_dir("s", 3) / "index.html"
    files.write_atomic(path, b"old")
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom gridsearch.store import Home\n"
        "os.fsync = lambda _: os.kill(os.getpid(), 9)\n"
        "path = Path(sys.argv[1])\nHome(path.parents[3]).write_atomic(path, b'x' * 100000)\n"
    )
    killed = python(code, path)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert files.clean("s", keep=[3]) == 0
    assert files.clean("s", keep=[]) == 100_000
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]


def test_a_full_disk_is_told_with_the_path(files, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = files.report_dir("s") / "index.html"
    with pytest.raises(StoreError, match=r"no space left for .*index\.html"):
        files.write_atomic(path, b"x")
    assert list(path.parent.iterdir()) == []


def test_what_is_read_is_what_was_recorded(files):
    path = files.trial_file("s", 1, "predictions.safetensors")
    ref = files.write_atomic(path, b"logits")
    assert files.read_verified(path, ref.sha256) == b"logits"
    path.write_bytes(b"logitz")
    with pytest.raises(ArtifactError, match="has changed since it was written"):
        files.read_verified(path, ref.sha256)
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot be read: No such file"):
        files.read_verified(path, ref.sha256)


def adopt(files, source, ref):
    """Move a worker's file to its place as a result is written."""
    place = files.trial_file("s", 1, ref.name)
    files.verify([(source, ref, place)])
    files.move_verified([(source, place)])
    return place


def test_a_workers_file_is_adopted_when_it_is_the_announced_one(files):
    content = b"w" * 3_000_000
    scratch = files.make_scratch("s", 1, 1)
    (scratch / "predictions.safetensors").write_bytes(content)
    for wrong in (ref_of(b"other"), ref_of(content[:-1])):
        with pytest.raises(ArtifactError, match="announced"):
            adopt(files, scratch / wrong.name, wrong)
    ref = ref_of(content)
    for _ in range(2):  # again, as after a kill between this and the commit
        place = adopt(files, scratch / ref.name, ref)
    assert place.read_bytes() == content
    files.drop_scratch("s", 1)
    assert [p.name for p in files.trial_dir("s", 1).iterdir()] == ["predictions.safetensors"]


def test_a_worker_cannot_pass_a_link_off_as_its_file(files, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    scratch = files.make_scratch("s", 1, 1)
    (scratch / "weights.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactError, match="is a link"):
        adopt(files, scratch / "weights.safetensors", ref_of(b"secret", "weights.safetensors"))


def test_scratch_of_an_attempt_is_empty_when_it_begins(files):
    (files.make_scratch("s", 1, 2) / "left").write_bytes(b"x")
    assert list(files.make_scratch("s", 1, 2).iterdir()) == []


def test_a_log_grows_by_what_is_printed(files):
    files.append_log("s", 1, "on")
    files.append_log("s", 1, "e\ntwo\n")
    files.append_log("s", 1, "bad \ud800 text")
    assert files.log("s", 1).read_text().splitlines()[:2] == ["one", "two"]


def test_the_size_of_a_study_is_that_of_its_files(files):
    assert files.size("s") == 0
    files.write_atomic(files.report_dir("s") / "a", b"12345")
    files.append_log("s", 1, "log\n")
    assert files.size("s") == 9
    assert files.remove_study("s") == 9
    assert files.remove_study("s") == 0
