"""A part of a network that torch computes, as a stage: a function of features and parameters.

Stands beside `torch_parts`, which says what is part of it.

Shapes: B batch, F features.
"""

from __future__ import annotations

import hashlib
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.func import functional_call

from gridsearch.errors import said
from gridsearch.training.kernels.op import INPUTS
from gridsearch.training.kernels.stages import TorchPart, numbers
from gridsearch.training.lanes.compile.lane_values import SAMPLE
from gridsearch.training.lanes.compile.stage_knowns import counts_images, is_of_sizes
from gridsearch.training.lanes.compile.step_graph import NoPlan
from gridsearch.training.lanes.compile.torch_parts import Unread
from gridsearch.training.lanes.runtime.storage import placed_names
from gridsearch.training.weight_hooks import copy_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gridsearch.training.kernels.stages import Shape
    from gridsearch.training.lanes.compile.stage_reader import StageReader
    from gridsearch.training.lanes.compile.torch_parts import Part


def read_part(r: StageReader, nodes: list[fx.Node], of_no_image: Mapping[fx.Node, bool]) -> None:
    """Take in a part.

    Args:
        r: what the network is read by.
        nodes: the part's, in order.
        of_no_image: nodes of tensors that are computed from parameters.

    Raises:
        Unread: a node that the part takes something of has to be part of it.
        NoPlan: it cannot be called for itself.
    """
    call = _Call(r, nodes)
    for node in nodes:
        if node.op == "call_module":
            call.add_module(node)
        for one in node.all_input_nodes:
            call.add_operand(one, of_no_image)
    if not call.given:
        return  # of nobody
    stage, values = call.stage()
    value = r.add(stage, *values, params=tuple(call.params))
    begin = 0
    for node in call.given:
        shape = r.found.results[node].shape[1:]
        places = torch.arange(begin, begin + numbers(shape)).view(shape)
        r.set(node, r.fresh(value, places))
        begin += numbers(shape)


@dataclass(slots=True)
class _Call:
    """A part as a graph of its own, as far as it is written.

    Attributes:
        inputs: codes [B, F] of each activation that it takes.
        params: its parameters' names.
    """

    r: StageReader
    nodes: list[fx.Node]
    inputs: dict[fx.Node, torch.Tensor] = field(default_factory=dict)
    params: dict[str, Shape] = field(default_factory=dict)
    _weights: dict[fx.Node, str] = field(default_factory=dict)
    _modules: dict[fx.Node, dict[str, str]] = field(default_factory=dict)
    _constants: dict[fx.Node, Any] = field(default_factory=dict)
    _of_images: dict[fx.Node, Any] = field(default_factory=dict)

    @property
    def part(self) -> Part:
        """Its nodes."""
        return frozenset(self.nodes)

    @property
    def given(self) -> list[fx.Node]:
        """Nodes that others take an activation of."""
        return [
            node for node in self.nodes if any(self._reads(user) for user in node.users.keys() - self.part)
        ]

    def _reads(self, user: fx.Node) -> bool:
        return user.op == "output" or not is_of_sizes(self.r, user)

    def add_module(self, node: fx.Node) -> None:
        """Let a module's parameters be the part's."""
        module = self.r.model.get_submodule(str(node.target))
        if next(module.buffers(), None) is not None:
            raise NoPlan(f"{node.target} keeps what it moves")
        own = dict(module.named_parameters(remove_duplicate=False))
        self._modules[node] = {name: self._param(self.r.take(own[name])) for name in placed_names(module)}

    def _param(self, codes: Any) -> str:
        name = self.r.parameter(codes) if isinstance(codes, torch.Tensor) else None
        if name is None:
            raise NoPlan("a parameter that is none of real numbers")
        self.params[name] = tuple(codes.shape)
        return name

    def add_operand(self, node: fx.Node, of_no_image: Mapping[fx.Node, bool]) -> None:
        """Take what a node gives, unless it is one of the part."""
        r = self.r
        if node in self.nodes or any(
            node in known for known in (self.inputs, self._weights, self._constants)
        ):
            return
        if is_of_sizes(r, node):
            if counts_images(r, node):
                self._of_images[node] = r.found.results[node]
            else:
                self._constants[node] = r.found.results[node]
            return
        if node in r.known:
            if any(counts_images(r, one) for one in node.all_input_nodes):
                raise Unread(node, "a tensor of as many images as there are", self.part)
            self._constants[node] = r.known[node]
            return
        codes, result = r.values.get(node), r.found.results[node]
        is_real = isinstance(result, torch.Tensor) and result.dtype is r.real
        if node in of_no_image:
            if not is_real:
                raise Unread(node, "numbers that no stage has", self.part)
            self._weights[node] = self._weight(node, codes)
            return
        if not isinstance(codes, torch.Tensor) or not (is_real or result.dtype is torch.bool):
            raise Unread(node, "numbers that no stage has", self.part)
        if not codes.dim() or len(codes) != SAMPLE:
            raise Unread(node, "an activation without a dimension of images", self.part)
        self.inputs[node] = codes.reshape(SAMPLE, -1)

    def _weight(self, node: fx.Node, codes: Any) -> str:
        try:
            return self._param(codes)
        except NoPlan:
            return self._param(self.r.derive(node))

    def stage(self) -> tuple[TorchPart, list[int]]:
        """Return the part as a stage, and the values that it takes."""
        r, given = self.r, self.given
        if not self.inputs:
            raise NoPlan("a part of no images")
        values, sizes = [], []
        joined = (
            [torch.cat([*self.inputs.values()], 1)] if len(self.inputs) > INPUTS else self.inputs.values()
        )
        for node, codes in zip(self.inputs, joined, strict=False):
            try:
                values.append(r.features(codes))
            except NoPlan as error:
                raise Unread(node, str(error), self.part) from error
            sizes.append(codes.shape[1])
        graph, held = self._written(given, joined=len(values) < len(self.inputs))
        compute = fx.GraphModule(held, graph).forward
        size = sum(numbers(r.found.results[node].shape[1:]) for node in given)
        shapes = tuple(self.params.values())
        words = f"{graph} {_digest(held)}"
        part = TorchPart(words, (size,), tuple(sizes), shapes, compute)
        _try(part, self._own_params(), r.real)
        return part, values

    def _own_params(self) -> list[torch.Tensor]:
        """Return parameters as the model has them; zeros for those that are computed."""
        own = dict(self.r.model.named_parameters()) | dict(self.r.model.named_buffers())
        return [
            own[name].detach() if name in own else torch.zeros(shape) for name, shape in self.params.items()
        ]

    def _written(self, given: list[fx.Node], *, joined: bool) -> tuple[fx.Graph, dict[str, Any]]:
        """Return the part as a graph of inputs [B, F] and parameters, and its constants and modules by their names."""
        graph, held = fx.Graph(), dict[str, Any]()
        count = 1 if joined else len(self.inputs)
        places = [graph.placeholder(f"x{i}") for i in range(count)]
        params = {name: graph.placeholder(f"p{i}") for i, name in enumerate(self.params)}
        images = graph.call_function(len, (places[0],))
        if joined:
            sizes = [codes.shape[1] for codes in self.inputs.values()]
            split = graph.call_function(torch.split, (places[0], sizes, 1))
            places = [graph.call_function(operator.getitem, (split, i)) for i in range(len(sizes))]
        env: dict[fx.Node, Any] = {node: params[name] for node, name in self._weights.items()}
        for node, place in zip(self.inputs, places, strict=True):
            result = self.r.found.results[node]
            env[node] = graph.call_function(_shaped, (place, images, tuple(result.shape[1:])))
            if result.dtype is torch.bool:
                env[node] = graph.call_function(torch.ne, (env[node], 0))
        env |= {node: graph.call_function(_counted, (size, images)) for node, size in self._of_images.items()}

        def hold(value: Any) -> fx.Node:
            held[f"held{len(held)}"] = value
            return graph.create_node("get_attr", f"held{len(held) - 1}")

        for node, value in self._constants.items():
            env[node] = hold(value) if isinstance(value, torch.Tensor) else value
        for node in self.nodes:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), env.__getitem__)
            if node.op == "get_attr":
                raise NoPlan("a part of parameters")
            if node.op == "call_module":
                module = hold(copy_of(self.r.model.get_submodule(str(node.target))))
                weights = {name: params[of] for name, of in self._modules[node].items()}
                env[node] = graph.call_function(_call_module, (module, weights, args, kwargs))
            else:
                env[node] = graph.create_node(node.op, node.target, args, kwargs)
        flat = [graph.call_function(torch.flatten, (env[node], 1)) for node in given]
        graph.output(graph.call_function(torch.cat, (flat, 1)) if len(flat) > 1 else flat[0])
        return graph, held


