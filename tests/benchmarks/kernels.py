"""Compiled convolutions with the images innermost against torch's: billions of operations a second for each shape.

``python -m tests.benchmarks.kernels [--seconds S]``

One thread; each of a shape's passes is timed alone, in single precision and (where the processor multiplies it) in
bfloat16, 3x3 tap by tap and by minimal filtering, ours and torch's in turn, the fastest of its calls.  Torch computes
channels_last, ours in its own layout, with what it packs and unpacks at each call.  "weights" is the backward pass of a
first layer, which has no use for the gradient of its input, "backward" that of any other; both have the bias's.
Operations are those of all taps, zeros of the padding included: who leaves them out may exceed the processor's rate.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.kernels.batch_inner import can_filter, cover
from gridsearch.training.kernels.minimal_filtering import PASSES
from gridsearch.training.kernels.op import Layout, OpArgs, activation_numbers, to_layout
from gridsearch.training.kernels.op_timing import Memory, fastest
from gridsearch.training.kernels.stages import Conv, numbers, shape_after
from tests.benchmarks.measure import multiplies_bf16, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.training.kernels.stages import Shape

SHAPES = {  # of one image that comes in, the convolution, images of a batch
    "1 -> 6, 5x5, 28 px": ((1, 28, 28), Conv(1, 6, (5, 5)), 100),
    "6 -> 12, 5x5, 12 px": ((6, 12, 12), Conv(6, 12, (5, 5)), 100),
    "10 -> 10, 3x3, 28 px": ((10, 28, 28), Conv(10, 10, (3, 3), padding=(1, 1)), 32),
    "10 -> 10, 3x3, 14 px": ((10, 14, 14), Conv(10, 10, (3, 3), padding=(1, 1)), 32),
    "32 -> 32, 3x3, 26 px": ((32, 26, 26), Conv(32, 32, (3, 3)), 32),
    "32 -> 64, 3x3, 14 px": ((32, 14, 14), Conv(32, 64, (3, 3), padding=(1, 1)), 32),
    "64 -> 64, 3x3, 7 px": ((64, 7, 7), Conv(64, 64, (3, 3), padding=(1, 1)), 32),
    "64 -> 128, 3x3 by 2, 7 px": ((64, 7, 7), Conv(64, 128, (3, 3), (2, 2), (1, 1)), 32),
    "128 -> 128, 3x3, 28 px": ((128, 28, 28), Conv(128, 128, (3, 3), padding=(1, 1)), 32),
    "128 -> 128, 1x1, 14 px": ((128, 14, 14), Conv(128, 128, (1, 1)), 32),
    "256 -> 256, 3x3, 2 px": ((256, 2, 2), Conv(256, 256, (3, 3), padding=(1, 1)), 32),
    "512 -> 512, 3x3, 1 px": ((512, 1, 1), Conv(512, 512, (3, 3), padding=(1, 1)), 32),
    "64 depthwise, 3x3, 14 px": ((64, 14, 14), Conv(64, 64, (3, 3), padding=(1, 1), groups=64), 32),
}
PRODUCTS = ("forward", "weights", "backward")


def ours(
    shape: Shape, conv: Conv, tensors: dict[str, torch.Tensor], *, bf16: bool, filtered: Sequence[str] = ()
) -> dict[str, Callable[[], object]]:
    """Return calls of the passes."""
    found = cover([conv], shape, torch.float32, bf16=bf16, filtered=filtered)
    assert found is not None, "no compiler"
    op, images, memory = found[0], len(tensors["x"]), Memory()
    args = OpArgs(images=images, constants=op.constants)
    sizes = {"x": shape, "y": shape_after(conv, shape)}
    room = {
        n: 4 * activation_numbers(Layout.BATCH_INNER, each, images, torch.float32)
        for n, each in sizes.items()
    }
    args.x[0], args.y = memory(to_layout(tensors["x"], Layout.BATCH_INNER)), memory(room["y"])
    args.gy = memory(to_layout(tensors["gy"], Layout.BATCH_INNER))
    for i, name in enumerate(("w", "b")):
        args.params[i], args.grads[i] = memory(tensors[name]), memory(4 * tensors[name].numel())
    args.saved, args.workspace = memory(op.saved_bytes(images)), memory(op.workspace_bytes(images))
    args.gx[0] = memory(room["x"])
    weights = OpArgs.from_buffer_copy(args)
    weights.gx[0] = None

    def call(function: Any, given: OpArgs) -> Callable[[], object]:
        def run(keep: object = (memory, op)) -> object:  # the code reads what they own
            return function(ctypes.byref(given))

        return run

    library = op.library
    return dict(
        zip(
            PRODUCTS,
            (call(library.forward, args), call(library.backward, weights), call(library.backward, args)),
            strict=True,
        )
    )


def theirs(conv: Conv, tensors: dict[str, torch.Tensor], *, bf16: bool) -> dict[str, Callable[[], object]]:
    """Return calls of torch's passes."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    cast = {n: t.to(dtype) for n, t in tensors.items()}
    x, w, gy = (cast[n].contiguous(memory_format=torch.channels_last) for n in ("x", "w", "gy"))
    how = (list(conv.stride), list(conv.padding), list(conv.dilation))

    def backward(*, data: bool) -> object:
        outputs = [conv.outputs]
        return torch.ops.aten.convolution_backward(
            gy, x, w, outputs, *how, False, [0, 0], conv.groups, [data, True, True]
        )

    return {
        "forward": lambda: F.conv2d(x, w, cast["b"], *how, conv.groups),
        "weights": lambda: backward(data=False),
        "backward": lambda: backward(data=True),
    }


def rates(shape: Shape, conv: Conv, images: int, seconds: float) -> dict[str, Any]:
    """Return GFLOP/s of one shape."""
    torch.manual_seed(0)
    out = shape_after(conv, shape)
    tensors = {
        "x": torch.randn(images, *shape),
        "w": torch.randn(conv.outputs, conv.channels // conv.groups, *conv.kernel),
        "b": torch.randn(conv.outputs),
        "gy": torch.randn(images, *out),
    }
    operations = 2 * images * numbers(out) * tensors["w"][0].numel() / 1e9
    calls = {}
    for bf16 in (False, True) if multiplies_bf16() else (False,):
        ways = {"ours": ours(shape, conv, tensors, bf16=bf16), "torch": theirs(conv, tensors, bf16=bf16)}
        if can_filter(conv, shape):
            ways["minimal filtering"] = ours(shape, conv, tensors, bf16=bf16, filtered=PASSES)
        for who, found in ways.items():
            calls |= {f"{'bf16' if bf16 else 'fp32'} {who} {name}": call for name, call in found.items()}
    with torch.no_grad():
        least = fastest(calls, seconds)
    products = {"backward": 2}
    return {
        name: round(products.get(name.split()[-1], 1) * operations / spent, 1)
        for name, spent in least.items()
    }


def main(words: list[str]) -> None:
    """Measure all shapes and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each shape")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    write("kernels", {name: rates(*each, options.seconds) for name, each in SHAPES.items()})


if __name__ == "__main__":
    main(sys.argv[1:])
