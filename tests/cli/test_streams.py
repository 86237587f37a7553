"""Words of others are shown and do not act on a terminal; a reader that leaves does not end the work."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsearch import display
from gridsearch.cli import standard_streams
from gridsearch.errors import escaped
from gridsearch.reporting.words.text import printable

NASTY = "\x1b]0;title\x07\x1b[2J\x1b[31mred\x9b1m\x7f\u202egnp"
SHOWN = r"\x1b]0;title\x07\x1b[2J\x1b[31mred\x9b1m\x7f\u202egnp"
ACTING = {chr(c) for c in (*range(32), *range(127, 160))} - set("\n\t\r") | set("\u202a\u202e\u2066\u2028")

FUNCTION = f"""
def f(params, seed):
    print({NASTY!r})
    if params["x"] == 2:
        raise ValueError({NASTY!r})
    yield {{"value": params["x"], {NASTY!r}: 1.0}}
    yield {{"value": params["x"] + 1.0, {NASTY!r}: 2.0}}
"""


def assert_harmless(result):
    for text in (result.out, result.err):
        assert not ACTING & set(text), ACTING & set(text)
        assert "\r" not in text


@given(st.text())
def test_escaped_text_holds_nothing_that_acts_and_plain_text_stays(text):
    found = escaped(text)
    assert not ACTING & set(found)
    assert escaped(found) == found
    if text.isprintable():
        assert found == text
    found.encode()  # halves of characters are gone too


def test_a_control_character_is_shown_as_its_escape_in_tables_too():
    assert escaped(NASTY) == SHOWN
    assert printable(f"one\ntwo {NASTY}") == f"one two {SHOWN}"


@pytest.mark.usefixtures("undrawn")
def test_every_command_about_a_function_shows_control_characters_and_obeys_none(cli, tmp_path):
    (tmp_path / "f.py").write_text(FUNCTION)
    grid = ("--grid", "x=1,2,3", f'word="{SHOWN}"'.replace(r"\x", r"\u00"))
    named = ("--objective", "f.py:f", "--study", "s")
    commands = [
        ("plan", *named, *grid),
        ("run", *named, *grid, "--executor", "inline", "--no-report"),
        ("run", *named, *grid, "--executor", "inline", "--no-report", "-v", "--json"),
        ("run", "--study", NASTY),
        ("run", *named, "--grid", f"x={NASTY}", "--executor", "inline", "-v"),
        ("run", "--objective", f"{NASTY}.py:f", "--grid", "x=1"),
        ("run", f"{NASTY}.toml"),
        ("run", NASTY, "-v"),
        (NASTY,),
        ("report", "--study", "s"),
        ("report", "--study", "s", "--where", f"word={NASTY}"),
        ("trial", "0", "--study", "s"),
        ("trial", "1", "--study", "s"),
        ("export", "--study", "s"),
        ("export", "--study", "s", "--format", "json"),
        ("status",),
        ("study", "list"),
        ("best", "--study", "s"),
        ("predict", NASTY, NASTY),
        ("data", "verify", f"folder:{NASTY}"),
        ("models", "show", NASTY),
        ("status", "--home", NASTY),
        ("status", "--store", f"sqlite:///{NASTY}/x.db", "--study", "s"),
    ]
    for words in commands:
        assert_harmless(cli(*words))
    shown = cli("trial", "0", "--study", "s")
    assert SHOWN in shown.out
    failed = next(t for t in cli("export", "--study", "s", "--json").json["trials"] if t["state"] == "failed")
    assert f"ValueError: {SHOWN}" in cli("trial", str(failed["number"]), "--study", "s").out
    files = [p for p in (tmp_path / "home").rglob("*") if p.is_file()]
    assert any(
        NASTY.encode() in p.read_bytes() for p in files if p.suffix in ("", ".log", ".txt")
    )  # the logs keep them
    assert not any(b"\x1b" in p.read_bytes() for p in files if p.suffix == ".csv")


def test_class_names_and_paths_of_images_are_shown_and_do_not_act(cli, tmp_path):
    import numpy as np
    from PIL import Image

    there = tmp_path / "im\x1b[31mages"
    for label, name in enumerate(("a\x1b[2J", "b\x07")):
        for i in range(12):
            path = there / name / f"{i}\x1b[0m.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(i).integers(0, 50, (8, 8), dtype="uint8") + np.uint8(150 * label)
            Image.fromarray(pixels).save(path)
    words = ("--dataset", f"folder:{there}", "--model", "mlp", "--grid", "lr=.1", "--epochs", "1")
    for command in (
        ("data", "verify", f"folder:{there}"),
        ("plan", *words),
        ("run", *words, "--study", "s", "--executor", "inline", "--no-report"),
        ("report", "--study", "s", "--trial", "0"),
        ("best", "--study", "s", "--executor", "inline"),
        ("predict", str(tmp_path / "home" / "s" / "best"), str(next(there.rglob("*.png")))),
    ):
        result = cli(*command)
        assert result.code == 0, result.err
        assert_harmless(result)


def test_our_own_colours_pass_and_those_of_others_do_not(monkeypatch):
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with standard_streams.harmless():
        out = display.console()
        out.print("\x1b[5mblinks", style="bold", markup=False)
        print("\x1b[5mblinks")
    text = sys.stdout.getvalue()
    assert text.count(r"\x1b[5mblinks") == 2
    assert "\x1b[5m" not in text
    assert "\x1b[1m" in text


class Left(io.StringIO):
    """A pipe whose reader left after the first line."""

    lines = 0

    def write(self, text: str) -> int:
        if self.lines:
            raise BrokenPipeError(32, "Broken pipe")
        self.lines += "\n" in text
        return super().write(text)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_run_goes_on_when_its_reader_leaves_and_says_how_it_ended(cli, tmp_path, monkeypatch, name):
    from gridsearch.cli import main

    (tmp_path / "f.py").write_text("def f(params, seed): return {'value': 1 / params['x']}\n")
    words = ["run", "--objective", "f.py:f", "--study", "s", "--no-report", "--executor", "inline", "--grid"]
    monkeypatch.chdir(tmp_path)
    for values, code, complete in (("x=1,2", 0, 2), ("x=0,4", 3, 3)):
        with monkeypatch.context() as patch:
            patch.setattr(sys, name, Left())
            assert main([*words, values]) == code
        assert cli("status", "--json").json["studies"][0]["counts"]["complete"] == complete


def test_watching_ends_when_nobody_looks(cli, tmp_path, monkeypatch):
    from gridsearch.cli import main
    from gridsearch.cli.commands import status

    def no_second_look(_seconds):
        raise AssertionError("nobody reads, and it goes on")

    monkeypatch.setattr(status.time, "sleep", no_second_look)
    for words in (["status", "--watch"], ["status", "--watch", "--home", str(tmp_path / "none")]):
        reader, writer = os.pipe()
        os.close(reader)
        with monkeypatch.context() as patch, os.fdopen(writer, "w") as stream:
            patch.setattr(sys, "stdout", stream)
            assert main(words) == 0


def test_a_program_whose_readers_left_ends_quietly_with_its_own_code():
    """Also at the interpreter's end, when it flushes what is left."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "gridsearch", "run", "--executor", "inline", "--grid", "lr=wrong"]
    done = subprocess.run(command, stdout=writer, stderr=writer, check=False, timeout=100)
    os.close(writer)
    assert done.returncode == 2


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_signs_that_a_character_set_lacks_are_replaced_in_every_command(cli, tmp_path, monkeypatch, encoding):
    from gridsearch.cli import main

    (tmp_path / "f.py").write_text(
        "def f(params, seed):\n    if params['x'] == 2: raise ValueError('bäd … 日本')\n"
        "    return {'value': params['x']}\n",
        encoding="utf-8",
    )
    grid = ("--grid", "x=1,2,3", "word=ä,日本", "--executor", "inline", "--no-report")
    monkeypatch.chdir(tmp_path)
    said = b""
    for words, code in (
        (("plan", "--objective", "f.py:f", "--study", "s", *grid[:3]), 0),
        (("run", "--objective", "f.py:f", "--study", "s", *grid), 3),
        (("report", "--study", "s"), 0),
        (("status",), 0),
        (("study", "list"), 0),
        (("export", "--study", "s"), 0),
        (("data", "list"), 0),
        (("run", "--grid", "日本=…"), 2),
    ):
        streams_of = {
            name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")
        }
        with monkeypatch.context() as patch:
            for name, stream in streams_of.items():
                patch.setattr(sys, name, stream)
            assert main(words) == code, words
        for stream in streams_of.values():
            stream.flush()
            said += stream.buffer.getvalue()
    assert b"bug" not in said
    assert rb"word=\u65e5\u672c" in said
    assert (b"word=\xe4" in said) is (encoding == "latin-1")


