"""The winner is trained again on all training images, tested once, and exported."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from tests.service.winner.winner_runs import BEST, FILES, NET, RUN, files_of

pytestmark = pytest.mark.end_to_end


def test_best_tests_every_seed_of_the_winner_and_exports_the_first(exported):
    test = exported.test
    assert [one["seed"] for one in test["seeds"]] == [0, 1]
    assert test["exported_seed"] == 0
    assert test["params"] == {"lr": 0.01}
    assert test["accuracy"] == pytest.approx(np.mean([one["accuracy"] for one in test["seeds"]]))
    assert test["ci_low"] < test["accuracy"] < test["ci_high"]
    assert test["clean"] is True
    assert {p.name for p in exported.folder.iterdir()} == FILES


def test_the_refit_trains_on_validation_images_too_and_never_on_test_images(exported):
    model = json.loads((exported.folder / "model.json").read_text())
    assert model["trained_on"] + model["test"]["images"] == 1797
    assert model["recipe"]["val"] == 0


def trained_again(model, home):
    """Train what model.json tells of by the plain loop, on all images but the test ones."""
    import torch

    from gridsearch import plugins
    from gridsearch.records import ImageSettings
    from gridsearch.training import ResidentData
    from gridsearch.training.precision import Precision
    from gridsearch.training.seeds import isolated
    from gridsearch.training.solo import SoloProgram
    from gridsearch.zoo import datasets

    recipe = {k: v for k, v in model["recipe"].items() if not k.startswith("model.")}
    settings = ImageSettings(**recipe, model_options=model["model"]["options"])
    plugin = plugins.find(settings.model, plugins.MODELS)
    images = datasets.load(datasets.open_dataset("digits"), home, {})
    data = ResidentData.build(images, val=0.0, split_seed=0, smallest_input=plugin.smallest_input)
    device = torch.device("cpu")

    def build(settings, data):
        return plugin.build(
            in_channels=1, num_classes=10, image_size=data.image_size, options=settings.model_options
        )

    with isolated(device):
        program = SoloProgram(settings, 0, data, build, Precision.of("float32", device))
        for epoch in range(1, settings.epochs + 1):
            program.train_epoch(epoch)
    return program, images, data


def difference(mine, theirs):
    import torch

    assert set(mine) == set(theirs)
    return max(
        float(torch.linalg.vector_norm(mine[name] - tensor) / torch.linalg.vector_norm(tensor))
        for name, tensor in theirs.items()
    )  # as a whole: where a gradient is all but zero, Adam blows rounding up


def test_the_exported_weights_are_those_of_the_first_seed(exported):
    import torch
    from safetensors.torch import load_file

    model = json.loads((exported.folder / "model.json").read_text())
    program, images, data = trained_again(model, exported.home)
    mine, theirs = program.model.state_dict(), load_file(exported.folder / "model.safetensors")
    assert difference(mine, theirs) < 1e-3

    from onnx.reference import ReferenceEvaluator

    from gridsearch.training.export import ImageNetwork

    pixels = images.train_images[:40].astype(np.float32) / 255
    whole = ImageNetwork(program.model.eval(), data, norm="standard", size=(8, 8))
    with torch.no_grad():
        expected = whole(torch.from_numpy(pixels)).numpy()
    (found,) = ReferenceEvaluator(str(exported.folder / "model.onnx")).run(None, {"pixels": pixels})
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)


def test_the_exported_weights_are_the_average_where_the_recipe_asks_for_it(tmp_path, monkeypatch):
    from safetensors.torch import load_file

    import gridsearch as gs

    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))
    how = {"home": tmp_path / "home", "executor": "inline", "quiet": True}
    grid = {"ema": [0.9], "model.hidden": [8]}
    gs.run(grid=grid, dataset="digits", model="mlp", epochs=2, seeds=2, report=False, **how)
    folder = gs.best("digits", **how).folder
    model = json.loads((folder / "model.json").read_text())
    assert model["recipe"]["ema"] == 0.9
    program, _, _ = trained_again(model, tmp_path)
    exported = load_file(folder / "model.safetensors")
    assert difference(program.state_dict(), exported) < 1e-3
    assert difference(program.model.state_dict(), exported) > 1e-2


def test_a_second_call_shows_what_was_found_and_reads_nothing(cli, exported, monkeypatch):
    monkeypatch.setattr("gridsearch.service.winner.refit.Refit.execute", lambda *_: pytest.fail("read again"))
    before = files_of(exported.home)
    result = cli(*BEST, "--json")
    assert result.code == 0
    assert result.json["test"] == exported.test
    assert result.json["fresh"] is False
    assert "was used before" in cli(*BEST).out
    assert files_of(exported.home) == before
    named = cli(*BEST, "--dataset", "fmnist")
    assert "without --again neither data nor a model is used" in named.err


def test_again_says_that_it_is_no_clean_test(cli, exported):
    result = cli(*BEST, "--again", "--json")
    assert result.code == 0, result.err
    test = result.json["test"]
    assert (test["clean"], test["reading"]) == (False, 2)
    assert test["accuracy"] == exported.test["accuracy"]
    assert "no longer a clean test" in cli(*BEST).out
    assert "no longer a clean test" in (exported.folder / "card.md").read_text()
    assert {p.name for p in exported.folder.iterdir()} == FILES
    assert not list((exported.home / "digits" / ".best").glob("*"))


def test_the_ranking_holds_the_test_and_is_otherwise_as_it_was(cli, exported):
    found = cli("export", "--study", "digits", "--format", "json").json
    assert found["test"] == exported.test
    assert found["counts"]["complete"] == len(found["trials"]) == 4


@pytest.mark.usefixtures("undrawn")
def test_the_report_shows_the_test(cli, exported):
    assert f"{100 * exported.test['accuracy']:.2f} %" in cli("report", "--study", "digits").out
    page = (exported.home / "digits" / "report" / "index.html").read_text()
    assert "On the test set (300 images)" in page


def test_the_report_says_nothing_of_a_test_that_was_not_made(cli):
    assert cli(*RUN, "--grid", "lr=.01").code == 0
    assert cli("export", "--study", "digits", "--format", "json").json["test"] is None


@pytest.mark.usefixtures("no_graph")
def test_a_new_winner_is_told_and_tested_only_when_asked_for(cli, exported):
    assert cli(*RUN, "--grid", "lr=.01", "--epochs", "8", "--model", "lenet", "--seeds", "2").code == 0
    result = cli(*BEST, "--json")
    assert result.json["winner_changed"] is True
    assert result.json["test"] == exported.test
    assert "another point leads now" in result.err
    again = cli(*BEST, "--again", "--json").json["test"]
    assert again["epochs"] == 8
    assert again["clean"] is False


def test_of_two_that_record_the_same_reading_the_second_is_refused(exported):
    from gridsearch.store import open_store

    with open_store(f"sqlite:///{exported.home}/gridsearch.db", home=exported.home, create=False) as store:
        study = store.study_id("digits")
        assert not store.record_test(study, {"accuracy": 0.0}, nth=1)
        assert store.study_data("digits").test == exported.test
        assert store.record_test(study, {"accuracy": 0.5}, nth=2)
        assert not store.record_test(study, {"accuracy": 0.0}, nth=2)
        assert store.study_data("digits").test == {"accuracy": 0.5}


@pytest.mark.usefixtures("no_graph")
def test_one_seed_has_an_interval_over_images_and_says_so(cli):
    assert cli(*RUN, "--grid", "lr=.01").code == 0
    result = cli(*BEST)
    assert "one seed; Wilson's over the images, which does not cover variation between seeds" in result.out


@pytest.mark.usefixtures("no_graph", "undrawn")
def test_a_choice_among_epochs_becomes_their_median(cli):
    words = ("--grid", "lr=.3", "--seeds", "3", "--epochs", "6", "--set", "select=best", "optimizer=sgd")
    assert cli(*RUN, *words).code == 0
    trials = cli("report", "--study", "digits", "--json").json["trials"]
    chosen = sorted(t["metrics"]["selected_epoch"] for t in trials)
    result = cli(*BEST, "--json")
    assert result.json["test"]["epochs"] == chosen[1]
    assert "the median over seeds" in result.err


def test_trials_that_lose_their_patience_are_complete_and_told_everywhere(cli, home):
    from gridsearch import reporting
    from gridsearch.reporting.output.cautions import cautions
    from gridsearch.service.winner.choice import choose
    from gridsearch.store import open_store

    words = ("--grid", "lr=1", "patience=1,2", "--seeds", "2", "--epochs", "30", "--set", "optimizer=sgd")
    ran = cli(*RUN, *words)
    assert ran.code == 0
    with open_store(f"sqlite:///{home}/gridsearch.db", home=home, create=False) as store:
        data = store.study_data("digits")
        winner = choose(store, data)
    for trial in data.trials:
        rows = [(-row.val_accuracy, row.val_loss, row.epoch) for row in data.epochs[trial.number]]
        waited = [n - min(rows[:n])[2] for n in range(1, len(rows) + 1)]
        assert waited[-1] == trial.settings.patience > max(waited[:-1])
        assert (trial.state, trial.epochs, trial.stopped_early) == ("complete", len(rows), True)
    assert any(" stopped early, after " in words for words in cautions(data, reporting.rank(data)))
    assert winner.settings.epochs == min(t.epochs for t in winner.point.trials)
    assert winner.settings.patience is None
    assert any("nothing stops the refit early" in note for note in winner.notes)
    first = data.trials[0]
    said = f"(stopped early, no better since epoch {first.epochs - first.settings.patience})"
    assert f" after epoch {first.epochs} of 30 {said}" in ran.err
    assert f"{first.epochs} of 30 {said}" in cli("trial", "0", "--study", "digits").out
    found = cli("export", "--study", "digits", "--format", "csv").out.splitlines()
    assert found[0].endswith(",stopped_early")
    assert all(line.endswith(",true") for line in found[1:])
    assert {t["stopped_early"] for t in reporting.report_json(data)["trials"]} == {True}


@pytest.mark.usefixtures("no_graph")
def test_a_study_without_validation_is_warned_of_loudly(cli, home):
    assert cli(*RUN, "--grid", "lr=.01", "--val", "0").code == 0
    result = cli(*BEST)
    assert result.code == 0
    assert "TRAIN accuracy" in result.err
    assert "TRAIN accuracy" in (home / "digits" / "best" / "card.md").read_text()


@pytest.mark.usefixtures("no_graph")
def test_where_takes_the_winner_among_some(cli, exported):
    found = cli(*BEST, "--again", "--where", "lr=.00001", "--json").json["test"]
    assert found["params"] == {"lr": 0.00001}
    assert cli(*BEST, "--again", "--where", "lr=7").code == 2


@pytest.mark.usefixtures("no_graph")
def test_a_subset_of_the_recipe_is_that_of_the_refit_and_is_told(cli, home):
    assert cli(*RUN, "--grid", "lr=.01", "--subset", "200").code == 0
    said = cli(*BEST).err
    assert "a subset, and so does the refit: 200 images" in said
    assert "training 1 of 1 trial with 1 worker" in said
    assert json.loads((home / "digits" / "best" / "model.json").read_text())["trained_on"] == 200


@pytest.mark.usefixtures("no_graph")
def test_a_test_far_below_the_validation_is_told_with_both_numbers(cli, tmp_path, home):
    random = np.random.default_rng(0)
    labels = np.arange(300) % 3
    images = (60 * labels[:, None, None] + random.integers(0, 40, (300, 6, 6))).astype(np.uint8)
    shown = {"train_images": images, "train_labels": labels, "test_images": images}
    np.savez(tmp_path / "other.npz", **shown, test_labels=(labels + 1) % 3)
    np.savez(tmp_path / "same.npz", **shown, test_labels=labels)
    told = {}
    for name in ("other", "same"):
        data = ("--dataset", f"npz:{name}.npz", "--study", name)
        ran = cli(*RUN[:1], *data, *RUN[3:], "--epochs", "5", "--grid", "lr=.01")
        assert ran.code == 0, ran.err
        told[name] = cli("best", *data[2:], "--executor", "inline").err
        card = (home / name / "best" / "card.md").read_text()
        assert ("far below" in card) is (name == "other")
    assert "0.00 %, is far below the validation accuracy, 100.00 %" in told["other"]
    assert "far below" not in told["same"]


def test_without_a_result_there_is_no_winner(cli):
    assert cli(*RUN, "--grid", "lr=1e30", "--set", "optimizer=sgd").code == 0
    result = cli(*BEST)
    assert result.code == 4
    assert "no finished trial, and so no winner (1 diverged)" in result.error
    assert "would diverge again; run a grid with other values" in result.err


def test_an_own_model_is_named_again_and_predicts_without_its_file(cli, exported, tmp_path, home):
    (tmp_path / "net.py").write_text(NET)
    assert cli(*RUN, "--grid", "lr=.01", "--model", "net.py:Net", "--study", "own").code == 0
    words = ("best", "--study", "own", "--executor", "inline")
    refused = cli(*words)
    assert refused.code == 2
    assert "runs only when it is named" in refused.error
    (tmp_path / "net.py").write_text(NET + "# changed\n")
    changed = cli(*words, "--model", "net.py:Net")
    assert changed.code == 2
    assert "changed" in changed.error
    (tmp_path / "net.py").write_text(NET)
    result = cli(*words, "--model", "net.py:Net", "--json")
    assert result.code == 0, result.err
    (home / "own" / "best").rename(tmp_path / "elsewhere")
    (tmp_path / "net.py").unlink()
    images = exported.images(tmp_path / "images")
    predicted = cli("predict", "elsewhere", *map(str, images), "--json").json["predictions"]
    right = sum(p["class"] == p["image"][-5] for p in predicted) / len(predicted)
    assert right == result.json["test"]["seeds"][0]["accuracy"]
    graph = (tmp_path / "elsewhere" / "model.onnx").read_bytes()
    assert b"net.py" not in graph
    assert os.fsencode(tmp_path) not in graph


def test_a_model_that_onnx_cannot_hold_is_exported_without_a_graph(cli, tmp_path, home):
    code = NET.replace(
        "return self.layers(x)", "return self.layers(x) if float(x.sum()) > -1e9 else x.new_zeros(len(x), 10)"
    )
    (tmp_path / "net.py").write_text(code)
    assert cli(*RUN, "--grid", "lr=.01", "--model", "net.py:Net").code == 0
    result = cli(*BEST, "--model", "net.py:Net")
    assert result.code == 0, result.err
    assert "cannot be exported" in result.err
    assert "depends on the values in a tensor" in result.err
    assert "net.py, line" in result.err
    assert {p.name for p in (home / "digits" / "best").iterdir()} == FILES - {"model.onnx"}
    assert "cannot be exported" in (home / "digits" / "best" / "card.md").read_text()
    (tmp_path / "x.png").write_bytes(b"")
    predicted = cli("predict", str(home / "digits" / "best"), "x.png")
    assert predicted.code == 4
    assert "holds no model.onnx" in predicted.error


@pytest.mark.usefixtures("no_graph", "undrawn")
def test_the_winner_is_named_in_the_words_of_the_report(cli):
    how = (
        "--dataset",
        "digits",
        "--model",
        "mlp",
        "--set",
        "model.hidden=4",
        "--epochs",
        "1",
        "--subset",
        "60",
    )
    run = (
        "run",
        *how,
        "--grid",
        "lr=1e-3..1e-1:4log",
        "--exclude",
        "lr=.001,.1,.004642",
        "--executor",
        "inline",
    )
    assert "lr=0.02154 seed=0" in cli(*run, "--study", "w", "--no-report").err
    for again in ((), ("--json",)):
        found = cli("best", "--study", "w", "--executor", "inline", *again)
        text = found.out + found.err
        assert found.code == 0, text
        assert ("lr=0.02154" in text) is not bool(again)
    assert found.json["test"]["params"]["lr"] == 0.0215443469003
    assert "lr=0.02154:" in cli("report", "--study", "w").out
