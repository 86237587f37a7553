"""Networks of torchvision and of papers: a pack gives what a plain loop gives, in float64 to 1e-9.

Each family of torchvision's classifiers is there with its own code, and fewer and narrower blocks than published.
"""

from __future__ import annotations

import os
from functools import partial

import pytest
import torch
from torch import nn

from gridsearch.training.lanes.compile.lane_values import NotPackable
from gridsearch.training.lanes.runtime.members import Member
from gridsearch.training.lanes.runtime.program import PackProgram
from gridsearch.training.model_setup import build_network
from gridsearch.training.precision import Precision
from gridsearch.training.resident_data import ResidentCache
from gridsearch.training.solo import SoloProgram
from gridsearch.zoo import torchvision
from tests.benchmarks import own_networks
from tests.training.plain_loop import train_plainly
from tests.training.published import PUBLISHED

pytestmark = pytest.mark.thorough

EPOCHS = 2
CLASSES = 3


def vision(name):  # noqa: C901, PLR0911, PLR0912  (a table)
    """Return a narrow network of one of torchvision's families."""
    models = torchvision.load().models
    norm = partial(nn.BatchNorm2d, eps=1e-3)
    match name:
        case "resnet":
            return _first_half(models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], CLASSES), 128)
        case "resnext":
            block = models.resnet.Bottleneck
            return _first_half(models.ResNet(block, [1, 1, 1, 1], CLASSES, groups=4, width_per_group=4), 512)
        case "densenet":
            return models.DenseNet(4, (2, 2), 8, num_classes=CLASSES)
        case "vgg":
            return _vgg(models)
        case "squeezenet":
            return models.SqueezeNet("1_1", num_classes=CLASSES)
        case "shufflenet":
            return models.ShuffleNetV2([2, 2, 2], [8, 16, 24, 32, 32], num_classes=CLASSES)
        case "mobilenet v2":
            setting = [[1, 8, 1, 1], [6, 8, 2, 2]]
            return models.MobileNetV2(CLASSES, 1.0, setting, dropout=0.2)
        case "mobilenet v3":
            block = models.mobilenetv3.InvertedResidualConfig
            blocks = [block(8, 3, 16, 8, True, "RE", 2, 1, 1.0), block(8, 5, 16, 8, True, "HS", 1, 1, 1.0)]
            return models.MobileNetV3(blocks, 24, num_classes=CLASSES)
        case "mnasnet":
            return models.MNASNet(0.25, num_classes=CLASSES)
        case "efficientnet":
            return _efficientnet(models, 0.0)
        case "efficientnet, dropping blocks":
            return _efficientnet(models, 0.3)
        case "regnet":
            params = models.regnet.BlockParams([1, 1], [8, 16], [4, 4], [1.0, 1.0], [2, 2], 0.25)
            return models.RegNet(params, CLASSES, stem_width=8, norm_layer=norm)
        case "convnext":
            block = models.convnext.CNBlockConfig
            return models.ConvNeXt([block(8, 12, 1), block(12, None, 1)], 0.0, num_classes=CLASSES)
        case "vision transformer":
            return models.VisionTransformer(32, 8, 2, 2, 8, 16, num_classes=CLASSES)
        case "swin":
            return models.SwinTransformer(
                [4, 4], 8, [2], [2], [4, 4], stochastic_depth_prob=0.0, num_classes=CLASSES
            )
        case "swin v2":
            block = models.swin_transformer.SwinTransformerBlockV2
            merge = models.swin_transformer.PatchMergingV2
            return models.SwinTransformer(
                [4, 4], 8, [2], [2], [4, 4], stochastic_depth_prob=0.0, num_classes=CLASSES, block=block,
                downsample_layer=merge,
            )  # fmt: skip
        case "maxvit":
            return models.MaxVit((32, 32), 8, 4, [8], [1], 4, stochastic_depth_prob=0.0, num_classes=CLASSES)
        case "googlenet":
            return models.GoogLeNet(CLASSES, aux_logits=False, init_weights=False)
        case "alexnet":
            return models.AlexNet(CLASSES)
        case "inception v3":
            return models.Inception3(CLASSES, aux_logits=False, init_weights=False)
    raise AssertionError(name)


def _first_half(net, width):
    net.layer3, net.layer4, net.fc = nn.Identity(), nn.Identity(), nn.Linear(width, CLASSES)
    return net


def _vgg(models):
    layers = models.vgg.make_layers([4, "M", 6, "M", 8, "M"], batch_norm=True)
    dense = [nn.Linear(8 * 49, 9), nn.ReLU(True), nn.Dropout(), nn.Linear(9, CLASSES)]
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten(), *dense)


