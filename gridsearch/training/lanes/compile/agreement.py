"""Whether a network of lanes computes what the models themselves do: checked for every network before it trains.

Stands between the networks and the choice among them; `reference.py` has what the models do.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Protocol

import torch

from gridsearch.training import seeds
from gridsearch.training.lanes.compile.lane_values import Form, NotStackable
from gridsearch.training.lanes.compile.reference import PassResult, Reference
from gridsearch.training.lanes.compile.tensor_distance import distance, is_close, largest, rms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import nn

    from gridsearch.training.lanes.compile.network import Network
    from gridsearch.training.lanes.compile.reference import Originals
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
"""How far a network may be from the models, as a share of a tensor's largest value: mistakes are of the order of 1."""

_STATISTICS, _SHARPER = 2, {"float64": 25.0, "float32": 25.0}
"""Running statistics are `Kinds` of this place, and may be so many times less far: few steps of rounding make them."""

_NOISE = 1e-3
"""Below this share of the largest of its kind a tensor is rounding: the gradient of a bias that feeds a batch norm."""

_ROUNDING, _ROUNDED = 4, 0.05
"""How far rounding to bfloat16 may take it from what is not rounded: times what the models' own does, and besides."""

NUDGES, _UNSTABLE = 3, 0.3
"""How many sets of last digits show what rounding does, and what share of a value it may change at most."""

Pair = tuple[torch.Tensor, torch.Tensor]
"""What a network computes, and what the models do."""

Kinds = tuple[list[torch.Tensor], ...]
"""Logits, gradients, running statistics and counters, each lane by lane: sizes of one say nothing of another's."""

Pairs = tuple[list[Pair], ...]
"""Likewise, ours with theirs."""


def check(network: Network, storage: Storage, originals: Originals) -> None:
    """Compare a network with the models themselves: without the rounding of bfloat16, and then with it.

    A deep network with batch norm over a few values makes rounding large: where both differ, they are compared once
    more by the images of a step, and with what last digits of images and weights change in the first model.

    Raises:
        Undecided: these change so much that nothing can be said.
        NotStackable: they differ.
    """
    models, precision = originals.models, originals.precision
    limits = _limits(precision.unrounded)
    try:
        _hold(
            *(network, storage, originals.references, originals.images, precision),
            lambda pairs, _: _compare(pairs, limits),
        )
    except Disagrees:
        if originals.more is None:
            raise
        x_BCHW, drawing = originals.more(), torch.Generator().manual_seed(0)
        for slot, model in enumerate(models):  # tracing has moved their running statistics
            load_tensors(model, storage.lane_tensors(slot))
        references = [Reference.of(model, x_BCHW, precision) for model in models]
        nudged = [_nudged(models[0], x_BCHW, precision.unrounded, drawing) for _ in range(NUDGES)]

        def compare(pairs: Pairs, training: bool) -> None:
            values = [_values([r.passes[training]], network, storage, training=training) for r in nudged]
            compare_nudged(pairs, values, limits)

        _hold(network, storage, references, x_BCHW, precision, compare)


def _hold(
    network: Network,
    storage: Storage,
    references: Sequence[Reference],
    x_BCHW: torch.Tensor,
    precision: Precision,
    compare: Callable[[Pairs, bool], None],
) -> None:
    """Compare a network with its references in both modes and both forms of the images.

    `compare` gets what is not rounded to bfloat16, and whether it is of training.

    Raises:
        NotStackable: they differ.
    """
    for training, form in itertools.product((True, False), (Form.SHARED, Form.PACKED)):
        passes = [reference.passes[training] for reference in references]
        exact = _pairs(network, storage, passes, x_BCHW, precision.unrounded, form, training=training)
        compare(exact, training)
        rounded = [r.rounded[training] for r in references if r.rounded is not None]
        if rounded:
            found = _pairs(network, storage, rounded, x_BCHW, precision, form, training=training)
            compare_rounding(found, tuple([theirs for _, theirs in pairs] for pairs in exact))


def _nudged(
    model: nn.Module, x_BCHW: torch.Tensor, precision: Precision, drawing: torch.Generator
) -> Reference:
    """Return what a model computes with other last digits; it is afterwards as it was."""
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.is_floating_point()}
    try:
        load_tensors(model, {name: value + last_digits(value, drawing) for name, value in before.items()})
        return Reference.of(model, x_BCHW + last_digits(x_BCHW, drawing), precision)
    finally:
        load_tensors(model, before)


