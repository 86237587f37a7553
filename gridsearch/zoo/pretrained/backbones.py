"""Builds networks of the libraries, puts weights out of a file into them, and gives them images as they expect them.

Shapes: B batch, C/H/W channels, height, width, F features, Y classes.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from gridsearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gridsearch.zoo.pretrained.libraries import Colours, Library

_CLASSIFIER = 4
"""Tensors of a file that may be of another shape than the network's: weights and biases of its last layers."""


class Sized(nn.Module):
    """A network behind what makes its input of images: size, three channels, normalization.

    Args:
        network: takes [B, 3, H, W].
        size: (H, W).
        grey: whether the images have one channel.
        colours: mean and standard deviation that pixels of 0 to 1 are normalized with; None leaves them.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, network: nn.Module, *, size: tuple[int, int], grey: bool, colours: Colours | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self._size = size
        self._grey = grey
        self._normalizes = colours is not None
        if colours is not None:
            mean, std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in colours)
            self.register_buffer("mean", mean, persistent=False)
            self.register_buffer("std", std, persistent=False)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return what the network gives for images [B, C, H, W]."""
        x_BCHW = F.interpolate(x_BCHW, size=self._size, mode="bilinear", align_corners=False)
        if self._grey:
            x_BCHW = torch.cat([x_BCHW, x_BCHW, x_BCHW], dim=1)
        if self._normalizes:
            x_BCHW = (x_BCHW - self.mean) / self.std
        found: torch.Tensor = self.network(x_BCHW)
        return found


def whole(
    home: Library,
    name: str,
    *,
    in_channels: int,
    num_classes: int,
    size: tuple[int, int],
    weights: Path | None,
    frozen: bool,
) -> nn.Module:
    """Build a network from images to logits; a frozen one takes pixels of 0 to 1.

    Args:
        home: the library that it comes from.
        name: of the network there.
        in_channels: of the images, 1 or 3.
        num_classes: Y.
        size: (H, W) that images are resized to.
        weights: a file of them; None for weights that are drawn.
        frozen: all but the last layer keep the weights of that file.

    Raises:
        UsageError: the weights do not fit, or the images have neither one nor three channels.
    """
    if in_channels not in (1, 3):
        raise UsageError(f"{name} takes grey images or colours, these have {in_channels} channels")
    if frozen:
        assert weights is not None
        feet = backbone(home, name, in_channels=in_channels, size=size, weights=weights)
        return nn.Sequential(
            OrderedDict(backbone=feet, head=head(_width(feet, in_channels, size), num_classes))
        )
    network = home.build(name, num_classes)
    if weights is not None:
        _load(network, weights, classifier_may_differ=True)
    return Sized(network, size=size, grey=in_channels == 1)


def backbone(
    home: Library, name: str, *, in_channels: int, size: tuple[int, int], weights: Path
) -> nn.Module:
    """Build a frozen network from pixels of 0 to 1 to features [B, F], in evaluation mode; arguments as for `whole`.

    Raises:
        UsageError: the weights do not fit.
    """
    network = home.build(name, 0)
    _load(network, weights, classifier_may_differ=True)
    colours = home.colours(name)
    found = Sized(network, size=size, grey=in_channels == 1, colours=colours)
    return found.requires_grad_(requires_grad=False).eval()


def head(features: int, num_classes: int) -> nn.Sequential:
    """Build what is trained on features [B, F] or [B, F, 1, 1]: a dense layer behind a dropout of rate 0."""
    return nn.Sequential(
        OrderedDict(flatten=nn.Flatten(), drop=nn.Dropout(0.0), out=nn.Linear(features, num_classes))
    )


def _width(feet: nn.Module, channels: int, size: tuple[int, int]) -> int:
    with torch.no_grad():
        device = next(iter([*feet.parameters(), *feet.buffers()])).device
        found = feet(torch.zeros(1, channels, *size, device=device))
    if found.ndim != 2:
        raise UsageError(
            f"a backbone that gives features of the shape {tuple(found.shape[1:])} is not taken: a row is"
        )
    return int(found.shape[1])


@cache
def width(home: Library, name: str, *, size: tuple[int, int]) -> int:
    """Return F, how many features a backbone gives; it is built without weights for that."""
    with torch.device("meta"):
        return _width(home.build(name, 0).eval(), 3, size)


def read_tensors(path: Path) -> Mapping[str, Any]:
    """Return the tensors of a file; nothing but tensors is unpickled.

    Raises:
        UsageError: it is no such file.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return load(path.read_bytes())
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        raise UsageError(
            f"model.weights: {path} cannot be read: {reason}",
            hint="a state_dict is needed, as .safetensors or .pth: torch.save(model.state_dict(), FILE)",
        ) from error
    for name in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UsageError(f"model.weights: {path} holds no tensors by name", hint="a state_dict is needed")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _load(network: nn.Module, path: Path, *, classifier_may_differ: bool) -> None:
    """Put a file's tensors into a network; those of its last layer may be of other classes, or not be needed."""
    state, own = read_tensors(path), network.state_dict()
    fitting = {n: t for n, t in state.items() if n in own and own[n].shape == t.shape}
    missing = [n for n in own if n not in fitting and not n.endswith("num_batches_tracked")]
    last = [n for n, _ in list(network.named_parameters())[-2:]]
    lost = [n for n in missing if not (classifier_may_differ and n in last and n in state)]
    spare = [n for n in state if n not in own]
    if lost or len(spare) > _CLASSIFIER or not fitting:
        one = (lost or spare or ["nothing"])[0]
        what = "lacks" if one not in state else "has another shape of" if one in own else "has besides"
        raise UsageError(
            f"model.weights: {path.name} is of another network: it {what} {one!r} "
            f"({len(fitting)} of {len(own)} tensors fit)"
        )
    network.load_state_dict(fitting, strict=False)
