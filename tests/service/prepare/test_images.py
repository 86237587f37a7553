"""The one line that says what images were understood as, and the doubts about them: before training and in plans."""

import numpy as np
import pytest
from PIL import Image

from gridsearch.service.plan.planner import plan
from gridsearch.service.prepare.options import Places, RunOptions
from gridsearch.service.prepare.preparation import prepare
from gridsearch.service.winner.exported import ExportedModel
from gridsearch.spec import build
from gridsearch.zoo import datasets


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))
    return Places.find(str(tmp_path / "home"), None)


@pytest.fixture
def spec(tmp_path):
    """Nine cats and three dogs to train on, two turned, one broken; four to test on, one of them trained on."""
    random = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 3
    for part, cats, dogs in (("Training", 9, 3), ("Testing", 2, 2)):
        for name, count in (("cat", cats), ("dog", dogs)):
            folder = tmp_path / "pets" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                image.save(
                    folder / f"{i}.png",
                    exif=turned if (part, name, i > 6) == ("Training", "cat", True) else None,
                )
    (tmp_path / "pets" / "Training" / "cat" / "bad.png").write_text("x")
    train, test = (tmp_path / "pets" / part / "dog" / "0.png" for part in ("Training", "Testing"))
    test.write_bytes(train.read_bytes())
    return build(
        words=["lr=.1", "data.size=8,4"],
        options={"dataset": f"folder:{tmp_path / 'pets'}", "model": "mlp", "study": "s"},
    )


LINE = "12 images, 2 classes: cat 9, dog 3; 2 rotated, 1 skipped; test: pets/Testing, 4"
LEAK = "1 of 4 test images is a training image too (Testing/dog/0.png is Training/dog/0.png)"


def test_a_run_says_first_what_it_understood_once_for_all_sizes_and_warns_of_what_is_in_doubt(spec, places):
    said = []
    prepared = prepare(spec, places, fetch=True, say=said.append)
    assert said[0] == LINE
    assert said.count(LINE) == 1
    assert "skipped Training/cat/bad.png: not an image" in said
    assert sum(warning.startswith(LEAK) for warning in prepared.warnings) == 1
    assert any("always answering 'cat' would be right for 75 %" in warning for warning in prepared.warnings)
    facts = prepared.facts[prepared.drafts[0].settings.data_fingerprint]
    assert facts.described == LINE
    assert facts.doubts[0].startswith(LEAK)


def test_a_plan_says_the_same(spec, places):
    found = plan(spec, RunOptions(places=places, device="cpu", workers=1))
    assert found.data == LINE
    assert found.to_json()["data"] == LINE
    assert any(warning.startswith(LEAK) for warning in found.warnings)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16], ids=["8 bits", "16 bits"])
def test_predict_reads_an_image_file_as_training_did(tmp_path, kind):
    random = np.random.default_rng(2)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for i in range(2):
            pixels = (level + random.integers(-9, 9, (6, 7))).astype(kind)
            Image.fromarray(pixels).save(tmp_path / "scans" / name / f"{i}.png")
    plugin = datasets.open_dataset(f"folder:{tmp_path / 'scans'}")
    data = datasets.load(plugin, tmp_path / "root", {})
    given = []
    model = ExportedModel(
        classes=data.class_names,
        channels=1,
        height=6,
        width=7,
        levels=data.reading.levels,
        _run=lambda pixels: given.append(pixels) or np.zeros((len(pixels), 2)),
    )
    model.predict(sorted((tmp_path / "scans").rglob("*.png")))
    trained_on = data.train_images if kind == np.uint16 else data.train_images / np.float32(255)
    assert np.array_equal(np.concatenate(given), trained_on)
