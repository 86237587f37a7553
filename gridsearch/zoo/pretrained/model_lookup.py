"""Finds a model by any of its names: that of a library's network, or what `plugins.find` knows."""

from __future__ import annotations

from gridsearch import locators, plugins
from gridsearch.errors import PluginError
from gridsearch.zoo.pretrained.pretrained_model import PretrainedModel


def open_model(locator: str) -> plugins.Plugin:
    """Find a model by "lenet", "timm:resnet18", "torchvision:resnet18", "file.py:Name" or "module:Name".

    Raises:
        PluginError: there is none; one line, with the nearest known name.
    """
    if locator.rstrip(":") in locators.LIBRARIES:
        kind = locator.rstrip(":")
        raise PluginError(f"model {kind!r} needs a network", hint=f"name it as {kind}:resnet18")
    named = locators.from_library(locator)
    if named is None:
        return plugins.find(locator, plugins.MODELS)
    model = PretrainedModel(*named)
    model.check()
    return plugins.Plugin(name=locator, locator=locator, target=model, source=None)
