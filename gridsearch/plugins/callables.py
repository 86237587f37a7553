"""What a plug-in must be to serve as a function, an optimizer or an augmentation: it can be called as those are.

Stands behind `lookup`, which finds it.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING

from gridsearch.errors import PluginError, said
from gridsearch.plugins.lookup import OBJECTIVES, Plugin, find, parameters_of, signature_of

if TYPE_CHECKING:
    from collections.abc import Collection


def find_objective(locator: str) -> Plugin:
    """Find a plain function, see `Objective`.

    Raises:
        PluginError: as `find`, or it cannot be called with params and a seed.
    """
    return as_objective(find(locator, OBJECTIVES))


def as_objective(plugin: Plugin) -> Plugin:
    """Return a plug-in that can be called with params and a seed.

    Raises:
        PluginError: it cannot.
    """
    try:
        signature_of(plugin.target).bind({}, 0, **({"state": None} if takes_state(plugin) else {}))
    except ValueError:  # a builtin without a signature; the call will show
        return plugin
    except TypeError as error:
        raise PluginError(
            f"objective {plugin.name!r} cannot be called with params and a seed: {said(error)}",
            hint="define it as `def f(params, seed)`: params is a dict, seed a whole number",
        ) from None
    names = [*parameters_of(plugin.target)][:2]
    if names == ["seed", "params"]:
        raise PluginError(
            f"objective {plugin.name!r} takes seed before params, and would get each for the other",
            hint="define it as `def f(params, seed)`",
        )
    second = parameters_of(plugin.target)[names[1]] if len(names) > 1 else None
    if second is not None and _holds_no_seed(second):
        raise PluginError(
            f"objective {plugin.name!r} would get the seed for its argument {second.name!r}",
            hint="define it as `def f(params, seed)`",
        )
    if inspect.iscoroutinefunction(plugin.target) or inspect.isasyncgenfunction(plugin.target):
        raise PluginError(
            f"objective {plugin.name!r} is asynchronous, and is called as a plain function",
            hint="give a function that runs it: `return asyncio.run(f(params, seed))`",
        )
    return plugin


def _holds_no_seed(parameter: inspect.Parameter) -> bool:
    """Whether a parameter has a default that stands for something else than a seed: `epochs=10`, `k=k` of a loop."""
    default = parameter.default
    if default is parameter.empty or default is None or (type(default) is int and default == 0):
        return False
    return not any(word in parameter.name for word in ("seed", "random", "rng"))


def check_called(plugin: Plugin, params: Collection[str]) -> None:
    """Refuse an objective that takes params one by one, and would get the dict or the seed for one of them.

    Args:
        plugin: the function.
        params: the names of its params.

    Raises:
        PluginError: it does.
    """
    names = [*parameters_of(plugin.target)][:2]
    if len(names) > 1 and names[1] in params and names[1] != "seed":
        words = " and ".join(name for name in names if name in params)
        raise PluginError(
            f"objective {plugin.name!r} takes {words} one by one, and is called with params, a dict, and a seed",
            hint=f'define it as `def f(params, seed)`, and read params["{names[1]}"]',
        )


def as_optimizer(plugin: Plugin) -> Plugin:
    """Return a plug-in that is a class of optimizers.

    Raises:
        PluginError: it is something else.
    """
    target = plugin.target
    while isinstance(target, partial):
        target = target.func
    if not (isinstance(target, type) and any(_is_torchs_optimizer(base) for base in target.__mro__)):
        raise PluginError(
            f"optimizer {plugin.name!r} is no class of optimizers",
            hint="derive it from torch.optim.Optimizer; its instances get the parameters to train",
        )
    return plugin


def _is_torchs_optimizer(base: type) -> bool:
    """Whether a class is `torch.optim.Optimizer`, without importing torch: who derives from it has imported it."""
    return base.__name__ == "Optimizer" and base.__module__ == "torch.optim.optimizer"


def as_augmentation(plugin: Plugin) -> Plugin:
    """Return a plug-in that can be called with a batch of images.

    Raises:
        PluginError: it cannot.
    """
    hint = "define it as `def f(images)` or `def f(images, generator)`: it returns the images [B, C, H, W], changed"
    if isinstance(plugin.target, type):
        raise PluginError(
            f"augment {plugin.name!r} is a class, and an instance of it or a function is wanted", hint=hint
        )
    names = parameters_of(plugin.target)
    try:
        signature_of(plugin.target).bind(None, **({"generator": None} if "generator" in names else {}))
    except ValueError:  # a builtin without a signature; the call will show
        return plugin
    except TypeError as error:
        raise PluginError(
            f"augment {plugin.name!r} cannot be called with a batch of images: {said(error)}", hint=hint
        ) from None
    return plugin


def takes_state(plugin: Plugin) -> bool:
    """Return whether an objective has a parameter `state`, for what it yielded last before it was interrupted."""
    return "state" in parameters_of(plugin.target)
