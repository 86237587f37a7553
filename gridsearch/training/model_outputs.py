"""What a user's model gives for a batch: logits [B, Y], or an object that has them; all else is refused in one line.

Stands between a model and whoever calls it (`model_setup`, `solo`, `lanes/compile/reference`): a model that gives
an object with `.logits`, as those of Hugging Face do, is made to give these alone, once, when it is built.

Shapes: B batch, Y classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

_LOGITS = "logits"


class ModelRefused(ValueError):
    """A model cannot be trained as an image classifier; the message is one line."""


def check_logits(logits: object, batch: int, classes: int, *, training: bool = False) -> None:
    """Refuse what is not a floating tensor [batch, classes].

    Args:
        logits: what a model gave.
        batch: of so many images.
        classes: of the dataset.
        training: the model's mode; some give more in training, such as auxiliary logits.

    Raises:
        ModelRefused: with what it is, and how to give logits where that can be told.
    """
    gives = "the model gives in training" if training else "the model gives"
    wanted = batch, classes
    if not isinstance(logits, torch.Tensor):
        raise ModelRefused(
            f"{gives} a {type(logits).__name__}, not a tensor of logits [B, {classes}]"
            f"{_where(logits, wanted, training=training)}"
        )
    shape = tuple(logits.shape)
    if shape != wanted:
        of = f"{batch} images" if batch > 1 else "a batch of one image"
        raise ModelRefused(
            f"{gives} {list(shape)} for {of}; logits [{batch}, {classes}] are wanted{_reshaped(shape, wanted)}"
        )
    if not logits.is_floating_point():
        raise ModelRefused(f"{gives} {logits.dtype} values; floating-point logits are wanted")


def gives_object_with_logits(output: object) -> bool:
    """Whether a model's output is an object or a mapping whose `logits` are the only ones of their shape."""
    parts = dict(_parts(output))
    logits = parts.get(f'["{_LOGITS}"]' if isinstance(output, Mapping) else f".{_LOGITS}")
    if not isinstance(logits, torch.Tensor):
        return False
    others = (part for part in parts.values() if part is not logits)
    return not any(isinstance(part, torch.Tensor) and part.shape == logits.shape for part in others)


def give_logits_alone(model: nn.Module) -> None:
    """Make a model that gives an object with `.logits` give these; its tensors keep their names."""
    model.__class__ = _giving_logits(type(model))


def _giving_logits(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a class that derives from a model's and gives its logits alone."""

    def forward(self: nn.Module, x: torch.Tensor) -> object:
        output: Any = kind.forward(self, x)
        if isinstance(output, torch.Tensor | fx.Proxy):
            return output
        traced = any(
            isinstance(part, fx.Proxy) for _, part in _parts(output)
        )  # its values have been looked at
        if not traced and not gives_object_with_logits(output):
            return output
        return output[_LOGITS] if isinstance(output, Mapping) else output.logits

    about = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    metaclass: Any = type(kind)
    found: type[nn.Module] = metaclass(kind.__name__, (kind,), about | {"forward": forward})
    return found


def _parts(output: object) -> Iterator[tuple[str, object]]:
    """Yield the parts of a tuple, a list, a mapping or an object, each with the words that reach it."""
    if isinstance(output, Mapping):
        yield from ((f'["{key}"]', part) for key, part in output.items())
    elif isinstance(output, tuple | list):
        names = getattr(output, "_fields", None)
        for place, part in enumerate(output):
            yield (f"[{place}]" if names is None else f".{names[place]}"), part
    elif not isinstance(output, torch.Tensor):
        yield from ((f".{name}", part) for name, part in getattr(output, "__dict__", {}).items())


def _where(output: object, wanted: tuple[int, int], *, training: bool) -> str:
    """Return how a class of the user's own would give the logits in an output, "" where none are seen."""
    for words, part in _parts(output):
        if isinstance(part, torch.Tensor) and tuple(part.shape) == wanted:
            aux = any("aux" in name for name, _ in _parts(output))
            alone = f"y{words} if self.training else y" if training else f"y{words}"
            return (
                "; build it with aux_logits=False, or name" * aux
                + "; name" * (not aux)
                + f" a class of yours with `def forward(self, x): y = super().forward(x); return {alone}`"
            )
    return ""


def _reshaped(shape: tuple[int, ...], wanted: tuple[int, int]) -> str:
    """Return how a tensor of another shape may become logits, "" where that cannot be told."""
    batch, classes = wanted
    if shape[:2] == wanted and set(shape[2:]) == {1}:
        return "; `.flatten(1)` at its end gives them"
    if shape == wanted[1:] and batch == 1:
        return "; squeeze() takes the batch away too, `.flatten(1)` does not"
    if shape in ((batch, 1), (batch,)) and classes == 2:
        return "; give one for each of the two classes, without a sigmoid"
    if len(shape) == 2 and shape[0] == batch:
        return f"; its constructor gets num_classes={classes} where it takes that"
    return ""
