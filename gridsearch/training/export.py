"""From trained lanes to what is exported: logits of the test images, the weights, an ONNX graph.

Runs in the worker after a refit.  The graph takes pixels as any program has them (0 to 1, in the dataset's
size): normalization, and resizing to what the network takes, are part of it.  A photo is brought to the dataset's
size before, as the images of a folder are for training.

Shapes: K lanes, N test images, B batch, C/H/W channels, height, width, Y classes.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.errors import RAISED
from gridsearch.files import GRAPH, MODEL_WEIGHTS, TEST_OUTPUTS, WEIGHTS
from gridsearch.training import seeds
from gridsearch.training.beside_weights import Beside
from gridsearch.training.model_setup import count_parameters
from gridsearch.training.onnx_check import problem_of
from gridsearch.training.onnx_errors import why_no_graph
from gridsearch.training.outputs import write_file
from gridsearch.training.own_code import without_own_code
from gridsearch.training.pixel_tensors import channel_statistics, resident_pixels
from gridsearch.training.precision import Precision
from gridsearch.training.solo import SoloProgram
from gridsearch.training.weight_hooks import copy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx

    from gridsearch.records import FileRef, ImageSettings, Lane
    from gridsearch.training.resident_data import ResidentCache, ResidentData


_CHECKED = 64
"""Test images on which the graph is compared with torch, unless that takes longer than `_PATIENCE`."""

_CHUNK = 8

_PATIENCE = 20.0
"""Seconds; numpy takes 2 s for 64 images of 28x28 in the three-block network, and minutes for a VGG16's."""

_TOLERANCE = 1e-4
"""The largest difference of a logit, as a share of the largest logit (at least 1), that passes."""


class _Evaluated(NamedTuple):
    """A lane that was trained.

    Attributes:
        network: with its weights.
        logits: [N, Y] of the test images.
        beside: names of what training has changed beside its state_dict.
    """

    network: nn.Module
    logits: torch.Tensor
    beside: tuple[str, ...]


class GraphRefused(ValueError):
    """A network that ONNX cannot hold, or that computes something else there; the message is one line."""


def export(
    lanes: Sequence[Lane[ImageSettings]],
    *,
    data: ResidentCache,
    build: Callable[[ImageSettings, ResidentData], nn.Module],
    folder: Path,
) -> tuple[tuple[FileRef, ...], dict[str, Any]]:
    """Evaluate lanes on the test images and write the first of them as weights and as a graph.

    Args:
        lanes: with their weights in their scratch folders; of the same settings but for the seed.
        data: the dataset.
        build: gives a new model for settings and data.
        folder: where to write; made if it is not there.

    Returns:
        The files, and facts: `parameters`, `beside` (names of what training has changed in the network, and
        `model.safetensors` lacks), `trained_on` (images), `classes` (their names by label), `input`
        (channels, height, width of an image, the height and width that the network gets, and the `levels` of
        images of more than 8 bits), `normalization` (norm, mean, std), `graph` (`images`, `largest_difference` and
        `tolerance` of the check, or `error` where there is no graph).

    Raises:
        StoreError: a file cannot be written.
        OSError: a file cannot be read.
        ModelRefused: a network cannot be made again as it was trained.
        Exception: whatever the user's model raises.
    """
    settings = lanes[0].trial.settings
    images = data.test(settings)
    sample = data.test_sample(settings, _CHECKED)
    with seeds.isolated(images.device):
        found = [_evaluate(lane, images, data(settings), build) for lane in lanes]
        first, logits = found[0].network, [each.logits for each in found]
        graph, checked = _graph(first, images, settings, sample)
    tensors = {
        "logits": torch.stack(logits).to("cpu", torch.float32),
        "labels": images.labels.index_select(0, images.val).to("cpu"),
    }
    files = [
        write_file(folder, MODEL_WEIGHTS, (Path(lanes[0].scratch) / WEIGHTS).read_bytes()),
        write_file(folder, TEST_OUTPUTS, safetensors.torch.save(tensors)),
    ]
    if graph is not None:
        files.append(write_file(folder, GRAPH, graph))
    channels, height, width = sample.shape[1:]
    network_height, network_width = images.image_size if images.features is None else images.features.size
    mean, std = images.mean, images.std
    if images.features is not None:  # these are normalized; of pixels people can tell whether they are dark
        pixels = resident_pixels(data.source.train_images, size=(height, width))
        mean, std = channel_statistics(pixels, torch.from_numpy(data(settings).split.train))
    reading = data.source.reading
    facts = {
        "parameters": count_parameters(first),
        "beside": list(found[0].beside),
        "trained_on": len(data(settings).train),
        "classes": list(data.source.class_names),
        "input": {
            "channels": channels,
            "height": height,
            "width": width,
            "network_height": network_height,
            "network_width": network_width,
            **({} if reading is None or reading.levels is None else {"levels": list(reading.levels)}),
        },
        "normalization": {"norm": settings.norm, "mean": list(mean), "std": list(std)},
        "graph": checked,
    }
    return tuple(files), facts


