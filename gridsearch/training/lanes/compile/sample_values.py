"""What the nodes of a graph give for two small batches of different size, while torch.fx traces it.

A number that follows from shapes alone, and that no part of it differs between the two, is the same for every batch.

Stands below `tracer`, which asks for sizes.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.fx.proxy import TraceError

from gridsearch.training.lanes.compile.kept_buffers import KeptBuffers
from gridsearch.training.lanes.compile.lane_values import TrainsAlone
from gridsearch.training.lanes.compile.size_nodes import asks_kind, asks_shape, is_arithmetic

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

_OTHER_BATCH = 2
"""Images of the second sample: fewer than the first has, and so few that hardly anything takes the first n of them."""


class SampleValues:
    """Runs a model's graph, as far as it is traced, on samples.

    Args:
        model: whose graph it is.
        x_BCHW: sample images; None where no size may be asked for.
    """

    def __init__(self, model: nn.Module, x_BCHW: torch.Tensor | None) -> None:
        self._model = model
        self._sample = x_BCHW
        self._buffers = KeptBuffers(model)
        self._values: dict[fx.Node, tuple[Any, Any]] = {}
        self._draws: set[fx.Node] = set()
        self.computes = False
        """Whether a node runs now: what it calls is not traced."""

    def known(self, node: fx.Node) -> Any:
        """Return a number that follows from shapes and not from how many images there are.

        Raises:
            TraceError: it is none.
            TrainsAlone: it follows from random numbers.
        """
        if not self.settled(node):
            if drawn := self._drawn_before(node):
                raise TrainsAlone(f"its forward decides by numbers that it draws ({drawn})")
            raise TraceError(f"{node.name} depends on the batch, or on what a tensor holds")
        return self.of(node)[0]

    def known_length(self, node: fx.Node) -> int:
        """Return the length of a shape, or of a tensor's first dimension, likewise."""
        first, second = self.of(node)
        if self._is_shape(node) or len(first) == len(second):
            if isinstance(first, torch.Tensor) and node.op != "get_attr":
                raise TraceError(f"the length of {node.name} may be that of the batch")
            return len(first)
        raise TraceError(f"the length of {node.name} depends on the batch")

    def settled(self, node: fx.Node) -> bool:
        """Whether a node is a number made of sizes, none of which depends on the batch."""
        first, second = self.of(node)
        if not isinstance(first, bool | int | float) or first != second:
            return False
        if asks_shape(node) or asks_kind(node):
            return True
        if node.target in (operator.eq, operator.ne) and self._compared(node):
            return True
        if node.op != "call_function" or not is_arithmetic(node.target):
            return False
        return all(self.settled(n) or self._picked(node, n) for n in node.all_input_nodes)

    def _compared(self, node: fx.Node) -> bool:
        """Whether two types, or shapes or sizes, among which the batch may be, are equal for every batch, or for none.

        They are for none if two parts differ that do not depend on it; for every one if all parts are equal in both
        samples, since what is asked of shapes, and its sums and products, grows with the batch in proportion.
        """
        left, right = (self._parts(argument) for argument in node.args)
        if left is None or right is None:
            return False
        if len(left) != len(right):
            return True
        pairs = list(zip(left, right, strict=True))
        apart = any(a != b for a, b in pairs if a[0] == a[1] and b[0] == b[1])
        return apart or all(a == b for a, b in pairs)

    def _parts(self, argument: Any) -> list[tuple[Any, Any]] | None:
        """Return the numbers of a shape, or a size, in both samples; None for anything else."""
        if isinstance(argument, tuple | list):
            parts = [self._parts(one) for one in argument]
            return None if any(p is None or len(p) != 1 for p in parts) else [p[0] for p in parts if p]
        if isinstance(argument, int | torch.dtype | torch.device | torch.layout):
            return [(argument, argument)]
        if not isinstance(argument, fx.Node):
            return None
        first, second = self.of(argument)
        if not (asks_kind(argument) or self._is_shape(argument) or self._grows(argument)):
            return None
        return list(zip(first, second, strict=True)) if isinstance(first, tuple) else [(first, second)]

    def _grows(self, node: fx.Node) -> bool:
        """Whether a node is a size, or a sum or product of such."""
        if not isinstance(self.of(node)[0], int):
            return False
        if asks_shape(node):
            return True
        if node.target not in (operator.getitem, operator.add, operator.sub, operator.mul):
            return False
        return all(self._grows(one) or self._picked(node, one) for one in node.all_input_nodes)

    def _picked(self, node: fx.Node, shape: fx.Node) -> bool:
        """Whether a node takes one number, which is settled then, from a shape."""
        return node.target is operator.getitem and isinstance(node.args[1], int) and self._is_shape(shape)

    def _is_shape(self, node: fx.Node) -> bool:
        """Whether a node is a shape, or a part of one."""
        if not isinstance(self.of(node)[0], tuple):
            return False
        if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
            return isinstance(node.args[1], slice) and self._is_shape(node.args[0])
        return asks_shape(node)

    def of(self, wanted: fx.Node) -> tuple[Any, Any]:
        """Return a node's value for both samples; all before it run first, in their order."""
        if self._sample is None:
            raise TraceError("symbolically traced variables cannot be used as inputs to control flow")
        if wanted not in self._values:
            other = self._sample[:1].expand(_OTHER_BATCH, *self._sample.shape[1:])
            samples = self._sample.clone(), other.clone()  # which may be changed in place
            state = torch.get_rng_state()
            self.computes = True
            try:
                with torch.no_grad(), self._buffers.kept():
                    for node in wanted.graph.nodes:
                        if node not in self._values:
                            before = torch.get_rng_state()
                            self._values[node] = (
                                self._run(node, 0, samples[0]),
                                self._run(node, 1, samples[1]),
                            )
                            if not torch.equal(before, torch.get_rng_state()):
                                self._draws.add(node)
                        if node is wanted:
                            break
            except Exception as error:
                raise TraceError(f"what leads to {wanted.name} does not run") from error
            finally:
                self.computes = False
                torch.set_rng_state(state)
        return self._values[wanted]

    def _drawn_before(self, node: fx.Node) -> str:
        """Return the name of what drew numbers that a node depends on; "" where nothing did."""
        waiting, known = [node], {node}
        while waiting:
            one = waiting.pop()
            if one in self._draws:
                return getattr(one.target, "__name__", str(one.target))
            waiting += [before for before in one.all_input_nodes if before not in known]
            known.update(waiting)
        return ""

    def _run(self, node: fx.Node, which: int, x_BCHW: torch.Tensor) -> Any:
        def value(content: Any) -> Any:
            return fx.node.map_arg(content, lambda n: self._values[n][which])

        if node.op == "placeholder":
            return node.args[0] if node.args else x_BCHW
        target: Any = node.target
        if node.op == "get_attr":
            return operator.attrgetter(target)(self._model)
        args, kwargs = value(node.args), value(node.kwargs)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        called: Callable[..., Any] = self._model.get_submodule(target) if node.op == "call_module" else target
        return called(*args, **kwargs)
