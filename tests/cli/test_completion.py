"""Completion in real shells: commands, options, studies, axes and their words, models, datasets, metrics."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gridsearch.cli.completion import SHELLS, script

BASH = r"""
eval "$(gridsearch completion bash)"
complete -p gridsearch >&2
while IFS= read -r COMP_LINE; do
    COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COMPREPLY=()
    _python_argcomplete gridsearch
    printf '%s\n' "${COMPREPLY[*]}"
done
"""
ZSH = 'autoload -Uz compinit && compinit -u; eval "$(gridsearch completion zsh)"; print -r -- $_comps[gridsearch]'
FISH = "gridsearch completion fish | source; complete -C 'gridsearch tensorb'"


@pytest.fixture
def shell(tmp_path):
    """Run a script in a shell that finds the program on its search path, as an installed one is found."""
    place = tmp_path / "bin"
    place.mkdir()
    program = place / "gridsearch"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m gridsearch "$@"\n')
    program.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{place}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }

    def run(name: str, text: str, *lines: str) -> str:
        if shutil.which(name) is None:
            pytest.skip(f"no {name} here")
        done = subprocess.run(
            [name, "-c", text], input="".join(f"{line}\n" for line in lines), env=env, cwd=tmp_path,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


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


def test_zsh_and_fish_take_their_lines(shell):
    assert shell("zsh", ZSH).strip().startswith("_python_argcomplete")
    assert "tensorboard" in shell("fish", FISH)


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
