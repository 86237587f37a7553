"""From image files to classes, with nothing but the folder that `best` exported."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import gridsearch as gs

pytestmark = pytest.mark.end_to_end


def test_predictions_of_the_test_images_are_those_that_were_recorded(cli, exported, tmp_path):
    images = exported.images(tmp_path / "images")
    found = cli("predict", str(exported.folder), *map(str, images), "--json").json
    assert found["schema"] == 1
    predictions = found["predictions"]
    assert [p["image"] for p in predictions] == list(map(str, images))
    for p in predictions:
        assert list(p["probabilities"]) == [str(n) for n in range(10)]
        assert sum(p["probabilities"].values()) == pytest.approx(1)
        assert p["probability"] == max(p["probabilities"].values()) == p["probabilities"][p["class"]]
    right = sum(p["class"] == p["image"][-5] for p in predictions) / len(predictions)
    assert right == exported.test["seeds"][0]["accuracy"]


def test_predict_loads_neither_torch_nor_what_a_search_needs(exported, tmp_path):
    image = exported.images(tmp_path / "images")[0]
    code = (
        "import sys\nfrom gridsearch.cli import main\n"
        f"assert main(['predict', {str(exported.folder)!r}, {str(image)!r}]) == 0\n"
        "heavy = {'torch', 'torchvision', 'optuna', 'sqlalchemy', 'pandas', 'matplotlib', 'scipy', 'sklearn'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def grey(exported, tmp_path) -> Image.Image:
    return Image.open(exported.images(tmp_path / "images")[0])


SAME = {
    "rgb.png": lambda image: image.convert("RGB"),
    "palette.png": lambda image: image.convert("P"),
    "alpha.png": lambda image: image.convert("LA"),
    "animated.gif": lambda image: image,
    "large.png": lambda image: image.resize((80, 80), Image.Resampling.NEAREST),
    "sixteen.png": lambda image: Image.fromarray(np.asarray(image).astype(np.uint16) << 8),
    "print.tif": lambda image: image.convert("RGB").convert("CMYK"),
}


@pytest.mark.parametrize("name", SAME)
def test_an_image_of_another_mode_or_size_is_predicted_alike(exported, tmp_path, name):
    image = grey(exported, tmp_path)
    path = tmp_path / name
    more = {"save_all": True, "append_images": [Image.new("L", (8, 8))]} if name.endswith("gif") else {}
    SAME[name](image).save(path, **more)
    plain, other = gs.predict(exported.folder, [tmp_path / "images" / "000_5.png", path])
    assert other.label == plain.label
    assert other.probability == pytest.approx(plain.probability, abs=0.02)


def test_the_orientation_that_a_camera_noted_is_honoured(exported, tmp_path):
    image = grey(exported, tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.rotate(90).save(tmp_path / "turned.png", exif=exif)
    plain, turned = gs.predict(exported.folder, [tmp_path / "images" / "000_5.png", tmp_path / "turned.png"])
    assert turned.probabilities == plain.probabilities


def huge(path):
    Image.new("1", (20000, 20000)).save(path)


def truncated(path):
    Image.effect_noise((300, 300), 50).save(path)
    path.write_bytes(path.read_bytes()[:3000])


BAD = {
    "words.png": (lambda path: path.write_text("no image"), "not an image"),
    "empty.png": (lambda path: path.write_bytes(b""), "an empty file"),
    "cut.jpg": (truncated, "truncated"),
    "huge.png": (huge, "too many pixels"),
    "raw.dng": (lambda path: Image.effect_noise((8, 8), 50).save(path, "TIFF"), "a camera's raw file (DNG)"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_one_line_exit_4_and_the_others_are_predicted(cli, exported, tmp_path, name):
    good = exported.images(tmp_path / "images")[:2]
    make, reason = BAD[name]
    make(tmp_path / name)
    words = ("predict", str(exported.folder), str(good[0]), name, str(good[1]))
    result = cli(*words, "--json")
    assert result.code == 4
    assert result.error.startswith(f"{name}: ")
    assert reason in result.error
    assert [p["image"] for p in result.json["predictions"]] == [str(path) for path in good]
    assert result.json["problems"][0]["image"] == name
    assert "000_5.png" in cli(*words).out


@pytest.mark.parametrize(
    ("image", "reason"),
    [("missing.png", "no such file"), ("images", "is a folder"), ("a\0b", "no such file")],
)
def test_a_path_that_is_no_file_is_wrong_usage(cli, exported, tmp_path, image, reason):
    exported.images(tmp_path / "images")
    result = cli("predict", str(exported.folder), "images/000_5.png", image)
    assert result.code == 2
    assert reason in result.error
    assert result.out == ""


def change(folder, **new):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | new))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "its weights were changed": (
        lambda f: flip(f / "model.safetensors"),
        "model.safetensors is not the file",
    ),
    "its graph was changed": (lambda f: flip(f / "model.onnx"), "model.onnx is not the file"),
    "its graph is gone": (lambda f: (f / "model.onnx").unlink(), "model.onnx cannot be read"),
    "no description": (lambda f: (f / "model.json").unlink(), "holds no model.json"),
    "no JSON": (lambda f: (f / "model.json").write_text('{"schema": 1,'), "model.json is damaged"),
    "deep JSON": (lambda f: (f / "model.json").write_text("[" * 100_000), "model.json is damaged"),
    "no text": (lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"), "model.json is damaged"),
    "a list": (lambda f: (f / "model.json").write_text("[]"), "model.json is damaged"),
    "newer": (lambda f: change(f, schema=2), "made by a newer gridsearch (schema 2"),
    "no classes": (lambda f: change(f, classes=None), "model.json is damaged"),
    "classes as one text": (lambda f: change(f, classes="0123456789"), "classes are no list of names"),
    "two classes of one name": (lambda f: change(f, classes=["a"] * 10), "two classes have one name"),
    "no schema": (lambda f: change(f, schema=0), "it names no schema"),
    "too few classes": (lambda f: change(f, classes=["a", "b"]), "model.onnx does not run"),
    "a file elsewhere": (lambda f: change(f, files={"../../secret": {"sha256": ""}}), "it names a file"),
    "another size": (
        lambda f: change(f, input={"channels": 1, "height": 9, "width": 8}),
        "model.onnx does not fit model.json",
    ),
    "10^18 pixels": (
        lambda f: change(f, input={"channels": 1, "height": 10**9, "width": 10**9}),
        "it takes images of 1x1000000000x1000000000",
    ),
    "no levels": (
        lambda f: change(f, input={"channels": 1, "height": 8, "width": 8, "levels": [1, float("nan")]}),
        "black is 1.0, and white nan",
    ),
    "no number": (
        lambda f: change(f, input={"channels": 1, "height": float("inf"), "width": 8}),
        "model.json is damaged: OverflowError",
    ),
    "a pipe": (
        lambda f: ((f / "model.onnx").unlink(), os.mkfifo(f / "model.onnx")),
        "model.onnx is damaged: it is no file",
    ),
    "a file without an end": (
        lambda f: (
            (f / "model.safetensors").unlink(),
            (f / "model.safetensors").symlink_to("/proc/self/pagemap"),
        ),
        "model.safetensors is damaged: it is empty",
    ),
    "60 GB of weights": (
        lambda f: os.truncate(f / "model.safetensors", 60 * 10**9),  # a file with a hole takes no room
        "it has 60.0 GB, and at most 2.1 are taken",
    ),
    "60 GB of description": (
        lambda f: os.truncate(f / "model.json", 60 * 10**9),
        "it has 60.0 GB",
    ),
    "another graph, told as such": (
        lambda f: change(f, files={"model.onnx": {"sha256": put(f / "model.onnx", b"\x08\x08")}}),
        "model.onnx does not fit model.json: it has other inputs",
    ),
}


def put(path, content):
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_export_is_one_line_and_exit_4(cli, exported, tmp_path, what):
    image = exported.images(tmp_path / "images")[0]
    damage, reason = DAMAGE[what]
    damage(exported.folder)
    result = cli("predict", str(exported.folder), str(image))
    assert result.code == 4, result.out
    assert reason in result.error


def test_a_folder_that_is_no_export_is_exit_4_and_one_that_is_not_there_exit_2(cli, exported, tmp_path):
    image = str(exported.images(tmp_path / "images")[0])
    assert cli("predict", "images", image).code == 4
    assert cli("predict", "nowhere", image).code == 2
    assert cli("predict", image, image).code == 2


def test_python_predicts_one_image_or_several(exported, tmp_path):
    images = exported.images(tmp_path / "images")[:20]
    several = gs.predict(exported.folder, images)
    (one,) = gs.predict(exported.folder, images[3])
    assert [p.label for p in several][3] == one.label
    assert one.probability == pytest.approx(several[3].probability, abs=1e-6)
    (tmp_path / "x.png").write_text("")
    with pytest.raises(gs.GridsearchError, match=r"x\.png: an empty file"):
        gs.predict(exported.folder, [images[0], tmp_path / "x.png"])


def test_names_of_files_cannot_command_the_terminal(cli, exported, tmp_path):
    image = exported.images(tmp_path / "images")[0]
    name = "evil\x1b[31m[bold].png"
    image.rename(tmp_path / name)
    out = cli("predict", str(exported.folder), name).out
    assert "\x1b" not in out
    assert "[bold].png" in out


def test_tabs_and_line_ends_in_names_end_no_cell(cli, exported, tmp_path):
    name = "a\tb\nc.png"
    exported.images(tmp_path / "images")[0].rename(tmp_path / name)
    header, row = cli("predict", str(exported.folder), name).out.splitlines()
    assert row.split("\t")[0] == r"a\tb\nc.png"
    assert len(row.split("\t")) == len(header.split("\t"))


def both_ways(folder, images):
    from gridsearch.service.winner.exported import ExportedModel

    return [ExportedModel.load(folder, by=by).predict(images) for by in ("onnxruntime", "reference")]


def test_onnx_runtime_predicts_what_the_reference_does_within_the_stated_rounding(exported, tmp_path):
    from gridsearch.service.winner.onnx_graph import ROUNDING, runtime

    assert runtime() == "onnxruntime"  # what the tests install is what they test
    fast, slow = both_ways(exported.folder, exported.images(tmp_path / "images"))
    assert len(fast) == len(slow) == exported.test["images"]
    worst = max(
        abs(a.probabilities[name] - b.probabilities[name])
        for a, b in zip(fast, slow, strict=True)
        for name in a.probabilities
    )
    assert worst < ROUNDING / 10
    assert [p.label for p in fast] == [p.label for p in slow]


@pytest.mark.parametrize("network", ["resnet9", "cnn3", "lenet_bn"])
def test_both_ways_agree_on_networks_with_other_layers(network):
    import torch

    from gridsearch import plugins
    from gridsearch.service.winner import onnx_graph
    from gridsearch.training.export import _translate

    plugin = plugins.find(network, plugins.MODELS)
    torch.manual_seed(0)
    model = plugin.build(in_channels=3, num_classes=5, image_size=(32, 32), options={}).eval()
    pixels = np.random.default_rng(0).random((3, 3, 32, 32), dtype=np.float32)
    content = _translate(model, torch.from_numpy(pixels)).SerializeToString()
    fast, slow = (
        onnx_graph.prepare(content, takes=(3, 32, 32), classes=5, by=by)(pixels)
        for by in ("onnxruntime", "reference")
    )
    assert np.abs(fast - slow).max() < onnx_graph.ROUNDING * max(1, np.abs(slow).max())


def test_without_onnx_runtime_the_reference_predicts(exported, tmp_path, monkeypatch):
    image = exported.images(tmp_path / "images")[0]
    (fast,) = gs.predict(exported.folder, image)
    monkeypatch.setattr("gridsearch.service.winner.onnx_graph.runtime", lambda: "reference")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (slow,) = gs.predict(exported.folder, image)
    assert slow.probability == pytest.approx(fast.probability, abs=1e-5)


def test_off_a_terminal_every_prediction_is_one_line_however_long(cli, exported, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    image = exported.images(tmp_path / "images")[0]
    names = ["-".join(["photo-of-a-number"] * 12) + ".png", "two  spaces.png", "\u6f22\u5b57.png"]
    for name in names:
        (tmp_path / name).write_bytes(image.read_bytes())
    lines = cli("predict", str(exported.folder), *names).out.splitlines()
    assert len(lines) == 1 + len(names)
    for line, name in zip(lines[1:], names, strict=True):
        assert line.startswith(name + "\t")
        assert line.count("%") == 2


def test_predictions_are_written_as_they_are_known(exported, tmp_path):
    from gridsearch.service.winner.exported import ExportedModel

    looked_at = []

    def images():
        for path in exported.images(tmp_path / "images"):
            looked_at.append(path)
            yield path

    found = ExportedModel.load(exported.folder).predictions(images())
    next(found)
    assert 0 < len(looked_at) < exported.test["images"] / 2
    assert len(list(found)) == exported.test["images"] - 1


class Terminal:
    """A stream that says it is a terminal."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass

    def isatty(self):
        return True


def test_a_terminal_beside_a_pipe_sees_how_far_it_is(cli, exported, tmp_path, monkeypatch):
    images = exported.images(tmp_path / "images")[:3]
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    result = cli("predict", str(exported.folder), *map(str, images))
    assert result.code == 0
    assert "100%" in terminal.text
    terminal.text = ""
    cli("predict", str(exported.folder), *map(str, images), "-q")
    assert terminal.text == ""
