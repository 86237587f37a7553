"""Objects from Python: what is taken as data and as a model, and which functions run in the session's own process."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import threading
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils import Bunch
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

import gridsearch as gs
from gridsearch.api.given import Objects, as_dataset
from gridsearch.errors import DataError, GridsearchWarning, UsageError
from gridsearch.plugins.session_state import held_by
from gridsearch.zoo.datasets.arrays import image_data
from tests.plugins.addresses import made

IMAGES = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 1, 8, 8)
LABELS = np.array([0, 1, 0, 1])


def dataset():
    return TensorDataset(torch.tensor(IMAGES), torch.tensor(LABELS))


def test_a_torch_dataset_is_read_into_its_images_and_labels_in_order():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = as_dataset(Subset(dataset(), [3, 0]))()
    assert np.array_equal(found["train_images"], IMAGES[[3, 0]])
    assert list(found["train_labels"]) == [1, 0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (DataLoader(dataset()), "a DataLoader was given"),
        (TensorDataset(torch.tensor(IMAGES)), "the items of TensorDataset are no pairs"),
        (TensorDataset(torch.zeros(0, 1), torch.zeros(0)), "the items of TensorDataset are no pairs"),
        (torch.zeros(2, 2), "a Tensor was given"),
        (IMAGES, "an array was given"),
        (Bunch(data=IMAGES, images=IMAGES, target=LABELS), "a Bunch with 'images' and 'target' was given"),
        ({"x": IMAGES, "y": LABELS}, "a dict with 'x' and 'y' was given"),
        (3, "dataset must be a name"),
    ],
)
def test_what_holds_no_images_with_labels_is_refused_with_the_right_form(given, message):
    with pytest.raises(UsageError, match=message) as caught:
        as_dataset(given)
    assert caught.value.hint


def test_a_dataset_of_hugging_face_is_told_how_it_is_named():
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_dict({"image": [1, 2], "label": [0, 1]})
    for given in (one, datasets.DatasetDict(train=one)):
        with pytest.raises(UsageError, match="of Hugging Face's library was given") as caught:
            as_dataset(given)
        assert 'dataset="hf:FOLDER"' in caught.value.hint


@pytest.mark.end_to_end
def test_images_of_the_session_and_its_own_network_train_in_workers_and_are_refitted(home):
    class Net(torch.nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.out = torch.nn.Linear(64, num_classes)

        def forward(self, x):
            return self.out(x.flatten(1))

    labels = np.arange(90) % 3
    images = np.random.default_rng(0).integers(0, 60, (90, 8, 8), dtype=np.uint8)
    images[np.arange(90), labels] += 190
    how = {
        "dataset": {"train_images": images, "train_labels": labels},
        "model": Net,
        "home": home,
        "quiet": True,
    }
    result = gs.run(lr=[0.01, 0.1], epochs=3, study="own", report=False, executor="local", workers=1, **how)
    assert result.trials.state.tolist() == ["complete"] * 2
    assert result.trials.lr.tolist() == [0.01, 0.1]
    assert gs.run(study="own", more_seeds=1, top=1, report=False, executor="inline", **how).new == 1
    assert "test accuracy" in repr(gs.best("own", **how))


class Pictures(torch.utils.data.Dataset):
    def __init__(self, mode):
        self.mode = mode

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return Image.fromarray(IMAGES[0, 0]).convert(self.mode), i % 2


def test_pictures_whose_numbers_are_no_colours_are_refused():
    assert np.array_equal(as_dataset(Pictures("L"))()["train_images"][0], IMAGES[0, 0])
    with pytest.raises(UsageError, match="a Pillow image of mode 'P'"):
        as_dataset(Pictures("P"))


def test_numbers_of_half_precision_are_read_and_one_hot_labels_are_refused():
    halves = torch.tensor(IMAGES / 255).bfloat16()
    found = as_dataset(TensorDataset(halves, torch.tensor(LABELS)[:, None]))()
    assert np.array_equal(found["train_images"], halves.float().numpy())
    assert list(found["train_labels"]) == LABELS.tolist()
    given = as_dataset(TensorDataset(halves, torch.eye(2)[LABELS]))()
    with pytest.raises(DataError, match=r"train_labels have the shape \(4, 2\)") as caught:
        image_data(given, name="own")
    assert "argmax" in caught.value.hint


class Named(TensorDataset):
    def __init__(self, *names):
        super().__init__(torch.tensor(IMAGES), torch.tensor(LABELS))
        self.classes = list(names)


def test_parts_and_sums_of_datasets_have_the_names_of_their_classes():
    parts = [Subset(Subset(Named("cat", "dog"), [1, 2, 3]), [0, 2]), Named("cat", "dog")]
    for given in (parts[0], ConcatDataset(parts), ConcatDataset([dataset(), parts[1]])):
        assert as_dataset(given)()["class_names"] == ("cat", "dog")
    with pytest.warns(GridsearchWarning, match=r"name their classes differently \(cat, dog; dog, cat\)"):
        found = as_dataset(ConcatDataset([parts[1], Named("dog", "cat")]))()
    assert "class_names" not in found


class Noisy(torch.utils.data.TensorDataset):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image + torch.rand(()) * np.random.rand(), label


def test_a_dataset_that_draws_gives_the_same_images_each_time_and_leaves_the_session_s_draws_alone():
    """It is told of: its draws are those of all epochs, and of the validation images."""
    before = torch.get_rng_state()
    with pytest.warns(
        gs.GridsearchWarning, match="the images of Noisy are others each time.*give it as augment"
    ):
        one, two = (as_dataset(Noisy(torch.tensor(IMAGES), torch.tensor(LABELS)))() for _ in range(2))
    assert np.array_equal(one["train_images"], two["train_images"])
    assert torch.equal(torch.get_rng_state(), before)


def bare(params, seed):
    return {"value": 1.0}


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Frozen:
    rate: float


class Recorder:
    def __init__(self):
        self.rows = []

    def add(self, row):
        self.rows.append(row)


class Counts:
    calls = 0

    def __call__(self, params, seed):  # noqa: ARG002
        self.calls += 1
        return {"value": 1.0}


def _functions():
    seen, table, queue, recorder, count = [], {}, collections.deque(), Recorder(), 0
    rate, array, colour, frozen, pair = 0.1, np.ones(3), Colour.RED, Frozen(0.1), (1, 2)

    def nested(row):
        seen.append(row)

    def sets():
        nonlocal count
        count += 1

    class Fit:
        def __init__(self, data):
            self.data = data

        def __call__(self, params, seed):  # noqa: ARG002
            return {"value": float(sum(self.data))}

    held = {
        "list": lambda p, s: seen.append(p),
        "dict": lambda p, s: table.update(p),
        "deque": lambda p, s: queue.append(p),
        "object": lambda p, s: recorder.add(p),
        "through another function": lambda p, s: nested(p),
        "a name that it sets": lambda p, s: sets(),
        "a method of an object": recorder.add,
        "an object that counts": Counts(),
        "an object with a list": Fit([1, 2]),
        "partial": functools.partial(lambda rows, p, s: rows.append(p), seen),
    }
    free = {
        "nothing": lambda p, s: {"value": 1.0},
        "number": lambda p, s: {"value": rate},
        "array": lambda p, s: {"value": array.sum()},
        "enum": lambda p, s: {"value": colour.value},
        "frozen": lambda p, s: {"value": frozen.rate},
        "tuple": lambda p, s: {"value": pair[0]},
        "library": lambda p, s: {"value": np.sqrt(p["a"])},
        "an object with numbers": Fit((1, 2)),
        "its own names": lambda p, s: list(range(3)).append(s),
    }
    return held, free


HELD, FREE = _functions()


@pytest.mark.parametrize("name", HELD)
def test_a_function_that_fills_what_the_session_holds_runs_in_the_session(name):
    warned = []
    objects = Objects()
    objects.named({"objective": HELD[name]})
    assert objects.executor(None, warned.append) == "inline"
    assert "of this session: trials run in this process" in warned[0]
    assert objects.executor("inline", warned.append) == "inline"
    assert len(warned) == 1, "who asks for it is not warned"


@pytest.mark.parametrize("name", FREE)
def test_a_function_that_only_reads_travels_to_the_workers(name):
    assert held_by(FREE[name]) is None
    objects = Objects()
    objects.named({"objective": FREE[name]})
    assert objects.executor(None, pytest.fail) == "local"


def test_what_cannot_be_copied_runs_in_the_session_unless_workers_are_asked_for():
    lock, warned = threading.Lock(), []
    objects = Objects()
    objects.named({"objective": lambda params, seed: lock})
    assert objects.executor(None, warned.append) == "inline"
    assert "cannot pickle" in warned[0]
    with pytest.raises(UsageError, match="cannot be sent to a worker process"):
        objects.executor("local", warned.append)


def test_what_uses_a_replaced_function_of_an_installed_module_runs_in_the_session(monkeypatch):
    def mine(x):
        return x

    monkeypatch.setattr(np, "sqrt", mine)
    warned, objects = [], Objects()
    objects.named({"objective": lambda params, seed: np.sqrt(2)})
    assert objects.executor(None, warned.append) == "inline"
    assert "uses numpy.sqrt, which this session has replaced" in warned[0]
    monkeypatch.undo()
    import math  # a name of the function around, as in a test

    monkeypatch.setattr(math, "sqrt", mine)
    objects.named({"objective": lambda params, seed: math.sqrt(2)})
    assert objects.executor(None, warned.append) == "inline"
    assert "uses math.sqrt, which this session has replaced" in warned[1]
    with pytest.raises(
        UsageError, match=r"uses math\.sqrt.*a copy in a worker process would compute otherwise"
    ):
        objects.executor("local", warned.append)

    def helper():
        return math.sqrt(2)

    objects.named({"objective": lambda params, seed: helper()})
    assert objects.executor(None, warned.append) == "inline"
    assert "uses math.sqrt, which this session has replaced" in warned[2]


BOUND = {
    "looks 'Conv' up by a text": "def Conv(): return 1\ndef f(p, s): return globals()[p['k']]()",
    "looks 'RATE' up by a text": "RATE = 1\ndef f(p, s): return eval('RATE')",
    "asks for the subclasses of L": "class L: pass\nclass C(L): pass\ndef f(p, s): return len(L.__subclasses__())",
    "whose pickles leave out 'r'": (
        "class A:\n def __init__(self): self.r = 1\n def __reduce__(self): return (A, ())\n"
        " def __call__(self, p, s): return self.r\nf = A()\nf.r = 2"
    ),
    "uses a WeakSet": "import weakref\nclass A: pass\na = A()\nW = weakref.WeakSet([a])\ndef f(p, s): return len(W)",
}


@pytest.mark.parametrize("reason, code", BOUND.items(), ids=BOUND)
def test_what_a_copy_would_compute_otherwise_runs_in_the_session(reason, code):
    warned, objects = [], Objects()
    objects.named({"objective": made(code)})
    assert objects.executor(None, warned.append) == "inline"
    assert reason in warned[0]
    with pytest.raises(UsageError, match="would compute otherwise"):
        objects.executor("local", warned.append)


def test_several_runs_in_threads_give_each_its_own_numbers(home):
    import random

    def draws(params, seed):
        return {"value": random.random() + float(np.random.rand())}

    found = {}

    def go(name):
        how = {"home": home, "study": name, "quiet": True, "report": False, "executor": "inline"}
        found[name] = gs.run({"a": [1, 2, 3]}, objective=draws, **how).trials.value.tolist()

    go("alone")
    threads = [threading.Thread(target=go, args=(name,)) for name in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found["x"] == found["y"] == found["alone"]
