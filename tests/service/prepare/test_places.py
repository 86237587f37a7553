"""Where things lie for a user without a folder of their own, and in a home that may only be read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsearch.advice import quoted
from gridsearch.errors import escaped
from gridsearch.folders import cache_root, can_be_made, expanded, tilde
from gridsearch.service.prepare.options import Places

NOBODY = 12345


@pytest.fixture
def own_cache_alone(monkeypatch):
    for name in ("GRIDSEARCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, "")  # so that it is as it was afterwards, also where the block sets it
        monkeypatch.delenv(name)


def test_a_user_whom_the_system_does_not_know_has_a_cache_below_the_home(
    own_cache_alone, monkeypatch, tmp_path
):
    import pwd

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    places = Places.find(tmp_path / "studies")
    assert places.cache == tmp_path / "studies" / ".cache"
    assert cache_root() == places.cache  # what compiles kernels knows no home
    assert os.environ["GRIDSEARCH_CACHE"] == str(places.cache)  # nor do workers
    assert not (tmp_path / "studies").exists()
    for path in ("~", "~/x", "~nobody-of-this-name/x"):
        assert expanded(path) == tilde(path).absolute()
        assert str(tilde(path)) == path


def test_a_home_folder_that_cannot_be_made_is_no_place_for_a_cache(own_cache_alone, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "gone"))
    assert Places.find(tmp_path / "a").cache == tmp_path / "gone" / ".cache" / "gridsearch"
    monkeypatch.setattr("gridsearch.folders.os.access", lambda *_: False)
    assert Places.find(tmp_path / "a").cache == tmp_path / "a" / ".cache"
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "given"))
    assert Places.find(tmp_path / "a").cache == tmp_path / "given"


def test_whether_a_folder_can_be_made_is_found_out_without_writing(tmp_path):
    assert can_be_made(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


WORD = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from("\udcff\udc80'\\\x1b")
)


@given(st.lists(WORD, min_size=1, max_size=20))
@settings(max_examples=20)
def test_a_shell_reads_the_words_of_a_command_as_they_were(words):
    command = quoted("printf", r"%s\0", *words)
    assert escaped(command) == command  # else a terminal would show another one
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("no bash on this machine")
    said = subprocess.run([shell, "-c", command.encode()], capture_output=True, check=True).stdout
    assert said.split(b"\0")[:-1] == [word.encode("utf-8", "surrogateescape") for word in words]


@pytest.mark.usefixtures("undrawn")
def test_a_home_whose_name_is_no_text_works_to_the_end(cli, tmp_path):
    home = "h\udcff"
    try:
        (tmp_path / home).mkdir()
    except OSError:
        pytest.skip("this file system takes names of text alone")
    words = ("--dataset", "digits", "--model", "mlp", "--epochs", "1", "--executor", "inline", "--home", home)
    run = cli("run", *words, "--grid", "lr=.1,.01")
    assert run.code == 0, run.err
    assert r"--home $'h\377'" in run.out
    for command in (("report",), ("trial", "0"), ("status",), ("export",), ("best", "--executor", "inline")):
        done = cli(*command, "--study", "digits", "--home", home)
        assert done.code == 0, done.err
    assert r"gridsearch predict $'h\377/digits/best'" in done.out


@pytest.mark.parametrize(
    "words",
    [
        ("--dataset", "folder:h\udcff", "--grid", "lr=.1"),
        ("--objective", "h\udcff.py:f", "--grid", "x=1"),
        ("--objective", "f.py:f", "--grid", "word=h\udcff"),
    ],
)
def test_what_the_store_cannot_keep_as_text_is_refused_before_it_is_made(words, cli, tmp_path):
    (tmp_path / "f.py").write_text("def f(params, seed): return {'value': 1.0}")
    refused = cli("run", *words)
    assert refused.code == 2
    assert "is no valid text" in refused.error
    assert not (tmp_path / "home").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_path_that_is_too_long_for_a_store_is_refused_and_nothing_is_made(cli, tmp_path):
    (tmp_path / "f.py").write_text("def f(params, seed): return {'value': 1.0}")
    words = ("run", "--objective", "f.py:f", "--grid", "x=1", "--executor", "inline", "--no-report", "--home")
    left = 512 - len(str(tmp_path)) - len("//.gridsearch.db.0123456789ab.tmp-journal")
    fits = "/".join(["d" * 20] * 50)[:left].rstrip("/")
    fits += "e" * (left - len(fits))
    refused = cli(*words, f"{fits}e")
    assert refused.code == 4
    assert "SQLite takes no path as long as this one" in refused.error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.py"]
    assert cli(*words, fits).code == 0
    assert cli("report", "--study", "f", "--home", fits).code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("status", "--home"),
        ("doctor", "--home"),
        ("run", "--objective", "f.py:f", "--grid", "x=1", "--home"),
        ("run", "--grid", "lr=.1", "--dataset"),
        ("data", "fetch", "mnist", "--from"),
        ("predict",),
        ("run",),
    ],
)
def test_a_name_that_is_too_long_is_no_bug_of_ours(words, cli, tmp_path):
    (tmp_path / "f.py").write_text("def f(params, seed): return {'value': 1.0}")
    found = cli(
        *words,
        ("folder:" if words[-1] == "--dataset" else "") + "d" * 300,
        *(["x"] * (words[0] == "predict")),
    )
    assert found.code in (0, 2, 4)
    assert "a bug" not in found.err


def listing(folder):
    return sorted(
        (str(p), p.lstat().st_mtime_ns, p.lstat().st_size, p.lstat().st_mode)
        for p in (folder, *folder.rglob("*"))
    )


COMMANDS = [
    (("status",), 0, ""),
    (("study", "list"), 0, ""),
    (("report", "--study", "digits"), 0, "cannot be written, so there is no page"),
    (("report", "--study", "digits", "--json"), 0, ""),
    (("trial", "0", "--study", "digits"), 0, ""),
    (("export", "--study", "digits"), 0, ""),
    (("plan", "--dataset", "digits", "--model", "mlp", "--grid", "lr=.1"), 0, ""),
    (("run", "--study", "digits"), 4, "use a --home that you can write to"),
    (
        ("run", "--dataset", "digits", "--model", "mlp", "--grid", "lr=.3", "--epochs", "1"),
        4,
        "a --home that",
    ),
    (("best", "--study", "digits"), 4, "use a --home that you can write to"),
    (("report", "--study", "digits", "--trial", "0"), 4, "cannot be written"),
    (("study", "delete", "digits", "--yes"), 4, "use a --home that you can write to"),
]

ALL = """
import json, sys
from gridsearch.cli import main
for words in json.load(open(sys.argv[1])):
    print("==", main(words), flush=True)
    print("==", file=sys.stderr, flush=True)