def _shaped(features: torch.Tensor, images: int, shape: Shape) -> torch.Tensor:
    return features.view(images, *shape)


def _counted(size: Any, images: int) -> Any:
    """Return a size that was asked of the sample for another number of images, which its first number is."""
    return images if isinstance(size, int) else (images, *size[1:])


def _call_module(module: nn.Module, weights: dict[str, Any], args: Any, kwargs: Any) -> Any:
    try:
        return functional_call(module, weights, args, kwargs, tie_weights=False)
    finally:
        if isinstance(module, nn.RNNBase):  # which keeps a list of them beside their table
            module._init_flat_weights()


def _digest(held: Mapping[str, Any]) -> str:
    """Return what tells constants and modules from others; of a module's parameters others take care."""
    found = hashlib.sha256()
    for name, value in held.items():
        found.update(f"{name} {type(value)}".encode())
        if isinstance(value, torch.Tensor):
            found.update(f"{value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(value).encode())
    return found.hexdigest()[:16]


_NUDGE = 0.05
_CLOSE = 1e-3  # of single precision, whose rounding may be large in a part


def _try(part: TorchPart, params: Sequence[torch.Tensor], dtype: torch.dtype) -> None:
    """Run a part on random numbers, with parameters near those that are given.

    Raises:
        NoPlan: it does not run for any number of images, mixes them, or draws random numbers.
    """
    generator = torch.Generator().manual_seed(0)
    images = SAMPLE + 1
    inputs = [torch.randn(images, size, generator=generator).to(dtype) for size in part.sizes]
    # the same for each image, not zero, and not so large that rounding grows from step to step of a recurrent layer
    params = [(p + _NUDGE * torch.randn(p.shape, generator=generator)).to(dtype) for p in params]
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            result = part.compute(*inputs, *params)
            alone = [part.compute(*(x[i : i + 1] for x in inputs), *params) for i in range(images)]
    except Exception as error:
        raise NoPlan(f"a part that does not run for itself: {said(error)}") from error
    if not torch.equal(state, torch.get_rng_state()):
        torch.set_rng_state(state)
        raise NoPlan("a part that draws random numbers")
    if result.dtype is not dtype or tuple(result.shape) != (images, *part.shape):
        raise NoPlan(f"a part that gives {tuple(result.shape)}")
    if not torch.allclose(result, torch.cat(alone), rtol=_CLOSE, atol=_CLOSE, equal_nan=True):
        raise NoPlan("a part that mixes images")
