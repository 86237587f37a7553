"""VGG16 with published or own weights, and the small residual network."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gridsearch import plugins
from gridsearch.errors import UsageError
from gridsearch.zoo import torchvision


def build(name="vgg16", *, in_channels=3, device="cpu", **options):
    model = plugins.find(name, plugins.MODELS)
    with torch.device(device):
        return model.build(in_channels=in_channels, num_classes=10, image_size=(32, 32), options=options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A state_dict as torchvision's file holds it, with recognizable numbers and some of the classifier."""
    torch.manual_seed(0)
    features = torchvision.features("vgg16")
    state = {f"features.{name}": tensor for name, tensor in features.state_dict().items()}
    state["classifier.6.bias"] = torch.zeros(1000)
    folder = tmp_path_factory.mktemp("weights")
    torch.save(state, folder / "vgg.pth")
    save_file(state, folder / "vgg.safetensors")
    return folder, state


@pytest.fixture
def undrawn_weights(monkeypatch):
    """Leave new weights as they come, where a test looks at none: to draw fifteen million takes a second."""
    for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


def test_at_32x32_vgg16_has_the_parameters_counted_by_hand():
    widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    expected = sum(9 * a * b + b for a, b in zip([3, *widths], widths, strict=False))
    expected += (512 * 512 + 512) + (512 * 10 + 10)
    assert sum(p.numel() for p in build(device="meta").parameters()) == expected


@pytest.mark.usefixtures("undrawn_weights")
@pytest.mark.parametrize("name", ["vgg.pth", "vgg.safetensors"])
def test_weights_of_a_file_become_the_features(trained, name):
    folder, state = trained
    model = build(weights=str(folder / name))
    for key, tensor in model.features.state_dict().items():
        assert torch.equal(tensor, state[f"features.{key}"])


@pytest.mark.usefixtures("undrawn_weights")
def test_a_grey_image_is_taken_as_the_same_image_in_three_colours(trained):
    folder, _ = trained
    grey, colour = (build(in_channels=c, weights=str(folder / "vgg.safetensors")).features for c in (1, 3))
    x_BCHW = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(grey(x_BCHW), colour(x_BCHW.expand(2, 3, 32, 32)), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("undrawn_weights")
def test_frozen_features_do_not_train_and_the_classifier_does(trained):
    model = build(weights=str(trained[0] / "vgg.safetensors"), freeze=True)
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"fc1", "out"}


@pytest.mark.usefixtures("undrawn_weights")
def test_published_weights_come_out_of_the_cache_of_torch(trained, tmp_path, monkeypatch):
    folder, state = trained
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth").symlink_to(folder / "vgg.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model = build(weights="imagenet")
    assert torch.equal(model.features[28].weight, state["features.28.weight"])


@pytest.mark.usefixtures("undrawn_weights")
def test_weights_that_cannot_be_fetched_are_told_with_the_way_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(UsageError, match="imagenet cannot be fetched") as refusal:
        build(weights="imagenet")
    assert "vgg16-397923af.pth" in refusal.value.hint
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"weights": "imagenett"}, "neither a file nor a name; did you mean 'imagenet'"),
        ({"freeze": True}, "never trained"),
        ({"hidden": 0}, "at least 1"),
        ({"dropout": 1.0}, "below 1"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options, problem):
    with pytest.raises(UsageError, match=problem):
        build(device="meta", **options)


@pytest.mark.usefixtures("undrawn_weights")
@pytest.mark.parametrize("content", [b"", b"no weights", "other tensors", "a list"])
def test_a_file_without_the_weights_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"features.0.weight": torch.zeros(3)} if content == "other tensors" else [1, 2], path)
    with pytest.raises(UsageError, match=r"cannot be read|does not hold VGG16's features") as refusal:
        build(weights=str(path))
    assert "\n" not in refusal.value.message


@pytest.mark.usefixtures("undrawn_weights")
def test_two_channels_have_no_pretrained_first_layer(trained):
    with pytest.raises(UsageError, match="trained on 3 channels, the images have 2"):
        build(in_channels=2, weights=str(trained[0] / "vgg.safetensors"))


def test_what_is_in_a_named_file_belongs_to_the_models_identity(tmp_path):
    model = plugins.find("vgg16", plugins.MODELS)
    path = tmp_path / "w.pth"
    path.write_bytes(b"one")
    first = model.identity({"weights": str(path)})
    assert first == model.identity({"weights": str(path)}) != model.identity({"weights": None})
    path.write_bytes(b"two")
    assert model.identity({"weights": str(path)}) != first
    assert model.identity({"weights": "imagenet"}) is None


@pytest.mark.end_to_end
def test_a_frozen_vgg16_trains_from_a_file_and_is_resumed_without_naming_it(trained, cli):
    words = ("--dataset", "digits", "--model", "vgg16", "--subset", "60", "--epochs", "1")
    settings = ("--set", f"model.weights={trained[0] / 'vgg.safetensors'}", "model.freeze=true")
    here = ("--executor", "inline", "--no-report", "--json", "-q")
    done = cli("run", *words, *settings, *here)
    assert done.code == 0, done.err
    assert done.json["counts"]["complete"] == 1
    again = cli("run", "--study", "digits", *here)
    assert again.code == 0, again.err
    assert again.json["counts"]["complete"] == 1


def test_resnet9_has_the_parameters_counted_by_hand():
    def conv(came, leave):
        return 9 * came * leave + 2 * leave

    expected = conv(1, 32) + conv(32, 64) + 2 * conv(64, 64) + conv(64, 128) + conv(128, 256)
    expected += 2 * conv(256, 256) + 256 * 10 + 10
    assert sum(p.numel() for p in build("resnet9", in_channels=1, device="meta").parameters()) == expected


def test_a_residual_block_adds_what_came_in():
    torch.manual_seed(0)
    block = build("resnet9", width=0.25).residual1.eval()
    x_BCHW = torch.rand(2, 16, 8, 8)
    plain = nn.Sequential(block.first, block.second)
    assert torch.equal(block(x_BCHW), x_BCHW + plain(x_BCHW))