"""


def test_a_home_that_may_only_be_read_is_shown_and_left_as_it_is(cli, tmp_path):
    """By a user without a name, without a home and without a right to write."""
    home = tmp_path / "colleague"
    words = (
        "--dataset",
        "digits",
        "--model",
        "mlp",
        "--grid",
        "lr=.1,.01",
        "--epochs",
        "1",
        "--home",
        str(home),
    )
    assert cli("run", *words, "--executor", "inline").code == 0
    prefix = []
    if os.getuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may always write, and setpriv is not here")
        ids = ("--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
        read = (
            "--inh-caps",
            "+dac_read_search",
            "--ambient-caps",
            "+dac_read_search",
        )  # Python may lie in /root
        prefix = ["setpriv", *ids, *read]
    import json

    (tmp_path / "all.py").write_text(ALL)
    (tmp_path / "words.json").write_text(
        json.dumps([[*each, "--home", str(home)] for each, _, _ in COMMANDS])
    )
    for path in (home, *home.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = listing(home)
    environment = {
        k: v for k, v in os.environ.items() if k not in ("HOME", "GRIDSEARCH_CACHE", "XDG_CACHE_HOME")
    }
    environment["GRIDSEARCH_KERNELS"] = "off"
    done = subprocess.run(
        [*prefix, sys.executable, "-B", "all.py", "words.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=200,
    )
    assert listing(home) == before
    for path in (home, *home.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    codes = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("==")]
    assert codes == [code for _, code, _ in COMMANDS], done.stderr
    for (words, code, hint), said in zip(COMMANDS, done.stderr.split("==\n"), strict=False):
        assert hint in said, words
        assert "a bug" not in said
        assert said.count("gridsearch: error") == (code != 0), words
        assert "training" not in said, words
