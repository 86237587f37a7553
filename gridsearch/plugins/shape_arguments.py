"""Which of a constructor's arguments mean the data's shape, by the words that people use for it.

Stands beside the lookup of plug-ins: a model is called with what its signature asks for.  A word whose meaning its
default contradicts (`channels=16` is a width) stays an option of the model's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import inspect
    from collections.abc import Collection, Mapping

SHAPE_ARGUMENTS = ("in_channels", "num_classes", "image_size")
"""The names of the contract; what has them is passed without a note."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CHANNELS = _words(
    """in_chans in_chan in_channel channels input_channels input_channel n_channels num_channels nb_channels
    n_input_channels num_input_channels image_channels img_channels in_ch inchannels inchannel c_in nc n_chans
    num_chans channels_in"""
)
_CLASSES = _words(
    """n_classes num_class class_num classes nclass nclasses n_class nb_classes nb_class numclasses number_of_classes
    num_labels n_labels class_count classes_num num_categories out_classes"""
)
_OUTPUTS = _words("out_features output_dim out_dim output_size n_outputs num_outputs n_out")
_SIDES = _words("img_size image_shape im_size imgsize image_dim img_dim resolution input_resolution")
_INPUTS = _words("input_size input_shape")
_FLAT = _words("in_features input_dim in_dim n_inputs num_inputs")

_LARGEST_SIDE = 512
"""An `input_size` whose default is larger counts all pixels, as the 784 of MNIST."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model is built for.

    Attributes:
        image_size: (H, W).
    """

    in_channels: int
    num_classes: int
    image_size: tuple[int, int]

    def of(self, kind: str, parameter: inspect.Parameter) -> Any:
        """Return what an argument of a kind gets, in the form of its default or its annotation."""
        if kind == "channels":
            return self.in_channels
        if kind == "classes":
            return self.num_classes
        if kind == "flat":
            return self.in_channels * math.prod(self.image_size)
        default, height, width = parameter.default, *self.image_size
        listed = default if isinstance(default, tuple | list) else None
        if (listed is not None and len(listed) == 3) or (
            listed is None and parameter.name.endswith("_shape")
        ):
            return (self.in_channels, height, width)
        paired = listed is not None or "uple" in str(parameter.annotation)
        if height == width and not paired:
            return height
        return (height, width)


def words_of(parameters: Mapping[str, inspect.Parameter]) -> dict[str, str]:
    """Return the arguments that mean the shape under another name than the contract's, with what they mean.

    Args:
        parameters: of the signature.

    Returns:
        by name one of "channels", "classes", "side" and "flat", at most one argument for each.
    """
    found: dict[str, str] = {}
    taken = {"channels": "in_channels" in parameters, "classes": "num_classes" in parameters}
    taken |= {"side": "image_size" in parameters, "flat": False}
    for name, parameter in parameters.items():
        if name in SHAPE_ARGUMENTS or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kind = _meaning(name.lower(), parameter, parameters)
        if kind is not None and not taken[kind]:
            taken[kind] = True
            found[name] = kind
    return found


def in_words(passed: Mapping[str, Any]) -> str:
    """Return what was passed as people would write it: "in_chans=1, n_classes=10"."""
    return ", ".join(f"{name}={value}" for name, value in passed.items())


def _meaning(name: str, parameter: inspect.Parameter, others: Collection[str]) -> str | None:
    """Return what an argument means, None where its name, or its default, says otherwise."""
    asked = parameter.default is parameter.empty
    default = None if asked else parameter.default
    number = isinstance(default, int) and not isinstance(default, bool)
    sized = number or isinstance(default, tuple | list)
    meaning = None
    if name in _CHANNELS and (asked or default in (1, 3)):
        meaning = "channels"
    elif (name in _CLASSES and (asked or number)) or (
        name in _OUTPUTS and asked and not _CLASSES & {*others}
    ):
        meaning = "classes"
    elif name in _SIDES and (asked or sized):
        meaning = "side"
    elif name in _INPUTS and (asked or sized):
        meaning = _meaning_of_input(name, default, others)
    elif name in _FLAT and asked:
        meaning = "flat"
    return meaning


def _meaning_of_input(name: str, default: Any, others: Collection[str]) -> str:
    """An `input_size` is a side, or all that a dense network gets, which asks for no channels."""
    if isinstance(default, int):
        return "flat" if default > _LARGEST_SIDE else "side"
    listed = isinstance(default, tuple | list) or name.endswith("_shape")
    return "side" if listed or (_CHANNELS | {"in_channels"}) & {*others} else "flat"


__all__ = ["SHAPE_ARGUMENTS", "Shape", "in_words", "words_of"]