def test_a_program_without_standard_streams_keeps_its_store_whole_and_its_exit_code(tmp_path):
    """A descriptor that is closed is the next file's, and what a library prints would land in it."""
    import sqlite3

    (tmp_path / "f.py").write_text(
        "import os\ndef f(params, seed):\n    os.write(1, b'printed')\n    os.write(2, b'said')\n"
        "    nowhere = os.stat(os.devnull)\n"
        "    assert all(os.path.samestat(os.fstat(i), nowhere) for i in range(3))\n"
        "    return {'value': 1 / params['x']}\n"
    )
    command = (
        f"exec {sys.executable} -m gridsearch run --objective f.py:f --study s --executor inline --no-report "
        "--grid x=1,2 --retries 0 >&- 2>&- <&-"
    )
    done = subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, check=False, timeout=100)
    assert done.returncode == 0
    with sqlite3.connect(tmp_path / "home" / "gridsearch.db") as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.usefixtures("undrawn")
def test_brackets_in_names_paths_and_messages_are_no_markup(cli, tmp_path):
    (tmp_path / "[red]f[").mkdir()
    (tmp_path / "[red]f[" / "f.py").write_text(
        "def f(params, seed):\n    if params['x'] == 2: raise ValueError('[/] [bold]no[/bold] :smile: x')\n"
        "    return {'value': params['x'], '[i]m[/]': 1.0}\n"
    )
    words = ("--objective", "[red]f[/f.py:f", "--study", "s", "--home", "[b]h[/b]")
    grid = ("--grid", "x=1,2,3", 'word="[red]a[/red]","[/]"')
    assert cli("plan", *words, *grid).code == 0
    run = cli("run", *words, *grid, "--executor", "inline")
    assert run.code == 3, run.err
    assert "[b]h[/b]/s/report/index.html" in run.out
    assert "[/][bold]no[/bold]:smile:x" in "".join(run.out.split())
    assert "word=[red]a[/red]" in "".join(run.out.split())
    for command in (("report",), ("trial", "0"), ("trial", "1"), ("status",), ("export",)):
        assert cli(*command, "--study", "s", "--home", "[b]h[/b]").code == 0
    shown = cli("trial", "0", "--study", "s", "--home", "[b]h[/b]")
    assert "[red]a[/red]" in shown.out
    assert "[i]m[/]" in shown.out
    assert cli("study", "list", "--home", "[b]h[/b]").code == 0
    assert "[b]h[/b]" in cli("doctor", "--model", "mlp", "--home", "[b]h[/b]").out
    assert cli("status", "--home", "[/b]").code == 0


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("columns", ["0", "1", "-5", "abc", "40", "60"])
def test_params_are_readable_in_any_width_that_a_terminal_claims(cli, tmp_path, monkeypatch, columns):
    (tmp_path / "f.py").write_text("def f(params, seed): return {'value': params['x']}\n")
    monkeypatch.setenv("COLUMNS", columns)
    words = ("--objective", "f.py:f", "--study", "s")
    grid = ("--grid", "x=1,2", "optimizer_of_mine=somewhat_long_word", "width=100", "depth=3")
    run = cli("run", *words, *grid, "--executor", "inline", "--no-report")
    assert run.code == 0
    for command in (("report", "--study", "s"), ("trial", "1", "--study", "s")):
        shown = "".join(cli(*command).out.split())
        assert "x=2" in shown
        assert "somewhat_long_word" in shown
        assert "…" not in shown
    for command in (
        ("plan", *words, *grid),
        ("status",),
        ("study", "list"),
        ("models", "list"),
        ("data", "list"),
    ):
        shown = cli(*command)
        assert shown.code == 0
        assert shown.out.strip()
        assert "…" not in shown.out
    assert "s" in "".join(cli("status").out.split())