def _evaluate(
    lane: Lane[ImageSettings],
    images: ResidentData,
    trained_on: ResidentData,
    build: Callable[[ImageSettings, ResidentData], nn.Module],
) -> _Evaluated:
    """Return a lane's network as it was trained, and its logits of the test images.

    Raises:
        ModelRefused: it cannot be made again.
        Exception: whatever the user's model raises.
    """
    settings = lane.trial.settings
    precision = Precision.of(settings.dtype, images.device)
    written = Path(lane.scratch) / WEIGHTS
    weights = safetensors.torch.load(written.read_bytes())  # not by its path, which it takes in UTF-8 alone
    with precision.products():
        seed = seeds.lane_seed(settings, lane.trial.seed)
        program = SoloProgram(without_own_code(settings), seed, images, build, precision)
        beside = Beside.read(Path(lane.scratch))
        missing, unexpected = program.model.load_state_dict(weights, strict=False)
        missing = [n for n in missing if n not in beside.tensors and not n.endswith("_extra_state")]
        if missing or unexpected:
            raise ValueError(
                f"{settings.model} has other weights each time it is built: {[*missing, *unexpected][:3]}"
            )
        given = beside.give(program.model, settings.model, lambda: program.sample_logits(trained_on))
        found = program.evaluate(settings.epochs)
    assert found is not None
    return _Evaluated(program.model, found.logits, given)


class ImageNetwork(nn.Module):
    """A network that takes images as they are: pixels [B, C, H, W] of 0 to 1, in the dataset's size.

    Args:
        network: takes normalized images of its own size.
        images: says that size and what the pixels are normalized with.
        norm: "none" or "standard".
        size: (H, W) of the dataset's images.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, network: nn.Module, images: ResidentData, *, norm: str, size: tuple[int, int]) -> None:
        super().__init__()
        scale, shift = images.affine(norm)
        self.network = network
        self.register_buffer("scale", torch.tensor(scale).view(-1, 1, 1))
        self.register_buffer("shift", torch.tensor(shift).view(-1, 1, 1))
        self._size = images.image_size if images.image_size != size else None
        self._bytes = images.pixels.dtype == torch.uint8
        self._norm = norm

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits [B, Y]."""
        x_BCHW = pixels
        if self._size is not None:  # as pixel_tensors.resident_pixels does it
            top = 255.0 if self._bytes else 1.0
            x_BCHW = F.interpolate(x_BCHW * top, size=self._size, mode="bilinear", align_corners=False)
            x_BCHW = (x_BCHW.round().clamp(0, 255) if self._bytes else x_BCHW) / top
        if self._norm == "standard":
            x_BCHW = x_BCHW * self.scale + self.shift
        logits: torch.Tensor = self.network(x_BCHW)
        return logits


