"""What a recipe's `dtype` means on a device: the type of the weights, autocast, and the rounding of products.

float32   weights and arithmetic in float32; on CUDA without the TF32 that torch gives convolutions
tf32      float32 with products rounded to TF32's 10 bits; CUDA of compute capability 8 and up, refused elsewhere
          rather than be float32 under another name
bfloat16  weights in float32, layers under autocast to bfloat16, loss in float32; CPU, CUDA, MPS.  On a CPU convolutions
          of one channel (a group) stay in float32: their backward pass in bfloat16 takes up to eight times as long
float64   all in float64, to check results with; not on MPS
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from gridsearch.errors import UsageError
from gridsearch.records.dtypes import require_dtypes

if TYPE_CHECKING:
    from collections.abc import Iterator

_TF32 = 8  # the first compute capability whose units multiply TF32


@dataclass(frozen=True, slots=True)
class Precision:
    """How a lane computes.

    Attributes:
        name: the recipe's word.
        device: "cpu", "cuda" or "mps".
        weights: type of weights, gradients, images and logits.
    """

    name: str
    device: str
    weights: torch.dtype

    @classmethod
    def of(cls, name: str, device: torch.device) -> Precision:
        """Return what a recipe's `dtype` means on a device.

        Raises:
            UsageError: the device cannot do it.
        """
        require_dtypes((name,), device.type)
        if name == "tf32" and torch.cuda.is_available():
            major, minor = torch.cuda.get_device_capability(device)
            if major < _TF32:
                what = f"{torch.cuda.get_device_name(device)}, compute {major}.{minor}"
                raise UsageError(f"dtype=tf32: not on {what}", hint="use float32; TF32 came with compute 8.0")
        return cls(name, device.type, torch.float64 if name == "float64" else torch.float32)

    @property
    def rounds(self) -> bool:
        """Whether layers round what they multiply to bfloat16."""
        return self.name == "bfloat16"

    @property
    def unrounded(self) -> Precision:
        """The same without that rounding."""
        return Precision("float32", self.device, self.weights) if self.rounds else self

    def forward(self) -> AbstractContextManager[object]:
        """Return the context for a model's forward pass."""
        if not self.rounds:
            return nullcontext()
        autocast = torch.autocast(self.device, dtype=torch.bfloat16)
        return _wide_convolutions(autocast) if self.device == "cpu" else autocast

    @contextmanager
    def products(self) -> Iterator[None]:
        """Set how CUDA rounds the products of float32, for a whole trial, and set it back afterwards."""
        if self.device != "cuda":
            yield
            return
        wanted = "tf32" if self.name == "tf32" else "ieee"
        cudnn: Any = torch.backends.cudnn  # typed without `conv` by torch
        settings = (torch.backends.cuda.matmul, cudnn.conv)
        before = [setting.fp32_precision for setting in settings]
        try:
            for setting in settings:
                setting.fp32_precision = wanted
            yield
        finally:
            for setting, value in zip(settings, before, strict=True):
                setting.fp32_precision = value


@contextmanager
def _wide_convolutions(autocast: torch.autocast) -> Iterator[None]:
    """Round what is multiplied, but for convolutions of one channel a group."""
    with autocast, _NarrowConvolutions():
        yield


class _NarrowConvolutions(TorchFunctionMode):
    """Keeps convolutions of one channel a group out of autocast."""

    def __torch_function__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch."""
        del types
        kwargs = kwargs or {}
        if func is not torch.conv2d:
            return func(*args, **kwargs)
        weight = kwargs["weight"] if "weight" in kwargs else args[1]
        if weight.shape[1] > 1:
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            args, kwargs = tree_map_only(torch.Tensor, lambda t: t.to(weight.dtype), (args, kwargs))
            return func(*args, **kwargs)