@pytest.mark.usefixtures("undrawn")
def test_a_command_that_is_advised_is_one_line_on_a_narrow_terminal_too(cli, monkeypatch):
    monkeypatch.setattr(display, "console", partial(narrow_terminal, display.console))
    words = ("--dataset", "digits", "--model", "mlp", "--epochs", "1", "--grid")
    cli("run", *words, "lr=.01,.1", "--executor", "inline", "--no-report")
    assert "gridsearch run --study digits --more-seeds 2 --top 2" in cli("report", "--study", "digits").out
    assert "to start another study: --study digits-2" in cli("plan", *words, "lr=.2").err


def narrow_terminal(make, **how):
    made = make(**how)
    made.soft_wrap, made.width = False, 40
    return made


def test_no_file_gets_the_number_of_a_standard_stream_that_was_closed():
    code = (
        "import os, sys; from gridsearch.cli import standard_streams; standard_streams.open_closed_ones(); "
        "nowhere = os.stat(os.devnull); "
        "sys.exit(not all(os.path.samestat(os.fstat(i), nowhere) for i in range(3)) or os.dup(0) < 3)"
    )
    command = f'exec {sys.executable} -c "{code}" >&- 2>&- <&-'
    assert subprocess.run(["/bin/sh", "-c", command], check=False, timeout=100).returncode == 0
