"""K models as one: the stacked network, or the vmapped one.

Stands between the choice of a network (`network_choice`) and the program that trains with it.

Shapes: K lanes, B batch, C/H/W channels, height, width, P elements of a lane's trained parameters, Y classes.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn
from torch.func import functional_call, vmap
from torch.overrides import TorchFunctionMode

from gridsearch.training.lanes.compile.graph_builder import GraphBuilder
from gridsearch.training.lanes.compile.lane_values import Form, LaneCount, NotStackable, unpack
from gridsearch.training.lanes.compile.module_state import adopt_tensors, plain_state, why_alone
from gridsearch.training.lanes.compile.rewrite import prepare, rewrite
from gridsearch.training.lanes.compile.tracing import known_code, trace
from gridsearch.training.lanes.runtime.mapped import quiet
from gridsearch.training.lanes.runtime.products import InputAffine
from gridsearch.training.lanes.runtime.stacked_layers import DropoutState
from gridsearch.training.lanes.runtime.storage import Storage, aliases, placed_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.training.lanes.compile.compiled_graph import CompiledGraph
    from gridsearch.training.lanes.compile.tracing import Traced


class Network(Protocol):
    """K models as one.

    Attributes:
        method: "stacked" or "vmap".
        reason: why not the one before it; "" for stacked.
        dropout: the lanes' random numbers.
        affine: the lanes' normalization, where `folds`.
        folds: whether it takes the lanes' normalization into the first layer.
        has_dropout: whether it has dropout.
        kernels: whether it has compiled kernels, so that a lone lane too is faster than the model itself.
        counts: whether a few images may not show all that it does with many; see `Traced.counts`.
    """

    method: str
    reason: str
    dropout: DropoutState
    affine: InputAffine
    folds: bool
    has_dropout: bool
    kernels: bool
    counts: bool

    def __call__(self, x: torch.Tensor, form: Form, *, training: bool) -> torch.Tensor:
        """Return logits [K, B, Y] of images in a form: shared [B, C, H, W] or packed [B, K*C, H, W]."""
        ...

    def forward_pass(self, x: torch.Tensor, form: Form) -> ForwardPass:
        """Return the logits in training mode, with the pass that computes the gradients from theirs."""
        ...

    def resize(self, lanes: int) -> None:
        """Adapt to the storage's number of lanes."""
        ...

    def alike(self, model: nn.Module, rate: float | None = None) -> bool:
        """Whether a model may take a lane: it differs in the values of its tensors alone; it is used up.

        Args:
            model: to examine.
            rate: its dropout rate, None where it is the model's own.
        """
        ...


class ForwardPass(Protocol):
    """A step's forward pass, and the backward pass from it.

    Attributes:
        logits: [K, B, Y].
    """

    logits: torch.Tensor

    def gradients(self, gradient_KBY: torch.Tensor, out_KP: torch.Tensor) -> None:
        """Write the gradients of all trained parameters, in the order of the storage's buffer; once only.

        Args:
            gradient_KBY: of the loss with respect to the logits.
            out_KP: where to write.
        """
        ...


class AutogradPass:
    """A step by autograd."""

    def __init__(self, logits_KBY: torch.Tensor, storage: Storage) -> None:
        self.logits = logits_KBY.detach()
        self._result, self._storage = logits_KBY, storage

    def gradients(self, gradient_KBY: torch.Tensor, out_KP: torch.Tensor) -> None:
        """Write the gradients."""
        gradients = gradient_KBY.to(self._result.dtype)
        found = torch.autograd.grad(self._result, self._storage.leaves(), gradients)
        torch.cat([g.flatten(1) if g.dim() > 1 else g.unsqueeze(1) for g in found], 1, out=out_KP)


class ManualPass:
    """A step by the graph's own backward pass; see `compiled_graph`."""

    def __init__(self, graph: CompiledGraph, x: torch.Tensor, storage: Storage, *, once: bool) -> None:
        # inference mode counts no versions of tensors either; neither autograd nor a replayed step may be in it
        self._mode = torch.inference_mode if once and not graph.needs_autograd else torch.no_grad
        with self._mode():
            self.logits, self._record = graph.record(x)
        self._graph, self._storage = graph, storage

    def gradients(self, gradient_KBY: torch.Tensor, out_KP: torch.Tensor) -> None:
        """Write the gradients."""
        views = self._storage.split(out_KP)
        with self._mode():
            self._graph.backward(gradient_KBY, self._record, views)


