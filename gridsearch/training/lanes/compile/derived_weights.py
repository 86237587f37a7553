"""Weights of layers that are computed from parameters: which nodes of a network these are, and their program.

Stands between the stages of a network, which take such weights for parameters, and the plan that computes them before
each step, and their parameters' gradients after it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.func import functional_call
from torch.utils import _pytree as pytree

from gridsearch.errors import said
from gridsearch.training.kernels.weight_programs import Instruction, Memory, WeightProgram, What
from gridsearch.training.lanes.compile.compiled_graph import Given
from gridsearch.training.lanes.compile.step_graph import NoPlan
from gridsearch.training.lanes.compile.weight_layers import LAYERS
from gridsearch.training.lanes.compile.weight_operations import HANDLED
from gridsearch.training.lanes.compile.weight_recorder import Recorder
from gridsearch.training.lanes.runtime.storage import placed_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from torch import nn

    from gridsearch.training.lanes.compile.step_graph import Derived
    from gridsearch.training.lanes.compile.tracing import Found, Traced


@dataclass(frozen=True, slots=True)
class WeightPrograms:
    """How a network's weights are computed in training and in evaluation."""

    training: WeightProgram
    evaluation: WeightProgram


def of_parameters(model: nn.Module, graph: fx.Graph, found: Found) -> dict[fx.Node, bool]:
    """Return the nodes of tensors that are computed from parameters or buffers, and from no image.

    With each is said whether what images reach reads it, as real numbers.
    """
    reached: set[fx.Node] = set()
    own: set[fx.Node] = set()
    tensors = {id(t) for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()}
    for node in graph.nodes:
        given = node.all_input_nodes
        if node.op in ("placeholder", "output") or any(one in reached for one in given):
            reached.add(node)
            continue
        begins = node.op == "get_attr" and id(_attribute(model, str(node.target))) in tensors
        if begins or node.op == "call_module" or any(one in own for one in given):
            own.add(node)
    return {
        node: _is_real(found.results[node]) and any(user in reached for user in node.users)
        for node in own
        if any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(found.results[node]))
    }


def _is_real(result: Any) -> bool:
    return isinstance(result, torch.Tensor) and result.is_floating_point()


def _attribute(model: nn.Module, name: str) -> Any:
    try:
        return attrgetter(name)(model)
    except AttributeError:  # a constant of the graph
        return None


def record_weights(
    model: nn.Module,
    traced: Traced,
    found: Found,
    derived: Sequence[Derived],
    trained: Collection[str],
    dtype: torch.dtype,
    *,
    training: bool,
) -> WeightProgram:
    """Return how weights are computed in a mode, which is the model's; in training with their backward pass.

    Args:
        model: a lane's.
        traced: its graph in this mode.
        found: what a sample has shown of it.
        derived: the weights.
        trained: names of the parameters that are trained, all that each has.
        dtype: of all numbers.
        training: the mode.

    Raises:
        NoPlan: it has an operation that no instruction computes.
    """
    runner = _Runner(model, traced, found, trained, dtype)
    try:
        with torch.set_grad_enabled(training), runner.recorder:
            weights = runner.run(derived)
            count = len(runner.recorder.instructions)
            gradients = runner.differentiate(weights) if training else {}
    except NoPlan:
        raise
    except Exception as error:  # a user's arithmetic may raise anything of tensors without content
        raise NoPlan(f"arithmetic of parameters: {said(error)}") from error
    recorder = runner.recorder
    named = {recorder.memory(w): Memory(What.WEIGHT, name, w.numel()) for name, w in weights.items()}
    ends = {
        name: (recorder.copied(g, memory), recorder.added(g, memory))
        for name, g in gradients.items()
        for memory in [Memory(What.GRADIENT, name, g.numel())]
    }
    ends = {name: (_renamed(a, named), _renamed(b, named)) for name, (a, b) in ends.items()}
    instructions = [_renamed(one, named) for one in recorder.instructions]
    last = [a for a, _ in ends.values()]
    kept = _needed(instructions, last)
    _check_written(
        [one for one, keeps in zip(instructions, kept, strict=True) if keeps] + last, named.values()
    )
    return WeightProgram(
        tuple(one for one, keeps in zip(instructions[:count], kept[:count], strict=True) if keeps),
        tuple(one for one, keeps in zip(instructions[count:], kept[count:], strict=True) if keeps),
        ends,
        {name: w.numel() for name, w in weights.items()},
        frozenset(name for name, w in weights.items() if w.requires_grad),
    )


