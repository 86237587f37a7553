"""What a trained network has that its state_dict lacks, for the export, which makes the network a second time.

A buffer with `persistent=False` and a tensor that is a plain attribute may move in training, as a running mean does,
and so may a number that is an attribute, as a temperature that falls: a new network with the trained weights begins
again with what its constructor gives them.  Whoever trained the winner therefore writes them beside the weights, and
what the network then made of two images: if a new network makes something else of them, it has state that nobody saw.

Stands between the end of a lane that trains on all images and `export`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch

from gridsearch.files import BESIDE
from gridsearch.training.lanes.compile.module_state import OF_MODULES
from gridsearch.training.model_outputs import ModelRefused
from gridsearch.training.outputs import write_file
from gridsearch.training.weight_hooks import computed_names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from torch import nn

_NUMBERS = "numbers"
_LOGITS = "logits"
_TENSOR = "tensor "
"""Before the names of tensors in the file, which may be any."""

_EQUAL, _SAME = 1e-6, 1e-2
"""How far logits may be apart, as a share of the largest: where nothing is to be given, and where all was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a trained network has besides.

    Attributes:
        tensors: by name, as `state_dict` would name them.
        numbers: attributes that are a number, a text or None, likewise.
        logits: [B, Y] of a few images in evaluation; None where a pack's network computed them, whose models keep
            nothing but tensors.
    """

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    logits: torch.Tensor | None = None

    def write(self, folder: Path) -> None:
        """Write it beside the lane's weights, if there is anything.

        Raises:
            StoreError: it cannot be written.
        """
        tensors = {f"{_TENSOR}{name}": _plain(t) for name, t in self.tensors.items()}
        if self.logits is not None:
            tensors[_LOGITS] = _plain(self.logits)
        if tensors or self.numbers:
            metadata = {_NUMBERS: json.dumps(dict(self.numbers))}
            write_file(folder, BESIDE, safetensors.torch.save(tensors, metadata))

    @classmethod
    def read(cls, folder: Path) -> Beside:
        """Read what `write` wrote."""
        path = folder / BESIDE
        if not path.is_file():
            return cls()
        content = path.read_bytes()
        head = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + head])["__metadata__"]
        tensors = safetensors.torch.load(content)
        return cls(
            tensors={n.removeprefix(_TENSOR): t for n, t in tensors.items() if n.startswith(_TENSOR)},
            numbers=json.loads(metadata[_NUMBERS]),
            logits=tensors.get(_LOGITS),
        )

    def give(self, model: nn.Module, name: str, logits: Callable[[], torch.Tensor]) -> tuple[str, ...]:
        """Give a new network what the trained one had, unless it computes the same without.

        Args:
            model: has the trained weights.
            name: of the model.
            logits: computes those of `model`, of the images of `self.logits`.

        Returns:
            The names of what was given.

        Raises:
            ModelRefused: the network computes something else than the trained one did, even so.
        """
        if self.logits is not None and self._agrees(logits(), _EQUAL):
            return ()
        differed = [*self._give_tensors(model), *self._give_numbers(model)]
        if self.logits is not None and not self._agrees(logits(), _SAME):
            raise ModelRefused(
                f"{name} keeps what training changes where no file has it (besides tensors and numbers), so that the "
                "trained network cannot be made again; keep it in a buffer: self.register_buffer(...)"
            )
        return tuple(sorted(differed))

    def _agrees(self, found: torch.Tensor, share: float) -> bool:
        assert self.logits is not None
        wanted = self.logits.double()
        least = share * float(wanted.abs().max())
        found = found.to("cpu", torch.float64)
        return found.shape == wanted.shape and torch.allclose(
            found, wanted, rtol=share, atol=least, equal_nan=True
        )

    @torch.no_grad()
    def _give_tensors(self, model: nn.Module) -> Iterator[str]:
        there, modules = dict(_tensors(model, ())), dict(model.named_modules())
        device = next((t.device for t in there.values()), torch.device("cpu"))
        for name, tensor in self.tensors.items():
            place, _, attribute = name.rpartition(".")
            own = there.get(name)
            if own is not None and own.shape == tensor.shape:
                if not torch.equal(own, value := tensor.to(own)):
                    own.copy_(value)
                    yield name
            elif place in modules:
                setattr(modules[place], attribute, tensor.to(device))
                yield name

    def _give_numbers(self, model: nn.Module) -> Iterator[str]:
        modules = dict(model.named_modules())
        for name, value in self.numbers.items():
            place, _, attribute = name.rpartition(".")
            if place not in modules:
                continue
            own = modules[place].__dict__
            if attribute not in own or own[attribute] != value:
                own[attribute] = value
                yield name


def beside_of(model: nn.Module, logits: torch.Tensor) -> Beside:
    """Return what a trained network has besides its state_dict.

    Args:
        model: as it is evaluated; what is taken of it is copied.
        logits: of a few images.
    """
    numbers = {
        f"{place}.{name}" if place else name: value
        for place, module in model.named_modules()
        for name, value in vars(module).items()
        if name not in OF_MODULES and (value is None or type(value) in (bool, int, float, str))
    }
    kept = {name: t.detach().clone() for name, t in _tensors(model, model.state_dict())}
    return Beside(tensors=kept, numbers=numbers, logits=logits)


def _tensors(model: nn.Module, known: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors that a file can hold of a model's parameters, buffers and attributes, without those known."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for place, module in model.named_modules():
        computed = computed_names(module)
        named += [
            (f"{place}.{name}" if place else name, value)
            for name, value in vars(module).items()
            if isinstance(value, torch.Tensor) and name not in computed
        ]
    for name, tensor in named:
        if name not in known and tensor.layout is torch.strided:
            yield name, tensor


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy as a file can hold it."""
    tensor = tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
    return tensor.to(torch.complex64) if tensor.dtype is torch.complex128 else tensor


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
