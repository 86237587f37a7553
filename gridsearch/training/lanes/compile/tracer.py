"""torch.fx's tracer, with sizes that do not depend on the batch known while it traces.

A model may ask for a size in an `if`, an `assert` or a `range`; torch.fx knows no size and gives up.  Here such a
question is answered from two small batches of different size: a number that follows from shapes alone, and that no
part of it differs between the two, is the same for every batch.  All other questions (how many images there are,
what a tensor holds) are refused, as torch.fx refuses them.

Two more things that torch.fx computes while it traces become part of the graph: `x += y` and `x[i] = y`, which change
a tensor in place, and functions that draw random numbers, also those of a fixed size.

Stands below `tracing`; its proxies are in `tracer_proxies`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable  # noqa: TC003  (of a constant's annotation)
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.fx.proxy import TraceError
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode, is_tensor_method_or_property
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import CheckpointFunction

from gridsearch.training.lanes.compile.einops_tracing import einops_knows
from gridsearch.training.lanes.compile.kept_buffers import KeptBuffers
from gridsearch.training.lanes.compile.lane_values import TrainsAlone
from gridsearch.training.lanes.compile.size_nodes import (
    asks_batch,
    asks_kind,
    asks_shape,
    give_number,
    is_arithmetic,
    is_size,
)
from gridsearch.training.lanes.compile.tracer_proxies import TracedPart, TracedValue, traced_lengths
from gridsearch.training.weight_hooks import weight_call, weight_hooks

if TYPE_CHECKING:
    from collections.abc import Iterator

_OTHER_BATCH = 2
"""Images of the second sample: fewer than the first has, and so few that hardly anything takes the first n of them."""

_MAKERS: tuple[Callable[..., Any], ...] = (
    torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.randint, torch.randperm,
    torch.arange, torch.linspace, torch.eye,
)  # fmt: skip
"""Functions that make a tensor of sizes, which are none of a tensor's: torch.fx does not see them by itself."""


