"""Layers whose weights torch's older hooks compute: `torch.nn.utils.weight_norm` and `torch.nn.utils.spectral_norm`.

Such a hook runs before the layer's forward and leaves what it computed as a plain attribute of the layer, which is no
parameter, has a graph behind it, and cannot be copied.

Stands beside `model_setup`, and below the networks of lanes.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormStateDictHook
from torch.nn.utils.weight_norm import WeightNorm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


def weight_hooks(module: nn.Module) -> Iterator[Any]:
    """Yield the hooks of a module that compute its weights: a `WeightNorm` or a `SpectralNorm` each."""
    return (hook for hook in module._forward_pre_hooks.values() if is_weight_hook(hook))


def is_weight_hook(hook: object) -> bool:
    """Whether a hook computes weights, or notes in a state_dict that one does."""
    return type(hook) in (WeightNorm, SpectralNorm, SpectralNormStateDictHook)


def computed_names(module: nn.Module) -> set[str]:
    """Return the names of a module's attributes that such hooks set."""
    return {hook.name for hook in weight_hooks(module)}


def weight_call(module: nn.Module, hook: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a hook as a function, and its arguments: the module's tensors, whatever stands for them, and options."""
    if isinstance(hook, WeightNorm):
        g, v = (getattr(module, f"{hook.name}_{end}") for end in "gv")
        return torch._weight_norm, (v, g, hook.dim)
    tensors = (getattr(module, f"{hook.name}_{end}") for end in ("orig", "u", "v"))
    return spectral_weight, (*tensors, hook.n_power_iterations, hook.dim, hook.eps, module.training)


def spectral_weight(
    weight: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    iterations: int,
    dim: int,
    eps: float,
    iterates: bool,
) -> torch.Tensor:
    """Return a weight divided by its largest singular value, as torch's hook does.

    Args:
        weight: of a layer.
        u: first left singular vector, approximately; one iteration or more better afterwards, if it iterates.
        v: likewise the first right one.
        iterations: of the power method.
        dim: of the weight's outputs.
        eps: for normalization.
        iterates: whether the power method runs.
    """
    holder: Any = SimpleNamespace(weight_orig=weight, weight_u=u, weight_v=v)
    found: torch.Tensor = SpectralNorm("weight", iterations, dim, eps).compute_weight(holder, iterates)
    return found


def detach_computed(model: nn.Module) -> None:
    """Free the graphs behind weights that hooks have computed; the next forward computes them anew."""
    for module in model.modules():
        for name in computed_names(module):
            value = vars(module).get(name)
            if isinstance(value, torch.Tensor):
                vars(module)[name] = value.detach()


def copy_of(model: nn.Module) -> nn.Module:
    """Return a copy of a model, also of one with such weights."""
    detach_computed(model)
    return copy.deepcopy(model)
