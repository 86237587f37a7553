"""Calls a compiled operation as a plan does, with all that it must not read full of NaN and guarded against writing.

Shapes: B batch, C/H/W channels, height, width, F features.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from gridsearch.training.kernels.op import (
    SLACK,
    Layout,
    OpArgs,
    activation_numbers,
    numbers,
    to_layout,
    vector_numbers,
)

_GUARD = 64  # numbers around a parameter


class Arena:
    """Memory of a call: each piece is full of NaN bytes until something is put there, and begins where a vector may."""

    def __init__(self) -> None:
        self._alive: list[torch.Tensor] = []
        self._guarded: list[torch.Tensor] = []

    def piece(self, size: int, content: torch.Tensor | None = None) -> int:
        """Return the address of so many bytes, with slack behind them."""
        raw = torch.full((size + SLACK + 64,), 255, dtype=torch.uint8)
        self._alive.append(raw)
        at = -raw.data_ptr() % 64
        if content is not None:
            raw[at : at + size].view(content.dtype).copy_(content)
        return raw.data_ptr() + at

    def guarded(self, content: torch.Tensor) -> tuple[int, torch.Tensor]:
        """Return the address of a parameter and a view of it; `check` finds writes around it."""
        raw = torch.full((content.numel() + 2 * _GUARD,), float("nan"), dtype=content.dtype)
        view = raw[_GUARD : _GUARD + content.numel()].view(content.shape)
        view.copy_(content)
        self._guarded.append(raw)
        return view.data_ptr(), view

    def check(self) -> None:
        """Fail if something was written around a parameter."""
        for raw in self._guarded:
            assert bool(raw[:_GUARD].isnan().all())
            assert bool(raw[-_GUARD:].isnan().all())


@dataclass
class Called:
    """What an operation gave.

    Attributes:
        y: its result [B, ...].
        infer: its result in evaluation, before `forward` moved the buffers.
        gx: gradients of its inputs; None where none was wanted.
        grads: of its parameters.
        buffers: as they are afterwards.
        padding: the gradients' numbers in the places of no image, which must be zeros.
    """

    y: torch.Tensor
    infer: torch.Tensor
    gx: list
    grads: list
    buffers: list
    padding: list


def read(place: int, layout: Layout, shape, images: int, dtype) -> torch.Tensor:
    """Return an activation from memory."""
    count = activation_numbers(layout, shape, images, dtype)
    kind = ctypes.c_double if dtype == torch.float64 else ctypes.c_float
    flat = torch.frombuffer((kind * count).from_address(place), dtype=dtype)
    return from_layout(flat, layout, shape, images)


def from_layout(flat: torch.Tensor, layout: Layout, shape, images: int) -> torch.Tensor:
    """Return the activation [B, *shape] that `to_layout` wrote."""
    if layout is Layout.FEATURES or (len(shape) == 1 and layout is Layout.CHANNELS_LAST):
        return flat[: images * numbers(shape)].view(images, *shape).clone()
    if layout is Layout.CHANNELS_LAST:
        maps = flat[: images * numbers(shape)].view(images, *shape[1:], shape[0])
        return maps.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
    v = vector_numbers(flat.dtype)
    count = activation_numbers(layout, shape, images, flat.dtype)
    by_image = flat[:count].view(-1, numbers(shape), v).transpose(1, 2).reshape(-1, numbers(shape))[:images]
    if len(shape) == 1:
        return by_image.clone()
    maps = by_image.view(images, *shape[1:], shape[0])
    return maps.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)


def _padding(place: int, layout: Layout, shape, images: int, dtype) -> torch.Tensor:
    if layout is not Layout.BATCH_INNER:
        return torch.zeros(1)
    whole = -(-images // vector_numbers(dtype)) * vector_numbers(dtype)
    return read(place, layout, shape, whole, dtype)[images:]


def call(
    op,
    xs,
    shape,
    params=(),
    buffers=(),
    gy=None,
    *,
    wants=None,
    before=None,
    frozen=False,
    images=None,
    dtype=None,
) -> Called:
    """Call all three functions of an operation.

    Args:
        op: the operation.
        xs: its inputs [B, C, H, W] or [B, F].
        shape: of one image of the result.
        params: its parameters; None for one that is not there.
        buffers: its buffers.
        gy: gradient of the result [B, *shape].
        wants: for each input, whether its gradient is wanted (default: yes).
        before: for each input, what its gradient is added to; None for none.
        frozen: the gradients of the parameters are not wanted, and stay NaN.
        images: how many; needed where there is no input.
        dtype: of all numbers; likewise.
    """
    images, dtype = images or len(xs[0]), dtype or xs[0].dtype
    size = 8 if dtype == torch.float64 else 4
    arena = Arena()
    args = OpArgs(images=images, constants=op.constants)
    for i, x in enumerate(xs):
        numbers = to_layout(x, op.inputs[i])
        args.x[i] = arena.piece(numbers.numel() * size, numbers)
    y_bytes = activation_numbers(op.output, shape, images, dtype) * size
    args.y = arena.piece(y_bytes)
    args.workspace = arena.piece(op.workspace_bytes(images))
    for i, p in enumerate(params):
        args.params[i] = None if p is None else arena.guarded(p)[0]
    kept = []
    for i, b in enumerate(buffers):
        args.buffers[i], view = arena.guarded(b)
        kept.append(view)
    op.library.infer(ctypes.byref(args))
    infer = read(args.y, op.output, shape, images, dtype)
    args.y = arena.piece(y_bytes)
    args.saved = arena.piece(op.saved_bytes(images))
    args.workspace = arena.piece(op.workspace_bytes(images))
    op.library.forward(ctypes.byref(args))
    y = read(args.y, op.output, shape, images, dtype)
    found = Called(y, infer, [], [], [b.clone() for b in kept], [])
    if gy is None:
        return found
    numbers = to_layout(gy, op.output)
    args.gy = arena.piece(numbers.numel() * size, numbers)
    args.workspace = arena.piece(op.workspace_bytes(images))
    wants = [True] * len(xs) if wants is None else wants
    for i, x in enumerate(xs):
        if not wants[i]:
            continue
        start = None if before is None or before[i] is None else to_layout(before[i], op.inputs[i])
        args.adds[i] = start is not None
        count = activation_numbers(op.inputs[i], tuple(x.shape[1:]), images, dtype)
        args.gx[i] = arena.piece(count * size, start)
    grads = []
    for i, p in enumerate(params):
        if p is not None:
            place, view = arena.guarded(torch.full_like(p, float("nan")))
            args.grads[i] = None if frozen else place
            grads.append(view)
        else:
            grads.append(None)
    op.library.backward(ctypes.byref(args))
    for i, x in enumerate(xs):
        own = tuple(x.shape[1:])
        found.gx.append(read(args.gx[i], op.inputs[i], own, images, dtype) if wants[i] else None)
        if wants[i]:
            found.padding.append(_padding(args.gx[i], op.inputs[i], own, images, dtype))
    found.grads = [None if g is None else g.clone() for g in grads]
    arena.check()
    return found


def drawn(*shape, dtype=torch.float64):
    """Random numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def hold_against(op, xs, function, params=(), *, adds=False, near=1e-10):
    """Compare an operation with a function of torch: results, and gradients of everything."""
    leaves = [t.clone().requires_grad_() for t in (*xs, *params)]
    expected = function(*leaves)
    gradient, before = torch.randn_like(expected), [torch.randn_like(x) for x in xs]
    own = torch.autograd.grad(expected, leaves, gradient, materialize_grads=True)
    shape = tuple(expected.shape[1:])
    found = call(op, xs, shape, params, gy=gradient, before=before if adds else None)
    pairs = [(found.y, expected), (found.infer, expected)]
    pairs += [
        (gx, theirs + start if adds else theirs)
        for gx, theirs, start in zip(found.gx, own[: len(xs)], before, strict=True)
    ]
    for ours, theirs in (*pairs, *zip(found.grads, own[len(xs) :], strict=True)):
        torch.testing.assert_close(ours, theirs.detach(), rtol=near, atol=near)
    assert all(not padding.any() for padding in found.padding)