class _Drawing(TorchFunctionMode):
    """Makes nodes of functions that draw random numbers, where no proxy is among their arguments."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._tracer.computes:
            return func(*args, **kwargs)
        if any(isinstance(leaf, fx.Proxy) for leaf in pytree.tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        state = torch.get_rng_state()
        changes = _is_method_in_place(func) and isinstance(args[0], torch.Tensor)
        result = func(args[0].clone(), *args[1:], **kwargs) if changes else func(*args, **kwargs)
        if not torch.equal(state, torch.get_rng_state()):
            torch.set_rng_state(state)
            return self._tracer.drawn(func, args, kwargs, changes=changes)
        return func(*args, **kwargs) if changes else result


@contextmanager
def _plain_checkpoints() -> Iterator[None]:
    """Let what `torch.utils.checkpoint` would compute again in a backward pass be plain calls: the result is the same.

    Its form without reentry needs no more than that it takes anything for a tensor.
    """
    kind: Any = CheckpointFunction
    kind.apply = staticmethod(lambda function, _, *args: function(*args))
    try:
        yield
    finally:
        del kind.apply  # its base class has it


class Tracer(fx.Tracer):
    """Traces into all modules but torch's own layers.

    Args:
        x_BCHW: sample images; None where no size may be asked for.
    """

    proxy_buffer_attributes = (
        True  # a buffer's value is none to branch on, or to compute with once and for all
    )

    def __init__(self, x_BCHW: torch.Tensor | None) -> None:
        super().__init__(autowrap_functions=_MAKERS)
        self._autowrap_search.append(torch)
        self._sample = x_BCHW
        self._values: dict[fx.Node, tuple[Any, Any]] = {}
        self._draws: set[fx.Node] = set()
        self._redrawn: dict[int, tuple[torch.Tensor, fx.Proxy]] = {}
        self._names: dict[int, tuple[str, torch.Tensor]] = {}
        self.computes = False

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        """Trace a model."""
        # torch.fx goes through all tensors of a model to find the name of one, each time it is asked for
        self._buffers = KeptBuffers(root)
        self.traced_func_name = getattr(
            vars(root).get("forward"), "__name__", "forward"
        )  # one of several forms
        named = [*root.named_buffers(), *root.named_parameters()]
        self._names = {id(tensor): (name, tensor) for name, tensor in reversed(named)}
        with (
            _Drawing(self),
            _plain_checkpoints(),
            traced_lengths(self, root),
            einops_knows((TracedValue, TracedPart), self._number),
        ):
            graph = super().trace(root, concrete_args)
            self._write_sizes(graph)
            return graph

    def _number(self, size: Any) -> Any:
        """Return a size as a number, where it does not depend on the batch."""
        return self._value(size.node)[0] if self._settled(size.node) else size

    def _write_sizes(self, graph: fx.Graph) -> None:
        """Write sizes that do not depend on the batch as numbers: rules see `x[:, :16]`, whatever gave the 16."""
        for node in reversed(graph.nodes):  # the last first: its value needs all others'
            if not node.users or not is_size(node) or asks_batch(node):
                continue
            try:
                number = self._value(node)[0] if self._settled(node) else None
            except TraceError:
                continue
            if type(number) is int:
                for user in tuple(node.users):
                    give_number(user, node, number)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """Return the arguments of the forward: the images, and the defaults of all others."""
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        return function, [*args[:2], *map(self._default, args[2:])]

    def _default(self, argument: Any) -> Any:
        node = argument.node
        stars = str(node.target).count("*")
        if not stars and not node.args:
            return argument
        self.graph.erase_node(node)
        return ({} if stars == 2 else ()) if stars else node.args[0]

    def drawn(self, func: Any, args: Any, kwargs: Any, *, changes: bool) -> fx.Proxy:
        """Return what stands for random numbers.

        Args:
            func: draws them.
            args: without a proxy.
            kwargs: likewise.
            changes: whether it fills its first argument with them.
        """
        if not changes:
            kind = "call_method" if is_tensor_method_or_property(func) else "call_function"
            return self.create_proxy(kind, func.__name__ if kind == "call_method" else func, args, kwargs)
        filled: torch.Tensor = args[0]
        like = {"dtype": filled.dtype, "device": filled.device}
        sides = tuple(filled.shape), filled.stride()
        empty = self.create_proxy("call_function", torch.empty_strided, sides, like)
        result = self.create_proxy("call_method", func.__name__, (empty, *args[1:]), kwargs)
        self._redrawn[id(filled)] = filled, result
        return result

    def create_arg(self, a: Any) -> Any:
        """Return what stands for an argument: of a tensor that was filled with random numbers, these."""
        if isinstance(a, torch.Tensor) and id(a) in self._redrawn:
            a = self._redrawn[id(a)][1]
        return super().create_arg(a)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        """Whether a module stays one node."""
        own = type(m).__module__.startswith("torch.nn.")
        # of a layer with parametrizations the layer is traced, and what computes its weights is a node
        return own and not isinstance(m, nn.Sequential) and not parametrize.is_parametrized(m)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Trace a call of a module, unless it is one that computes a sample's value."""
        if self.computes:
            return forward(*args, **kwargs)
        hooks = [*weight_hooks(m)]
        if not hooks:
            return super().call_module(m, forward, args, kwargs)
        before = dict(vars(m))
        try:
            for hook in hooks:
                function, given = weight_call(m, hook)
                vars(m)[hook.name] = self.create_proxy("call_function", function, given, {})
            return m.forward(*args, **kwargs)
        finally:
            vars(m).update({hook.name: before[hook.name] for hook in hooks})

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return what stands for a module's attribute, likewise."""
        if self.computes:
            return attr_val
        name, known = self._names.get(id(attr_val), ("", None))
        if known is None or known is not attr_val:
            return super().getattr(attr, attr_val, parameter_proxy_cache)
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return what stands for a node's result."""
        return TracedValue(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Return a proxy's truth, where it is known."""
        return bool(self.known(obj.node))

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Yield what a shape, or several results, consist of."""
        return (operator.getitem(obj, i) for i in range(self.known_length(obj.node)))

    def known(self, node: fx.Node) -> Any:
        """Return a number that follows from shapes and not from how many images there are.

        Raises:
            TraceError: it is none.
            TrainsAlone: it follows from random numbers.
        """
        if not self._settled(node):
            if drawn := self._drawn_before(node):
                raise TrainsAlone(f"its forward decides by numbers that it draws ({drawn})")
            raise TraceError(f"{node.name} depends on the batch, or on what a tensor holds")
        return self._value(node)[0]

    def rank(self, asked: fx.Proxy) -> Any:
        """Return a tensor's rank as the number that it is, so that it may be a key; or what asks for it."""
        try:
            return self.known(asked.node)
        except TraceError:
            return asked

    def device(self, asked: fx.Proxy) -> Any:
        """Return where a tensor is, which is where all are, since code may ask for its name; or what asks for it."""
        try:
            first, second = self._value(asked.node)
        except TraceError:
            return asked
        return first if isinstance(first, torch.device) and first == second else asked

    def length(self, asked: fx.Proxy) -> Any:
        """Return a length as a number; where it may be that of the batch, what asks a tensor for it."""
        try:
            return self.known_length(asked.node)
        except TraceError:
            if not isinstance(self._value(asked.node)[0], torch.Tensor):
                raise
            return asked.size(0)

    def known_length(self, node: fx.Node) -> int:
        """Return the length of a shape, or of a tensor's first dimension, likewise."""
        first, second = self._value(node)
        if self._is_shape(node) or len(first) == len(second):
            if isinstance(first, torch.Tensor) and node.op != "get_attr":
                raise TraceError(f"the length of {node.name} may be that of the batch")
            return len(first)
        raise TraceError(f"the length of {node.name} depends on the batch")

    def _settled(self, node: fx.Node) -> bool:
        """Whether a node is a number made of sizes, none of which depends on the batch."""
        first, second = self._value(node)
        if not isinstance(first, bool | int | float) or first != second:
            return False
        if asks_shape(node) or asks_kind(node):
            return True
        if node.target in (operator.eq, operator.ne) and self._compared(node):
            return True
        if node.op != "call_function" or not is_arithmetic(node.target):
            return False
        return all(self._settled(n) or self._picked(node, n) for n in node.all_input_nodes)

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
        first, second = self._value(argument)
        if not (asks_kind(argument) or self._is_shape(argument) or self._grows(argument)):
            return None
        return list(zip(first, second, strict=True)) if isinstance(first, tuple) else [(first, second)]

    def _grows(self, node: fx.Node) -> bool:
        """Whether a node is a size, or a sum or product of such."""
        if not isinstance(self._value(node)[0], int):
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
        if not isinstance(self._value(node)[0], tuple):
            return False
        if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
            return isinstance(node.args[1], slice) and self._is_shape(node.args[0])
        return asks_shape(node)

    def _value(self, wanted: fx.Node) -> tuple[Any, Any]:
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
                    for node in self.graph.nodes:
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
            return operator.attrgetter(target)(self.root)
        args, kwargs = value(node.args), value(node.kwargs)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        called: Callable[..., Any] = self.root.get_submodule(target) if node.op == "call_module" else target
        return called(*args, **kwargs)


def _is_method_in_place(function: Any) -> bool:
    name = getattr(function, "__name__", "")
    return is_tensor_method_or_property(function) and name.endswith("_") and not name.endswith("__")
