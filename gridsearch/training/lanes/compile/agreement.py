"""Whether a network of lanes computes what the models themselves do: checked for every network before it trains.

Stands between the networks and the choice among them.  The reference is each lane's own module as its factory made
it, and no copy: what a copy loses, a network of lanes would lose too, and no check would show it.
"""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch

from gridsearch.training import seeds
from gridsearch.training.lanes.compile.lane_values import Form, NotPackable, NotStackable, TrainsAlone
from gridsearch.training.lanes.compile.module_state import (
    generator_states,
    identities,
    is_torchs,
    plain_state,
    why_alone,
)
from gridsearch.training.lanes.compile.source_checks import Watch
from gridsearch.training.model_setup import check_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import nn

    from gridsearch.training.lanes.compile.network import Network
    from gridsearch.training.lanes.runtime.storage import Storage
    from gridsearch.training.precision import Precision


class Disagrees(NotStackable):
    """A K-lane form gives other numbers than the model itself."""


class Undecided(Disagrees):
    """Rounding alone changes what the model computes by so much that no comparison says whether a form is right."""


class PassNetwork(Protocol):
    """What computes a network's passes; see `network.Network`."""

    @property
    def dropout(self) -> Any:
        """Has the lanes' generators."""
        ...

    def __call__(self, x: torch.Tensor, form: Form, *, training: bool) -> torch.Tensor:
        """Return logits [K, B, Y]."""
        ...

    def forward_pass(self, x: torch.Tensor, form: Form) -> Any:
        """Return the logits in training mode, with the pass that computes the gradients from theirs."""
        ...


AGREEMENT = {"float64": 1e-7, "float32": 1e-2, "tf32": 5e-2, "bfloat16": 0.2}
"""How far a network may be from the models, as a share of the largest value: mistakes are of the order of 1."""

_ROUNDING, _ROUNDED = 4, 0.05
"""How far rounding to bfloat16 may take it from what is not rounded: times what the models' own does, and besides."""

_NUDGES, _UNSTABLE = 3, 0.3
"""How many sets of last digits show what rounding does, and what share of a value it may change at most."""

Pair = tuple[torch.Tensor, torch.Tensor]
"""What a network computes, and what the models do."""


