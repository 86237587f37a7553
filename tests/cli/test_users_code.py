"""What a user's code prints in a command's own process, and where it goes to, is its own affair."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from gridsearch.cli import main

LOUD = """
import os

import numpy as np
import torch

print("imported")


def images():
    print("read")
    os.system("echo started")
    labels = np.arange(60) % 2
    return {"train_images": np.repeat(labels, 16).reshape(60, 4, 4) * 200, "train_labels": labels}


def shift(images):
    print("augmented")
    return images


class Own(torch.optim.SGD):
    def __init__(self, params, lr):
        print("made")
        super().__init__(params, lr=lr)


class Net(torch.nn.Module):
    def __init__(self, num_classes, p=0.1):
        print("built")
        super().__init__()
        self.drop = torch.nn.Dropout(p)
        self.out = torch.nn.Linear(16, num_classes)

    def forward(self, x):
        return self.out(self.drop(x.flatten(1)))
"""


@pytest.mark.end_to_end
def test_json_is_all_of_the_standard_output_whatever_own_code_prints(tmp_path, home, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loud.py").write_text(LOUD)
    words = ["--dataset", "loud.py:images", "--model", "loud.py:Net", "--epochs", "1", "--study", "s"]
    grid = ["--grid", "dropout=0.1", "augment=loud.py:shift", "optimizer=loud.py:Own"]
    assert main(["run", *words, *grid, "--no-report", "--executor", "inline", "--json"]) == 0
    said = capfd.readouterr()
    assert json.loads(said.out)["counts"]["complete"] == 1
    for word in ("imported", "read", "started", "augmented", "made", "built"):
        assert f"{word}\n" in said.err
    assert main(["data", "show", "loud.py:images", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)


WANDERING = """
import os

import numpy as np

os.chdir("elsewhere")


def images():
    labels = np.load("labels.npy")
    os.chdir("deeper")
    return {"train_images": np.repeat(labels, 16).reshape(60, 4, 4) * 200, "train_labels": labels}
"""


def test_own_code_goes_to_a_folder_of_its_own_and_paths_mean_what_they_meant(
    tmp_path, home, cli, monkeypatch
):
    (tmp_path / "elsewhere" / "deeper").mkdir(parents=True)
    np.save(tmp_path / "elsewhere" / "labels.npy", np.arange(60) % 2)
    (tmp_path / "wander.py").write_text(WANDERING)
    (tmp_path / "net.py").write_text(LOUD)
    monkeypatch.chdir(tmp_path)
    plan = ("plan", "--dataset", "wander.py:images", "--model", "net.py:Net", "--grid", "lr=.1", "--json")
    assert cli(*plan).code == 0
    assert os.getcwd() == str(tmp_path)  # noqa: PTH109
