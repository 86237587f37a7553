"""Training works where the packages of the store, the reports and the service are missing."""

from __future__ import annotations

import subprocess
import sys

MISSING = (
    "optuna", "sqlalchemy", "alembic", "optuna_dashboard", "pandas", "seaborn", "matplotlib", "tensorboard",
    "sklearn", "scipy", "rich", "pydantic", "jinja2", "onnx", "onnxscript", "ray",
)  # fmt: skip

SCRIPT = f"""
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Absent())
import tempfile

import torch

from gridsearch.records import Lane, Pack, ImageSettings, Trial, TrialFinished, TrialState
from gridsearch.training import ResidentCache, TrainContext, describe, method_of, train_pack
from gridsearch.training.probe import probe
from gridsearch.plugins import ImageData
from gridsearch.zoo.models import lenet
import numpy as np

images = np.random.default_rng(0).integers(0, 256, (40, 1, 28, 28), dtype=np.uint8)
data = ResidentCache(
    ImageData(
        train_images=images, train_labels=np.arange(40) % 4, test_images=images[:4],
        test_labels=np.arange(4), class_names=tuple("abcd"),
    ),
    device="cpu",
)
build = lambda s, d: lenet(d.channels, d.num_classes, d.image_size)
settings = ImageSettings(dataset="noise", model="lenet", epochs=1, batch=8)
with tempfile.TemporaryDirectory() as folder:
    lanes = tuple(
        Lane(Trial(id=n, number=n, key=str(n), seed=n, settings=settings, params={{}},
                   state=TrialState.RUNNING, attempt=1), f"{{folder}}/{{n}}")
        for n in range(2)
    )
    events = []
    train_pack(Pack("p", lanes), TrainContext(data=data, build=build, device="cpu"), emit=events.append)
ends = [e for e in events if isinstance(e, TrialFinished)]
assert len(ends) == 2, events
describe()
print("trained")
"""


def test_training_needs_none_of_the_other_packages(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.strip() == "trained", done.stderr
