"""All lanes' weights: one row of one buffer per lane, so that an optimizer updates a lane in one call.

Stands between the models that lanes start from and the network that computes with all of them.

Shapes: K lanes, P elements of a lane's trained parameters.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from gridsearch.training.lanes.compile.module_state import adopted
from gridsearch.training.weight_average import averaged_buffers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn


class Storage:
    """The parameters and buffers of K lanes of one model.

    Args:
        models: a model for each lane, alike in everything but the values of their tensors.
        trained: names of the parameters that get a gradient.

    Attributes:
        lanes: K.
        flat: [K, P], the trained parameters; a lane's lie side by side.
        tensors: every parameter and buffer as [K, ...] by each of its names; the trained ones are leaves of
            autograd and views of `flat`.
        names: the trained parameters, in the order of `flat`.
        averaged_buffers: the buffers that are averaged with the weights.
    """

    def __init__(self, models: Sequence[nn.Module], trained: Iterable[str]) -> None:
        model = models[0]
        wanted = set(trained)
        self._aliases = aliases(model)
        self._state_names = tuple(model.state_dict())
        canonical = dict(model.named_parameters()) | dict(model.named_buffers())
        self._beside = tuple(name for name in canonical if name not in self._state_names)
        self.names = tuple(n for n, p in model.named_parameters() if n in wanted)
        self._shapes = {n: tuple(canonical[n].shape) for n in self.names}
        own = adopted(model)
        self.averaged_buffers = tuple(name for name in averaged_buffers(model) if name not in own)
        self._untrained = tuple(n for n in canonical if n not in wanted)
        self.parameter_count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self._all_parameters = tuple(n for n, _ in model.named_parameters())
        self.lanes = len(models)
        self._split: tuple[torch.Tensor, dict[str, torch.Tensor]] | None = None
        self.tensors: dict[str, torch.Tensor] = {}
        each = [dict(m.named_parameters()) | dict(m.named_buffers()) for m in models]
        with torch.no_grad():
            rows = [torch.cat([tensors[n].reshape(-1) for n in self.names]) for tensors in each]
            # a stack of tensors in channels_last may be in no order that compiled calls know
            untrained = {n: torch.stack([t[n].detach() for t in each]).contiguous() for n in self._untrained}
            self._bind(torch.stack(rows), untrained)

    def _bind(self, flat: torch.Tensor, untrained: Mapping[str, torch.Tensor]) -> None:
        self.flat = flat
        self.lanes = len(flat)
        views: dict[str, torch.Tensor] = dict(untrained)
        views |= {name: view.detach().requires_grad_() for name, view in self.split(flat).items()}
        self.tensors.clear()
        self.tensors.update({alias: views[name] for alias, name in self._aliases.items()})

    def leaves(self) -> list[torch.Tensor]:
        """Return the trained parameters [K, ...], in the order of `flat`."""
        return [self.tensors[name] for name in self.names]

    def trained(self, name: str) -> str | None:
        """Return the first name of a parameter that is trained; None for other tensors."""
        first = self._aliases[name]
        return first if first in self._shapes else None

    def split(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return views [K, ...] by name of a buffer like `flat`; those of the last buffer are kept."""
        if self._split is not None and self._split[0] is flat:
            return self._split[1]
        views = {}
        start = 0
        for name, shape in self._shapes.items():
            count = _product(shape)
            views[name] = flat[:, start : start + count].view(len(flat), *shape)
            start += count
        self._split = flat, views
        return views

    def untrained(self) -> list[torch.Tensor]:
        """Return the parameters that are not trained and the buffers [K, ...], each once."""
        return [self.tensors[name] for name in self._untrained]

    def compact(self, slots: Sequence[int]) -> None:
        """Keep only these lanes, in this order; the tensors are new ones."""
        chosen = torch.tensor(slots, device=self.flat.device)
        untrained = {n: self.tensors[n].index_select(0, chosen) for n in self._untrained}
        self._bind(self.flat.index_select(0, chosen), untrained)

    def lane_tensors(self, slot: int) -> dict[str, torch.Tensor]:
        """Return a copy of a lane's parameters and buffers, a tied one under one name."""
        names = (*self.names, *self._untrained)
        return {name: self.tensors[name][slot].detach().clone() for name in names}

    @torch.no_grad()
    def load_lane_tensors(self, slot: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Give a lane these parameters and buffers; they are copied."""
        for name in (*self.names, *self._untrained):
            self.tensors[name][slot].copy_(weights[name])

    def state_dict(
        self, slot: int, replacements: Mapping[str, torch.Tensor] = MappingProxyType({})
    ) -> dict[str, object]:
        """Return what the lane's model's state_dict would be; its tensors change with the next step.

        Args:
            slot: the lane.
            replacements: other tensors for some of its own, a tied one under its first name.
        """
        names = [(name, self._aliases[name]) for name in self._state_names if name in self.tensors]
        return {
            name: replacements[first] if first in replacements else self.tensors[name][slot].detach()
            for name, first in names
        }

    def beside(
        self, slot: int, replacements: Mapping[str, torch.Tensor] = MappingProxyType({})
    ) -> dict[str, torch.Tensor]:
        """Return a lane's tensors that its model's state_dict lacks; the arguments are `state_dict`'s."""
        return {
            name: replacements[name] if name in replacements else self.tensors[name][slot].detach()
            for name in self._beside
        }

    def parameters(
        self, slot: int, replacements: Mapping[str, torch.Tensor] = MappingProxyType({})
    ) -> list[torch.Tensor]:
        """Return a lane's parameters; the arguments are `state_dict`'s."""
        return [
            replacements[name] if name in replacements else self.tensors[name][slot].detach()
            for name in self._all_parameters
        ]


def placed_names(model: nn.Module) -> list[str]:
    """Return a name for each place of a parameter or buffer: a tied one has several, a module that is shared one.

    `functional_call` that is given a place twice does not find the way back: it leaves its own tensor there.
    """
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    ]


def aliases(model: nn.Module) -> dict[str, str]:
    """Return for each name of a parameter or buffer the first name of the same tensor."""
    first: dict[int, str] = {}
    found = {}
    for named in (model.named_parameters, model.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            found[name] = first.setdefault(id(tensor), name)
    return found


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
