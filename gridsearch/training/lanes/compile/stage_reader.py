"""Reads a traced network into stages: what each of its values is, and where a value's numbers lie.

Stands between torch.fx and `step_graph`; what single layers and functions become is said in `stage_layers` and
`stage_calls`.

Shapes: B batch, C/H/W channels, height, width, F features, R rows (pixels, tokens) of D channels.
"""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn

from gridsearch.training.kernels.op import INPUTS
from gridsearch.training.kernels.stages import Arrange, Flatten, Learned, View, numbers, shape_after
from gridsearch.training.lanes.compile.lane_values import SAMPLE
from gridsearch.training.lanes.compile.places import (
    CONSTANTS,
    PARAMETERS,
    ImagesAt,
    Known,
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
from gridsearch.training.lanes.compile.step_graph import Derived, Node, NoPlan, StepGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gridsearch.training.kernels.stages import Shape, Stage
    from gridsearch.training.lanes.compile.lane_values import Order
    from gridsearch.training.lanes.compile.tracing import Found

_MAP = 3  # dimensions of one image's maps
_MOST_CONSTANTS = 2**20
_OF_ALL = "value "  # in the place of a parameter's name: of a value that all images share


class StageReader:
    """Collects the stages of a network.

    Args:
        model: whose graph is read.
        found: what a sample of `SAMPLE` images has shown of it.
        training: the mode.
        layer: what says what a layer is; see `stage_layers.layer`.

    Attributes:
        values: of each node that is an activation, the codes of its numbers; for several tensors a tuple of them.
        known: of each node that is a tensor whose content no image and no training changes, the content.
        pinned: names of the buffers whose content is that of all lanes.
        derived: weights that are computed from parameters, which stages have by these names as if they were such.
        counted: names of counts of batches that code adds 1 to, and no norm has taken yet.
        order: the dimensions of what the node that is read now takes first, the outermost in memory first; () for those
            of rows.
    """

    def __init__(self, model: nn.Module, found: Found, layer: Callable[..., Any], *, training: bool) -> None:
        self.model, self.found, self.training = model, found, training
        self._layer = layer
        self.values: dict[fx.Node, Any] = {}
        self.known: dict[fx.Node, torch.Tensor] = {}
        self.pinned: set[str] = set()
        self.counted: set[str] = set()
        self.order: Order = ()
        self.dropouts = 0
        self.derived: dict[str, Derived] = {}
        self._nodes: list[Node] = []
        self._image: Shape = ()
        self._dtype = torch.float32
        self._parameters: list[str] = []
        self._last: tuple[torch.Tensor, torch.Tensor] | None = (
            None  # what `one` was asked for, and its answer
        )
        self._known: dict[tuple[bytes, Shape], int] = {}
        self._constants: dict[float, int] = {}
        self._names = {id(t): name for name, t in (*model.named_parameters(), *model.named_buffers())}

    # The values

    def read_images(self, node: fx.Node) -> None:
        """Take in the images, which are the first argument; all others have their defaults."""
        shape = self.found.shapes[node]
        if self._image or shape is None:
            return
        self._image, self._dtype = shape[1:], self.found.results[node].dtype
        self.values[node] = self.fresh(0, map_places(self._image))

    def read_tensor(self, node: fx.Node, constants: Mapping[str, torch.Tensor]) -> None:
        """Take in a parameter, a buffer, or a tensor that the forward makes of nothing."""
        name = str(node.target)
        own = constants[name] if name in constants else attrgetter(name)(self.model)
        if name in constants:
            self.known[node] = own
        elif isinstance(own, torch.Tensor) and id(own) in self._names:
            taken = self.take(own)
            if isinstance(taken, Known):
                self.known[node] = taken.content
            else:
                self.values[node] = taken

    def take(self, tensor: torch.Tensor) -> torch.Tensor | Known:
        """Return the codes of a parameter or a buffer of real numbers; of any other tensor its content."""
        name = self._names.get(id(tensor))
        if name is not None and tensor.is_floating_point():
            return self.tensor(name)
        if name is not None:
            self.pinned.add(name)
        return Known(tensor.detach())

    def content(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the numbers of codes of buffers alone.

        Raises:
            NoPlan: training, or an image, changes them.
        """
        found = torch.zeros(codes.shape)
        buffers = dict(self.model.named_buffers())
        for value in all_values(codes):
            name = self._parameters[value - PARAMETERS] if PARAMETERS <= value < CONSTANTS else ""
            if name not in buffers:
                raise NoPlan("a comparison of what training changes")
            self.pinned.add(name)
            numbers = buffers[name].flatten().to(found.dtype)
            ours = values_of(codes) == value
            found[ours] = numbers[places_of(codes)[ours]]
        return found

    def constant(self, content: torch.Tensor) -> torch.Tensor:
        """Return the codes of numbers that are known.

        Raises:
            NoPlan: they are too many.
        """
        if content.is_meta or content.numel() > _MOST_CONSTANTS:
            raise NoPlan("numbers that are not known before")
        numbers = [float(number) for number in content.flatten().tolist()]
        places = [self._constants.setdefault(number, len(self._constants)) for number in numbers]
        own = encode(CONSTANTS, torch.tensor(places, dtype=torch.int64).view(content.shape), None)
        return torch.where(content == 0, 0, own)

    def tensor(self, name: str) -> torch.Tensor:
        """Return the codes of a parameter or a buffer, or of a weight that is computed."""
        if name in self.derived:
            return self.derive(self.derived[name].node, turned=self.derived[name].turned)
        own = (
            self.model.get_parameter if name in dict(self.model.named_parameters()) else self.model.get_buffer
        )
        return self._tensor(name, tuple(own(name).shape))

    def _tensor(self, name: str, shape: Shape) -> torch.Tensor:
        if name not in self._parameters:
            self._parameters.append(name)
        places = torch.arange(numbers(shape)).view(shape)
        return encode(PARAMETERS + self._parameters.index(name), places, None)

    def derive(self, node: fx.Node, *, turned: bool = False) -> torch.Tensor:
        """Return the codes of what a node computes from parameters, as those of a parameter."""
        name = f"{node.name} turned" if turned else f"{node.name} computed"
        self.derived[name] = Derived(name, node, turned)
        shape = self.found.shapes[node]
        assert shape is not None
        return self._tensor(name, shape[::-1] if turned else shape)

    def parameter(self, codes: Any) -> str | None:
        """Return the name of the parameter that codes are those of, as it is; None for no parameter.

        Raises:
            NoPlan: they are something else.
        """
        if codes is None:
            return None
        number = only_value(codes) if isinstance(codes, torch.Tensor) else None
        if number is None or number < PARAMETERS or not is_permutation(places_of(codes), codes.numel()):
            raise NoPlan("a layer whose weights are no parameters")
        if not torch.equal(places_of(codes).flatten(), torch.arange(codes.numel())):
            raise NoPlan("a layer whose weights are turned")
        name = self._parameters[number - PARAMETERS]
        if name.startswith(_OF_ALL):
            raise NoPlan("a layer whose weights are no parameters")
        return name

    def rows_of(self, codes: torch.Tensor) -> tuple[str, int]:
        """Return the name of the parameter of which codes are some rows as they are, and the first of these.

        Raises:
            NoPlan: they are something else.
        """
        number = only_value(codes)
        if number is None or not PARAMETERS <= number < CONSTANTS:
            raise NoPlan("a layer whose weights are no parameters")
        name = self._parameters[number - PARAMETERS]
        whole = codes if name.startswith(_OF_ALL) else self.tensor(name)
        first = int(places_of(codes).flatten()[0]) * len(whole) // whole.numel()
        if not torch.equal(whole[first : first + len(codes)], codes):
            raise NoPlan("a layer whose weights are turned")
        return self.parameter(whole) or "", first

    def of_all(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the codes of an activation that all images share, which is made of parameters, without images."""
        found: torch.Tensor = self.one(codes)
        for value in (v for v in all_values(found) if v < PARAMETERS):
            name = f"{_OF_ALL}{value}"
            if name not in self._parameters:
                self._parameters.append(name)
                self._known[name.encode(), ()] = value
            own = encode(PARAMETERS + self._parameters.index(name), places_of(found), None)
            found = torch.where(values_of(found) == value, own, found)
        return found

    def set(self, node: fx.Node, codes: torch.Tensor) -> None:
        """Take note of what a node gives.

        Raises:
            NoPlan: its shape is another.
        """
        if tuple(codes.shape) != self.found.shapes[node]:
            raise NoPlan(f"{node.target} gives {self.found.shapes[node]}")
        self.values[node] = codes

    def result(self) -> StepGraph:
        """Return the network.

        Raises:
            NoPlan: it has a value that nothing reads, or counts for no norm.
        """
        if self.counted:
            raise NoPlan("a count that belongs to no norm")
        nodes, derived = self._numbered()
        graph = StepGraph(self._image, nodes, tuple(sorted(self.pinned)), derived)
        if not all(graph.readers(n) for n in range(1, len(self._nodes))):
            raise NoPlan("a result that nothing reads")
        return graph

    def _numbered(self) -> tuple[tuple[Node, ...], tuple[Derived, ...]]:
        """Return the stages with their computed weights numbered in the order of their use, and these weights.

        Nodes of graphs in training and in evaluation may have other names.
        """
        used = dict.fromkeys(name for node in self._nodes for name in node.params if name in self.derived)
        names: dict[str | None, str] = {name: f"weights {i}" for i, name in enumerate(used)}
        nodes = tuple(
            replace(node, params=tuple(names.get(name, name) for name in node.params)) for node in self._nodes
        )
        return nodes, tuple(replace(self.derived[name], name=names[name]) for name in used)

    def close(self, codes: Any) -> None:
        """Take in the logits.

        Raises:
            NoPlan: they are not what the last stage gives.
        """
        if not isinstance(codes, torch.Tensor) or self.features(codes) != len(self._nodes):
            raise NoPlan("a result that is not the last layer's")

    def shape(self, value: int) -> Shape:
        """Return one image's shape of a value."""
        return self._nodes[value - 1].shape if value else self._image

    # New stages

    def reads_buffer(self, name: str) -> bool:
        """Whether a stage has a buffer."""
        return any(name in node.buffers for node in self._nodes)

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

    def layer(self, place: str, module: nn.Module, *given: Any) -> Any:
        """Return the codes of what a layer gives."""
        return self._layer(self, place, module, *given)

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
                shape = self.found.shapes[self.derived[name].node]
                assert shape is not None
                count, trained = numbers(shape), {name}
            elif tensors[name].dtype != self._dtype:
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
