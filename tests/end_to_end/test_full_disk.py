"""A disk that fills up while trials train: told in one line with the right exit code, no trial is blamed, nothing is lost."""

from __future__ import annotations

import subprocess

import pytest

pytestmark = pytest.mark.end_to_end

WORDS = (
    *("run", "--dataset", "digits", "--model", "mlp", "--set", "model.hidden=10000", "batch=256"),
    *("--grid", "lr=.1,.03,.01,.003,.001,.0003", "--epochs", "1", "--no-report", "-q"),
)
"""Six trials that leave 3 MB each."""

DISK = 12 << 20


@pytest.fixture
def small_disk(home):
    """The home on a disk of its own, of 12 MB; the function makes it larger."""

    def mount(*options: str) -> subprocess.CompletedProcess[str]:
        words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(home)]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    home.mkdir()
    try:
        mounted = mount(f"size={DISK}")
    except OSError as error:
        pytest.skip(f"mount cannot be called: {error}")
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    try:
        yield lambda: mount("remount", f"size={DISK * 20}")
    finally:
        subprocess.run(["umount", str(home)], check=True)


def counts(cli) -> dict[str, int]:
    return cli("status", "--json").json["studies"][0]["counts"]


def test_a_run_stops_and_goes_on_where_there_is_room(program, cli, small_disk):
    stopped = program(*WORDS, "--workers", "1", "--lanes", "2", timeout=120)
    assert stopped.code == 4, stopped.err
    assert "no space left" in stopped.error
    assert "free some space and run the same command again" in stopped.err
    found = counts(cli)
    assert found.get("failed", 0) == found.get("running", 0) == 0
    assert 0 < found["complete"] < 6
    assert found["complete"] + found["waiting"] == 6

    small_disk()
    done = cli(*WORDS, "--executor", "inline")
    assert done.code == 0, done.err
    assert counts(cli)["complete"] == 6


@pytest.mark.usefixtures("no_graph")
def test_the_refit_of_the_winner_stops_and_leaves_the_study_as_it_was(program, cli, small_disk, home):
    words = (*WORDS[:-6], "lr=.1", *WORDS[-4:])
    assert cli(*words, "--executor", "inline").code == 0
    filler = home / "filler"
    filler.write_bytes(bytes(5 << 20))
    stopped = program("best", "--study", "digits", timeout=120)
    assert stopped.code == 4, stopped.err
    assert "no space left" in stopped.error
    filler.unlink()
    assert counts(cli)["complete"] == 1

    small_disk()
    assert cli("best", "--study", "digits", "--executor", "inline").code == 0
