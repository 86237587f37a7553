"""Every command has help that begins with an example, and says plainly what there is."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from gridsearch.cli.parser import build_parser
from gridsearch.service.prepare.option_words import duration

COMMANDS = (
    "run",
    "plan",
    "report",
    "add",
    "worker",
    "status",
    "stop",
    "study",
    "trial",
    "best",
    "predict",
    "dashboard",
    "serve",
    "tensorboard",
    "export",
    "store",
    "data",
    "models",
    "doctor",
    "completion",
)


def subcommands() -> argparse._SubParsersAction:
    return next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))


def subparsers() -> dict[str, argparse.ArgumentParser]:
    return dict(subcommands().choices)


def test_these_are_the_commands():
    assert set(subparsers()) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_begins_with_an_example_that_parses(cli, command):
    result = cli(command, "--help")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0] == "example:"
    for line in lines[1 : lines.index("")]:
        typed = re.sub(r'^eval "\$\((.*)\)"', r"\1", line.strip())
        words = shlex.split(re.split(r"\s{3,}\(| > | \| ", typed)[0])
        assert words[0] == "gridsearch"
        build_parser().parse_args(words[1:])


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_80_columns_says_what_the_command_does_and_ends_with_the_options_of_all(
    monkeypatch, command
):
    monkeypatch.setenv("COLUMNS", "80")
    text = (subparsers()[command] if command else build_parser()).format_help()
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert f"\nusage: gridsearch {command}{' ' * bool(command)}[options]" in text
    if command:
        (listed,) = (each.help for each in subcommands()._choices_actions if each.dest == command)
        assert f"{listed[1:]}." in " ".join(text.replace("-\n", "-").split())
    own, _, common = text.partition("\noptions of every command:\n")
    assert "--help" in own
    assert common.partition("\n\n")[0].rstrip().endswith("no colour (also $NO_COLOR)")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_common_options_exist_on_every_command(command):
    options = {o for a in subparsers()[command]._actions for o in a.option_strings}
    assert {"--home", "--store", "--json", "-q", "-v", "--no-color"} <= options


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["status"], (None, False)),
        (["--home", "a", "--json", "status"], ("a", True)),
        (["status", "--home", "a", "--json"], ("a", True)),
        (["--home", "a", "status", "--home", "b"], ("b", False)),
        (["--json", "study", "list", "--home", "b"], ("b", True)),
    ],
)
def test_common_options_may_stand_before_the_command_too_and_the_nearer_one_wins(words, expected):
    arguments = build_parser().parse_args(words)
    assert (arguments.home, arguments.json) == expected


def test_every_option_of_the_interface_is_there():
    options = {o for a in subparsers()["run"]._actions for o in a.option_strings}
    wanted = "grid exclude when study dataset model epochs seeds val subset device workers lanes executor prune budget set retries keep-going no-report"
    assert {f"--{name}" for name in wanted.split()} <= options


def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from gridsearch.cli import main\n"
        "main(['--help'])\n"
        "heavy = {'torch', 'optuna', 'sqlalchemy', 'pandas', 'matplotlib', 'tensorboard', 'numpy', 'pydantic', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_version_is_the_packages(cli):
    from gridsearch import __version__

    assert cli("--version").out.strip() == f"gridsearch {__version__}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1d", 86400), ("45", 45)],
)
def test_durations_are_read(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "0s", "-3m", "1.5h", "h", "3x"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        duration(text)


def test_models_list_names_every_built_in_model(cli):
    found = {m["name"]: m for m in cli("models", "list", "--json").json["models"]}
    assert set(found) >= {"lenet", "lenet_bn", "mlp", "tinyvgg", "cnn", "cnn_dropout", "cnn3"}
    assert all(m["summary"] for m in found.values())
    text = cli("models", "list").out
    assert all(name in text for name in found)


def test_models_show_gives_the_layer_table_of_the_three_block_network(cli):
    shown = cli("models", "show", "cnn3", "--json").json
    assert shown["parameters"] == 1_238_538
    assert sum(row["parameters"] for row in shown["layers"]) == 1_238_538
    text = cli("models", "show", "cnn3").out
    assert "1,238,538" in text
    assert "Conv2d" in text
    assert "output shape" in text


def test_models_show_takes_options_datasets_and_own_files(cli, tmp_path):
    wide = cli("models", "show", "lenet", "--set", "model.width=2", "--dataset", "digits", "--json").json
    assert wide["input_shape"] == [1, 16, 16]
    assert wide["options"]["width"] == 2
    (tmp_path / "n.py").write_text(
        "from torch import nn\ndef net(num_classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))\n"
    )
    assert cli("models", "show", "n.py:net", "--json").json["parameters"] == 7850
    bad = cli("models", "show", "n.py:net", "--dataset", "digits")
    assert bad.code == 2


def test_data_list_tells_the_state_of_each_dataset(cli):
    found = {d["name"]: d for d in cli("data", "list", "--json").json["datasets"]}
    assert found["digits"]["state"] == "ready"
    assert found["mnist"]["state"] == "not fetched"
    assert "fmnist" in cli("data", "list").out
    assert cli("data", "verify", "digits").code == 0


def test_verify_counts_and_names_the_files_of_a_folder_that_a_run_leaves_out(cli, tmp_path):
    for name, shade in (("cat", 30), ("dog", 200)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("L", (4, 4), shade).save(tmp_path / "pets" / name / "0.png")
    whole = cli("data", "verify", f"folder:{tmp_path / 'pets'}")
    assert whole.code == 0
    assert "2 images, 2 classes: cat 1, dog 1" in whole.out
    (tmp_path / "pets" / "cat" / "bad.png").write_text("x")
    broken = cli("data", "verify", f"folder:{tmp_path / 'pets'}")
    assert broken.code == 4
    assert (
        "folder:pets: 1 file has a problem, and a run leaves it out\ncat/bad.png: not an image" in broken.out
    )
    assert "all files are as they should be" not in broken.out


def test_data_fetch_from_an_empty_folder_is_exit_4(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    result = cli("data", "fetch", "mnist", "--from", "empty")
    assert result.code == 4
    assert "train-images-idx3-ubyte" in result.error
    assert cli("data", "fetch", "mnist", "--from", "nowhere").code == 2


def test_doctor_examines_everything_and_writes_nothing(cli, home):
    result = cli("doctor", "--model", "mlp", "--json")  # every built-in model: test_methods_told
    assert result.json["engines"][0] == {"engine": "local", "ready": True, "missing": []}
    assert result.code == 0, result.out
    subjects = {finding["subject"]: finding for finding in result.json["findings"]}
    assert {"python", "torch", "optuna", "device", "home", "cache", "store", "data fmnist"} <= set(subjects)
    assert subjects["data fmnist"]["mend"] == "gridsearch data fetch fmnist"
    assert not home.exists()


def test_doctor_finds_a_store_that_is_none(cli, tmp_path):
    (tmp_path / "x.db").write_text("no database")
    result = cli("doctor", "--model", "mlp", "--store", f"sqlite:///{tmp_path / 'x.db'}", "--json")
    assert result.code == 4
    assert any(f["subject"] == "store" and f["verdict"] == "bad" for f in result.json["findings"])


def test_status_and_study_list_of_no_store_are_empty_and_make_none(cli, home):
    assert cli("status", "--json").json == {"schema": 1, "studies": []}
    assert cli("study", "list", "--json").json == {"schema": 1, "studies": []}
    assert "no studies yet" in cli("status").out
    assert not home.exists()


def test_a_reader_that_has_enough_is_no_error():
    code = "import sys\nfrom gridsearch.cli import main\nsys.exit(main(['models', 'list']))\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert "Traceback" not in err
    assert "Error" not in err


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler")
def test_doctor_names_what_is_kept_and_damaged_and_lives(cli, monkeypatch, tmp_path):
    kept = tmp_path / "compiled"
    kept.mkdir(mode=0o700)
    monkeypatch.setenv("GRIDSEARCH_KERNELS", str(kept))
    bad = kept / f"pooled-{'0' * 24}-{'0' * 24}.so"
    bad.write_bytes(b"\x7fELF cut off")
    probes = tmp_path / "cache" / "probes.json"
    probes.parent.mkdir()
    probes.write_text('{"half": ')
    said = cli("doctor", "--model", "mlp")
    told = " ".join(said.out.split())
    assert f"{bad} is damaged, or not this user's alone: it is compiled again" in told
    assert f"{probes} cannot be read" in told
    assert said.code == 0
