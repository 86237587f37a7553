"""The optimizers of all lanes of a pack: one state, coefficients of each lane's own.

`optimizers.LaneOptimizer` moves one lane; these move K, and give each what that would have given it.  On a CPU one
compiled kernel moves them all.  Without a compiler each lane's row is moved by one call of torch's fused form where it
has one: eight LeNets' Adam step takes .17 ms so, .51 ms as passes over all rows, one thread.  Elsewhere the passes are
over all rows at once, with coefficients [K, 1].  Those of many steps to come can be had as one table, so that a step on
a GPU needs nothing from the host.

Shapes: K lanes, P elements of a lane's trained parameters, M coefficients of a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from gridsearch.training.kernels import OptimizerStep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.records import ImageSettings

_BETA1, _BETA2, _EPS, _ALPHA, _MOMENTUM_DECAY = 0.9, 0.999, 1e-8, 0.99, 4e-3  # torch.optim's defaults

_STATE_NAMES = {
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
        by_row: one call of a fused form for each lane, where there is one; None for what is faster here.
        compiles: a compiled kernel may do it, which steps that are recorded must not have.

    Attributes:
        lr: each lane's learning rate of the next step.
    """

    def __init__(
        self,
        settings: Sequence[ImageSettings],
        flat: torch.Tensor,
        *,
        by_row: bool | None = None,
        compiles: bool = False,
    ) -> None:
        self._kind = settings[0].optimizer
        assert all(s.optimizer == self._kind for s in settings)
        self._state = {kind: torch.zeros_like(flat) for kind in _STATE_NAMES[self._kind]}
        self._scratch = torch.empty(0)
        self._steps = [0] * len(settings)
        self._mu_products = [1.0] * len(settings)
        on_cpu = flat.device.type == "cpu"
        self._kernel = OptimizerStep.build(self._kind, flat.dtype) if compiles and on_cpu else None
        wanted = on_cpu if by_row is None else by_row
        self._fused = wanted and self._kernel is None and self._kind in ("sgd", "adam", "adamw")
        self._bind(list(settings), flat)

    def _bind(self, settings: list[ImageSettings], flat: torch.Tensor) -> None:
        self._settings = settings
        self._flat = flat
        self.lr = [s.lr for s in settings]
        self._rows = flat.unbind(0)
        self._state_rows = {kind: t.unbind(0) for kind, t in self._state.items()}
        self._counters = [torch.tensor(float(n)) for n in self._steps] if self._fused else []
        if self._kernel is not None:
            self._kernel.set_lanes(settings, self._steps, self._mu_products)
        elif not self._fused and self._scratch.shape != flat.shape:
            self._scratch = torch.empty_like(flat)
        self._decays = any(s.weight_decay for s in settings)
        self._nesterov = self._kind == "sgd" and any(s.nesterov and s.momentum for s in settings)

    @property
    def form(self) -> tuple[bool, bool]:
        """What a step does beside the numbers in its table: with another form it is another program."""
        return self._decays, self._nesterov

    @property
    def state(self) -> list[torch.Tensor]:
        """All that a step changes, beside the buffer it moves."""
        return list(self._state.values())

    @torch.no_grad()
    def step(self, gradient: torch.Tensor, row: torch.Tensor | None = None) -> None:
        """Move all lanes.

        Args:
            gradient: [K, P]; may be overwritten.
            row: [M, K, 1], this step's row of the `coefficients`; the caller then says `advance`.  Without it the step
                is the next one, with the rates in `lr`.
        """
        if row is None:
            if self._kernel is not None:
                self._kernel(self._flat, gradient, list(self._state.values()), self.lr)
                self._steps = [n + 1 for n in self._steps]
                if self._kind == "nadam":
                    self._mu_products = self._kernel.mu_products
                return
            if self._fused:
                self._steps = [n + 1 for n in self._steps]
                self._step_rows(gradient)
                return
            row = self.coefficients([self.lr])[0]
            self.advance([self.lr])
        if self._decays and self._kind != "adamw":
            gradient.addcmul_(self._flat, row[0])
        match self._kind:
            case "sgd":
                self._sgd(gradient, row)
            case "adam" | "adamw":
                self._adam(gradient, row)
            case "nadam":
                self._nadam(gradient, row)
            case _:
                self._rmsprop(gradient, row)

    def coefficients(self, rates: Sequence[Sequence[float]]) -> torch.Tensor:
        """Return the coefficients of the steps to come, [steps, M, K, 1] on the lanes' device.

        Args:
            rates: each step's learning rates, [steps, K].
        """
        lr = np.asarray(rates, dtype=np.float64)
        decay = np.array([s.weight_decay for s in self._settings])
        n = np.array(self._steps, dtype=np.float64) + np.arange(1, len(lr) + 1)[:, None]
        match self._kind:
            case "sgd":
                momentum = np.array([s.momentum for s in self._settings])
                ahead = np.array([s.nesterov and s.momentum > 0 for s in self._settings])
                # a lane without nesterov moves by its buffer: 0 of the gradient and 1 of that
                columns = [decay, lr, momentum, ahead, np.where(ahead, momentum, 1.0)]
            case "adam" | "adamw":
                shrink = decay if self._kind == "adam" else 1 - lr * decay
                columns = [shrink, np.sqrt(1 - _BETA2**n), lr / (1 - _BETA1**n)]
            case "nadam":
                ahead = _BETA1 * (1 - 0.5 * 0.96 ** ((n + 1) * _MOMENTUM_DECAY))
                products = self._products(len(lr)).astype(np.float64)
                own = lr * (1 - self._mu(n)) / (1 - products)
                columns = [decay, np.sqrt(1 - _BETA2**n), own, lr * ahead / (1 - products * ahead)]
            case _:
                columns = [decay, lr]
        table = np.stack([np.broadcast_to(c, lr.shape) for c in columns], 1)
        return torch.from_numpy(table).to(self._flat.dtype).to(self._flat.device).unsqueeze(3)

    def advance(self, rates: Sequence[Sequence[float]]) -> None:
        """Take note that steps were taken with the `coefficients` of these rates."""
        if self._kind == "nadam":
            self._mu_products = [float(p) for p in self._products(len(rates))[-1]]
        self._steps = [n + len(rates) for n in self._steps]
        self.lr = list(rates[-1])

    @staticmethod
    def _mu(n: np.ndarray) -> np.ndarray:
        """NAdam's momentum at step n, counted from 1."""
        mu: np.ndarray = _BETA1 * (1 - 0.5 * 0.96 ** (n * _MOMENTUM_DECAY))
        return mu

    def _products(self, steps: int) -> np.ndarray:
        """NAdam's products of all momenta up to each of the steps to come, [steps, K] in float32 as torch's."""
        n = np.array(self._steps, dtype=np.float64) + np.arange(1, steps + 1)[:, None]
        factors = np.vstack([np.array(self._mu_products)[None], self._mu(n)]).astype(np.float32)
        products: np.ndarray = np.multiply.accumulate(factors, axis=0)[1:]
        return products

    def _step_rows(self, gradient: torch.Tensor) -> None:
        rows = zip(self._settings, self._rows, gradient.unbind(0), self.lr, strict=True)
        if self._kind == "sgd":
            buffers = self._state_rows["momentum"]
            for (s, row, grad, lr), buffer in zip(rows, buffers, strict=True):
                torch._fused_sgd_(
                    [row],
                    [grad],
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
        means, squares = self._state_rows["mean"], self._state_rows["square"]
        torch._foreach_add_(self._counters, 1)
        for (s, row, grad, lr), mean, square, counter in zip(
            rows, means, squares, self._counters, strict=True
        ):
            update(
                [row],
                [grad],
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

    def _sgd(self, gradient: torch.Tensor, row: torch.Tensor) -> None:
        _, lr, momentum, own, share = row.unbind(0)
        buffer = self._state["momentum"]
        buffer.mul_(momentum).add_(gradient)
        if self._nesterov:
            gradient.mul_(own).addcmul_(buffer, share)
            self._flat.addcmul_(gradient, lr, value=-1)
        else:
            self._flat.addcmul_(buffer, lr, value=-1)

    def _adam(self, gradient: torch.Tensor, row: torch.Tensor) -> None:
        shrink, correction, size = row.unbind(0)
        if self._decays and self._kind == "adamw":
            self._flat.mul_(shrink)
        root = self._moments(gradient, correction)
        self._flat.sub_(torch.div(self._state["mean"], root, out=root).mul_(size))

    def _moments(self, gradient: torch.Tensor, correction: torch.Tensor) -> torch.Tensor:
        """Move both moments and return the second's root, corrected, with epsilon."""
        self._state["mean"].lerp_(gradient, 1 - _BETA1)
        self._state["square"].mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        root = torch.sqrt(self._state["square"], out=self._scratch)
        return root.div_(correction).add_(_EPS)

    def _nadam(self, gradient: torch.Tensor, row: torch.Tensor) -> None:
        _, correction, own, ahead = row.unbind(0)
        root = self._moments(gradient, correction)
        gradient.mul_(own).addcmul_(self._state["mean"], ahead)
        self._flat.addcdiv_(gradient, root, value=-1)

    def _rmsprop(self, gradient: torch.Tensor, row: torch.Tensor) -> None:
        _, lr = row.unbind(0)
        square = self._state["square"]
        square.mul_(_ALPHA).addcmul_(gradient, gradient, value=1 - _ALPHA)
        root = torch.sqrt(square, out=self._scratch).add_(_EPS)
        self._flat.addcdiv_(gradient.mul_(lr), root, value=-1)

    def compact(self, slots: Sequence[int], flat: torch.Tensor) -> None:
        """Leave only these lanes, in this order, over a new buffer."""
        chosen = torch.tensor(slots, device=flat.device)
        self._state = {kind: t.index_select(0, chosen) for kind, t in self._state.items()}
        self._steps = [self._steps[i] for i in slots]
        self._mu_products = [self._mu_products[i] for i in slots]
        lr = [self.lr[i] for i in slots]
        self._bind([self._settings[i] for i in slots], flat)
        self.lr = lr

    def state_dict(self, slot: int, shapes: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
        """Return a copy of a lane's state as `LaneOptimizer.state_dict` would give it.

        Args:
            slot: the lane.
            shapes: the trained parameters [K, ...] by name, in the order of the buffer.
        """
        found = {}
        for kind, rows in self._state_rows.items():
            parts = torch.split(rows[slot], [t[0].numel() for t in shapes.values()])
            found[kind] = {
                n: part.view(t.shape[1:]).clone() for (n, t), part in zip(shapes.items(), parts, strict=True)
            }
        found["step"] = {n: torch.tensor(float(self._steps[slot])) for n in shapes}
        if self._kind == "nadam":
            product = torch.tensor(self._mu_products[slot])
            found["mu_product"] = {n: product.clone() for n in shapes}
        return found

    def load_state_dict(
        self,
        slot: int,
        settings: ImageSettings,
        shapes: Mapping[str, torch.Tensor],
        state: Mapping[str, Mapping[str, torch.Tensor]],
    ) -> None:
        """Give a lane another trial's recipe and state; an empty state is a fresh start."""
        for kind, rows in self._state_rows.items():
            parts = torch.split(rows[slot], [t[0].numel() for t in shapes.values()])
            for name, part in zip(shapes, parts, strict=True):
                known = state.get(kind, {}).get(name)
                part.zero_() if known is None else part.copy_(known.reshape(-1))
        steps = state.get("step", {})
        products = state.get("mu_product", {})
        self._steps[slot] = int(next(iter(steps.values()))) if steps else 0
        self._mu_products[slot] = float(next(iter(products.values()))) if products else 1.0
        self._settings[slot] = settings
        lr = self.lr
        self._bind(self._settings, self._flat)
        self.lr = lr
        self.lr[slot] = settings.lr
