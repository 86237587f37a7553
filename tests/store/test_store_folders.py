"""Two stores with one home and a study of the same name: neither takes the other's files."""

from __future__ import annotations

import errno
import json
import multiprocessing
import shutil
from contextlib import contextmanager

import fsspec
import pytest

from gridsearch import files
from gridsearch.errors import FolderTaken, StoreError, StoreUnreachable, StudyNotFound, unwritable
from gridsearch.service.prepare.options import Places
from gridsearch.service.queries import studies
from gridsearch.store import Home, copy_store, folder_marks, open_store
from gridsearch.store.folder_marks import FolderMark, StorePlace


@pytest.fixture
def opened(home, new_file, tmp_path):
    """Open a store of its own in the one home, by its name; `away` is in the home's parent folder."""
    home.mkdir()

    def open_(name="gridsearch", *, below=True):
        path = (home if below else tmp_path) / f"{name}.db"
        if not path.exists():
            shutil.copy(new_file, path)
        return open_store(f"sqlite:///{path}", home=home, create=False)

    return open_


@pytest.fixture
def begun(make):
    """Begin study `s` in a store, as a run does, with a log and a checkpoint."""

    def begin(store, text="mine", study="s"):
        added = store.add(make.study(study), make.drafts({"lr": [0.1]}))
        store.take_folder(study)
        store.home.append_log(study, 0, text)
        (store.home.make_scratch(study, 0, 1) / "checkpoint").write_text(text)
        return added

    return begin


def test_a_store_whose_file_is_a_link_is_one_store_under_both_names(opened, begun, home, tmp_path):
    (home / files.DATABASE).symlink_to(tmp_path / "disk.db")
    opened("disk", below=False).close()
    with opened() as store:
        begun(store)
        assert store.home.others("s") is None
        store.delete_study("s")
        assert not store.home.study_dir("s").exists()


def test_what_is_in_the_place_of_a_folder_or_a_file_is_to_be_moved_away(opened, make, home):
    with opened() as store:
        store.add(make.study("s"), make.drafts({"lr": [0.1]}))
        (home / "s").write_text("a file")
        with pytest.raises(StoreError, match="cannot be written") as caught:
            store.take_folder("s")
        assert "move that away" in caught.value.hint
        (home / "s").unlink()
        (home / "s" / files.MARK).mkdir(parents=True)
        with pytest.raises(StoreError, match="cannot be written") as caught:
            store.take_folder("s")
        assert "move that away" in caught.value.hint


def test_a_limit_on_the_size_of_files_is_not_told_as_a_missing_right():
    error = unwritable("a/page.html", OSError(errno.EFBIG, "File too large"))
    assert "ulimit -f" in error.hint


def left(store, study="s"):
    """What a study's folder holds: its log and its checkpoints."""
    folder = store.home.study_dir(study)
    return sorted(
        p.read_text().strip() for p in (*folder.glob("trials/*/log"), *folder.glob("trials/*/.att*/*"))
    )


@pytest.mark.parametrize("below", [True, False])
def test_a_study_whose_folder_is_another_stores_is_refused_and_nothing_is_written(
    opened, begun, make, home, below
):
    with opened(below=below) as first, opened("other") as second:
        begun(first)
        with pytest.raises(
            FolderTaken, match=r"holds files of study 's' of another store, sqlite:///"
        ) as caught:
            second.add(make.study("s"), make.drafts({"lr": [0.1]}))
        assert first.url in caught.value.message
        assert "--home" in caught.value.hint
        assert caught.value.exit_code == 4
        assert second.names() == []
        assert left(first) == ["mine", "mine"]
        assert begun(second, study="t")
        assert first.clean("s") > 0, "the store whose folder it is goes on"


def test_nothing_of_another_store_is_cleaned_or_deleted_or_counted_as_left(opened, begun, home):
    with opened() as first, opened("other") as second:
        begun(first)
        places = Places.find(str(home), second.url)
        assert second.home.leftovers(()) == {}
        with pytest.raises(FolderTaken, match="of another store"):
            studies.clean(places, "s")
        assert second.home.remove_study("s") == second.home.remove_trials("s") == 0
        (home / "s").rename(home / ".deleted-s-01234567")
        assert second.home.leftovers(()) == {}
        assert second.home.end_removal("s") == 0
        assert sum(first.home.leftovers(()).values()) > 0
        (home / ".deleted-s-01234567").rename(home / "s")
        assert left(first) == ["mine", "mine"]


