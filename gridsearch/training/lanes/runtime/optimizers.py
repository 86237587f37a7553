"""The optimizers of all lanes of a pack: one state, each lane with its own recipe.

`LaneOptimizer` moves one lane; these move K, and give each what that would give it, in one of three ways:

- On a CPU one compiled kernel moves all lanes.
- Without a compiler torch's own function moves one lane after the other.  Passes over all lanes would do for both
  (they are the third way), but a LeNet's epoch without kernels, evaluation included, then takes longer: 1.21, 1.14,
  1.07 and 1.02 times at batch sizes 10, 20, 50 and 100, four lanes with Adam, one thread, n=7.
- Steps that need nothing from the host (`feed`) are passes over all lanes with coefficients [K, 1], those of many steps
  to come in one table.

Shapes: K lanes, P elements of a lane's trained parameters, M coefficients of a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from gridsearch.training.clipping import PackClipping
from gridsearch.training.kernels import OptimizerStep
from gridsearch.training.lane_optimizer import (
    ALPHA,
    BETA1,
    BETA2,
    EPS,
    MOMENTUM_DECAY,
    STATE,
    can_fuse,
    torch_step,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.records import ImageSettings
    from gridsearch.training.lanes.runtime.storage import Storage


class PackOptimizer:
    """Moves all lanes by their gradients, each by its own recipe.

    Args:
        settings: each lane's recipe; `optimizer` is the same in all.
        storage: has the weights, which are moved in place.
        counted: steps get their coefficients from a table; else the host takes them.

    Attributes:
        lr: each lane's learning rate of the next step.
    """

    def __init__(self, settings: Sequence[ImageSettings], storage: Storage, *, counted: bool = False) -> None:
        self._kind = settings[0].optimizer
        if any(s.optimizer != self._kind for s in settings):
            raise ValueError("the lanes of a pack have one optimizer")
        flat = storage.flat
        self._storage = storage
        self._settings = list(settings)
        self._state = {kind: torch.zeros_like(flat) for kind in STATE[self._kind]}
        self._scratch = torch.empty(0)
        self._clipping = PackClipping(len(settings), flat.dtype, flat.device)
        self._steps = [0] * len(settings)
        self._mu_products = [1.0] * len(settings)
        self._counted = counted
        compiles = not counted and flat.device.type == "cpu"
        self._kernel = OptimizerStep.build(self._kind, flat.dtype) if compiles else None
        self._fused = can_fuse(self._kind, [flat])
        self.lr = [s.lr for s in settings]
        self._bind()

    def _bind(self) -> None:
        """Take note of who the lanes are, and where their weights and state lie."""
        settings, flat = self._settings, self._storage.flat
        self._decays = any(s.weight_decay for s in settings)
        self._nesterov = self._kind == "sgd" and any(s.nesterov and s.momentum for s in settings)
        if self._kernel is not None:
            self._kernel.set_lanes(settings, self._steps, self._mu_products)
            return
        self._clipping.set(settings)
        if not self._counted:
            self._lanes = [self._lane(slot) for slot in range(len(settings))]
        elif self._scratch.shape != flat.shape:
            self._scratch = torch.empty_like(flat)

    def _lane(self, slot: int) -> tuple[torch.Tensor, dict[str, list[torch.Tensor]]]:
        """Return a lane's weights and its optimizer state as `torch_step` takes them, as views."""
        flat = self._storage.flat
        scalars = {"step": float(self._steps[slot])}
        if self._kind == "nadam":
            scalars["mu_product"] = self._mu_products[slot]
        device = flat.device if self._fused else "cpu"  # a fused form reads them on the device
        state = {kind: [t[slot]] for kind, t in self._state.items()}
        return flat[slot], state | {kind: [torch.tensor(x, device=device)] for kind, x in scalars.items()}

    @property
    def address(self) -> int | None:
        """Where the compiled step is, which plans call; None where there is none."""
        return None if self._kernel is None else self._kernel.address

    def recipe(self, slot: int) -> tuple[int, int]:
        """Return where a lane's recipe is, which plans change, and where in it its count of steps."""
        assert self._kernel is not None
        return self._kernel.recipe(slot)

    def took_planned(self) -> None:
        """Take note of the steps that a plan has taken."""
        assert self._kernel is not None
        self._steps, self.lr = self._kernel.steps, self._kernel.rates
        self._mu_products = self._kernel.mu_products

    @property
    def form(self) -> tuple[bool, ...]:
        """What a step does beside the numbers in its table: with another form it is another program."""
        return self._decays, self._nesterov, *self._clipping.form

    @property
    def state(self) -> list[torch.Tensor]:
        """All that a step changes, beside the weights."""
        return list(self._state.values())

    @torch.no_grad()
    def step(self, gradient: torch.Tensor, row: torch.Tensor | None = None) -> None:
        """Move all lanes.

        Args:
            gradient: [K, P]; clipped in place, and may be overwritten.
            row: [M, K, 1], this step's row of the `coefficients`, where steps are counted; the caller then says
                `advance`.  Else the step is the next one, with the rates in `lr`.
        """
        if row is None:
            self._steps = [n + 1 for n in self._steps]
        if self._kernel is not None:
            self._kernel(self._storage.flat, gradient, self.state, self.lr)
            if self._kind == "nadam":
                self._mu_products = self._kernel.mu_products
            return
        self._clipping(gradient)
        if row is not None:
            self._step_together(gradient, row)
            return
        lanes = zip(self._settings, self.lr, self._lanes, gradient.unbind(0), strict=True)
        for settings, lr, (weights, state), own in lanes:
            torch_step(settings, lr, [weights], [own], state, fused=self._fused)
        if self._kind == "nadam":
            self._mu_products = [float(state["mu_product"][0]) for _, state in self._lanes]

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
                columns = [shrink, np.sqrt(1 - BETA2**n), lr / (1 - BETA1**n)]
            case "nadam":
                ahead = BETA1 * (1 - 0.5 * 0.96 ** ((n + 1) * MOMENTUM_DECAY))
                products = self._products(len(lr)).astype(np.float64)
                own = lr * (1 - self._mu(n)) / (1 - products)
                columns = [decay, np.sqrt(1 - BETA2**n), own, lr * ahead / (1 - products * ahead)]
            case _:
                columns = [decay, lr]
        table = np.stack([np.broadcast_to(c, lr.shape) for c in columns], 1)
        return torch.from_numpy(table).to(self._storage.flat.dtype).to(self._storage.flat.device).unsqueeze(3)

    def advance(self, rates: Sequence[Sequence[float]]) -> None:
        """Take note that steps were taken with the `coefficients` of these rates."""
        if self._kind == "nadam":
            self._mu_products = [float(p) for p in self._products(len(rates))[-1]]
        self._steps = [n + len(rates) for n in self._steps]
        self.lr = list(rates[-1])

    @staticmethod
    def _mu(n: np.ndarray) -> np.ndarray:
        """NAdam's momentum at step n, counted from 1."""
        mu: np.ndarray = BETA1 * (1 - 0.5 * 0.96 ** (n * MOMENTUM_DECAY))
        return mu

    def _products(self, steps: int) -> np.ndarray:
        """NAdam's products of all momenta up to each of the steps to come, [steps, K] in float32 as torch's."""
        n = np.array(self._steps, dtype=np.float64) + np.arange(1, steps + 1)[:, None]
        factors = np.vstack([np.array(self._mu_products)[None], self._mu(n)]).astype(np.float32)
        products: np.ndarray = np.multiply.accumulate(factors, axis=0)[1:]
        return products

    def _step_together(self, gradient: torch.Tensor, row: torch.Tensor) -> None:
        """Move all lanes by passes over all of them."""
        if self._decays and self._kind != "adamw":
            gradient.addcmul_(self._storage.flat, row[0])
        match self._kind:
            case "sgd":
                self._sgd(gradient, row)
            case "adam" | "adamw":
                self._adam(gradient, row)
            case "nadam":
                self._nadam(gradient, row)
            case _:
                self._rmsprop(gradient, row)

    def _sgd(self, gradient: torch.Tensor, row: torch.Tensor) -> None:
        _, lr, momentum, own, share = row.unbind(0)
        buffer = self._state["momentum"]
        buffer.mul_(momentum).add_(gradient)
        if self._nesterov:
            gradient.mul_(own).addcmul_(buffer, share)
            self._storage.flat.addcmul_(gradient, lr, value=-1)
        else:
            self._storage.flat.addcmul_(buffer, lr, value=-1)

    def _adam(self, gradient: torch.Tensor, row: torch.Tensor) -> None:
        shrink, correction, size = row.unbind(0)
        if self._decays and self._kind == "adamw":
            self._storage.flat.mul_(shrink)
        root = self._moments(gradient, correction)
        self._storage.flat.sub_(torch.div(self._state["mean"], root, out=root).mul_(size))

    def _moments(self, gradient: torch.Tensor, correction: torch.Tensor) -> torch.Tensor:
        """Move both moments and return the second's root, corrected, with epsilon."""
        self._state["mean"].lerp_(gradient, 1 - BETA1)
        self._state["square"].mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        root = torch.sqrt(self._state["square"], out=self._scratch)
        return root.div_(correction).add_(EPS)

    def _nadam(self, gradient: torch.Tensor, row: torch.Tensor) -> None:
        _, correction, own, ahead = row.unbind(0)
        root = self._moments(gradient, correction)
        gradient.mul_(own).addcmul_(self._state["mean"], ahead)
        self._storage.flat.addcdiv_(gradient, root, value=-1)

    def _rmsprop(self, gradient: torch.Tensor, row: torch.Tensor) -> None:
        _, lr = row.unbind(0)
        square = self._state["square"]
        square.mul_(ALPHA).addcmul_(gradient, gradient, value=1 - ALPHA)
        root = torch.sqrt(square, out=self._scratch).add_(EPS)
        self._storage.flat.addcdiv_(gradient.mul_(lr), root, value=-1)

    def compact(self, slots: Sequence[int]) -> None:
        """Keep only these lanes, in this order; the storage has been compacted before."""
        chosen = torch.tensor(slots, device=self._storage.flat.device)
        self._state = {kind: t.index_select(0, chosen) for kind, t in self._state.items()}
        self._steps = [self._steps[i] for i in slots]
        self._mu_products = [self._mu_products[i] for i in slots]
        self._clipping = PackClipping(len(slots), self._storage.flat.dtype, self._storage.flat.device)
        self._settings = [self._settings[i] for i in slots]
        self.lr = [self.lr[i] for i in slots]
        self._bind()

    def state_dict(self, slot: int) -> dict[str, dict[str, torch.Tensor]]:
        """Return a copy of a lane's state as `LaneOptimizer.state_dict` would give it."""
        found = {kind: {n: t.clone() for n, t in own.items()} for kind, own in self._views(slot).items()}
        names = self._storage.names
        found["step"] = {n: torch.tensor(float(self._steps[slot])) for n in names}
        if self._kind == "nadam":
            found["mu_product"] = {n: torch.tensor(self._mu_products[slot]) for n in names}
        return found

    def load_state_dict(
        self, slot: int, settings: ImageSettings, state: Mapping[str, Mapping[str, torch.Tensor]]
    ) -> None:
        """Give a lane another trial's recipe and state; an empty state is a fresh start."""
        for kind, own in self._views(slot).items():
            for name, tensor in own.items():
                known = state.get(kind, {}).get(name)
                tensor.zero_() if known is None else tensor.copy_(known)
        steps, products = state.get("step", {}), state.get("mu_product", {})
        self._steps[slot] = int(next(iter(steps.values()))) if steps else 0
        self._mu_products[slot] = float(next(iter(products.values()))) if products else 1.0
        self._settings[slot] = settings
        self.lr[slot] = settings.lr
        self._bind()

    def _views(self, slot: int) -> dict[str, dict[str, torch.Tensor]]:
        """A lane's state by kind and parameter, as views."""
        return {
            kind: {name: t[slot] for name, t in self._storage.split(flat).items()}
            for kind, flat in self._state.items()
        }
