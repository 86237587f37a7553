"""The values of a network's stages, and activations in the form that a stage wants: a value in that order.

Stands below `stage_reader`, which says what each node of a network gives.

Shapes: B batch, C/H/W channels, height, width, F features, R rows (pixels, tokens) of D channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from gridsearch.training.kernels.op import INPUTS
from gridsearch.training.kernels.stages import Arrange, Flatten, Learned, View, numbers, shape_after
from gridsearch.training.lanes.compile.lane_values import SAMPLE
from gridsearch.training.lanes.compile.places import (
    CONSTANTS,
    PARAMETERS,
    ImagesAt,
    all_values,
    encode,
    in_rows,
    is_permutation,
    map_places,
    one_image,
    only_value,
    places_of,
    renumbered,
    values_of,
)
from gridsearch.training.lanes.compile.step_graph import Derived, Node, NoPlan

if TYPE_CHECKING:
    from gridsearch.training.kernels.stages import Shape, Stage
    from gridsearch.training.lanes.compile.tracing import Found

_MAP = 3  # dimensions of one image's maps


class StageValues:
    """Stages and their values, which are numbered in the order of the stages; 0 are the images.

    Args:
        model: whose parameters and buffers are values too, where a stage takes them for such.
        found: what a sample of `SAMPLE` images has shown of it.

    Attributes:
        derived: weights that are computed from parameters, which stages have by these names as if they were such.
        real: the type of the images.
    """

    def __init__(self, model: nn.Module, found: Found) -> None:
        self.model, self.found = model, found
        self.derived: dict[str, Derived] = {}
        self._nodes: list[Node] = []
        self._image: Shape = ()
        self.real = torch.float32
        self._parameters: list[str] = []
        self._last: tuple[torch.Tensor, torch.Tensor] | None = (
            None  # what `one` was asked for, and its answer
        )
        self._known: dict[tuple[bytes, Shape], int] = {}
        self._constants: dict[float, int] = {}

    def shape(self, value: int) -> Shape:
        """Return one image's shape of a value."""
        return self._nodes[value - 1].shape if value else self._image

    def node(self, value: int) -> Node:
        """Return the stage that gives a value."""
        return self._nodes[value - 1]

    # New stages

    def reads_buffer(self, name: str) -> bool:
        """Whether a stage has a buffer."""
        return any(name in node.buffers for node in self._nodes)

    def shape_of(self, derived: Derived) -> Shape:
        """Return the shape of a weight that is computed."""
        source = derived.source
        given = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        shape = tuple(given[source].shape) if isinstance(source, str) else self.found.shapes[source]
        assert shape is not None
        return tuple(shape[d] for d in derived.order) or shape

    def add(self, stage: Stage, *inputs: int, **rest: Any) -> int:
        """Append a stage, and return the number of its result."""
        shape = shape_after(stage, self.shape(inputs[0]) if inputs else ())
        self._nodes.append(Node(stage, inputs, shape, **rest))
        return len(self._nodes)

    def fresh(self, value: int, places: torch.Tensor) -> torch.Tensor:
        """Return the codes [B, ...] of a value whose numbers are at these places."""
        return encode(value, places, SAMPLE)

    def of_maps(self, value: int) -> torch.Tensor:
        """Return the codes [B, C, H, W] of maps, or [B, F]."""
        return self.fresh(value, map_places(self.shape(value)))

    # Values in the form that a stage wants

    def one(self, codes: Any) -> torch.Tensor:
        """Return the codes of one image.

        Raises:
            NoPlan: it is no activation.
        """
        if not isinstance(codes, torch.Tensor):
            raise NoPlan("an operation of what is no activation")
        if self._last is None or self._last[0] is not codes:
            self._last = codes, one_image(codes, SAMPLE)
        return self._last[1]

    def images_first(self, codes: Any) -> tuple[torch.Tensor, ImagesAt]:
        """Return an activation with its images first, and where they were.

        Raises:
            NoPlan: it has none.
        """
        if not isinstance(codes, torch.Tensor):
            raise NoPlan("an operation of what is no activation")
        at = ImagesAt.of(codes, SAMPLE)
        return (codes, at) if at == ImagesAt(0, 1) else (at.first(codes, SAMPLE), at)

    def maps(self, codes: Any) -> int:
        """Return maps [C, H, W] as a value in this order; [C, W] are maps of one row.

        Raises:
            NoPlan: they are none.
        """
        first = self.one(codes)
        if first.dim() == _MAP - 1:
            first = first.unsqueeze(1)
        if first.dim() != _MAP:
            raise NoPlan("a layer for maps after what is none")
        return self.value(first.permute(1, 2, 0), tuple(first.shape))

    def features(self, codes: Any) -> int:
        """Return features [F] as a value in this order.

        Raises:
            NoPlan: they are none.
        """
        first = self.one(codes)
        if first.dim() != 1:
            raise NoPlan("a layer for features after what is none")
        return self.value(first, (len(first),))

    def whole(self, codes: Any) -> tuple[int, torch.Tensor]:
        """Return a value all of whose numbers are those of an activation, each once, and their places in it."""
        first = self.one(codes)
        value = only_value(first)
        if value is not None and self.is_whole(codes):
            return value, places_of(first)
        if first.dim() == _MAP:
            return self.maps(codes), map_places(tuple(first.shape))
        value, _ = self.rows(codes)
        return value, torch.arange(first.numel()).view(first.shape)

    def laid_out(self, shape: Shape) -> tuple[Shape, torch.Tensor]:
        """Return the shape of a new value for results of a shape, and the place of each number: as `whole` has them."""
        if len(shape) == _MAP:
            return shape, map_places(shape)
        count = numbers(shape)
        own = (count,) if len(shape) <= 1 else (shape[-1], 1, count // shape[-1])
        return own, torch.arange(count).view(shape)

    def is_whole(self, codes: torch.Tensor) -> bool:
        """Whether an activation has each number of one value once."""
        first = self.one(codes)
        value = only_value(first)
        if value is None or value >= PARAMETERS:
            return False
        return is_permutation(places_of(first), numbers(self.shape(value)))

    def rows(self, codes: Any) -> tuple[int, torch.Tensor]:
        """Return an activation whose last dimension are D channels, as maps [D, 1, R], with each one's row there [...].

        Features [F] stay such.
        """
        first = self.one(codes)
        if first.dim() == 1:
            return self.features(codes), torch.zeros((), dtype=torch.int64)
        channels = first.shape[-1]
        value, places, count = only_value(first), places_of(first), first.numel() // channels
        shape = (channels, 1, count)
        if value is not None and value < PARAMETERS and numbers(self.shape(value)) == first.numel():
            rows = places[..., 0] // channels
            if is_permutation(rows, count) and torch.equal(places, in_rows(rows, channels)):
                own = encode(value, torch.arange(first.numel()), None)
                return self.value(own, shape), rows
        return self.value(first, shape), torch.arange(count).view(first.shape[:-1])

    def of_rows(self, value: int, rows: torch.Tensor) -> torch.Tensor:
        """Return the codes [B, ..., D] of maps [D, 1, R] whose rows come in another order, or of features."""
        return self.fresh(value, in_rows(rows, self.shape(value)[0]))

    def in_order_of(self, codes: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return the codes of an image in the order of another value, whose numbers have these places."""
        wanted = torch.empty(places.numel(), dtype=torch.int64)
        wanted[places.flatten()] = self.one(codes).flatten()
        return wanted

    def value(self, wanted: torch.Tensor, shape: Shape) -> int:
        """Return a value whose numbers [pixels, channels] are of these codes: one that is there, or a new one.

        Args:
            wanted: the codes of one image.
            shape: of the value.
        """
        wanted = self._learned(wanted.flatten())
        key = wanted.numpy().tobytes(), shape
        if key not in self._known:
            self._known[key] = self._made(wanted, shape)
        return self._known[key]

    def _made(self, wanted: torch.Tensor, shape: Shape) -> int:
        source, places = only_value(wanted), places_of(wanted)
        if source is not None and source < CONSTANTS:
            theirs = self.shape(source)
            in_order = torch.equal(places, torch.arange(numbers(theirs)))
            if in_order and theirs == shape:
                return source
            if len(shape) == 1 and torch.equal(places, map_places(theirs).flatten()):
                return self.add(Flatten(), source)
            if in_order:
                return self.add(View(shape), source)
        wanted = self._joined(wanted)
        values = values_of(wanted)
        sources = [value for value in all_values(wanted) if value < CONSTANTS]
        table = np.full((len(wanted), 2), -1, np.int32)
        for i, value in enumerate(sources):
            table[(values == value).numpy(), 0] = i
        of_none = torch.where(values == CONSTANTS, places_of(wanted) + 1, 0)
        table[:, 1] = np.where(table[:, 0] >= 0, places_of(wanted).numpy(), of_none.numpy())
        used, table[:, 1] = renumbered(table, (0.0, *self._constants))
        sizes = tuple(numbers(self.shape(value)) for value in sources)
        return self.add(Arrange(shape, sizes, table.tobytes(), used), *sources)

    def _learned(self, wanted: torch.Tensor) -> torch.Tensor:
        """Return codes with those of parameters as those of values."""
        values = values_of(wanted)
        for number in (n for n in all_values(wanted) if PARAMETERS <= n < CONSTANTS):
            value = self._parameter(number - PARAMETERS)
            wanted = torch.where(values == number, encode(value, places_of(wanted), None), wanted)
        return wanted

    def _parameter(self, number: int) -> int:
        name = self._parameters[number]
        key = name.encode(), ()
        if key not in self._known:
            trained = {n for n, p in self.model.named_parameters() if p.requires_grad}
            tensors = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
            if name in self.derived:
                count, trained = numbers(self.shape_of(self.derived[name])), {name}
            elif tensors[name].dtype != self.real:
                raise NoPlan(f"{name} is of another type than the images")
            else:
                count = tensors[name].numel()
            kind = {"params": (name,)} if name in trained else {"buffers": (name,)}
            self._known[key] = self.add(Learned((count,)), **kind)
        return self._known[key]

    def _joined(self, wanted: torch.Tensor) -> torch.Tensor:
        """Return codes of as many values as an operation takes; what is too many is put together before."""
        while len(sources := [value for value in all_values(wanted) if value < CONSTANTS]) > INPUTS:
            some = torch.isin(values_of(wanted), torch.tensor(sources[:INPUTS]))
            part = self.value(wanted[some], (int(some.sum()),))
            wanted = wanted.clone()
            wanted[some] = encode(part, torch.arange(int(some.sum())), None)
        return wanted
