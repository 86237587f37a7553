"""torch.fx's tracer, with sizes that do not depend on the batch known while it traces.

A model may ask for a size in an `if`, an `assert` or a `range`; torch.fx knows no size and gives up.  Here such a
question is answered by `sample_values`, where the number is the same for every batch.  All other questions (how many
images there are, what a tensor holds) are refused, as torch.fx refuses them.

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
from gridsearch.training.lanes.compile.sample_values import SampleValues
from gridsearch.training.lanes.compile.size_nodes import asks_batch, give_number, is_size
from gridsearch.training.lanes.compile.tracer_proxies import TracedPart, TracedValue, traced_lengths
from gridsearch.training.weight_hooks import weight_call, weight_hooks

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        if self._tracer.samples.computes:
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
        self._redrawn: dict[int, tuple[torch.Tensor, fx.Proxy]] = {}
        self._names: dict[int, tuple[str, torch.Tensor]] = {}

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        """Trace a model."""
        self.samples = SampleValues(root, self._sample)
        self.traced_func_name = getattr(
            vars(root).get("forward"), "__name__", "forward"
        )  # one of several forms
        # torch.fx goes through all tensors of a model to find the name of one, each time it is asked for
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
        return self.samples.of(size.node)[0] if self.samples.settled(size.node) else size

    def _write_sizes(self, graph: fx.Graph) -> None:
        """Write sizes that do not depend on the batch as numbers: rules see `x[:, :16]`, whatever gave the 16."""
        for node in reversed(graph.nodes):  # the last first: its value needs all others'
            if not node.users or not is_size(node) or asks_batch(node):
                continue
            try:
                number = self.samples.of(node)[0] if self.samples.settled(node) else None
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
        if self.samples.computes:
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
        if self.samples.computes:
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
        return bool(self.samples.known(obj.node))

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Yield what a shape, or several results, consist of."""
        return (operator.getitem(obj, i) for i in range(self.samples.known_length(obj.node)))

    def rank(self, asked: fx.Proxy) -> Any:
        """Return a tensor's rank as the number that it is, so that it may be a key; or what asks for it."""
        try:
            return self.samples.known(asked.node)
        except TraceError:
            return asked

    def device(self, asked: fx.Proxy) -> Any:
        """Return where a tensor is, which is where all are, since code may ask for its name; or what asks for it."""
        try:
            first, second = self.samples.of(asked.node)
        except TraceError:
            return asked
        return first if isinstance(first, torch.device) and first == second else asked

    def length(self, asked: fx.Proxy) -> Any:
        """Return a length as a number; where it may be that of the batch, what asks a tensor for it."""
        try:
            return self.samples.known_length(asked.node)
        except TraceError:
            if not isinstance(self.samples.of(asked.node)[0], torch.Tensor):
                raise
            return asked.size(0)


def _is_method_in_place(function: Any) -> bool:
    name = getattr(function, "__name__", "")
    return is_tensor_method_or_property(function) and name.endswith("_") and not name.endswith("__")
