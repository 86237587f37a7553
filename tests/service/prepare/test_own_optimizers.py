"""A user's own optimizer and augmentation in studies: found, addressed, named again, planned, refused in one line."""

from __future__ import annotations

import json
import shlex
import textwrap

import numpy as np
import pytest
import torch

import gridsearch as gs
from gridsearch.cli import main
from gridsearch.errors import UsageError
from gridsearch.service.prepare.options import Places
from gridsearch.service.queries.studies import existing
from gridsearch.spec import build

pytestmark = pytest.mark.end_to_end

OWN = """
    import torch

    class Signs(torch.optim.Optimizer):
        def __init__(self, params, lr=1e-3, weight_decay=0.0, scale=1.0, betas=(0.9, 0.99)):
            super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "scale": scale})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.sub_(p.grad.sign(), alpha=group["lr"] * group["scale"])

    class Called(torch.optim.SGD):
        def __init__(self, weights, lr, scale=1.0):
            super().__init__(weights, lr * scale)

    class NoRate(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

    def noise(images, generator):
        return images + 0.05 * torch.randn(images.shape, generator=generator, dtype=images.dtype)

    def narrow(images):
        return images[..., :4]

    def leaves(images):
        raise SystemExit("no such file")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with `own.py`, in which commands are typed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GRIDSEARCH_HOME", raising=False)
    (tmp_path / "own.py").write_text(textwrap.dedent(OWN))
    return tmp_path


HOW = {"dataset": "digits", "model": "mlp", "subset": 120, "epochs": 1, "quiet": True}


def trained(study):
    with existing(Places.find(None, None)) as store:
        return store.study_data(study).trials


def test_code_of_files_trains_in_packs_and_a_change_of_it_makes_new_trials(own):
    grid = {
        "optimizer": ["own.py:Called", "own.py:Signs", "torch.optim:Adagrad"],
        "lr": [0.01, 0.02],
        "mixup": 0.2,
    }
    first = gs.run(grid, augment="own.py:noise", executor="inline", report=False, study="s", **HOW)
    assert (first.new, first.failed) == (6, 0)
    again = gs.run(grid, augment="own.py:noise", executor="inline", report=False, study="s", **HOW)
    assert (again.new, again.reused) == (0, 6)
    by_name = {t.settings.optimizer: t.settings for t in trained("s")}
    assert by_name.keys() == {"own.py:Called", "own.py:Signs", "torch.optim:Adagrad"}
    assert by_name["own.py:Signs"].optimizer_options == {"scale": 1}
    assert by_name["torch.optim:Adagrad"].optimizer_source is None
    assert len({t.settings.augment_source for t in trained("s")} - {None}) == 1

    (own / "own.py").write_text(textwrap.dedent(OWN).replace("0.05 *", "0.5 *"))
    changed = gs.run(grid, augment="own.py:noise", executor="inline", report=False, study="s", **HOW)
    assert (changed.new, len(trained("s"))) == (6, 12)
    assert {name for t in trained("s") for name in t.params} >= {"augment_version", "optimizer"}


@pytest.mark.usefixtures("no_graph")
def test_a_stored_study_goes_on_once_its_code_is_named_again(own, capsys):
    where = ["--dataset", "digits", "--model", "mlp", "--subset", "120", "--epochs", "1"]
    grid = ["--grid", "optimizer=own.py:Signs", "optimizer.scale=.5,1", "augment=own.py:noise"]
    assert main(["add", *where, *grid, "--study", "s", "--quiet"]) == 0
    assert main(["run", "--study", "s", "--quiet", "--executor", "inline"]) == 2
    told = capsys.readouterr().err
    assert "uses your own optimizer 'own.py:Signs', whose code runs only when it is named" in told
    assert "--code own.py:Signs --code own.py:noise" in told
    named = ["--code", "own.py:Signs", "--code", "own.py:noise"]
    assert main(["run", "--study", "s", *named, "--quiet", "--executor", "inline", "--no-report"]) == 0
    assert [t.state.name for t in trained("s")] == ["COMPLETE"] * 2
    assert main(["best", "--study", "s", *named, "--quiet", "--executor", "inline"]) == 0
    (own / "own.py").write_text(textwrap.dedent(OWN).replace("0.05 *", "0.5 *"))
    assert main(["run", "--study", "s", "--more-seeds", "1", *named, "--quiet"]) == 2
    told = capsys.readouterr().err
    assert "optimizer 'own.py:Signs' has changed since study 's' was made: own.py is edited" in told
    assert (
        f"`{shlex.join(['gridsearch', 'add', *where, *grid])} --study s --quiet` runs the grid again" in told
    )
    assert main(["add", *where, *grid, "--study", "s", "--quiet"]) == 0
    assert main(["run", "--study", "s", *named, "--executor", "inline", "--no-report"]) == 0
    told = capsys.readouterr().err
    assert "2 trials of study 's' were made with other code of own.py:Signs, own.py:noise than" in told
    assert [t.state.name for t in trained("s")] == ["COMPLETE"] * 4


def test_classes_and_functions_of_the_session_are_given_as_they_are(own):
    class Halves(torch.optim.SGD):
        def __init__(self, params, lr, power=1):
            super().__init__(params, lr / 2**power)

    def brighter(images):
        return (images * 1.5).clamp(max=1)

    how = HOW | {"executor": "inline", "report": False}
    found = gs.run(optimizer=["sgd", Halves], augment=brighter, study="s", **how)
    assert (found.new, found.failed) == (2, 0)
    found = gs.run({"optimizer.power": [1, 2]}, optimizer=Halves, augment=brighter, study="s", **how)
    assert (found.new, found.reused, found.failed) == (1, 1, 0)
    again = gs.run(study="s", code=[Halves, brighter], more_seeds=1, top=1, executor="inline", quiet=True)
    assert again.new == 1
    assert gs.run(optimizer=torch.optim.Adagrad, study="t", **how).new == 1
    assert {t.settings.optimizer for t in trained("t")} == {"torch.optim:Adagrad"}
    with pytest.raises(UsageError, match="an instance of SGD was given, and each trial makes one of its own"):
        gs.run(optimizer=torch.optim.SGD([torch.zeros(1)], 0.1), **how)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("optimizer=own.py:Sigs", "'Sigs' is not in it; did you mean 'Signs'?"),
        ("optimizer=own.py:noise", "optimizer 'own.py:noise' is no class of optimizers"),
        ("optimizer=there.py:Lion", "optimizer 'there.py:Lion': no such file"),
        ("optimizer=lion", "unknown optimizer 'lion'"),
        ("optimizer=torch.optim:Adagard", "did you mean 'Adagrad'?"),
        ("optimizer=torch.optim:LBFGS", "computes the loss several times a step"),
        ("optimizer=own.py:Signs optimizer.scal=2", "has no such option; did you mean 'scale'?"),
        ("optimizer=own.py:Signs optimizer.lr=2", "optimizer.lr: use the recipe's key lr instead"),
        ("optimizer=own.py:Called optimizer.weights=2", "'own.py:Called' has no such option"),
        ("optimizer=adam optimizer.betas=1", "optimizer.betas: 'adam' takes no options"),
        ("optimizer=own.py:NoRate lr=.1,.2", "lr: optimizer 'own.py:NoRate' takes no lr"),
        ("optimizer=own.py:NoRate weight_decay=.1", "optimizer 'own.py:NoRate' takes no weight_decay"),
        ("optimizer=own.py:NoRate schedule=cosine", "schedule: optimizer 'own.py:NoRate' takes no lr"),
        ("augment=own.py:nois", "'nois' is not in it; did you mean 'noise'?"),
        ("augment=own.py:Signs", "augment 'own.py:Signs' is a class"),
        ("augment=own.py:narrow", "gives images of shape [8, 1, 8, 4] for [8, 1, 8, 8]"),
        ("augment=own.py:leaves", "augment 'own.py:leaves' cannot run: it raises SystemExit: no such file"),
        ("mixup=-1", "mixup must be at least 0, not -1"),
        ("cutmix=-.1", "cutmix must be at least 0"),
        ("magnitude=31", "magnitude must be at most 30, not 31"),
    ],
)
def test_what_does_not_work_is_refused_in_one_line_and_nothing_is_written(own, capsys, words, told):
    assert main(["run", "--dataset", "digits", "--model", "mlp", "--grid", *words.split()]) == 2
    error = capsys.readouterr().err.splitlines()
    assert told in error[0] and len(error) <= 2, error
    assert not (own / "runs").exists()


def test_a_plan_says_what_is_done_lane_after_lane(own, capsys):
    words = ["--grid", "lr=.1,.2", "optimizer=own.py:Signs", "augment=own.py:noise", "mixup=0,.2"]
    assert main(["plan", "--dataset", "digits", "--model", "mlp", *words, "--workers", "1", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert (group["method"], group["trials"]) == ("stacked", 4)
    assert "optimizer own.py:Signs takes its steps one lane after the other" in group["reason"]
    assert "augment own.py:noise is called for one lane after the other" in group["reason"]


def test_a_study_file_names_code_that_lies_beside_it(own, monkeypatch):
    (own / "study.toml").write_text(
        '[grid]\noptimizer = ["adam", "own.py:Signs"]\n[recipe]\naugment = "own.py:noise"\nmixup = 0.2\n'
    )
    (own / "elsewhere").mkdir()
    monkeypatch.chdir(own / "elsewhere")
    spec = build(file="../study.toml")
    assert spec.recipe.augment == "../own.py:noise" and spec.recipe.mixup == 0.2
    assert spec.grid.values["optimizer"] == ("adam", "../own.py:Signs")
    assert build(words=["optimizer.scale=1,2"], settings=["optimizer=own.py:Signs"]).grid.axes == (
        "optimizer.scale",
    )
    (own / "other.toml").write_text(
        '[recipe]\noptimizer = "own.py:Signs"\n"optimizer.scale" = 2\n[grid]\nlr = [1]\n'
    )
    assert build(file=own / "other.toml").recipe.optimizer_options == {"scale": 2}


@pytest.mark.filterwarnings("ignore::gridsearch.errors.GridsearchWarning")  # it changes what it reaches
def test_images_that_are_kept_as_fractions_are_tried_as_they_are(own):
    """An augmentation is tried before anything is written, on what the dataset has."""
    seen = []

    def look(images):
        seen.append((float(images.max()), str(images.dtype)))
        return images

    images = np.random.default_rng(0).random((40, 1, 6, 6)).astype(np.float32)
    data = {"train_images": images, "train_labels": np.arange(40) % 2}
    how = {"executor": "inline", "report": False, "quiet": True, "model": "mlp", "epochs": 1}
    gs.run(augment=look, dataset=data, study="s", dtype="float64", **how)
    tried, *trained_on = seen
    assert tried == (images[:8].max(), "torch.float32")
    assert {dtype for _, dtype in trained_on} == {"torch.float64"} and 0.9 < max(trained_on)[0] <= 1
