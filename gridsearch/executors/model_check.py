"""What a user's own model gives for two images, looked at before a run begins; the trial itself looks again.

Between the catalog, which has found the model, and `training`, which knows what logits are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridsearch.errors import RAISED
from gridsearch.executors.borrowed_process import Printing, borrowed
from gridsearch.executors.forked_call import called_in_fork
from gridsearch.executors.logs import LogStream
from gridsearch.plugins.file_loader import renew

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.plugins import Plugin
    from gridsearch.records import Value


_PATIENCE = 20.0
"""Seconds that a model may take; one that takes longer is left to its trials."""


def why_refused(
    plugin: Plugin, sets: Sequence[Mapping[str, Value]], shape: tuple[int, int, int], classes: int
) -> str | None:
    """Build a model as a worker would, call it on two images, and say why what it gives cannot be trained.

    That happens in a fork: the model's code may change this process, end it, or never return.

    Args:
        plugin: the model.
        sets: complete options; with any of them it may give logits.
        shape: (C, H, W) that it gets.
        classes: of the dataset.

    Returns:
        One line, of the first options; None where it gives logits with some, or raises, or nothing is known: its trials
        say why, on their own device.
    """
    return called_in_fork(lambda: _refusal(plugin, sets, shape, classes), patience=_PATIENCE) or None


def _refusal(
    plugin: Plugin, sets: Sequence[Mapping[str, Value]], shape: tuple[int, int, int], classes: int
) -> str:
    reasons = []
    for options in sets:
        reason = _refusal_with(plugin, options, shape, classes)
        if not reason:
            return ""
        reasons.append(reason)
    return reasons[0]


def _refusal_with(
    plugin: Plugin, options: Mapping[str, Value], shape: tuple[int, int, int], classes: int
) -> str:
    from gridsearch.training import check_model, devices
    from gridsearch.training.model_outputs import ModelRefused

    log = LogStream(lambda _: None)
    channels, height, width = shape
    try:
        with Printing(log).inside():
            arithmetic = plugin.arithmetic
        with borrowed(arithmetic), devices.at_work(threads=1), Printing(log).inside():
            renew(plugin.target)
            model = plugin.build(
                in_channels=channels, num_classes=classes, image_size=(height, width), options=options
            )
            check_model(model, shape, classes)
    except ModelRefused as error:
        return str(error)
    except RAISED:
        return ""
    return ""
