"""The stacked layers that multiply by weights: convolutions and dense layers, with the images' normalization.

They compute with tensors in the forms of `lane_values`; the rewrite chooses them.  Weights are [K, ...].  Each has its
own backward pass (`compiled_graph.Differentiable`).

Shapes: K lanes, B batch, C/O channels in and out, H/W height and width, F/G features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.lanes.compile.lane_values import unflatten

if TYPE_CHECKING:
    from gridsearch.training.kernels import DenseLayers, PooledConvolution
    from gridsearch.training.lanes.compile.compiled_graph import Grads, Needs
    from gridsearch.training.lanes.compile.lane_values import LaneCount


def merge(w: torch.Tensor | None) -> torch.Tensor | None:
    """[K, O, ...] to [K*O, ...], contiguous.

    With one channel a lane the result would be a strided view, and torch's batch norm takes its scale for dense in its
    backward pass over channels_last maps (seen in torch 2.13 on a CPU).
    """
    return None if w is None else w.flatten(0, 1).contiguous()


class InputAffine:
    """Each lane's own normalization of the images, folded into the weights of the layer that reads them.

    A layer without padding gives the same for weights w and images s * x + t as for weights w * s, images x
    and a bias that is larger by the sum of w * t.

    Attributes:
        differs: whether the lanes' images differ by it; else this does nothing.
    """

    def __init__(self) -> None:
        self.differs = False

    def set(self, scale: torch.Tensor, shift: torch.Tensor) -> None:
        """Set each lane's s and t, [K, C] both; they are not copied, so that later writes to them count too."""
        self.differs = True
        self._scale, self._shift = scale[:, None, :, None], shift[:, None, :, None]
        self._shift_column = shift.unsqueeze(2)

    def clear(self) -> None:
        """All lanes see the same images."""
        self.differs = False

    def weights(self, w: torch.Tensor, b: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return a layer's weights and bias for the images as they are.

        Args:
            w: [K, O, C, h, w], or [K, O, F] channel by channel.
            b: [K, O].
        """
        if not self.differs:
            return w, b
        by_channel = w.view(*w.shape[:2], self._shift.shape[2], -1)
        more = torch.bmm(by_channel.sum(3), self._shift_column).squeeze(2)
        return (by_channel * self._scale).view(w.shape), more if b is None else b + more

    def weight_gradient(self, gw: torch.Tensor, gb: torch.Tensor | None) -> torch.Tensor:
        """Return the gradient of the weights before `weights`, given those of the weights and biases after it."""
        if not self.differs:
            return gw
        assert gb is not None
        by_channel = gw.view(*gw.shape[:2], self._shift.shape[2], -1) * self._scale
        return by_channel.addcmul_(gb[..., None, None], self._shift).view(gw.shape)


class Conv:
    """A convolution: dense over the shared images, else in K groups of the layer's own groups.

    Args:
        width: how many lanes there are.
        groups: the layer's own.
        shared: over the shared images; of one group only.
        affine: the lanes' normalization, if it is folded into this layer.
        stride: and the rest as torch has them.
    """

    fresh = True

    def __init__(
        self,
        width: LaneCount,
        *,
        groups: int,
        shared: bool,
        affine: InputAffine | None,
        stride: Any,
        padding: Any,
        dilation: Any,
    ) -> None:
        self._width = width
        self._groups = groups
        self._shared = shared
        self._affine = affine
        self._how = {"stride": stride, "padding": padding, "dilation": dilation}

    def __call__(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        """[B, C, H, W] if shared, else [B, K*C, H, W], to [B, K*O, H', W']."""
        return self.forward(x, w, b)[0]

    def forward(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> tuple[torch.Tensor, Any]:
        """Return the result, and what `backward` needs."""
        has_bias = b is not None
        if self._affine is not None:
            w, b = self._affine.weights(w, b)
        groups = 1 if self._shared else self._groups * self._width.lanes
        merged = w.flatten(0, 1)
        y = F.conv2d(x, merged, merge(b), groups=groups, **self._how)
        return y, (x, merged, has_bias, b is not None, groups)

    def backward(self, grad_output: torch.Tensor, saved: Any, needs_grad: Needs, out: Grads) -> Grads:
        """Return the gradients with respect to x, w and b."""
        del out  # torch always allocates the gradients of a convolution's weights, which are small
        x, merged, has_bias, adds, groups = saved
        stride, padding, dilation = (pair(self._how[name]) for name in ("stride", "padding", "dilation"))
        gx, gw, gb = torch.ops.aten.convolution_backward(
            grad_output, x, merged, [len(merged)], stride, padding, dilation, False, [0, 0], groups,
            [needs_grad[0], True, adds],
        )  # fmt: skip
        gw = unflatten(gw, 0, self._width.lanes, -1)
        gb = gb if gb is None else gb.view(self._width.lanes, -1)
        if self._affine is not None:
            gw = self._affine.weight_gradient(gw, gb)
        return [gx, gw, gb if has_bias else None]


class PooledConv:
    """A convolution, its pooling and perhaps ReLU as one compiled kernel.

    Args:
        kernel: for a lane's channels.
        affine: the lanes' normalization, if it is folded into this layer.
    """

    fresh = False

    def __init__(self, kernel: PooledConvolution, *, affine: InputAffine | None) -> None:
        self._kernel, self._affine = kernel, affine

    def __call__(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        """The shared images [B, C, H, W], or maps [B, K*C, H, W], to [B, K*O, H', W']."""
        w, b = (w, b) if self._affine is None else self._affine.weights(w, b)
        return self._kernel.forward(x, w, b, return_indices=False)[0]

    def forward(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> tuple[torch.Tensor, Any]:
        """Return the result, and what `backward` needs."""
        has_bias = b is not None
        w, b = (w, b) if self._affine is None else self._affine.weights(w, b)
        y, kernel_saved = self._kernel.forward(x, w, b, return_indices=True)
        return y, (kernel_saved, has_bias)

    def backward(self, grad_output: torch.Tensor, saved: Any, needs_grad: Needs, out: Grads) -> Grads:
        """Return the gradients with respect to x, w and b."""
        kernel_saved, has_bias = saved
        w = kernel_saved.w
        turns = self._affine is not None and self._affine.differs
        gw, gb = (None, None) if turns else (out[1], out[2] if has_bias else None)
        gw = torch.empty_like(w) if gw is None else gw
        gb = w.new_empty(w.shape[:2]) if gb is None and (has_bias or turns) else gb
        gx = self._kernel.backward(grad_output, kernel_saved, gw, gb, input_grad=needs_grad[0])
        if turns and self._affine is not None:
            gw = self._affine.weight_gradient(gw, gb)
        return [gx, gw, gb if has_bias else None]


def pair(sides: Any) -> list[int]:
    """Return the numbers for height and width."""
    return [sides, sides] if isinstance(sides, int) else list(sides)


class Linear:
    """A dense layer: one batched product.

    Args:
        width: how many lanes there are.
        shared: over the shared images.
        affine: the lanes' normalization, if it is folded into this layer.
        can_fuse: it reads each lane's own features [K, B, F], so that it can be one of `DenseLayers`.
    """

    fresh = True

    def __init__(
        self, width: LaneCount, *, shared: bool, affine: InputAffine | None = None, can_fuse: bool = False
    ) -> None:
        self.can_fuse = can_fuse and not shared and affine is None
        self._width = width
        self._shared = shared
        self._affine = affine

    def __call__(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        """[B, ..., F] if shared, else [K, B, ..., F], to [K, B, ..., G]."""
        return self.forward(x, w, b)[0]

    def forward(self, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> tuple[torch.Tensor, Any]:
        """Return the result, and what `backward` needs."""
        if self._shared:
            x = x.expand(self._width.lanes, *x.shape)
        if self._affine is not None:
            w, b = self._affine.weights(w, b)
        flat = x if x.dim() == 3 else x.flatten(1, -2) if x.dim() > 3 else x.unsqueeze(1)
        turned = w.transpose(1, 2)
        y = torch.bmm(flat, turned) if b is None else torch.baddbmm(b.unsqueeze(1), flat, turned)
        saved = flat, w, x.shape
        return y if x.dim() == 3 else unflatten(y, 1, *x.shape[1:-1]) if x.dim() > 3 else y.squeeze(1), saved

    def backward(self, grad_output: torch.Tensor, saved: Any, needs_grad: Needs, out: Grads) -> Grads:
        """Return the gradients with respect to x, w and b."""
        flat, w, shape = saved
        grad_output = grad_output.reshape(*flat.shape[:2], w.shape[1])
        gx = torch.bmm(grad_output, w).view(shape) if needs_grad[0] else None
        has_bias = len(needs_grad) > 2 and needs_grad[2]
        if self._affine is not None and self._affine.differs:
            gb = grad_output.sum(1)
            gw = self._affine.weight_gradient(torch.bmm(grad_output.transpose(1, 2), flat), gb)
            return [gx, gw, gb if has_bias else None]
        gw = torch.bmm(grad_output.transpose(1, 2), flat, out=out[1])
        return [gx, gw, torch.sum(grad_output, 1, out=out[2]) if has_bias else None]


class FusedLinear:
    """Dense layers that follow each other, with the ReLUs between them, as one compiled kernel.

    Args:
        kernel: for their sizes.
    """

    fresh = False

    def __init__(self, kernel: DenseLayers) -> None:
        self._kernel = kernel

    def __call__(self, x: torch.Tensor, *weights: Any) -> torch.Tensor:
        """[K, B, F], or maps [B, K*C, H, W], to [K, B, G]; each layer's weight and bias come in turn."""
        return self.forward(x, *weights)[0]

    def forward(self, x: torch.Tensor, *weights: Any) -> tuple[torch.Tensor, Any]:
        """Return the result, and what `backward` needs."""
        if x.dim() == 3 and x.stride(2) != 1:
            x = x.contiguous()
        y, saved_inputs = self._kernel.forward(x, weights[::2], weights[1::2])
        return y, (x, weights, y, saved_inputs)

    def backward(self, grad_output: torch.Tensor, saved: Any, needs_grad: Needs, out: Grads) -> Grads:
        """Return the gradients with respect to x and each weight and bias."""
        x, weights, y, saved_inputs = saved
        buffers: list[Any] = [
            buffer if buffer is not None or w is None else torch.empty_like(w)
            for buffer, w in zip(out[1:], weights, strict=True)
        ]
        ws, gws, gbs = weights[::2], buffers[::2], buffers[1::2]
        return [
            self._kernel.backward(grad_output, y, saved_inputs, x, ws, gws, gbs, input_grad=needs_grad[0]),
            *buffers,
        ]
