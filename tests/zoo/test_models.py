"""The built-in networks: their layers, counted by hand, and what shapes and options they take."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from gridsearch import plugins
from gridsearch.errors import UsageError

NAMES = ("cnn", "cnn3", "cnn_dropout", "lenet", "lenet_bn", "mlp", "tinyvgg")


def build(name, *, in_channels=1, num_classes=10, image_size=(28, 28), device="meta", **options):
    model = plugins.find(name, plugins.MODELS)
    with torch.device(device):
        return model.build(
            in_channels=in_channels, num_classes=num_classes, image_size=image_size, options=options
        )


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def describe(model):
    """Write a network as its description does: "conv5 1-6", "192-120", "drop .25"."""
    words = []
    for layer in model:
        match layer:
            case nn.Conv2d():
                assert layer.stride == (1, 1)
                pad = f" pad {layer.padding[0]}" if layer.padding != (0, 0) else ""
                words.append(f"conv{layer.kernel_size[0]} {layer.in_channels}-{layer.out_channels}{pad}")
            case nn.Linear():
                words.append(f"{layer.in_features}-{layer.out_features}")
            case nn.MaxPool2d():
                assert (layer.kernel_size, layer.stride) == (2, 2)
                words.append("pool")
            case nn.Dropout():
                words.append(f"drop {layer.p}")
            case _:
                words.append(type(layer).__name__)
    return ", ".join(words)


def test_every_network_of_the_five_projects_is_installed_under_its_name():
    assert set(NAMES) <= set(plugins.installed(plugins.MODELS))


# A convolution has in x out x k x k weights and one bias per output, a dense layer in x out weights and one
# bias per output, a batch norm two numbers per channel.
@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        # 28 -5+1-> 24 -> 12 -5+1-> 8 -> 4: 12 x 4 x 4 = 192 features
        (
            "lenet",
            {},
            (25 * 6 + 6) + (6 * 12 * 25 + 12) + (192 * 120 + 120) + (120 * 60 + 60) + (60 * 10 + 10),
        ),
        ("lenet", {}, 32_998),
        # the same maps: 24 x 4 x 4 = 384 features
        (
            "lenet_bn",
            {},
            (25 * 12 + 12) + 24 + (12 * 24 * 25 + 24) + 48 + (384 * 120 + 120) + (120 * 10 + 10),
        ),
        ("lenet_bn", {}, 55_018),
        ("mlp", {}, (784 * 128 + 128) + (128 * 10 + 10)),
        ("mlp", {"depth": 0}, 784 * 10 + 10),
        ("mlp", {"depth": 3, "hidden": 20}, (784 * 20 + 20) + 2 * (20 * 20 + 20) + (20 * 10 + 10)),
        # padding 1: 28 -> 14 -> 7, 10 x 7 x 7 = 490 features
        ("tinyvgg", {}, (9 * 10 + 10) + 3 * (10 * 10 * 9 + 10) + (490 * 10 + 10)),
        # no padding: 28 -> 26 -> 24 -> 12 -> 10 -> 8 -> 4, 10 x 4 x 4 = 160 features
        ("tinyvgg", {"padding": 0}, (9 * 10 + 10) + 3 * (10 * 10 * 9 + 10) + (160 * 10 + 10)),
        # 28 -> 26 -> 24 -> 12: 32 x 12 x 12 = 4608 features
        ("cnn", {}, (9 * 32 + 32) + (32 * 32 * 9 + 32) + (4608 * 10 + 10)),
        # 28 -> 26 -> 24 -> 12 -> 10 -> 8 -> 4: 64 x 4 x 4 = 1024 features
        (
            "cnn_dropout",
            {},
            (9 * 32 + 32) + (32 * 32 * 9 + 32) + (32 * 64 * 9 + 64) + (64 * 64 * 9 + 64) + (1024 * 10 + 10),
        ),
        # padding 1: 28 -> 14 -> 7 -> 3, 192 x 3 x 3 = 1728 features; the lines of the published layer table
        ("cnn3", {}, 240 + 48 + 20_832 + 192 + 166_080 + 384 + 885_248 + 131_328 + 32_896 + 1_290),
        ("cnn3", {}, 1_238_538),
        # width 2: 12 and 24 channels
        (
            "lenet",
            {"width": 2},
            (25 * 12 + 12) + (12 * 24 * 25 + 24) + (384 * 120 + 120) + (120 * 60 + 60) + (60 * 10 + 10),
        ),
    ],
)
def test_at_28x28_a_network_has_the_parameters_counted_by_hand(name, options, count):
    assert parameters(build(name, **options)) == count


@pytest.mark.parametrize(
    ("name", "options", "layers"),
    [
        (
            "lenet",
            {},
            "conv5 1-6, ReLU, pool, conv5 6-12, ReLU, pool, Flatten, 192-120, ReLU, 120-60, ReLU, 60-10",
        ),
        (
            "lenet_bn",
            {},
            (
                "conv5 1-12, BatchNorm2d, ReLU, pool, conv5 12-24, BatchNorm2d, ReLU, pool, "
                "Flatten, 384-120, ReLU, 120-10"
            ),
        ),
        ("mlp", {"hidden": 30, "activation": "none"}, "Flatten, 784-30, drop 0.0, 30-10"),
        (
            "mlp",
            {"hidden": 30, "depth": 2, "dropout": 0.5},
            "Flatten, 784-30, ReLU, drop 0.5, 30-30, ReLU, drop 0.5, 30-10",
        ),
        ("mlp", {"depth": 0}, "Flatten, 784-10"),
        (
            "tinyvgg",
            {},
            (
                "conv3 1-10 pad 1, ReLU, conv3 10-10 pad 1, ReLU, pool, "
                "conv3 10-10 pad 1, ReLU, conv3 10-10 pad 1, ReLU, pool, Flatten, 490-10"
            ),
        ),
        ("cnn", {}, "conv3 1-32, ReLU, conv3 32-32, ReLU, pool, Flatten, 4608-10"),
        (
            "cnn_dropout",
            {},
            (
                "conv3 1-32, ReLU, conv3 32-32, ReLU, pool, conv3 32-64, ReLU, conv3 64-64, ReLU, pool, "
                "drop 0.25, Flatten, 1024-10"
            ),
        ),
        (
            "cnn3",
            {},
            (
                "conv3 1-24 pad 1, pool, BatchNorm2d, LeakyReLU, drop 0.25, "
                "conv3 24-96 pad 1, pool, BatchNorm2d, LeakyReLU, drop 0.25, "
                "conv3 96-192 pad 1, pool, BatchNorm2d, LeakyReLU, drop 0.25, "
                "Flatten, 1728-512, LeakyReLU, drop 0.5, 512-256, LeakyReLU, drop 0.5, "
                "256-128, LeakyReLU, drop 0.5, 128-10"
            ),
        ),
        (
            "cnn3",
            {"width": 0.25, "dropout": 0.1, "conv_dropout": 0},
            (
                "conv3 1-6 pad 1, pool, BatchNorm2d, LeakyReLU, drop 0.0, "
                "conv3 6-24 pad 1, pool, BatchNorm2d, LeakyReLU, drop 0.0, "
                "conv3 24-48 pad 1, pool, BatchNorm2d, LeakyReLU, drop 0.0, "
                "Flatten, 432-512, LeakyReLU, drop 0.1, 512-256, LeakyReLU, drop 0.1, "
                "256-128, LeakyReLU, drop 0.1, 128-10"
            ),
        ),
    ],
)
def test_a_network_has_the_layers_of_its_description_in_their_order(name, options, layers):
    assert describe(build(name, **options)) == layers


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    in_channels=st.integers(1, 4),
    num_classes=st.integers(2, 50),
    more=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_any_image_from_the_smallest_up_gives_one_logit_per_class(name, in_channels, num_classes, more):
    smallest = plugins.find(name, plugins.MODELS).smallest_input
    size = (smallest[0] + more[0], smallest[1] + more[1])
    model = build(name, in_channels=in_channels, num_classes=num_classes, image_size=size)
    assert model(torch.zeros(2, in_channels, *size, device="meta")).shape == (2, num_classes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("in_channels", "num_classes", "size"), [(1, 10, (28, 28)), (3, 7, (16, 21))])
def test_a_step_of_training_reaches_every_parameter(name, in_channels, num_classes, size):
    model = build(name, in_channels=in_channels, num_classes=num_classes, image_size=size, device="cpu")
    images = torch.rand(8, in_channels, *size, generator=torch.Generator().manual_seed(0))
    logits = model(images)
    nn.functional.cross_entropy(logits, torch.arange(8) % num_classes).backward()
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_one_pixel_less_than_the_smallest_input_is_refused_with_both_sizes(name):
    height, width = plugins.find(name, plugins.MODELS).smallest_input
    build(name, image_size=(height, width))
    for size in ((height - 1, width), (height, width - 1)):
        with pytest.raises(UsageError, match=rf"{height}x{width} pixels, not {size[0]}x{size[1]}"):
            build(name, image_size=size)


@pytest.mark.parametrize(
    ("name", "smallest"),
    [
        ("cnn", 6),
        ("cnn3", 8),
        ("cnn_dropout", 16),
        ("lenet", 16),
        ("lenet_bn", 16),
        ("mlp", 1),
        ("tinyvgg", 4),
    ],
)
def test_the_smallest_input_is_where_the_last_feature_map_has_one_pixel(name, smallest):
    assert plugins.find(name, plugins.MODELS).smallest_input == (smallest, smallest)
    model = build(name, image_size=(smallest, smallest))
    maps = [m for m in model if not isinstance(m, nn.Linear | nn.Flatten)]
    features = nn.Sequential(*maps)(torch.zeros(2, 1, smallest, smallest, device="meta"))
    assert name == "mlp" or features.shape[2:] == (1, 1)


def test_tinyvgg_without_padding_says_that_it_needs_larger_images():
    build("tinyvgg", padding=0, image_size=(16, 16))
    with pytest.raises(UsageError, match="at least 16x16"):
        build("tinyvgg", padding=0, image_size=(15, 16))


@pytest.mark.parametrize("name", NAMES)
def test_a_traced_network_computes_the_same_and_shows_every_layer(name):
    model = build(name, device="cpu").eval()
    traced = fx.symbolic_trace(model)
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.equal(traced(images), model(images))
    called = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert called == [path for path, _ in model.named_children()]
    assert {node.op for node in traced.graph.nodes} == {"placeholder", "call_module", "output"}


@pytest.mark.parametrize("name", NAMES)
def test_options_and_their_defaults_survive_json_and_build_the_default_network(name):
    options = plugins.find(name, plugins.MODELS).options()
    assert options
    assert json.loads(json.dumps(options)) == options
    assert describe(build(name, **options)) == describe(build(name))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"mlp"}))
def test_a_tiny_width_leaves_at_least_one_channel(name):
    first = next(m for m in build(name, width=0.001) if isinstance(m, nn.Conv2d))
    assert first.out_channels == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lenet", {"width": 0}),
        ("lenet_bn", {"width": -1}),
        ("cnn", {"width": float("nan")}),
        ("cnn3", {"width": float("inf")}),
        ("tinyvgg", {"width": "wide"}),
        ("cnn_dropout", {"width": True}),
        ("tinyvgg", {"padding": 2}),
        ("mlp", {"hidden": 0}),
        ("mlp", {"hidden": 10.5}),
        ("mlp", {"depth": -1}),
        ("mlp", {"depth": True}),
        ("mlp", {"dropout": 1}),
        ("cnn_dropout", {"dropout": -0.1}),
        ("cnn3", {"conv_dropout": float("nan")}),
        ("cnn3", {"dropout": None}),
        ("mlp", {"activation": "tanh"}),
    ],
)
def test_an_option_out_of_its_range_is_refused_in_one_line_that_names_it(name, options):
    (option, value) = next(iter(options.items()))
    with pytest.raises(UsageError) as caught:
        build(name, **options)
    assert f"model.{option} of {name}" in caught.value.message
    assert repr(value) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_misspelt_activation_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'relu'"):
        build("mlp", activation="rellu")


@pytest.mark.parametrize("name", NAMES)
def test_the_first_line_of_a_factory_says_in_one_sentence_what_it_is(name):
    summary = plugins.find(name, plugins.MODELS).target.__doc__.splitlines()[0]
    assert 20 < len(summary) <= 110
    assert summary.endswith(".")


def test_listing_the_models_imports_no_torch():
    code = (
        "import sys; from gridsearch import plugins;"
        "found = [plugins.find(n, plugins.MODELS) for n in plugins.installed(plugins.MODELS)];"
        "[(p.options(), p.smallest_input) for p in found];"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
