"""An operation of a plan that torch computes, where there is no compiled one: C calls it as any other (`op.h`).

Its functions come back from C into Python, with the operands in torch's hands where they lie.  What torch keeps for
its backward pass is kept from `forward` to `backward`, between which a plan runs no other lane.  No error passes
through C: the first one is kept for whoever has called the plan, and from then on all results are NaN, at which the
plan's steps end.

Stands between a stage that torch computes (`TorchPart`) and a plan.

Shapes: B batch, F features.
"""

from __future__ import annotations

import ctypes
import functools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from gridsearch.training.kernels.op import Layout, OpArgs
from gridsearch.training.kernels.stages import numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridsearch.training.kernels.stages import TorchPart

_ALIGNMENT = 64  # of the memory that torch allocates
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.POINTER(OpArgs))


class TorchOp:
    """The operation of a part of a network that torch computes; see `Op`.

    Args:
        part: what it computes.
        dtype: of the weights.

    Attributes:
        failure: the first error of its calls, which `raise_failure` raises.
    """

    in_place = False
    constants = None
    output = Layout.FEATURES

    def __init__(self, part: TorchPart, dtype: torch.dtype) -> None:
        self.failure: BaseException | None = None
        self.inputs = (Layout.FEATURES,) * len(part.sizes)
        self._part, self._dtype = part, dtype
        self._kept: tuple[torch.Tensor, list[torch.Tensor]] | None = None
        calls = {"forward": self._forward, "infer": self._infer, "backward": self._backward}
        self.library = SimpleNamespace(**{name: _FUNCTION(self._safe(call)) for name, call in calls.items()})

    def saved_bytes(self, images: int) -> int:  # noqa: ARG002
        """Return the size of what `forward` leaves in a plan's memory: torch has its own."""
        return 0

    def workspace_bytes(self, images: int) -> int:  # noqa: ARG002
        """Return the size of the memory that any of its calls needs besides, likewise."""
        return 0

    def raise_failure(self) -> None:
        """Raise what a call has met since this was asked last."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def _safe(self, call: Callable[[OpArgs], None]) -> Callable[[Any], None]:
        @functools.wraps(call)
        def called(pointer: Any) -> None:
            args = pointer.contents
            try:
                if self.failure is None:
                    call(args)
            except BaseException as error:  # noqa: BLE001  (an interruption, too, would be lost in C)
                self.failure = error
            if self.failure is not None:
                self._kept = None
                self._result(args, args.y).fill_(float("nan"))

        return called

    def _result(self, args: OpArgs, address: int) -> torch.Tensor:
        return self._at(address, (args.images, numbers(self._part.shape)))

    def _at(self, address: int, shape: Sequence[int]) -> torch.Tensor:
        """Return the numbers that lie at an address, as a tensor of a shape."""
        size = numbers(tuple(shape)) * self._dtype.itemsize
        return torch.frombuffer((ctypes.c_char * size).from_address(address), dtype=self._dtype).view(
            tuple(shape)
        )

    def _aligned(self, address: int, shape: Sequence[int]) -> torch.Tensor:
        """Return the numbers at an address where torch would have put them: rounding may depend on where they lie."""
        tensor = self._at(address, shape)
        return tensor.clone() if address % _ALIGNMENT else tensor

    def _operands(self, args: OpArgs) -> list[torch.Tensor]:
        """Return the inputs [B, F] and the parameters."""
        part, images = self._part, args.images
        inputs = [self._aligned(args.x[i], (images, size)) for i, size in enumerate(part.sizes)]
        return inputs + [self._aligned(args.params[i], shape) for i, shape in enumerate(part.params)]

    def _infer(self, args: OpArgs) -> None:
        with torch.inference_mode(mode=False), torch.no_grad():
            self._result(args, args.y).copy_(self._part.compute(*self._operands(args)))

    def _forward(self, args: OpArgs) -> None:
        with torch.inference_mode(mode=False), torch.enable_grad():
            operands = [operand.requires_grad_() for operand in self._operands(args)]
            y = self._part.compute(*operands)
        self._kept = y, operands
        self._result(args, args.y).copy_(y.detach())

    def _backward(self, args: OpArgs) -> None:
        assert self._kept is not None
        (y, operands), self._kept = self._kept, None
        count = len(self._part.sizes)
        wanted = [*args.gx[:count], *args.grads[: len(operands) - count]]
        asked = [operand for operand, place in zip(operands, wanted, strict=True) if place]
        found: Sequence[torch.Tensor | None] = [None] * len(asked)
        with torch.inference_mode(mode=False):
            if y.requires_grad:
                gy = self._aligned(args.gy, y.shape)
                found = torch.autograd.grad(y, asked, gy, allow_unused=True)
            gradients = iter(found)
            for i, (operand, place) in enumerate(zip(operands, wanted, strict=True)):
                if not place:
                    continue
                gradient, there = next(gradients), self._at(place, operand.shape)
                if i < count and args.adds[i]:
                    if gradient is not None:
                        there += gradient
                elif gradient is None:
                    there.zero_()
                else:
                    there.copy_(gradient)
