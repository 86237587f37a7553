"""What others may put into a command line, a store or a file does no harm: see the threats in docs/reliability.md."""

from __future__ import annotations

import socket
import textwrap

import pytest

SECRET = "hunter2"
COMMANDS = (
    *(
        "run --grid lr=1",
        "plan --grid lr=1",
        "best --study s",
        "doctor",
        "data list",
        "dashboard",
        "tensorboard",
        "serve",
        "worker",
        "add --grid lr=1",
    ),
    *("status", "report --study s", "export --study s", "trial 0 --study s", "study list", "study clean s"),
    "stop --study s",
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_password_in_the_stores_url_is_refused_by_every_command_and_repeated_by_none(
    cli, monkeypatch, tmp_path, command, by
):
    url = f"postgresql://me:{SECRET}@host/db"
    if by == "environment":
        monkeypatch.setenv("GRIDSEARCH_STORE", url)
    result = cli(*command.split(), *(("--store", url) if by == "option" else ()))
    assert result.code == 2
    assert "password" in result.error
    assert SECRET not in result.out + result.err
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and SECRET in p.read_text(errors="replace")]


def own_net(tmp_path, *, says: str) -> None:
    """Write a model's file that leaves a mark when it is imported."""
    text = f"""
        from pathlib import Path
        Path({str(tmp_path / "mark")!r}).write_text({says!r})
        from torch import nn

        class Net(nn.Module):
            def __init__(self, in_channels, num_classes, image_size):
                super().__init__()
                self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
            def forward(self, x):
                return self.net(x)
    """
    (tmp_path / "net.py").write_text(textwrap.dedent(text))


@pytest.mark.usefixtures("undrawn")
def test_code_of_a_study_runs_when_it_is_named_and_never_because_a_store_names_it(cli, tmp_path, monkeypatch):
    own_net(tmp_path, says="named")
    grid = (
        "--dataset",
        "digits",
        "--model",
        "net.py:Net",
        "--grid",
        "lr=.1",
        "--epochs",
        "1",
        "--subset",
        "100",
    )
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "listen", None)  # no run starts a server
        result = cli("run", *grid, "--study", "s", "--executor", "inline", "--no-report")
    assert result.code == 0, result.err
    assert (tmp_path / "mark").read_text() == "named"
    (tmp_path / "mark").unlink()
    own_net(tmp_path, says="evil")
    for command in (
        *("status", "report --study s", "export --study s", "trial 0 --study s", "study list"),
        *("run --study s", "run --study s --more-seeds 2", "best --study s", "plan --study s"),
    ):
        cli(*command.split())
        assert not (tmp_path / "mark").exists(), command


@pytest.mark.parametrize(
    ("command", "can"),
    [
        ("dashboard", "read and delete studies"),
        ("tensorboard", "read and delete studies"),
        ("serve", "read studies and stop their runs"),
    ],
)
def test_a_server_without_a_login_warns_when_it_leaves_this_machine(cli, tmp_path, command, can):
    (tmp_path / "f.py").write_text("def f(params, seed):\n    return {'y': 1.0}\n")
    run = (
        "run",
        "--objective",
        "f.py:f",
        "--metric",
        "y",
        "--grid",
        "a=1",
        "--executor",
        "inline",
        "--no-report",
    )
    assert cli(*run).code == 0
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = cli(command, "--host", "0.0.0.0", "--port", port)
        assert result.code == 2
        assert f"anybody who can reach this address can {can}" in result.err
        here = cli(command, "--port", port)
    assert "whoever reaches" not in here.err
