"""The optimizers of all lanes of a pack: one state, coefficients of each lane's own.

`optimizers.LaneOptimizer` moves one lane; these move K, and give each what that would have given it.  Where
torch has a fused form for the CPU each lane's row is moved by one call of it: eight LeNets' Adam step takes
.17 ms so, .51 ms as passes over all rows, one thread.  Elsewhere the passes are over all rows at once, with
coefficients [K, 1].

Shapes: K lanes, P elements of a lane's trained parameters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.records import Settings

_BETA1, _BETA2, _EPS, _ALPHA, _MOMENTUM_DECAY = 0.9, 0.999, 1e-8, 0.99, 4e-3  # torch.optim's defaults

_KINDS = {
    "sgd": ("momentum",),
    "adam": ("mean", "square"),
    "adamw": ("mean", "square"),
    "nadam": ("mean", "square"),
    "rmsprop": ("square",),
}
"""What each optimizer remembers of each element; the names are `LaneOptimizer`'s."""


class PackOptimizer:
    """Moves the rows of a buffer by their gradients, each with its own coefficients.

    Args:
        settings: each lane's recipe; `optimizer` is the same in all.
        flat: [K, P], moved in place.
        by_row: one call of a fused kernel for each lane, where there is one; None for what is faster here.

    Attributes:
        lr: each lane's learning rate of the next step.
    """

    def __init__(
        self, settings: Sequence[Settings], flat: torch.Tensor, *, by_row: bool | None = None
    ) -> None:
        self._kind = settings[0].optimizer
        assert all(s.optimizer == self._kind for s in settings)
        self._memory = {kind: torch.zeros_like(flat) for kind in _KINDS[self._kind]}
        self._steps = [0] * len(settings)
        self._mu_products = [1.0] * len(settings)
        wanted = flat.device.type == "cpu" if by_row is None else by_row
        self._fused = wanted and self._kind in ("sgd", "adam", "adamw")
        self._bind(list(settings), flat)

    def _bind(self, settings: list[Settings], flat: torch.Tensor) -> None:
        self._settings = settings
        self._flat = flat
        self.lr = [s.lr for s in settings]
        self._rows = flat.unbind(0)
        self._memory_rows = {kind: t.unbind(0) for kind, t in self._memory.items()}
        self._counters = [torch.tensor(float(n)) for n in self._steps] if self._fused else []
        self._scratch = None if self._fused else torch.empty_like(flat)
        self._decays = any(s.weight_decay for s in settings)
        self._decay = self._column([s.weight_decay for s in settings])

    def _column(self, values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=self._flat.dtype, device=self._flat.device).unsqueeze(1)

    @torch.no_grad()
    def step(self, gradient: torch.Tensor) -> None:
        """Move all lanes.

        Args:
            gradient: [K, P]; may be overwritten.
        """
        self._steps = [n + 1 for n in self._steps]
        if self._fused:
            self._step_rows(gradient)
            return
        if self._decays and self._kind != "adamw":
            gradient.addcmul_(self._flat, self._decay)
        match self._kind:
            case "sgd":
                self._sgd(gradient)
            case "adam" | "adamw":
                self._adam(gradient)
            case "nadam":
                self._nadam(gradient)
            case _:
                self._rmsprop(gradient)

    def _step_rows(self, gradient: torch.Tensor) -> None:
        rows = zip(self._settings, self._rows, gradient.unbind(0), self.lr, strict=True)
        if self._kind == "sgd":
            buffers = self._memory_rows["momentum"]
            for (s, row, slope, lr), buffer in zip(rows, buffers, strict=True):
                torch._fused_sgd_(
                    [row],
                    [slope],
                    [buffer] if s.momentum > 0 else [],
                    weight_decay=s.weight_decay,
                    momentum=s.momentum,
                    lr=lr,
                    dampening=0.0,
                    nesterov=s.nesterov and s.momentum > 0,
                    maximize=False,
                    is_first_step=False,
                )
            return
        update = torch._fused_adam_ if self._kind == "adam" else torch._fused_adamw_
        means, squares = self._memory_rows["mean"], self._memory_rows["square"]
        torch._foreach_add_(self._counters, 1)
        for (s, row, slope, lr), mean, square, counter in zip(
            rows, means, squares, self._counters, strict=True
        ):
            update(
                [row],
                [slope],
                [mean],
                [square],
                [],
                [counter],
                lr=lr,
                beta1=_BETA1,
                beta2=_BETA2,
                weight_decay=s.weight_decay,
                eps=_EPS,
                amsgrad=False,
                maximize=False,
            )

    def _sgd(self, gradient: torch.Tensor) -> None:
        buffer = self._memory["momentum"]
        buffer.mul_(self._column([s.momentum for s in self._settings])).add_(gradient)
        ahead = [s.momentum if s.nesterov else 0.0 for s in self._settings]
        if any(ahead):
            own = self._column([1.0 if a else 0.0 for a in ahead])
            share = self._column([a or 1.0 for a in ahead])
            gradient.mul_(own).addcmul_(buffer, share)
            self._flat.addcmul_(gradient, self._column(self.lr), value=-1)
        else:
            self._flat.addcmul_(buffer, self._column(self.lr), value=-1)

    def _adam(self, gradient: torch.Tensor) -> None:
        if self._decays and self._kind == "adamw":
            rates = zip(self.lr, self._settings, strict=True)
            self._flat.mul_(self._column([1 - lr * s.weight_decay for lr, s in rates]))
        root = self._moments(gradient)
        sizes = [lr / (1 - _BETA1**n) for lr, n in zip(self.lr, self._steps, strict=True)]
        self._flat.sub_(torch.div(self._memory["mean"], root, out=root).mul_(self._column(sizes)))

    def _moments(self, gradient: torch.Tensor) -> torch.Tensor:
        """Move both moments and return the second's root, corrected, with epsilon."""
        self._memory["mean"].lerp_(gradient, 1 - _BETA1)
        self._memory["square"].mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        corrections = [math.sqrt(1 - _BETA2**n) for n in self._steps]
        root = torch.sqrt(self._memory["square"], out=self._scratch)
        return root.div_(self._column(corrections)).add_(_EPS)

    def _nadam(self, gradient: torch.Tensor) -> None:
        root = self._moments(gradient)
        own, ahead = [], []
        for lane, (lr, n) in enumerate(zip(self.lr, self._steps, strict=True)):
            mu = _BETA1 * (1 - 0.5 * 0.96 ** (n * _MOMENTUM_DECAY))
            mu_next = _BETA1 * (1 - 0.5 * 0.96 ** ((n + 1) * _MOMENTUM_DECAY))
            # torch keeps this product in float32
            product = float(np.float32(self._mu_products[lane]) * np.float32(mu))
            self._mu_products[lane] = product
            own.append(lr * (1 - mu) / (1 - product))
            ahead.append(lr * mu_next / (1 - product * mu_next))
        gradient.mul_(self._column(own)).addcmul_(self._memory["mean"], self._column(ahead))
        self._flat.addcdiv_(gradient, root, value=-1)

    def _rmsprop(self, gradient: torch.Tensor) -> None:
        square = self._memory["square"]
        square.mul_(_ALPHA).addcmul_(gradient, gradient, value=1 - _ALPHA)
        root = torch.sqrt(square, out=self._scratch).add_(_EPS)
        self._flat.addcdiv_(gradient.mul_(self._column(self.lr)), root, value=-1)

    def keep(self, slots: Sequence[int], flat: torch.Tensor) -> None:
        """Leave only these lanes, in this order, over a new buffer."""
        chosen = torch.tensor(slots, device=flat.device)
        self._memory = {kind: t.index_select(0, chosen) for kind, t in self._memory.items()}
        self._steps = [self._steps[i] for i in slots]
        self._mu_products = [self._mu_products[i] for i in slots]
        lr = [self.lr[i] for i in slots]
        self._bind([self._settings[i] for i in slots], flat)
        self.lr = lr

    def take(self, slot: int, shapes: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
        """Return a copy of a lane's memory as `LaneOptimizer.take` would give it.

        Args:
            slot: the lane.
            shapes: the trained parameters [K, ...] by name, in the order of the buffer.
        """
        found = {}
        for kind, rows in self._memory_rows.items():
            parts = torch.split(rows[slot], [t[0].numel() for t in shapes.values()])
            found[kind] = {
                n: part.view(t.shape[1:]).clone() for (n, t), part in zip(shapes.items(), parts, strict=True)
            }
        found["step"] = {n: torch.tensor(float(self._steps[slot])) for n in shapes}
        if self._kind == "nadam":
            product = torch.tensor(self._mu_products[slot])
            found["mu_product"] = {n: product.clone() for n in shapes}
        return found

    def put(
        self,
        slot: int,
        settings: Settings,
        shapes: Mapping[str, torch.Tensor],
        memory: Mapping[str, Mapping[str, torch.Tensor]],
    ) -> None:
        """Give a lane another trial's recipe and memory; an empty memory is a fresh start."""
        for kind, rows in self._memory_rows.items():
            parts = torch.split(rows[slot], [t[0].numel() for t in shapes.values()])
            for name, part in zip(shapes, parts, strict=True):
                known = memory.get(kind, {}).get(name)
                part.zero_() if known is None else part.copy_(known.reshape(-1))
        steps = memory.get("step", {})
        products = memory.get("mu_product", {})
        self._steps[slot] = int(next(iter(steps.values()))) if steps else 0
        self._mu_products[slot] = float(next(iter(products.values()))) if products else 1.0
        self._settings[slot] = settings
        lr = self.lr
        self._bind(self._settings, self._flat)
        self.lr = lr
        self.lr[slot] = settings.lr
