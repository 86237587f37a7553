"""Reads a traced network into stages: what each of its values is, and where a value's numbers lie.

Stands between torch.fx and `step_graph`, upon `stage_values`; what single layers and functions become is said in
`stage_layers` and `stage_calls`.

Shapes: B batch, C/H/W channels, height, width, F features, R rows (pixels, tokens) of D channels.
"""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from gridsearch.training.kernels.stages import BatchNorm, Dropout, numbers
from gridsearch.training.lanes.compile.places import (
    CONSTANTS,
    PARAMETERS,
    Known,
    all_values,
    encode,
    is_permutation,
    map_places,
    only_value,
    places_of,
    values_of,
)
from gridsearch.training.lanes.compile.stage_values import StageValues
from gridsearch.training.lanes.compile.step_graph import Derived, Node, NoPlan, StepGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gridsearch.training.kernels.stages import Shape
    from gridsearch.training.lanes.compile.lane_values import Order
    from gridsearch.training.lanes.compile.tracing import Found

_MOST_CONSTANTS = 2**20
_OF_ALL = "value "  # in the place of a parameter's name: of a value that all images share


class StageReader(StageValues):
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
        masks: values that are truth, as ones and zeros.
        counted: names of counts of batches that code adds 1 to, and no norm has taken yet.
        order: the dimensions of what the node that is read now takes first, the outermost in memory first; () for those
            of rows.
        reached_by_none: whether no image reaches the node that is read now: its arithmetic is then no stage.
    """

    def __init__(self, model: nn.Module, found: Found, layer: Callable[..., Any], *, training: bool) -> None:
        super().__init__(model, found)
        self.training = training
        self._layer = layer
        self.values: dict[fx.Node, Any] = {}
        self.known: dict[fx.Node, torch.Tensor] = {}
        self.pinned: set[str] = set()
        self.masks: set[int] = set()
        self.counted: set[str] = set()
        self.order: Order = ()
        self.reached_by_none = False
        self.dropouts = 0
        self._logits = 0
        self._names = {id(t): name for name, t in (*model.named_parameters(), *model.named_buffers())}
        self._tensors: dict[str, torch.Tensor] = {
            **dict(model.named_parameters(remove_duplicate=False)),
            **dict(model.named_buffers(remove_duplicate=False)),
        }

    # The values

    def read_images(self, node: fx.Node) -> None:
        """Take in the images, which are the first argument; all others have their defaults."""
        shape = self.found.shapes[node]
        if self._image or shape is None:
            return
        self._image, self.real = shape[1:], self.found.results[node].dtype
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
            return self._derive(self.derived[name])
        return self._tensor(name, tuple(self._tensors[name].shape))

    def _tensor(self, name: str, shape: Shape) -> torch.Tensor:
        if name not in self._parameters:
            self._parameters.append(name)
        places = torch.arange(numbers(shape)).view(shape)
        return encode(PARAMETERS + self._parameters.index(name), places, None)

    def derive(self, node: fx.Node, *, turned: bool = False) -> torch.Tensor:
        """Return the codes of what a node computes from parameters, as those of a parameter."""
        return self._derive(
            Derived(f"{node.name} turned", node, (1, 0)) if turned else Derived(f"{node.name} computed", node)
        )

    def in_order(self, name: str, order: tuple[int, ...]) -> str:
        """Return the name by which stages have a parameter with its dimensions in another order."""
        if order == tuple(sorted(order)):
            return name
        known = self.derived.get(name)
        own = (known.order if known else ()) or tuple(range(len(order)))
        source, composed = known.source if known else name, tuple(own[d] for d in order)
        named = source if isinstance(source, str) else source.name
        found = Derived(f"{named} in order {composed}", source, composed)
        self._derive(found)
        return found.name

    def _derive(self, derived: Derived) -> torch.Tensor:
        self.derived[derived.name] = derived
        return self._tensor(derived.name, self.shape_of(derived))

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
            NoPlan: it counts for no norm, or draws or averages what the logits are not made of.
        """
        if self.counted:
            raise NoPlan("a count that belongs to no norm")
        self._drop_unread()
        nodes, derived = self._numbered()
        return StepGraph(self._image, nodes, tuple(sorted(self.pinned)), derived)

    def _drop_unread(self) -> None:
        """Leave out the stages that the logits are not made of: a model may compute more than it gives.

        Raises:
            NoPlan: one does more than give a result.
        """
        read = {self._logits}
        for n in range(len(self._nodes), 0, -1):
            read |= set(self._nodes[n - 1].inputs) if n in read else set()
        unread = [node for n, node in enumerate(self._nodes, 1) if n not in read]
        if any(isinstance(node.stage, BatchNorm | Dropout) for node in unread):
            raise NoPlan("a result that nothing reads")
        kept = [n for n in range(1, len(self._nodes) + 1) if n in read]
        renamed = {0: 0} | {n: i for i, n in enumerate(kept, 1)}
        self._nodes = [
            replace(node, inputs=tuple(renamed[i] for i in node.inputs))
            for node in (self._nodes[n - 1] for n in kept)
        ]

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
            NoPlan: they are none of a stage.
        """
        self._logits = self.features(codes) if isinstance(codes, torch.Tensor) else 0
        if not self._logits:
            raise NoPlan("a result that is no stage's")

    def layer(self, place: str, module: nn.Module, *given: Any) -> Any:
        """Return the codes of what a layer gives."""
        return self._layer(self, place, module, *given)