class _Runner:
    """Runs what leads to some weights, on tensors without content."""

    def __init__(
        self, model: nn.Module, traced: Traced, found: Found, trained: Collection[str], dtype: torch.dtype
    ) -> None:
        self.recorder = Recorder(dtype, HANDLED | LAYERS)
        self._model, self._traced, self._found, self._trained = model, traced, found, trained
        self._names = {id(p): n for n, p in (*model.named_parameters(), *model.named_buffers())}
        self._parameters = {id(p) for p in model.parameters()}
        self._tensors: dict[int, torch.Tensor] = {}

    def run(self, derived: Sequence[Derived]) -> dict[str, torch.Tensor]:
        """Return the weights by name, each in a memory of its own."""
        needed = _leading_to(each.source for each in derived if isinstance(each.source, fx.Node))
        values: dict[fx.Node, Any] = {}
        for node in self._traced.graph.nodes:
            if node in needed:
                values[node] = self._result(node, values)
        taken: set[Memory] = set()
        weights = {}
        for each in derived:
            source = each.source
            weight = self._tensor(source) if isinstance(source, str) else values[source]
            weight = weight.permute(each.order) if each.order else weight
            memory = self.recorder.memory(weight)
            plain = memory.what is What.TEMPORARY and memory.numbers == weight.numel() and memory not in taken
            if not plain or not weight.is_contiguous():
                weight = weight.clone(memory_format=torch.contiguous_format)
            taken.add(self.recorder.memory(weight))
            weights[each.name] = weight
        return weights

    def differentiate(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the gradients of parameters by name."""
        numbers = [
            Given.apply(weight, self.recorder.tensor(What.WEIGHT_GRADIENT, name, weight))  # type: ignore[no-untyped-call]
            for name, weight in weights.items()
            if weight.requires_grad
        ]
        leaves = {key: tensor for key, tensor in self._tensors.items() if tensor.requires_grad}
        if not numbers:
            return {}
        found = torch.autograd.grad(numbers, [*leaves.values()], allow_unused=True)
        return {self._names[key]: g for key, g in zip(leaves, found, strict=True) if g is not None}

    def _result(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        if node in self._found.draws:
            raise NoPlan("parameters with random numbers")
        if node.op == "get_attr":
            constants = self._traced.constants
            name = str(node.target)
            own = constants[name] if name in constants else attrgetter(name)(self._model)
            if isinstance(own, torch.Tensor) and own.dtype == torch.int64:
                return (
                    own.detach().clone()
                )  # of a buffer the stages have taken note that lanes must have the same
            return own.detach().clone() if name in constants else self._tensor(name)
        args: Any = fx.node.map_arg(node.args, lambda one: values[one])
        kwargs: Any = fx.node.map_arg(node.kwargs, lambda one: values[one])
        target: Any = node.target
        if node.op == "call_module":
            own = {
                name: self._tensor(f"{target}.{name}")
                for name in placed_names(self._model.get_submodule(target))
            }
            return functional_call(self._model.get_submodule(target), own, args, kwargs, tie_weights=False)
        return (
            getattr(args[0], target)(*args[1:], **kwargs)
            if node.op == "call_method"
            else target(*args, **kwargs)
        )

    def _tensor(self, name: str) -> torch.Tensor:
        """Return what stands for a parameter or a buffer."""
        own = attrgetter(name)(self._model)
        if id(own) not in self._tensors:
            if own.dtype != self.recorder.dtype:
                raise NoPlan(f"{name} is of another type than the weights")
            what = What.PARAMETER if id(own) in self._parameters else What.BUFFER
            found = self.recorder.tensor(what, self._names[id(own)], own)
            self._tensors[id(own)] = found.requires_grad_(self._names[id(own)] in self._trained)
        return self._tensors[id(own)]


def _leading_to(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    waiting, known = list(nodes), set[fx.Node]()
    while waiting:
        node = waiting.pop()
        known.add(node)
        waiting += [one for one in node.all_input_nodes if one not in known]
    return known


def _renamed(one: Instruction, named: Mapping[Memory, Memory]) -> Instruction:
    """Return an instruction whose temporary memories have other names."""
    to, *sources = (replace(each, memory=named.get(each.memory, each.memory)) for each in one.operands)
    return replace(one, to=to, sources=tuple(sources))


def _check_written(instructions: Sequence[Instruction], weights: Iterable[Memory]) -> None:
    """Refuse a program that reads what it has not written.

    Raises:
        NoPlan: it does.
    """
    written: set[Memory] = set()
    for one in instructions:
        for source in one.sources:
            if source.memory.what is What.TEMPORARY and source.memory not in written:
                raise NoPlan("arithmetic of parameters that is not understood")
        written.add(one.to.memory)
    if not written.issuperset(weights):
        raise NoPlan("arithmetic of parameters that is not understood")


def _needed(instructions: Sequence[Instruction], ends: Sequence[Instruction]) -> list[bool]:
    """Return which instructions have a result that somebody reads."""
    read = {source.memory for one in ends for source in one.sources}
    kept = []
    for one in reversed(instructions):
        keeps = one.to.memory.what in (What.WEIGHT, What.BUFFER) or one.to.memory in read
        kept.append(keeps)
        if keeps:
            read.update(source.memory for source in one.sources)
    return kept[::-1]
