"""How long a compiled operation takes by itself, on numbers of no meaning.

Stands beside the plan, which calls operations with the numbers of a step: for the choice between two forms of one, and
for benchmarks.

Shapes: C/H/W channels, height, width of one image.
"""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING, Any

import torch

from gridsearch.training.kernels.op import SLACK, OpArgs, activation_numbers
from gridsearch.training.kernels.stages import BatchNorm, Conv, shape_after

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsearch.training.kernels.op import Op
    from gridsearch.training.kernels.stages import Shape, Stage


class Memory:
    """Pieces of memory as operations want them: they begin where a vector may, with slack behind."""

    def __init__(self) -> None:
        self._pieces: list[torch.Tensor] = []

    def __call__(self, content: torch.Tensor | int) -> int:
        """Return the address of a tensor's numbers, or of so many bytes."""
        size = content if isinstance(content, int) else content.numel() * content.element_size()
        raw = torch.zeros(size + SLACK + 64, dtype=torch.uint8)
        self._pieces.append(raw)
        begin = -raw.data_ptr() % 64
        if isinstance(content, torch.Tensor):
            raw[begin : begin + size].view(content.dtype).copy_(content.flatten())
        return raw.data_ptr() + begin


def passes(
    op: Op,
    stages: Sequence[Stage],
    shape: Shape,
    images: int,
    dtype: torch.dtype,
    *,
    input_grad: bool,
    parameter_grads: bool = True,
) -> dict[str, Callable[[], object]]:
    """Return calls of an operation's "forward" and "backward".

    Args:
        op: covers the stages, which begin with a convolution.
        stages: convolutions, and what has no parameters.
        shape: of an image that comes in.
        images: of a batch.
        dtype: of all numbers.
        input_grad: whether the gradient of the input is computed.
        parameter_grads: whether those of the parameters are.
    """
    memory, result = Memory(), shape
    for stage in stages:
        result = shape_after(stage, result)
    args = OpArgs(images=images, constants=op.constants)
    drawing = torch.Generator().manual_seed(0)

    def drawn(numbers: int) -> int:
        return memory(torch.randn(numbers, generator=drawing, dtype=dtype) / 10)

    args.x[0] = drawn(activation_numbers(op.inputs[0], shape, images, dtype))
    numbers = activation_numbers(op.output, result, images, dtype)
    args.y, args.gy = drawn(numbers), drawn(numbers)
    args.saved, args.workspace = memory(op.saved_bytes(images)), memory(op.workspace_bytes(images))
    if input_grad:
        args.gx[0] = drawn(activation_numbers(op.inputs[0], shape, images, dtype))
    for i, size in enumerate(_sizes(stages)):
        args.params[i] = drawn(size)
        if parameter_grads:
            args.grads[i] = drawn(size)

    def call(function: Any) -> Callable[[], object]:
        def run(keep: object = (memory, op)) -> object:  # the code reads what they own
            del keep
            return function(ctypes.byref(args))

        return run

    return {"forward": call(op.library.forward), "backward": call(op.library.backward)}


def _sizes(stages: Sequence[Stage]) -> list[int]:
    """Return how many numbers each parameter has."""
    found = []
    for stage in stages:
        assert not isinstance(stage, BatchNorm)
        if isinstance(stage, Conv):
            height, width = stage.kernel
            found += [stage.outputs * stage.channels // stage.groups * height * width, stage.outputs]
    return found


def fastest(
    calls: Mapping[str, Callable[[], object]],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the shortest of each call's times; they take turns, twice at least.

    Args:
        calls: by name.
        seconds: after which no turn begins.
        clock: gives seconds.
    """
    least = dict.fromkeys(calls, float("inf"))
    turns, end = 0, time.perf_counter() + seconds
    while turns < _TURNS or time.perf_counter() < end:
        turns += 1
        for name, call in calls.items():
            began = clock()
            call()
            least[name] = min(least[name], clock() - began)
    return least


_TURNS = 2  # the first one finds no code or memory in a cache
