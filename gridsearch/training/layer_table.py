"""The layer table of a model, built-in or the user's own: what `models show` prints before anything trains.

A batch of blank images goes through the model once, in evaluation mode and without gradients; hooks on the
modules note the shapes that come out.  Works on the device on which the model's parameters lie, the "meta"
device included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from gridsearch.errors import RAISED, PluginError, said

Shape: TypeAlias = tuple[int, ...]

_BLANK_IMAGES = 3
"""Images in the blank batch: a number that hardly any other leading dimension has, so it is known again."""


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One module: a layer without children, or one that holds parameters of its own.

    Attributes:
        name: the module's path in the model ("conv1", "blocks.0.norm"); "(model)" for the model itself.
        type: its class's name.
        output_shape: shape of its first output without the batch, (6, 24, 24); None where it was never called
            or gave no tensor.
        parameters: elements of its own parameters; one that several modules share counts in the first row.
        other_shapes: further shapes that it gave, of other outputs or in other calls.
        calls: how often one forward pass called it.
    """

    name: str
    type: str
    output_shape: Shape | None
    parameters: int
    other_shapes: tuple[Shape, ...] = ()
    calls: int = 1


@dataclass(frozen=True, slots=True)
class LayerTable:
    """The layers in the order in which they are called, then those that hold parameters and are never called.

    The rows' parameters add up to `total`.

    Attributes:
        total: elements of all parameters, each counted once.
        trainable: elements of those that take a gradient.
    """

    rows: tuple[LayerRow, ...]
    total: int
    trainable: int


@dataclass(slots=True)
class _Seen:
    """What the hooks noted of one module."""

    shapes: list[Shape]
    calls: int = 0


def layer_table(model: nn.Module, input_shape: tuple[int, int, int]) -> LayerTable:
    """Return the layer table of a model for images of one shape.

    The model is left as it was: its weights, its buffers, its training mode, and the state of torch's random
    generator. (What lazy layers need from a first batch, they keep.)

    Args:
        model: takes images [B, C, H, W].
        input_shape: (C, H, W) of one image.

    Raises:
        PluginError: the model raised on images of this shape.
    """
    seen = _observe(model, input_shape)
    names = {module: name or "(model)" for name, module in model.named_modules()}
    order = [*(m for m in seen if m in names), *(m for m in names if m not in seen)]
    counted: set[nn.Parameter] = set()
    rows: list[LayerRow] = []
    for module in order:
        own = [p for p in module.parameters(recurse=False) if p not in counted]
        holds = any(True for _ in module.parameters(recurse=False))
        is_called_leaf = module in seen and not any(True for _ in module.children())
        if not (holds or is_called_leaf):
            continue
        counted.update(own)
        note = seen.get(module, _Seen([]))
        rows.append(
            LayerRow(
                name=names[module],
                type=type(module).__name__,
                output_shape=note.shapes[0] if note.shapes else None,
                parameters=sum(_elements(p) for p in own),
                other_shapes=tuple(note.shapes[1:]),
                calls=note.calls,
            )
        )
    parameters = list(model.parameters())
    return LayerTable(
        rows=tuple(rows),
        total=sum(_elements(p) for p in parameters),
        trainable=sum(_elements(p) for p in parameters if p.requires_grad),
    )


def _observe(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[nn.Module, _Seen]:
    """Run the blank batch and return what was noted, in the order in which modules were entered."""
    seen: dict[nn.Module, _Seen] = {}

    def entered(module: nn.Module, _arguments: Any) -> None:
        seen.setdefault(module, _Seen([])).calls += 1

    def left(module: nn.Module, _arguments: Any, output: Any) -> None:
        shapes = seen[module].shapes
        shapes += dict.fromkeys(s for t in _tensors(output) if (s := _without_batch(t)) not in shapes)

    handles = []
    try:
        for module in list(model.modules()):
            handles.append(module.register_forward_pre_hook(entered))
            handles.append(module.register_forward_hook(left))
        with _undisturbed(model):
            model(_blank_batch(model, input_shape))
    except RAISED as error:  # a user's model may raise anything
        image = "x".join(str(n) for n in input_shape)
        reason = " ".join(said(error).split()) or "no reason given"
        raise PluginError(
            f"the model raised on images of {image}: {type(error).__name__}: {reason}",
            hint="a model takes images [B, C, H, W] and returns logits [B, Y]",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return seen


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode without gradients; then restore every mode, buffer and seed."""
    modes = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers() if not _is_lazy(buffer)}
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in buffers and buffer.shape == buffers[name].shape:
                    buffer.copy_(buffers[name])


def _blank_batch(model: nn.Module, input_shape: tuple[int, int, int]) -> torch.Tensor:
    """Return zeros [B, C, H, W] in the type and on the device of the model's parameters."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.zeros(_BLANK_IMAGES, *input_shape, dtype=like.dtype, device=like.device)


def _is_lazy(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer)


def _elements(parameter: nn.Parameter) -> int:
    """Return the number of elements; 0 in a lazy layer that was never called and so has no shape yet."""
    return 0 if _is_lazy(parameter) else parameter.numel()


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of an output: a tensor, or tuples, lists and mappings of outputs."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from _tensors(part)
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(part)


def _without_batch(tensor: torch.Tensor) -> Shape:
    """Return a tensor's shape without a leading batch dimension."""
    shape = tuple(tensor.shape)
    return shape[1:] if shape[:1] == (_BLANK_IMAGES,) else shape
