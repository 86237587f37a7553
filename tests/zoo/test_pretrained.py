"""Networks of timm and torchvision: weights out of a file, frozen backbones whose features are computed once."""

import json
import pickle
import re
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gridsearch.errors import GridsearchError
from gridsearch.zoo.pretrained import backbones, frozen_of, libraries, open_model
from gridsearch.zoo.pretrained.frozen_features import FrozenFeatures

pytestmark = pytest.mark.end_to_end

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def timm():
    """Loaded when the first of these tests runs, since that takes seconds."""
    return libraries.Timm()


@pytest.fixture(scope="module")
def weights(tmp_path_factory, timm):
    """Drawn weights of a tiny network with batch norm, whose statistics are no longer the first ones."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    network = timm.build("test_resnet", 7)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(8, 3, 32, 32) * 3)
    save_file(network.state_dict(), folder / "w.safetensors")
    torch.save({"state_dict": network.state_dict()}, folder / "w.pth")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDSEARCH_CACHE", str(tmp_path / "cache"))


def options(folder, **changes):
    return {"weights": str(folder / "w.safetensors"), "freeze": "backbone", "size": 32} | changes


def features(folder, *, data="d" * 64, **changes):
    model = open_model("timm:test_resnet").target
    given = options(folder, **changes)
    source = open_model("timm:test_resnet").identity(given)
    return FrozenFeatures(model, given, str(source), data, CPU)


@pytest.mark.parametrize(
    ("locator", "problem"),
    [
        ("timm:test_resnt", "timm has no network 'test_resnt'; did you mean 'test_resnet'?"),
        ("timm:test_resnet.nothing", "timm has no network 'test_resnet.nothing'"),
        ("torchvision:resnt18", "torchvision has no network 'resnt18'; did you mean 'resnet18'?"),
        ("timm:", "model 'timm' needs a network"),
        ("torchvision", "model 'torchvision' needs a network"),
    ],
)
def test_a_network_that_is_not_there_is_answered_with_the_nearest(locator, problem):
    with pytest.raises(GridsearchError, match=re.escape(problem)) as refusal:
        open_model(locator)
    assert refusal.value.hint


@pytest.mark.parametrize(
    "locator", ["timm:test_resnet", "torchvision:resnet18", "torchvision:mobilenet_v3_small"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_whole_network_has_the_classes_of_the_images_and_takes_grey_ones(locator, channels):
    network = open_model(locator).build(
        in_channels=channels, num_classes=5, image_size=(8, 9), options={"weights": None}
    )
    assert network.eval()(torch.rand(2, channels, 8, 9)).shape == (2, 5)
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_weights_of_a_file_are_those_of_the_network_but_for_its_last_layer(weights, name):
    model = open_model("timm:test_resnet")
    whole = model.build(
        in_channels=3,
        num_classes=4,
        image_size=(32, 32),
        options=options(weights, weights=str(weights / name)),
    )
    assert {n for n, p in whole.named_parameters() if p.requires_grad} == {"head.out.weight", "head.out.bias"}
    stored = backbones.read_tensors(weights / name)
    own = whole.backbone.network.state_dict()
    assert all(torch.equal(own[n], t) for n, t in stored.items() if not n.startswith("fc."))


def test_a_library_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    from gridsearch.zoo.pretrained import libraries

    def missing():
        raise ImportError("No module named 'timm'")

    monkeypatch.setitem(libraries.LIBRARIES, "timm", missing)
    with pytest.raises(GridsearchError) as refusal:
        open_model("timm:resnet18")
    assert "model 'timm:resnet18' needs timm (No module named 'timm')" in refusal.value.message
    assert refusal.value.hint == "pip install 'gridsearch[timm]'"


class Evil:
    def __reduce__(self):
        return (Path("ran").touch, ())


def test_weights_that_do_not_serve_are_refused_in_one_line_and_nothing_is_unpickled(
    weights, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("evil.pth").write_bytes(pickle.dumps(Evil()))
    Path("text.safetensors").write_text("no weights")
    torch.save([1, 2], "list.pth")
    save_file({"conv.weight": torch.zeros(3)}, "other.safetensors")
    state = backbones.read_tensors(weights / "w.pth")
    save_file({n: t for n, t in state.items() if "layer4" not in n and "stages" not in n}, "part.safetensors")
    model = open_model("timm:test_resnet")
    for name, problem in {
        "evil.pth": "cannot be read",
        "text.safetensors": "cannot be read",
        "list.pth": "holds no tensors by name",
        "other.safetensors": "is of another network",
        "part.safetensors": "is of another network: it lacks",
        "none.pth": "neither a file nor a name",
    }.items():
        with pytest.raises(GridsearchError, match=problem) as refusal:
            model.build(in_channels=3, num_classes=4, image_size=(8, 8), options={"weights": name})
        assert "\n" not in refusal.value.message
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"freeze": "head"}, "model.freeze=head: expected none or backbone"),
        ({"weights": None}, "a frozen network with drawn weights learns nothing"),
        ({"size": "big"}, "model.size=big: expected auto, or a side of 8 to 1024 pixels"),
    ],
)
def test_options_that_mean_nothing_are_refused(weights, given, problem):
    with pytest.raises(GridsearchError, match=re.escape(problem)):
        open_model("timm:test_resnet").identity(options(weights, **given))


def test_weights_that_cannot_be_fetched_are_refused_with_a_way_out(tmp_path, monkeypatch):
    def unknown(*args, **more):
        raise OSError("Name or service not known")

    def no_network(*args, **more):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    for locator in ("timm:test_resnet", "torchvision:resnet18"):
        with pytest.raises(GridsearchError) as refusal:
            open_model(locator).identity({"weights": "default"})
        assert f"the weights of {locator} are not here and cannot be fetched" in refusal.value.message
        assert "model.weights=FILE" in refusal.value.hint


def test_features_are_those_of_a_backbone_in_evaluation_mode_and_the_whole_network_is_the_two(weights, timm):
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 6, 7), dtype=np.uint8)
    found = features(weights)
    made = found.of(images, "train")
    assert made.shape == (9, 1, 1, 96)
    feet = timm.build("test_resnet", 0)
    feet.load_state_dict(backbones.read_tensors(weights / "w.pth"), strict=False)
    before = {n: t.clone() for n, t in feet.state_dict().items()}
    x = torch.nn.functional.interpolate(
        torch.from_numpy(images / np.float32(255)), size=(32, 32), mode="bilinear"
    )
    with torch.no_grad():
        expected = feet.eval()((x.expand(-1, 3, -1, -1) - 0.5) / 0.5)
    np.testing.assert_allclose(made[:, 0, 0], expected.numpy(), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(t, before[n]) for n, t in feet.state_dict().items())
    head = backbones.head(96, 3).eval()
    scale, shift = [0.5] * 96, [0.1] * 96
    whole = found.whole(head, scale=scale, shift=shift, channels=1).eval()
    with torch.no_grad():
        logits = whole(torch.from_numpy(images / np.float32(255)))
        expected = head(torch.tensor(made[:, 0, 0]) * 0.5 + 0.1)
    np.testing.assert_allclose(logits.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_features_are_computed_once_and_again_where_a_byte_of_them_is_another(weights, tmp_path, monkeypatch):
    images = np.random.default_rng(1).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    first = np.array(features(weights).of(images, "train"))
    built = []
    real = backbones.backbone
    monkeypatch.setattr(backbones, "backbone", lambda *a, **k: built.append(1) or real(*a, **k))
    assert np.array_equal(features(weights).of(images, "train"), first)
    assert not built
    (kept,) = (tmp_path / "cache" / "shared").glob("*/arrays/features.npy")
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    assert np.array_equal(features(weights).of(images, "train"), first)
    assert built == [1]


def test_other_weights_images_or_sizes_are_other_features_and_other_weights_other_trials(weights, tmp_path):
    other = tmp_path / "w.safetensors"
    state = {
        n: t + 1 if t.is_floating_point() else t for n, t in backbones.read_tensors(weights / "w.pth").items()
    }
    save_file(state, other)
    keys = [
        features(weights).key,
        features(weights, weights=str(other)).key,
        features(weights, data="e" * 64).key,
        features(weights, size=40).key,
    ]
    assert len(set(keys)) == 4
    model = open_model("timm:test_resnet")
    copied = tmp_path / "copy.safetensors"
    copied.write_bytes((weights / "w.safetensors").read_bytes())
    one, two, same = (
        model.identity(options(weights, weights=str(p))) for p in (weights / "w.safetensors", other, copied)
    )
    assert one == same != two
    assert model.identity({"weights": None}) is None
    assert frozen_of(model.target, options(weights, freeze=None)) is None


def test_heads_are_searched_tested_and_exported_with_their_backbone(cli, weights, home, tmp_path):
    for label in ("dark", "light"):
        (tmp_path / "im" / label).mkdir(parents=True)
        for i in range(16):
            pixels = (
                np.random.default_rng(i).integers(0, 90, (8, 8), dtype=np.uint8) + (label == "light") * 120
            )
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "im" / label / f"{i}.png")
    words = (
        "--dataset",
        "folder:im",
        "--model",
        "timm:test_resnet",
        "--epochs",
        "4",
        "--grid",
        "lr=.1,.01",
        "norm=none,standard",
    )
    given = [f"model.{name}={value}" for name, value in options(weights).items()]
    refused = cli("run", *words, "--set", *given, "augment=flip")
    assert refused.code == 2
    assert "augment=flip: model.freeze=backbone computes the features of each image once" in refused.error
    assert not home.exists()
    planned = json.loads(cli("plan", *words, "--set", *given, "--json").out)
    assert (planned["trials"], planned["groups"][0]["method"]) == (4, "stacked")
    given_to_it = open_model("timm:test_resnet").target.feature_bytes(options(weights), 32)
    assert given_to_it == 32 * 96 * 4
    shown = json.loads(
        cli("models", "show", "timm:test_resnet", "--dataset", "folder:im", "--set", *given, "--json").out
    )
    assert (shown["trainable"], shown["classes"]) == (96 * 2 + 2, 2)
    assert shown["parameters"] > 300_000
    done = cli("run", *words, "--set", *given, "--executor", "inline", "--no-report")
    assert done.code == 0, done.err
    best = cli("best", "--study", "im", "--executor", "inline", "--json")
    assert best.code == 0, best.err
    assert json.loads(best.out)["test"]["accuracy"] == 1
    folder = home / "im" / "best"
    about = json.loads((folder / "model.json").read_text())
    assert (about["input"]["height"], about["input"]["network_height"]) == (8, 32)
    assert about["graph"]["largest_difference"] <= about["graph"]["tolerance"]
    assert about["model"]["source"] == open_model("timm:test_resnet").identity(options(weights))
    said = json.loads(cli("predict", str(folder), "im/dark/3.png", "im/light/5.png", "--json").out)
    assert [each["class"] for each in said["predictions"]] == ["dark", "light"]
