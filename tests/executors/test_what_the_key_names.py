"""A worker trains on the images and files that its trial's key names, or not at all."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from gridsearch import plugins
from gridsearch.executors.pack_trainer import PackTrainer
from gridsearch.plugins import file_loader
from gridsearch.records import (
    ImageSettings,
    Lane,
    Pack,
    ProbeRequest,
    Trial,
    TrialFailed,
    TrialFinished,
    TrialState,
    WorkerSetup,
)
from gridsearch.zoo import datasets
from gridsearch.zoo.datasets import shared_images

if TYPE_CHECKING:
    from pathlib import Path


def fill(folder: Path, first: int = 0, count: int = 8) -> None:
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + count):
            pixels = np.random.default_rng(1000 * label + i).integers(0, 200, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


class Worker:
    """A trainer on a folder, and the settings that its key was made of."""

    def __init__(self, folder: Path, *, model: str = "mlp", **options) -> None:
        self.events: list = []
        self.folder = folder
        self.root = folder.parent / "root"
        plugin = plugins.find(model, plugins.MODELS)
        self.model = {
            "model": plugin.name,
            "model_options": {**plugin.options(), **options},
            "model_source": plugin.identity(options),
        }
        setup = WorkerSetup(
            name="w",
            dataset=f"folder:{folder}",
            models={plugin.name: plugin.locator},
            data_root=str(self.root),
            device="cpu",
            threads=1,
        )
        self.trainer = PackTrainer(setup, self.events.append)

    def settings(self, **options) -> ImageSettings:
        """Settings of the images as they are now."""
        plugin = datasets.open_dataset(f"folder:{self.folder}")
        full = {"size": "auto", "channels": "auto", **options}
        return ImageSettings(
            dataset=plugin.name,
            data_options=full,
            data_fingerprint=datasets.fingerprint(plugin, self.root, full),
            epochs=1,
            batch=4,
            **self.model,
        )

    def train(self, settings: ImageSettings):
        """Train one trial and return how it ended."""
        self.events.clear()
        trial = Trial(
            id=1,
            number=0,
            key="k",
            seed=0,
            settings=settings,
            params={},
            state=TrialState.RUNNING,
            attempt=1,
        )
        pack = Pack("p", (Lane(trial, str(self.folder.parent / "scratch")),))
        self.trainer.train(pack, stop=lambda: False)
        return next(e for e in self.events if isinstance(e, TrialFinished | TrialFailed))


@pytest.fixture
def worker(tmp_path):
    fill(tmp_path / "pets")
    return Worker(tmp_path / "pets")


def arrive(folder):
    fill(folder, first=100, count=2)


def vanish(folder):
    (folder / "cat" / "1.png").unlink()


def change(folder):
    (folder / "dog" / "3.png").write_bytes((folder / "cat" / "3.png").read_bytes())


def move_to_another_class(folder):
    (folder / "cat" / "1.png").rename(folder / "dog" / "100.png")


def be_another_class(folder):
    (folder / "cat").rename(folder / "horse")


def go(folder):
    folder.rename(folder.parent / "elsewhere")


@pytest.mark.parametrize("happens", [arrive, vanish, change, move_to_another_class, be_another_class])
def test_images_that_change_during_a_run_fail_the_trials_that_would_read_them(worker, happens):
    first, second = worker.settings(), worker.settings(size=4)
    assert worker.train(first).state is TrialState.COMPLETE
    happens(worker.folder)
    ended = worker.train(second)
    assert isinstance(ended, TrialFailed)
    assert "images have changed" in ended.message


SETS = """
import os
import torch
from torch import nn
torch.set_default_dtype(torch.float64)
os.environ["NET_WIDTH"] = "3"
class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        width = int(os.environ["NET_WIDTH"]) + torch.ones(1).element_size()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, num_classes))
    def forward(self, x):
        return self.net(x)