def test_a_study_that_came_to_be_beside_another_ones_folder_neither_reads_nor_takes_it(
    opened, begun, make, home
):
    with opened() as first, opened("other") as second:
        second.add(make.study("s"), make.drafts({"lr": [0.1]}))
        begun(first)
        with pytest.raises(FolderTaken):
            second.take_folder("s")
        with pytest.raises(FolderTaken):
            second.add(make.study("s"), make.drafts({"lr": [0.1, 0.2]}))
        with pytest.raises(FolderTaken):
            second.clean("s")
        places = Places.find(str(home), second.url)
        assert studies.view_trial(places, "s", 0).log == ""
        assert studies.view_trial(Places.find(str(home), first.url), "s", 0).log == "mine"
        said = []
        studies.delete(places, "s", warn=said.append)
        assert said == [f"the files of study 's' stay: store {first.url} needs them"]
        with pytest.raises(StudyNotFound):
            second.study_id("s")
        assert left(first) == ["mine", "mine"]


@pytest.mark.parametrize("gone", ["deleted", "file", "new file"])
def test_files_of_a_study_that_is_known_to_be_gone_are_set_aside(opened, begun, make, caplog, gone):
    with opened("a") as first:
        begun(first)
        if gone == "deleted":
            first._delete_rows("s")  # its files stay, as where another program deletes it
    path = first._database.dialect.path
    if gone != "deleted":
        path.unlink()
    with opened("a" if gone == "new file" else "b") as second:
        begun(second, "second")
        assert left(second) == ["second", "second"]
        (aside,) = second.home.study_dir("s").glob(".earlier-*")
        assert (aside / "trials/0/log").read_text() == "mine"
        assert ("which is gone" in caplog.text) == (gone != "new file")
        assert second.clean("s") > 0
        assert not aside.exists()


def test_what_is_set_aside_stays_once_its_store_is_there_again(opened, begun, tmp_path, home):
    with opened("a") as first:
        begun(first)
    (home / "a.db").rename(tmp_path / "a.db")
    with opened("b") as second:
        begun(second)
        (tmp_path / "a.db").rename(home / "a.db")
        second.clean("s")
        (aside,) = second.home.study_dir("s").glob(".earlier-*")
        assert (aside / "trials/0/log").read_text() == "mine"


def test_a_store_on_a_disk_that_is_not_there_counts_as_there(opened, begun, make, tmp_path, home, new_file):
    (tmp_path / "disk").mkdir()
    shutil.copy(new_file, tmp_path / "disk/a.db")
    with open_store(f"sqlite:///{tmp_path}/disk/a.db", home=home, create=False) as first:
        begun(first)
    (tmp_path / "disk").rename(tmp_path / "away")
    with opened() as second, pytest.raises(FolderTaken):
        second.add(make.study("s"), make.drafts({"lr": [0.1]}))


@pytest.mark.parametrize("moved", ["home", "store", "both"])
def test_a_store_that_was_moved_goes_on_without_a_word(opened, begun, make, home, tmp_path, caplog, moved):
    with opened("a", below=moved == "home") as first:
        begun(first)
    path, there = first._database.dialect.path, home
    if moved in ("home", "both"):
        there = home.rename(tmp_path / "new home")
        path = there / "a.db" if moved == "home" else path
    if moved in ("store", "both"):
        path = path.rename(tmp_path / "b.db")
    with open_store(f"sqlite:///{path}", home=there, create=False) as again:
        again.add(make.study("s"), make.drafts({"lr": [0.1, 0.2]}))
        again.take_folder("s")
        assert left(again) == ["mine", "mine"]
        mark = json.loads((there / "s" / files.MARK).read_text())
        assert [each["at"] for each in mark["stores"]] == [
            "a.db" if moved == "home" else str(tmp_path / "b.db")
        ]
    assert caplog.text == ""


@pytest.mark.parametrize("copy_first", [True, False])
def test_a_study_that_is_deleted_in_one_copy_of_a_store_keeps_its_files_for_the_other(
    opened, begun, home, tmp_path, copy_first
):
    with opened() as first:
        begun(first)
    there = f"sqlite:///{tmp_path}/copy.db"
    copy_store(first.url, there, home=home, lease=60)
    deleted, kept = (there, first.url) if copy_first else (first.url, there)
    said = []
    studies.delete(Places.find(str(home), deleted), "s", warn=said.append)
    assert kept in said[0]
    with open_store(kept, home=home, create=False) as other:
        assert left(other) == ["mine", "mine"]
        assert other.delete_study("s") > 0
    assert not (home / "s").exists()


def test_a_folder_without_a_mark_is_taken_as_it_is_and_set_aside_as_before(opened, begun, make, home):
    with opened("a") as first, opened("b") as second:
        begun(first)
        (home / "s" / files.MARK).unlink()
        first.take_folder("s")
        assert left(first) == ["mine", "mine"]
        (home / "s" / files.MARK).unlink()
        second.add(make.study("s"), make.drafts({"lr": [0.1]}))
        assert left(second) == []