@torch.no_grad()
def load_tensors(model: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Copy values into a model's parameters and buffers."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, value in values.items():
        tensors[name].copy_(value)


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
            both differ, they are compared once more by these, and, if they differ again, with what last digits of
            images and weights change.

    Raises:
        Undecided: these change so much that nothing can be said.
        Disagrees: they differ.
    """

    def compare(x_BCHW: torch.Tensor) -> Pairs:
        found = _computed(ours, storage, x_BCHW, precision)
        exact = _computed(theirs, storage, x_BCHW, precision.unrounded)
        if precision.rounds:
            rounded = _computed(theirs, storage, x_BCHW, precision)
            compare_rounding(_paired(found, rounded), exact)
        return _paired(found, exact)

    limits = _limits(precision)
    try:
        pairs = compare(x_BCHW)
        if not precision.rounds:
            _compare(pairs, limits)
    except Disagrees:
        if more is None:
            raise
        images = more()
        pairs = compare(images)
        if precision.rounds:
            return
        try:
            _compare(pairs, limits)
        except Disagrees:
            drawing = torch.Generator().manual_seed(0)
            nudged = [_computed(theirs, storage, images, precision, drawing) for _ in range(NUDGES)]
            compare_nudged(pairs, nudged, limits)


def _computed(
    network: PassNetwork,
    storage: Storage,
    x_BCHW: torch.Tensor,
    precision: Precision,
    digits: torch.Generator | None = None,
) -> Kinds:
    """Return what a network computes in training and in evaluation; the lanes' tensors are afterwards as they were.

    Args:
        network: of the lanes.
        storage: their weights.
        x_BCHW: images.
        precision: how it computes.
        digits: draws other last digits of images and weights; None for none.
    """
    lanes = range(storage.lanes)
    before = [storage.lane_tensors(slot) for slot in lanes]
    if digits is not None:
        x_BCHW = x_BCHW + last_digits(x_BCHW, digits)
        storage.flat.add_(last_digits(storage.flat, digits))
    network.dropout.generators = [
        torch.Generator().manual_seed(seeds.stream(slot, "trial")) for slot in lanes
    ]
    gradients = torch.empty_like(storage.flat)
    try:
        with precision.forward():
            forward = network.forward_pass(x_BCHW.clone(), Form.SHARED)
        forward.gradients(2 * forward.logits.float().to(gradients.dtype), gradients)
        moved = [t.detach().clone() for t in storage.untrained()]
        with torch.no_grad(), precision.forward():
            logits = network(x_BCHW.clone(), Form.SHARED, training=False)
    finally:
        for slot, weights in enumerate(before):
            storage.load_lane_tensors(slot, weights)
    return _copied(_kinds([forward.logits, logits], storage.split(gradients).values(), moved))


def _kinds(
    logits: Sequence[torch.Tensor], gradients: Iterable[torch.Tensor], buffers: Sequence[torch.Tensor]
) -> Kinds:
    statistics = [buffer for buffer in buffers if buffer.is_floating_point()]
    counters = [buffer for buffer in buffers if not buffer.is_floating_point()]
    return list(logits), list(gradients), statistics, counters


def _copied(kinds: Kinds) -> Kinds:
    return tuple([tensor.detach().clone() for tensor in kind] for kind in kinds)


def _paired(ours: Kinds, theirs: Kinds) -> Pairs:
    return tuple(list(zip(*kind, strict=True)) for kind in zip(ours, theirs, strict=True))


def last_digits(values: torch.Tensor, drawing: torch.Generator) -> torch.Tensor:
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
) -> Pairs:
    """Return what a network computes beside what the models do; the lanes' tensors are afterwards as they were."""
    device, lanes = x_BCHW.device, storage.lanes
    before = [storage.lane_tensors(slot) for slot in range(lanes)]
    network.dropout.generators = [
        torch.Generator(device).manual_seed(seeds.stream(0, "trial")) for _ in range(lanes)
    ]
    x = x_BCHW.clone() if form is Form.SHARED else x_BCHW.repeat(1, lanes, 1, 1)
    try:
        with torch.set_grad_enabled(training), precision.forward():
            forward = network.forward_pass(x, form) if training else None
            logits = forward.logits if forward else network(x, form, training=False)
        if tuple(logits.shape) != (lanes, *expected[0].logits.shape):
            raise NotStackable(f"its K-lane form gives {tuple(logits.shape)}")
        flat = torch.empty_like(storage.flat)
        if forward:
            forward.gradients(2 * logits.float().to(flat.dtype), flat)
        gradients = storage.split(flat)
        ours = [
            PassResult(
                logits[slot],
                {name: g[slot] for name, g in gradients.items()},
                {name: storage.tensors[name][slot] for name in own.buffers},
            )
            for slot, own in enumerate(expected)
        ]
        found = _copied(_values(ours, network, storage, training=training))
    finally:  # a pass moves running statistics, from which whatever comes next must not start
        for slot, weights in enumerate(before):
            storage.load_lane_tensors(slot, weights)
    return _paired(found, _values(expected, network, storage, training=training))


def _values(results: Sequence[PassResult], network: Network, storage: Storage, *, training: bool) -> Kinds:
    """Return what of the lanes' results is compared; nothing where masks come of other streams than on the CPU."""
    if training and network.has_dropout and storage.flat.device.type != "cpu":
        return ()
    names = storage.names if training else ()
    return _kinds(
        [own.logits for own in results],
        [own.gradients[name] for own in results for name in names],
        [buffer for own in results for buffer in own.buffers.values()],
    )


def _limits(precision: Precision) -> list[float]:
    """Return how far a network may be from the models, for each of `Kinds`."""
    limits = [AGREEMENT[precision.name]] * 4
    limits[_STATISTICS] /= _SHARPER.get(precision.name, 1.0)
    return limits


def _compare(kinds: Pairs, limits: Sequence[float]) -> None:
    """Compare each tensor by its own largest value: what is small beside another's may still be wrong.

    Args:
        kinds: ours and theirs.
        limits: how far ours may be, as a share of that value; see `_limits`.

    Raises:
        Disagrees: ours is farther.
    """
    for pairs, limit in zip(kinds, limits, strict=False):
        sizes = [largest(theirs) for _, theirs in pairs]
        least = _NOISE * max(sizes, default=0.0)
        for (ours, theirs), own in zip(pairs, sizes, strict=True):
            if not is_close(ours, theirs, rtol=limit, atol=limit * (own + least)):
                raise Disagrees("its K-lane form does not agree with the model itself")


def compare_nudged(kinds: Pairs, nudged: Sequence[Kinds], limits: Sequence[float]) -> None:
    """Compare what makes rounding large: ours may be about as far as what comes of other last digits.

    Args:
        kinds: ours and theirs.
        nudged: theirs with such digits, of the first lane or of all.
        limits: how far ours may be besides, as a share of the value; see `_limits`.

    Raises:
        Undecided: that digit changes so much that nothing can be said.
        Disagrees: ours is farther.
    """
    for number, pairs in enumerate(kinds):
        values = [theirs for _, theirs in pairs]
        own = [rms(value) for value in values]
        least = _NOISE * max(own, default=0.0)
        sizes = [size + least for size in own]
        others = zip(*(each[number] for each in nudged), strict=True)
        spreads = [  # as shares of the sizes
            max(distance(other, value) for other in same) / size if size else 0.0
            for value, size, same in zip(values, sizes, others, strict=False)
        ]
        if any(spread > _UNSTABLE for spread in spreads):
            raise Undecided("rounding decides what it computes")
        for (ours, _), value, size, spread in zip(
            pairs, values, sizes, itertools.cycle(spreads), strict=False
        ):
            if not distance(ours, value) <= (_ROUNDING * spread + limits[number]) * size:
                raise Disagrees("its K-lane form does not agree with the model itself")


def compare_rounding(kinds: Pairs, exact: Kinds) -> None:
    """Compare what is rounded to bfloat16 in other places: it must be about as near to what is not rounded.

    Args:
        kinds: ours and theirs, both rounded.
        exact: likewise, not rounded.

    Raises:
        Disagrees: ours is much farther.
    """
    for pairs, tensors in zip(kinds, exact, strict=True):
        sizes = [rms(tensor) for tensor in tensors]
        least = _NOISE * max(sizes, default=0.0)
        for (ours, theirs), value, size in zip(pairs, tensors, sizes, strict=True):
            allowed = _ROUNDING * distance(theirs, value) + _ROUNDED * (size + least)
            if not distance(ours, value) <= allowed:
                raise Disagrees("its K-lane form in bfloat16 does not agree with the model itself")
