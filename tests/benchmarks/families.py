"""Time of a pooled convolution's two compiled forms, and what a wrong choice between them would cost.

    python -m tests.benchmarks.families [--seconds S]

One thread; for each shape and number of images both forms of a convolution with ReLU and max pooling take turns,
forwards and backwards, and the shortest of a pass's times counts.  Written to results/families.json with what `families`
would choose; a test holds that choice against the times.  Printed besides is how long each form takes for a product of
vectors that its formula counts: the median over shapes, from which the factors in `families` come.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import sys
from typing import TYPE_CHECKING, Any

import torch

from gridsearch.training import devices
from gridsearch.training.kernels import batch_inner, families, small_ops
from gridsearch.training.kernels.op import OpArgs, activation_numbers
from gridsearch.training.kernels.stages import Conv, MaxPool, Relu, shape_after
from tests.benchmarks.kernels import Memory, fastest
from tests.benchmarks.measure import write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.training.kernels.op import Op
    from gridsearch.training.kernels.stages import Shape

IMAGES = (10, 32, 100)
SHAPES = (  # channels in and out, side of the kernel, padding, side of the image
    (1, 6, 5, 0, 28),
    (6, 12, 5, 0, 12),
    (1, 12, 5, 0, 28),
    (12, 24, 5, 0, 12),
    (10, 10, 3, 1, 28),
    (10, 10, 3, 1, 14),
    (32, 32, 3, 0, 26),
    (3, 6, 5, 0, 32),
    (6, 16, 5, 0, 14),
    (16, 32, 3, 1, 14),
    (32, 64, 3, 1, 14),
    (1, 32, 3, 1, 28),
    (1, 16, 3, 1, 28),
)


def stages_of(shape: Sequence[int]) -> tuple[list[Any], Shape]:
    """Return the stages of a shape, and what comes in."""
    channels, outputs, side, padding, pixels = shape
    conv = Conv(channels, outputs, (side, side), padding=(padding, padding))
    return [conv, MaxPool((2, 2), (2, 2)), Relu()], (channels, pixels, pixels)


def title(shape: Sequence[int], images: int) -> str:
    """Return the name of a shape with a number of images."""
    channels, outputs, side, padding, pixels = shape
    return f"{channels} -> {outputs}, {side}x{side} padded by {padding}, {pixels} px, {images} images"


def passes(op: Op, stages: Sequence[Any], given: Shape, images: int) -> dict[str, Callable[[], object]]:
    """Return calls of an operation's passes; one of several channels computes the gradient of its input too."""
    memory, conv, result = Memory(), stages[0], given
    for stage in stages:
        result = shape_after(stage, result)
    args = OpArgs(images=images, constants=op.constants)

    def drawn(numbers: int) -> int:
        return memory(torch.randn(numbers) / 10)

    args.x[0] = drawn(activation_numbers(op.inputs[0], given, images, torch.float32))
    numbers = activation_numbers(op.output, result, images, torch.float32)
    args.y, args.gy = drawn(numbers), drawn(numbers)
    args.saved, args.workspace = memory(op.saved_bytes(images)), memory(op.workspace_bytes(images))
    if conv.channels > 1:
        args.gx[0] = drawn(activation_numbers(op.inputs[0], given, images, torch.float32))
    for i, size in enumerate((conv.outputs * conv.channels * conv.kernel[0] * conv.kernel[1], conv.outputs)):
        args.params[i], args.grads[i] = drawn(size), drawn(size)

    def call(function: Any) -> Callable[[], object]:
        return lambda keep=(memory, op): function(ctypes.byref(args))  # the code reads what they own

    return {"forward": call(op.library.forward), "backward": call(op.library.backward)}


def measure(shape: Sequence[int], images: int, seconds: float) -> dict[str, float]:
    """Return microseconds an image of each form's passes."""
    stages, given = stages_of(shape)
    calls = {}
    for name, family in (("pooled", small_ops), ("images innermost", batch_inner)):
        found = family.cover(stages, given, torch.float32)
        assert found is not None, "no compiler"
        calls |= {f"{name}, {which}": call for which, call in passes(found[0], stages, given, images).items()}
    return {name: 1e6 * spent / images for name, spent in fastest(calls, seconds).items()}


def chosen(shape: Sequence[int], images: int) -> str:
    """Return which form `families` chooses."""
    stages, given = stages_of(shape)
    wants = shape[0] > 1
    pays = families.pooled_pays(stages, given, torch.float32, images, input_grad=wants)
    return "pooled" if pays else "images innermost"


def factors(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the nanoseconds that a counted product of vectors takes, by form and pass: the medians."""
    each: dict[str, list[float]] = {}
    for shape in SHAPES:
        for images in IMAGES:
            stages, given = stages_of(shape)
            pooled, inner = families.products(stages, given, torch.float32, images, input_grad=shape[0] > 1)
            times = found[title(shape, images)]
            few = ", one channel" if shape[0] == 1 else ""
            for name, counts in (("pooled", pooled), ("images innermost", inner)):
                for which, count in zip(("forward", "backward"), counts, strict=True):
                    own = few if name != "pooled" else ""
                    each.setdefault(f"{name}, {which}{own}", []).append(
                        1e3 * times[f"{name}, {which}"] / count
                    )
    return {name: statistics.median(values) for name, values in each.items()}


def main(words: list[str]) -> None:
    """Measure all shapes and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="for each shape and number of images")
    options = parser.parse_args(words)
    devices.prepare_process(threads=1)
    found = {title(s, n): measure(s, n, options.seconds) for s in SHAPES for n in IMAGES}
    rows: dict[str, Any] = {}
    for shape in SHAPES:
        for images in IMAGES:
            name = title(shape, images)
            rows[name] = {**{k: round(v, 3) for k, v in found[name].items()}, "chosen": chosen(shape, images)}
    write("families", {"unit": "us an image", "ns a product of vectors": factors(found), **rows})


if __name__ == "__main__":
    main(sys.argv[1:])