def _graph(
    network: nn.Module, images: ResidentData, settings: ImageSettings, sample: np.ndarray
) -> tuple[bytes | None, dict[str, Any]]:
    """Return an ONNX graph that was checked, and how; None and the reason if there can be none."""
    try:
        size = (sample.shape[2], sample.shape[3])
        whole = _whole(copy_of(network), images, norm=settings.norm, size=size, channels=sample.shape[1])
        whole = whole.to("cpu", torch.float32).eval()
        pixels = torch.from_numpy(unit_range(sample))
        proto = _translate(whole, pixels[:2])
        if (problem := problem_of(proto)) is not None:
            raise GraphRefused(problem)
        checked = _compare(proto, whole, pixels)
    except RAISED as error:  # the exporter and a user's model may raise anything
        return None, {"error": why_no_graph(error)}
    return proto.SerializeToString(), checked


def _whole(
    network: nn.Module, images: ResidentData, *, norm: str, size: tuple[int, int], channels: int
) -> nn.Module:
    """Return the network from pixels of 0 to 1 to logits; of one trained on features, behind their backbone."""
    if images.features is None:
        return ImageNetwork(network, images, norm=norm, size=size)
    scale, shift = images.affine(norm)
    return images.features.whole(network, scale=scale, shift=shift, channels=channels)


def unit_range(images: np.ndarray) -> np.ndarray:
    """Return images as float32 of 0 to 1, whether they are bytes or floats."""
    scaled: np.ndarray = images.astype(np.float32)
    return scaled / np.float32(255) if images.dtype == np.uint8 else scaled


def graph_of(network: nn.Module, shape: tuple[int, int, int]) -> bytes:
    """Return a network, trained or not, as an ONNX graph in float32.

    Args:
        network: takes normalized images of its own size.
        shape: (C, H, W) of these.

    Raises:
        GraphRefused: ONNX cannot hold it; the message says why.
    """
    pixels = torch.zeros(2, *shape)
    try:
        whole = network.to("cpu", torch.float32).eval()
        with torch.no_grad():
            whole(pixels)  # which also shapes lazy layers
        proto = _translate(whole, pixels)
    except RAISED as error:
        raise GraphRefused(why_no_graph(error)) from error
    if (problem := problem_of(proto)) is not None:
        raise GraphRefused(problem)
    content: bytes = proto.SerializeToString()
    return content


def _translate(whole: nn.Module, pixels: torch.Tensor) -> onnx.ModelProto:
    """Return the graph, for any number of images, without anything that tells of this machine."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its own parts
        program = torch.onnx.export(
            whole,
            (pixels,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            input_names=["pixels"],
            output_names=["logits"],
            verbose=False,
        )
    if program is None:
        raise GraphRefused("torch gives no graph")
    proto: onnx.ModelProto = program.model_proto
    for part in (proto.graph, *proto.functions):
        del part.metadata_props[:]
        for node in part.node:  # where in which file each node comes from
            del node.metadata_props[:]
            node.doc_string = ""
        for value in part.value_info:
            del value.metadata_props[:]
    return proto


def _compare(proto: onnx.ModelProto, whole: nn.Module, pixels: torch.Tensor) -> dict[str, Any]:
    """Run the graph and the network on the same images.

    Raises:
        GraphRefused: their logits differ.
    """
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(proto)
    began, seen, difference, largest = time.monotonic(), 0, 0.0, 1.0
    for chunk in torch.split(pixels, _CHUNK):
        with torch.no_grad():
            expected = whole(chunk).numpy()
        (found,) = evaluator.run(None, {"pixels": chunk.numpy()})
        difference = float(np.maximum(difference, np.abs(expected - found).max()))  # NaN stays NaN
        largest = max(largest, float(np.abs(expected).max()))
        seen += len(chunk)
        if time.monotonic() - began > _PATIENCE:
            break
    tolerance = _TOLERANCE * largest
    if not difference <= tolerance:
        raise GraphRefused(
            f"its logits differ from torch's by {difference:.3g} (at most {tolerance:.3g} passes)"
        )
    return {"images": seen, "largest_difference": difference, "tolerance": tolerance}