def _efficientnet(models, drop):
    block = models.efficientnet.MBConvConfig
    blocks = [block(1, 3, 1, 8, 8, 1), block(4, 5, 2, 8, 12, 2)]
    return models.EfficientNet(blocks, 0.2, drop, num_classes=CLASSES, last_channel=24)


SIDES = {"mnasnet": 48}
"""Where maps of 32x32 images would end as single pixels, over so few of which batch norm makes much of any rounding."""

LARGE = {"googlenet": 32, "alexnet": 63, "inception v3": 75}
"""Those that torchvision has in one width alone, with the side of the images that they take."""

FAMILIES = {
    "resnet": "stacked", "resnext": "stacked", "densenet": "stacked", "vgg": "stacked", "squeezenet": "stacked",
    "shufflenet": "stacked", "mobilenet v2": "stacked", "mobilenet v3": "stacked", "mnasnet": "stacked",
    "regnet": "stacked", "efficientnet": "stacked", "efficientnet, dropping blocks": "stacked",
    "convnext": "stacked", "vision transformer": "stacked", "swin": "stacked", "swin v2": "stacked",
    "maxvit": "stacked",
}  # fmt: skip


def hold(make, make_settings, images, epochs=EPOCHS):
    """Train two lanes as a pack, if they can be one, and beside plain loops; return the method."""
    common = {"dtype": "float64", "optimizer": "sgd", "batch": 8, "epochs": epochs}
    lanes = [make_settings(**common, lr=0.001, momentum=0.9), make_settings(**common, lr=0.002, norm="none")]
    data, precision = (
        ResidentCache(images, device="cpu")(lanes[0]),
        Precision.of("float64", torch.device("cpu")),
    )

    def build(*_):
        return make()

    models = [build_network(s, seed, data, build, precision) for seed, s in enumerate(lanes)]
    try:
        pack = PackProgram([Member(s, seed) for seed, s in enumerate(lanes)], models, data, precision)
    except NotPackable:
        method, found = "solo", []
        for seed, s in enumerate(lanes):
            solo = SoloProgram(s, seed, data, build, precision)
            losses = [solo.train_epoch(epoch).loss for epoch in range(1, epochs + 1)]
            found.append((losses, solo.evaluate(epochs).logits))
    else:
        method = pack.network.method
        turns = [[totals.loss for totals in pack.train_epoch()] for _ in range(epochs)]
        found = [
            (list(losses), e.logits)
            for losses, e in zip(zip(*turns, strict=True), pack.evaluate(), strict=True)
        ]
    for seed, (losses, logits) in enumerate(found):
        plain = train_plainly(make, lanes[seed], seed, images)
        assert losses == pytest.approx(plain.losses, rel=1e-9), method
        gap = (logits - plain.logits).abs().max().item()
        assert gap < 1e-9 * max(1, plain.logits.abs().max().item()), (method, gap)
    return method


@pytest.mark.parametrize("name", FAMILIES)
def test_torchvision_s_classifiers_train_in_packs_as_alone(name, make_settings, make_images):
    method = hold(lambda: vision(name), make_settings, make_images(18, size=SIDES.get(name, 32), channels=3))
    assert method == FAMILIES[name]


@pytest.mark.skipif("GRIDSEARCH_NETWORKS" not in os.environ, reason="minutes; set GRIDSEARCH_NETWORKS")
@pytest.mark.parametrize("name", LARGE)
def test_those_of_one_width_likewise(name, make_settings, make_images):
    images = make_images(10, size=LARGE[name], channels=3)
    assert hold(lambda: vision(name), make_settings, images) == "stacked"


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_of_papers_train_in_packs_as_alone(name, make_settings, make_images):
    method = hold(lambda: PUBLISHED[name](2, CLASSES), make_settings, make_images(18, size=12, channels=2))
    assert method in ("stacked", "vmap")


OWN = {
    "transformer": lambda: own_networks.SmallViT(2, CLASSES, (12, 12), dim=12, depth=1, drop=0.2),
    "mixer": lambda: own_networks.SmallMixer(2, CLASSES, (12, 12), dim=8, depth=1),
}


@pytest.mark.parametrize("name", OWN)
def test_networks_of_a_users_file_hold_for_two_hundred_steps(name, make_settings, make_images):
    images = make_images(18, size=12, channels=2)  # two steps an epoch
    assert hold(OWN[name], make_settings, images, epochs=100) == "stacked"