class StackedNetwork:
    """The rewritten graph of a model.

    Args:
        model: any lane's, of which the storage has taken the weights; its running statistics move.
        storage: the lanes' weights.
        x_BCHW: `SAMPLE` images.
        by_hand: the graph's own backward pass, which does not know autocast; else autograd.
        compiles: operations may become compiled kernels; only `by_hand`.
        host_streams: each lane has a generator on the host.

    Raises:
        NotStackable: there is an operation without a rule.
    """

    method = "stacked"
    reason = ""

    def __init__(
        self,
        model: nn.Module,
        storage: Storage,
        x_BCHW: torch.Tensor,
        *,
        by_hand: bool = False,
        compiles: bool = False,
        host_streams: bool = True,
    ) -> None:
        self._storage = storage
        self._by_hand = by_hand
        self.dropout = DropoutState()
        self.affine = InputAffine()
        self.folds = True
        self.has_dropout = False
        self.kernels = False
        self.counts = False
        self._width = LaneCount(storage.lanes)
        self._graphs: dict[tuple[bool, Form], CompiledGraph] = {}
        self._sample = x_BCHW
        both = _traced(model, x_BCHW)
        self._pattern = _pattern(model, both)
        self._rates = _own_rates(model)
        compiles = by_hand and compiles
        for training, traced in zip(_MODES, both, strict=True):
            self.counts |= traced.counts
            found = prepare(model, traced, x_BCHW, training=training, compiles=compiles)
            for form in (Form.SHARED, Form.PACKED):
                builder = GraphBuilder(
                    model,
                    storage,
                    self._width,
                    self.dropout,
                    self.affine,
                    training=training,
                    compiles=compiles,
                    host_streams=host_streams,
                )
                self._graphs[training, form] = rewrite(builder, traced, found, x_BCHW, form)
                if training and builder.has_dropout:
                    self.dropout.orders = found.orders
                self.folds &= builder.folds
                self.has_dropout |= builder.has_dropout
                self.kernels |= builder.kernels > 0

    def __call__(self, x: torch.Tensor, form: Form, *, training: bool) -> torch.Tensor:
        """Return logits [K, B, Y]."""
        return self._graphs[training, form](x)

    def forward_pass(self, x: torch.Tensor, form: Form) -> ForwardPass:
        """Return a step's forward pass."""
        if self._by_hand:
            once = self.dropout.counter is None
            return ManualPass(self._graphs[True, form], x, self._storage, once=once)
        return AutogradPass(self(x, form, training=True), self._storage)

    def resize(self, lanes: int) -> None:
        """Adapt to the number of lanes."""
        self._width.lanes = lanes

    def alike(self, model: nn.Module, rate: float | None = None) -> bool:
        """Whether a model has the same graph, and the same dropout rates where no recipe sets them."""
        if rate is None and _own_rates(model) != self._rates:
            return False
        try:
            adopt_tensors(model)
            if why_alone(model):
                return False
            traced = () if known_code(model) else _traced(model, self._sample)
            return _pattern(model, traced) == self._pattern
        except NotStackable:
            return False


def _own_rates(model: nn.Module) -> list[float]:
    """Return the rates of a model's dropout modules."""
    return [m.p for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]


_MODES = (True, False)  # whether it trains


def _traced(model: nn.Module, x_BCHW: torch.Tensor) -> tuple[Traced, ...]:
    """Trace a model in both modes."""
    return tuple(trace(model, x_BCHW, training=mode) for mode in _MODES)


def _pattern(model: nn.Module, traced: Sequence[Traced]) -> tuple[object, ...]:
    """What two models have alike that have the same K-lane form; dropout rates that a recipe sets included.

    The graph of modules whose code is known follows from the rest: it is not traced for each lane, 5 ms of a small one.
    """
    graphs = [] if known_code(model) else [one.pattern for one in traced]
    return plain_state(model, rates=False), aliases(model), *graphs


class _WithoutPadding(TorchFunctionMode):
    """Refuses embeddings with padding, whose gradient `vmap` leaves out in the first lane alone: `padded_embedding`.

    What images show would not tell: few may choose the padding.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        position = {F.embedding: 2, F.embedding_bag: 10}.get(func)
        if position is not None:
            padding = args[position] if len(args) > position else kwargs.get("padding_idx")
            if padding is not None:
                raise NotStackable("an embedding with padding")
        return func(*args, **kwargs)


class VmapNetwork:
    """A model's own forward, for all lanes at once by `torch.func.vmap`; the arguments are `StackedNetwork`'s."""

    method = "vmap"
    folds = False
    has_dropout = False
    kernels = False
    counts = False

    def __init__(self, model: nn.Module, storage: Storage, x_BCHW: torch.Tensor, reason: str) -> None:
        del x_BCHW
        quiet()
        self.reason = reason
        self.dropout = DropoutState()
        self.affine = InputAffine()
        self._model = model
        self._state = plain_state(model), aliases(model)
        self._storage = storage
        self._names = placed_names(model)
        self._watched: set[bool] = set()  # modes in which a call has shown what it uses

    def __call__(self, x: torch.Tensor, form: Form, *, training: bool) -> torch.Tensor:
        """Return logits [K, B, Y].

        Raises:
            NotStackable: `vmap` computes a part of the model wrong.
        """
        self._model.train(training)
        tensors = {name: self._storage.tensors[name] for name in self._names}

        def one(weights: dict[str, torch.Tensor], images: torch.Tensor) -> Any:
            return functional_call(self._model, weights, (images,), tie_weights=False)

        if form is Form.PACKED:
            x = unpack(x, self._storage.lanes).contiguous()
        dims = (0, None if form is Form.SHARED else 0)
        with contextlib.nullcontext() if training in self._watched else _WithoutPadding():
            logits: torch.Tensor = vmap(one, in_dims=dims, randomness="error")(tensors, x)
        self._watched.add(training)
        return logits

    def forward_pass(self, x: torch.Tensor, form: Form) -> ForwardPass:
        """Return a step's forward pass."""
        return AutogradPass(self(x, form, training=True), self._storage)

    def resize(self, lanes: int) -> None:
        """Do nothing: the storage knows."""

    def alike(self, model: nn.Module, rate: float | None = None) -> bool:
        """Whether a model has the same modules and plain attributes, dropout rates among them."""
        del rate
        try:
            adopt_tensors(model)
            return not why_alone(model) and (plain_state(model), aliases(model)) == self._state
        except NotStackable:
            return False
