"""Completion in real shells: commands, options, studies, axes and their words, models, datasets, metrics."""

from __future__ import annotations

import contextlib
import os
import pty
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gridsearch.cli.completion import SHELLS, script

pytestmark = pytest.mark.end_to_end

BASH = r"""
eval "$(gridsearch completion bash)"
complete -p gridsearch >&2
while IFS= read -r COMP_LINE; do
    COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COMPREPLY=()
    _python_argcomplete gridsearch
    printf '%s\n' "${COMPREPLY[*]}"
done
"""
ZSH = r"""
autoload -Uz compinit && compinit -u -d dump
eval "$(gridsearch completion zsh)"
show() { print -r -- "$BUFFER" >> typed; BUFFER=; zle redisplay }
zle -N show; bindkey '^]' show
: > ready
"""
FISH = """
gridsearch completion fish | source
while read line; string join ' ' (complete -C $line | string split -f 1 \\t); end; true
"""


class Shell:
    """Runs shells that find the program on their search path, as an installed one is found."""

    def __init__(self, folder):
        self.folder = folder
        program = folder / "bin" / "gridsearch"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m gridsearch "$@"\n')
        program.chmod(0o755)
        path = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        # fish and zsh keep what they know below the user's home
        self.env = {**os.environ, **path, "HOME": str(folder), "TERM": "xterm"}

    def __call__(self, name: str, text: str, *lines: str) -> str:
        """Run a script with lines on its standard input; return what it prints."""
        self.require(name)
        done = subprocess.run(
            [name, "-c", text], input="".join(f"{line}\n" for line in lines), env=self.env, cwd=self.folder,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def typed(self, name: str, lines) -> list[str]:
        """Type lines with Tab behind each into an interactive shell; return what they have become.

        The script `setup` is read first; it makes `ready`, and lets Ctrl-] append the line to `typed`.
        """
        self.require(name)
        ours, terminal = pty.openpty()
        how = {"stdin": terminal, "stdout": terminal, "stderr": terminal, "start_new_session": True}
        process = subprocess.Popen([name, "-f", "-i"], env=self.env, cwd=self.folder, **how)
        os.close(terminal)
        threading.Thread(target=_drain, args=(ours,), daemon=True).start()  # a full terminal would hold it up
        try:
            os.write(ours, b". ./setup\n")
            self.wait_for("ready")
            for number, line in enumerate(lines, 1):
                os.write(ours, f"{line}\t\x1d".encode())
                self.wait_for("typed", number)
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        return (self.folder / "typed").read_text().splitlines()

    def wait_for(self, name: str, lines: int = 0) -> None:
        until = time.monotonic() + 120
        while not (file := self.folder / name).exists() or len(file.read_text().splitlines()) < lines:
            assert time.monotonic() < until, f"{name} does not come"
            time.sleep(0.02)

    @staticmethod
    def require(name: str) -> None:
        if shutil.which(name) is None:
            pytest.skip(f"no {name} here (Debian: apt-get install {name})")


def _drain(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def test_bash_completes_what_may_come_next(shell, cli, tmp_path):
    (tmp_path / "fit.py").write_text("def f(params, seed):\n    return {'value': params['x']}\n")
    words = ("--objective", "fit.py:f", "--grid", "x=1", "--executor", "inline", "--no-report")
    for name in ("flowers", "flora", "tulips"):
        assert cli("run", *words, "--study", name).code == 0
    (tmp_path / "pictures").mkdir()
    asked = {
        "gridsearch tensorb": {"tensorboard"},
        "gridsearch report --stu": {"--study"},
        "gridsearch report --study flo": {"flowers", "flora"},
        "gridsearch run --grid opt": {"optimizer="},
        "gridsearch run --grid optimizer=ad": {"adam", "adamw"},
        "gridsearch run --dataset folder:pic": {"pictures/"},
        "gridsearch run --model tiny": {"tinyvgg"},
        "gridsearch report --by bal": {"balanced_accuracy"},
        "gridsearch study delete tu": {"tulips"},
    }
    found = dict(zip(asked, shell("bash", BASH, *asked).splitlines(), strict=True))
    for line, expected in asked.items():
        given = {
            word.rpartition("optimizer=")[2].rpartition("folder:")[2] or word for word in found[line].split()
        }
        assert given == expected, line


def test_fish_completes_what_may_come_next(shell, tmp_path):
    (tmp_path / "pictures").mkdir()
    asked = {
        "gridsearch tensorb": {"tensorboard"},
        "gridsearch run --grid opt": {"optimizer="},
        "gridsearch run --grid optimizer=sgd,ad": {"optimizer=sgd,adam", "optimizer=sgd,adamw"},
        "gridsearch run --dataset folder:pic": {"folder:pictures/"},
        "gridsearch report --pareto accuracy,par": {"accuracy,parameters"},
        "gridsearch export --to w": {"wandb-offline"},
    }
    found = shell("fish", FISH, *asked).splitlines()
    assert [set(line.split()) for line in found] == list(asked.values())


def test_tab_in_zsh_completes_the_line_that_is_typed(shell, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "setup").write_text(ZSH)
    asked = {
        "gridsearch tensorb": "gridsearch tensorboard ",
        "gridsearch run --grid opt": "gridsearch run --grid optimizer=",
        "gridsearch run --grid optimizer=ad": "gridsearch run --grid optimizer=adam",
        "gridsearch run --dataset folder:pic": "gridsearch run --dataset folder:pictures/",
        "gridsearch report --by bal": "gridsearch report --by balanced_accuracy ",
    }
    assert shell.typed("zsh", asked) == list(asked.values())


def test_each_shell_gets_its_code_and_a_broken_store_no_word(cli, tmp_path, capsys):
    for name in SHELLS:
        assert cli("completion", name).out.strip() == script(name).strip()
        assert "gridsearch" in script(name)
    from gridsearch.cli import completion
    from gridsearch.cli.parser import build_parser

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "gridsearch.db").write_text("no database")
    assert completion._studies(parsed_args=build_parser().parse_args(["report"])) == []
    assert capsys.readouterr() == ("", "")