@dataclass(frozen=True, slots=True, eq=False)
class PassResult:
    """What a model computes from a few images in a mode.

    Attributes:
        gradients: of the sum of the squared logits, by parameter; none in evaluation mode.
        buffers: as they are afterwards.
    """

    logits: torch.Tensor
    gradients: Mapping[str, torch.Tensor]
    buffers: Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What one lane's own module computes.

    Attributes:
        passes: by mode, without the rounding of bfloat16.
        rounded: likewise under autocast to bfloat16; None where that is not the precision.
        not_stacked: why a traced graph of it would be wrong; "" where it may be right.
    """

    passes: Mapping[bool, PassResult]
    rounded: Mapping[bool, PassResult] | None
    not_stacked: str

    @property
    def trained(self) -> list[str]:
        """Names of the parameters that get a gradient; the others are passed over by an optimizer."""
        return list(self.passes[True].gradients)

    @classmethod
    def of(cls, model: nn.Module, x_BCHW: torch.Tensor, precision: Precision) -> Self:
        """Run a model in both modes; its tensors are afterwards as they were, and its mode is training.

        Raises:
            TrainsAlone: it carries, or does, what no network of lanes keeps.
            Exception: whatever it raises.
        """
        if reason := why_alone(model):
            raise TrainsAlone(reason)
        before = plain_state(model), generator_states()
        named = dict(model.named_parameters()) | dict(model.named_buffers())
        kept = {name: tensor.detach().clone() for name, tensor in named.items()}
        owners = identities(model)
        watch = None if all(is_torchs(type(m)) for m in model.modules()) else Watch(model)
        ways = [precision.unrounded] + [precision] * precision.rounds
        passes: list[dict[bool, PassResult]] = [{} for _ in ways]
        own_backward = False
        for way, training in itertools.product(range(len(ways)), (False, True)):
            evaluated = passes[way][False] if training else None
            found, backward = _run(model, x_BCHW, ways[way], watch, evaluated)
            passes[way][training] = found
            own_backward |= backward
            if identities(model) != owners:
                raise TrainsAlone("its forward changes its weights, or replaces its tensors")
            with torch.no_grad():
                for name, tensor in named.items():
                    tensor.grad = None
                    if not torch.equal(tensor, kept[name]):  # versions do not tell: batch norm counts none
                        tensor.copy_(kept[name])
            owners = identities(model)
        if watch is not None:
            watch.check()
        if (plain_state(model), generator_states()) != before:
            raise TrainsAlone("its forward draws numbers, or keeps state, outside of torch")
        switches = watch is not None and watch.switches
        words = "its own backward passes" * own_backward or "gradients switched off in its forward" * switches
        rounded = passes[1] if precision.rounds else None
        return cls(passes[0], rounded, f"{words} have no stacked form" if words else "")


def check_sizes(
    model: nn.Module, trained: Sequence[str], batches: Iterable[torch.Tensor], precision: Precision
) -> None:
    """Refuse a model that trains other parameters on another number of images.

    A traced graph asks for no number of images; a forward that runs at each step may.

    Args:
        model: a lane's.
        trained: names of the parameters that get a gradient from `SAMPLE` images.
        batches: images of each number that a step takes.
        precision: how it computes.

    Raises:
        NotPackable: it is one.
        Exception: whatever it raises.
    """
    for x_BCHW in batches:
        if Reference.of(model, x_BCHW, precision).trained != list(trained):
            raise NotPackable("the number of images decides which parameters it trains")


def _run(
    model: nn.Module,
    x_BCHW: torch.Tensor,
    precision: Precision,
    watch: Watch | None,
    evaluated: PassResult | None,
) -> tuple[PassResult, bool]:
    """Run a model once, on a copy of the images, and say whether its graph has an autograd function of its own.

    Args:
        model: see `Reference.of`.
        x_BCHW: likewise.
        precision: how it computes.
        watch: notes the code that runs.
        evaluated: what it gave in evaluation, now that it trains; None in evaluation.
    """
    training = evaluated is not None
    model.train(training)
    seeds.reseed(x_BCHW.device, seeds.stream(0, "trial"))
    try:
        with torch.set_grad_enabled(training), precision.forward(), watch or nullcontext():
            logits = model(x_BCHW.clone())
        if evaluated is not None:
            check_logits(logits, len(x_BCHW), evaluated.logits.shape[-1], training=True)
            logits.float().square().sum().backward()
    finally:
        model.train()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None} if training else {}
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
    return PassResult(logits.detach(), gradients, buffers), _own_backward(logits)


def _own_backward(result: torch.Tensor) -> bool:
    """Whether a function with a backward pass of its own is among what made a tensor."""
    waiting: list[Any] = [result.grad_fn]
    known: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in known:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        known.add(node)
        waiting += [before for before, _ in node.next_functions]
    return False


def check(
    network: Network,
    storage: Storage,
    references: Sequence[Reference],
    x_BCHW: torch.Tensor,
    precision: Precision,
) -> None:
    """Compare a network with the models themselves: without the rounding of bfloat16, and then with it.

    Raises:
        NotStackable: they differ.
    """
    before = [storage.lane_tensors(slot) for slot in range(storage.lanes)]

    def pairs(results: Sequence[PassResult], way: Precision, form: Form, *, training: bool) -> list[Pair]:
        try:
            return _pairs(network, storage, results, x_BCHW, way, form, training=training)
        finally:  # a pass moves running statistics, from which whatever comes next must not start
            for slot, weights in enumerate(before):
                storage.load_lane_tensors(slot, weights)

    for training, form in itertools.product((True, False), (Form.SHARED, Form.PACKED)):
        passes = [reference.passes[training] for reference in references]
        exact = pairs(passes, precision.unrounded, form, training=training)
        _compare(exact, AGREEMENT[precision.unrounded.name])
        rounded = [r.rounded[training] for r in references if r.rounded is not None]
        if rounded:
            found = pairs(rounded, precision, form, training=training)
            _compare_rounding(found, [theirs for _, theirs in exact])


def check_same(
    ours: PassNetwork,
    theirs: Network,
    storage: Storage,
    x_BCHW: torch.Tensor,
    precision: Precision,
    more: Callable[[], torch.Tensor] | None = None,
) -> None:
    """Compare another way of computing a network's passes with the network, which was held against the models.

    Args:
        ours: the other way.
        theirs: the network.
        storage: the lanes' weights; they stay as they are.
        x_BCHW: a few images.
        precision: how both compute.
        more: gives the images of a step.  A deep network with batch norm over a few values makes rounding large: where
            both differ, they are compared once more by these, and with what last digits of images and weights change.

    Raises:
        Undecided: these change so much that nothing can be said.
        Disagrees: they differ.
    """
    lanes = range(storage.lanes)
    before = [storage.lane_tensors(slot) for slot in lanes]

    def computed(
        network: PassNetwork, way: Precision, x_BCHW: torch.Tensor, digits: torch.Generator | None = None
    ) -> list[torch.Tensor]:
        if digits is not None:
            x_BCHW = x_BCHW + _last_digits(x_BCHW, digits)
            storage.flat.add_(_last_digits(storage.flat, digits))
        network.dropout.generators = [
            torch.Generator().manual_seed(seeds.stream(slot, "trial")) for slot in lanes
        ]
        gradients = torch.empty_like(storage.flat)
        try:
            with way.forward():
                forward = network.forward_pass(x_BCHW.clone(), Form.SHARED)
            forward.gradients(2 * forward.logits.float().to(gradients.dtype), gradients)
            moved = [t.detach().clone() for t in storage.untrained()]
            with way.forward():
                logits = network(x_BCHW.clone(), Form.SHARED, training=False)
        finally:
            for slot, weights in enumerate(before):
                storage.load_lane_tensors(slot, weights)
        found = [forward.logits, *storage.split(gradients).values(), *moved, logits]
        return [tensor.detach().clone() for tensor in found]

    def compare(x_BCHW: torch.Tensor) -> list[Pair]:
        found, exact = (
            computed(ours, precision, x_BCHW),
            computed(theirs, precision.unrounded, x_BCHW),
        )
        pairs = list(zip(found, exact, strict=True))
        if precision.rounds:
            rounded = computed(theirs, precision, x_BCHW)
            _compare_rounding(list(zip(found, rounded, strict=True)), exact)
        return pairs

    limit = AGREEMENT[precision.name]
    try:
        pairs = compare(x_BCHW)
        if not precision.rounds:
            _compare(pairs, limit)
    except Disagrees:
        if more is None:
            raise
        images = more()
        pairs = compare(images)
        if not precision.rounds:
            drawing = torch.Generator().manual_seed(0)
            nudged = [computed(theirs, precision, images, drawing) for _ in range(_NUDGES)]
            _compare_nudged(pairs, nudged, limit)


def _last_digits(values: torch.Tensor, drawing: torch.Generator) -> torch.Tensor:
    """Return changes of the size of a last digit, of 1 where a value is less: a bias of 0 moves a ReLU off its edge."""
    noise = torch.randn(values.shape, generator=drawing).to(values)
    return torch.finfo(values.dtype).eps * noise * values.abs().clamp_min(1)


def _pairs(
    network: Network,
    storage: Storage,
    expected: Sequence[PassResult],
    x_BCHW: torch.Tensor,
    precision: Precision,
    form: Form,
    *,
    training: bool,
) -> list[Pair]:
    """Return what a network computes beside what the models do."""
    device = x_BCHW.device
    lanes = storage.lanes
    network.dropout.generators = [
        torch.Generator(device).manual_seed(seeds.stream(0, "trial")) for _ in range(lanes)
    ]
    x = x_BCHW.clone() if form is Form.SHARED else x_BCHW.repeat(1, lanes, 1, 1)
    with torch.set_grad_enabled(training), precision.forward():
        forward = network.forward_pass(x, form) if training else None
        logits = forward.logits if forward else network(x, form, training=False)
    if tuple(logits.shape) != (lanes, *expected[0].logits.shape):
        raise NotStackable(f"its K-lane form gives {tuple(logits.shape)}")
    flat = torch.empty_like(storage.flat)
    gradients = storage.split(flat)
    if forward:
        forward.gradients(2 * logits.float().to(flat.dtype), flat)
    found: list[Pair] = []
    for slot, own in enumerate(expected):
        pairs = [(logits[slot], own.logits)]
        if training and (device.type == "cpu" or not network.has_dropout):
            pairs += [(g[slot], own.gradients[name]) for name, g in gradients.items()]
        pairs += [(storage.tensors[n][slot], b) for n, b in own.buffers.items()]
        if device.type != "cpu" and network.has_dropout and training:
            pairs = []  # other streams on other devices
        found += [(ours.detach().clone(), theirs) for ours, theirs in pairs]  # storage is restored afterwards
    return found


def _compare(pairs: Sequence[Pair], limit: float) -> None:
    largest = max((float(b.detach().double().abs().max()) for _, b in pairs if b.numel()), default=0.0)
    for ours, theirs in pairs:
        if theirs.numel() and not torch.allclose(
            ours.detach().double(), theirs.detach().double(), rtol=limit, atol=limit * largest, equal_nan=True
        ):
            raise Disagrees("its K-lane form does not agree with the model itself")


def _compare_nudged(pairs: Sequence[Pair], nudged: Sequence[Sequence[torch.Tensor]], limit: float) -> None:
    """Compare what makes rounding large: ours may be about as far as what comes of other last digits.

    Args:
        pairs: ours and theirs.
        nudged: theirs with such digits.
        limit: how far ours may be besides, as a share of the value.

    Raises:
        Undecided: that digit changes so much that nothing can be said.
        Disagrees: ours is farther.
    """
    values = [theirs.detach().double().nan_to_num() for _, theirs in pairs]
    least = 1e-3 * max((_rms(value) for value in values), default=0.0)
    sizes = [_rms(value) + least for value in values]
    spreads = [
        max(_distance(other, value) for other in others)
        for value, others in zip(values, zip(*nudged, strict=True), strict=True)
    ]
    if any(spread > _UNSTABLE * size for spread, size in zip(spreads, sizes, strict=True)):
        raise Undecided("rounding decides what it computes")
    for (ours, _), value, spread, size in zip(pairs, values, spreads, sizes, strict=True):
        if not _distance(ours, value) <= _ROUNDING * spread + limit * size:
            raise Disagrees("its K-lane form does not agree with the model itself")


def _compare_rounding(pairs: Sequence[Pair], exact: Sequence[torch.Tensor]) -> None:
    """Compare what is rounded to bfloat16 in other places: it must be about as near to what is not rounded.

    Args:
        pairs: ours and theirs, both rounded.
        exact: likewise, not rounded.

    Raises:
        Disagrees: ours is much farther.
    """
    values = [tensor.detach().double().nan_to_num() for tensor in exact]
    least = 1e-3 * max((_rms(value) for value in values), default=0.0)  # below that all is rounding
    for (ours, theirs), value in zip(pairs, values, strict=True):
        allowed = _ROUNDING * _distance(theirs, value) + _ROUNDED * (_rms(value) + least)
        if not _distance(ours, value) <= allowed:
            raise Disagrees("its K-lane form in bfloat16 does not agree with the model itself")


def _distance(rounded: torch.Tensor, value: torch.Tensor) -> float:
    return _rms(rounded.detach().double().nan_to_num() - value)


def _rms(value: torch.Tensor) -> float:
    return float(value.square().mean().sqrt()) if value.numel() else 0.0