def test_a_folder_without_a_mark_is_that_of_the_study_in_the_homes_own_store(opened, begun, make, home):
    with opened() as first, opened("b") as second:
        begun(first)
        (home / "s" / files.MARK).unlink()
        with pytest.raises(FolderTaken):
            second.add(make.study("s"), make.drafts({"lr": [0.1]}))
        assert second.home.leftovers(()) == {}
        first.take_folder("s")


def test_a_mark_of_another_machine_or_server_is_not_looked_up(opened, begun, make, home, monkeypatch):
    with opened("a", below=False) as first:
        begun(first)
        first.delete_study("s")
        begun(first)
        mark = json.loads((home / "s" / files.MARK).read_text())
    with opened("b") as second:
        for place in (
            {"at": mark["stores"][0]["at"], "host": "elsewhere"},
            {"at": "postgresql://db/g", "host": ""},
        ):
            (home / "s" / files.MARK).write_text(json.dumps({"uid": "u", "stores": [place]}))
            with pytest.raises(FolderTaken, match=r"elsewhere|postgresql://db/g"):
                second.add(make.study("s"), make.drafts({"lr": [0.1]}))


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"uid": 1, "stores": []}', '{"uid": "u", "stores": [1, {"at": 2}]}']
)
def test_a_damaged_mark_harms_nothing(opened, begun, home, content):
    with opened() as first:
        begun(first)
        (home / "s" / files.MARK).write_text(content)
        first.take_folder("s")
        assert first.home.others("s") is None


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_home_that_cannot_be_written_is_no_reason_and_a_full_one_is(
    opened, begun, home, monkeypatch, number
):
    with opened() as first, opened("b") as second:
        begun(first)
        (home / "s" / files.MARK).unlink()
        with monkeypatch.context() as patch:
            patch.setattr(files, "only_one", refuse(number))
            first.take_folder("s")
            with pytest.raises(FolderTaken):
                second.home.take("s", "another")
            patch.setattr(files, "only_one", refuse(errno.ENOSPC))
            with pytest.raises(StoreError, match="no space left"):
                first.take_folder("s")
            patch.setattr(files, "only_one", refuse(errno.ENOSPC, TimeoutError))
            with pytest.raises(StoreUnreachable, match="locked by another process"):
                first.take_folder("s")


def refuse(number, kind=OSError):
    @contextmanager
    def refused(lock, *, patience):
        raise kind(number, "no")
        yield

    return refused


def take(home, store, barrier, results):
    own = Home(home, store=store)
    barrier.wait()
    try:
        own.take("s", store)
        results.put(store)
    except FolderTaken:
        results.put("")


def test_of_two_that_begin_at_once_one_is_refused(home, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_marks, "_asked", lambda *_: None)  # nobody can tell: both are there
    stores = [f"sqlite:///{tmp_path}/{name}.db" for name in "ab"]
    for store in stores:
        (tmp_path / store[-4:]).touch()
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    both = [context.Process(target=take, args=(home, store, barrier, results)) for store in stores]
    for each in both:
        each.start()
    found = [results.get(timeout=60) for _ in both]
    for each in both:
        each.join()
    (won,) = filter(None, found)
    assert json.loads((home / "s" / files.MARK).read_text())["uid"] == won
    assert not (home / "s" / files.MARK_LOCK).exists()


def test_a_home_in_object_storage_has_its_marks_there(monkeypatch, tmp_path):
    def at(machine, store):
        monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / machine))
        return Home(Places.find("memory://marked/runs", store).home, store=store)

    first, second = (f"postgresql://db.example/{name}" for name in "ab")
    try:
        at("a", first).take("s", "one")
        with pytest.raises(FolderTaken, match=r"postgresql://db\.example/a"):
            at("b", second).take("s", "two")
        with pytest.raises(FolderTaken):
            at("b", second).begin("s")
        assert at("c", second).remove_study("s") == 0
        at("b", first).take("s", "one")
        assert at("b", second).others("s") == first
        at("a", first).remove_study("s")
        at("b", second).take("s", "two")
        assert at("a", first).others("s") == second
    finally:
        fsspec.filesystem("memory").rm("/", recursive=True)


def test_a_mark_names_a_place_as_all_who_share_the_home_know_it(home):
    def place(url):
        return Home(home, store=url)._own

    assert place(f"sqlite:///{home}/x/a.db") == StorePlace("x/a.db")
    assert place("sqlite:////elsewhere/a.db").host
    assert place("postgresql://db.example:5432/grid") == StorePlace("postgresql://db.example:5432/grid")
    for local in ("postgresql:///grid", "postgresql://me@localhost/grid", "postgresql://[::1]:5432/grid"):
        assert place(local).host
    mark = FolderMark("u", (StorePlace("a.db"), StorePlace("/b.db", "h")))
    home.mkdir()
    (home / "mark").write_bytes(mark.to_json())
    assert folder_marks._read(home / "mark") == mark