"""


def test_what_a_file_sets_while_it_is_imported_holds_for_every_pack_alike(tmp_path, monkeypatch):
    monkeypatch.delenv("NET_WIDTH", raising=False)
    (tmp_path / "net.py").write_text(SETS)
    fill(tmp_path / "pets")
    worker = Worker(tmp_path / "pets", model=f"{tmp_path}/net.py:Net")
    settings = worker.settings()
    monkeypatch.delenv("NET_WIDTH")
    monkeypatch.setattr(file_loader, "_LOADED", {})  # as in a worker, where a pack is what imports it
    first, second = worker.train(settings), worker.train(settings)
    assert first.metrics["parameters"] == (64 + 1) * 11 + (11 + 1) * 2
    assert first.metrics == second.metrics
    assert torch.get_default_dtype() is torch.float32


def test_an_interrupt_that_a_network_raises_in_a_worker_fails_its_trial(tmp_path):
    (tmp_path / "net.py").write_text("def net(num_classes):\n    raise KeyboardInterrupt\n")
    fill(tmp_path / "pets")
    worker = Worker(tmp_path / "pets", model=f"{tmp_path}/net.py:net")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as there
    try:
        ended = worker.train(worker.settings())
    finally:
        signal.signal(signal.SIGINT, before)
    assert (type(ended), ended.message) == (TrialFailed, "KeyboardInterrupt")


def test_a_folder_that_goes_during_a_run_fails_its_trials(worker):
    settings = worker.settings()
    go(worker.folder)
    assert isinstance(worker.train(settings), TrialFailed)


def test_what_was_loaded_before_the_change_is_what_the_key_names(worker):
    settings = worker.settings()
    before = worker.train(settings)
    arrive(worker.folder)
    assert worker.train(settings).metrics == before.metrics


def test_images_that_are_put_back_are_those_that_the_key_names(worker):
    settings = worker.settings()
    content = (worker.folder / "cat" / "1.png").read_bytes()
    vanish(worker.folder)
    assert isinstance(worker.train(settings), TrialFailed)
    (worker.folder / "cat" / "1.png").write_bytes(content)
    assert worker.train(settings).state is TrialState.COMPLETE


def test_a_pack_of_other_images_is_not_timed(worker):
    settings = worker.settings()
    arrive(worker.folder)
    assert worker.trainer.probe(ProbeRequest(key="k", settings=settings, lanes=(1,))).seconds_per_image == {}


def test_a_dataset_that_gives_other_images_each_time_trains_nothing(tmp_path):
    source = tmp_path / "noise.py"
    source.write_text(
        "import numpy as np\n"
        "def noise():\n"
        "    pixels = np.random.default_rng().integers(0, 255, (12, 4, 4), dtype='uint8')\n"
        "    return {'train_images': pixels, 'train_labels': np.arange(12) % 2}\n"
    )
    fill(tmp_path / "pets")
    worker = Worker(tmp_path / "pets")
    plugin = datasets.open_dataset(f"{source}:noise")
    setup = worker.trainer.setup
    worker.trainer = PackTrainer(
        WorkerSetup(
            name="w",
            dataset=plugin.locator,
            models=setup.models,
            data_root=setup.data_root,
            device="cpu",
            threads=1,
        ),
        worker.events.append,
    )
    settings = ImageSettings(
        dataset=plugin.name,
        data_fingerprint=datasets.fingerprint(plugin, tmp_path, {}),
        epochs=1,
        batch=4,
        **worker.model,
    )
    assert "images have changed" in worker.train(settings).message


NET = """
import os, torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, weights="w.pt"):
        super().__init__()
        self.out = nn.Linear(192, num_classes)
        self.out.load_state_dict(torch.load(weights))
        if os.environ.get("GRIDSEARCH_TEST_SWAP"):  # a file that changes after it was hashed
            torch.save(nn.Linear(192, num_classes).state_dict(), weights)

    def forward(self, x):
        return self.out(x.flatten(1).repeat(1, 3)[:, :192])

Net.file_options = ("weights",)
"""


@pytest.mark.parametrize("when", ["before", "while it is read", "gone"])
def test_a_weights_file_that_changes_during_a_run_fails_its_trials(tmp_path, monkeypatch, when):
    (tmp_path / "net.py").write_text(NET)
    weights = tmp_path / "w.pt"
    torch.save(torch.nn.Linear(192, 2).state_dict(), weights)
    fill(tmp_path / "pets")
    worker = Worker(tmp_path / "pets", model=f"{tmp_path}/net.py:Net", weights=str(weights))
    settings = worker.settings()
    assert worker.train(settings).state is TrialState.COMPLETE
    if when == "before":
        torch.save(torch.nn.Linear(192, 2).state_dict(), weights)
    elif when == "gone":
        weights.unlink()
    else:
        monkeypatch.setenv("GRIDSEARCH_TEST_SWAP", "1")
    ended = worker.train(settings)
    assert isinstance(ended, TrialFailed)
    assert "has changed since the run began" in ended.message


OWN = """
import numpy as np
def images():
    rng = np.random.default_rng(0)
    return {'train_images': rng.integers(0, 255, (24, 4, 4), dtype='uint8'), 'train_labels': np.arange(24) % 2}
"""


def test_images_that_are_shared_are_trained_on_without_the_datasets_code(tmp_path, monkeypatch):
    source = tmp_path / "own.py"
    source.write_text(OWN)
    plugin = datasets.open_dataset(f"{source}:images")
    data, fingerprint = datasets.load_known(plugin, tmp_path, {})
    worker = Worker(tmp_path)
    settings = ImageSettings(
        dataset=plugin.name, data_fingerprint=fingerprint, epochs=1, batch=4, **worker.model
    )

    def trained(images):
        setup = replace(worker.trainer.setup, dataset=plugin.locator, images=images)
        worker.trainer = PackTrainer(setup, worker.events.append)
        return worker.train(settings)

    alone = trained({})
    monkeypatch.setattr(shared_images, "SHARED_FROM", 0)
    datasets.share(data, fingerprint)
    source.unlink()
    assert isinstance(trained({}), TrialFailed)
    shared = trained({fingerprint: datasets.key_of(data, fingerprint)})
    assert shared.metrics == alone.metrics
