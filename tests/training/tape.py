"""A recording of a step's operations on a CPU, as a CUDA graph is one of its kernels: no Python runs when it plays.

What a capture on CUDA forbids is refused here too: reading a value on the host, sending one from it, sizes that
depend on values, and generators, whose state is the host's.
"""

from __future__ import annotations

import contextlib

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

FORBIDDEN = {
    # the host reads
    "_local_scalar_dense", "item", "is_nonzero", "equal", "allclose",
    # the host sends
    "lift_fresh", "lift_fresh_copy", "scalar_tensor", "_pin_memory", "set_",
    # sizes from values
    "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount",
    "repeat_interleave", "masked_scatter", "histc",
    # generators
    "bernoulli", "bernoulli_", "native_dropout", "rand", "rand_like", "randn", "randn_like", "randint",
    "randint_like", "randperm", "normal", "normal_", "uniform_", "random_", "exponential_", "multinomial",
}  # fmt: skip


class Forbidden(RuntimeError):
    """An operation that a capture on CUDA does not allow."""


def key(t):
    """Name a tensor's elements: autograd hands out other objects for the same memory."""
    return t.untyped_storage()._cdata, t.storage_offset(), tuple(t.shape), t.stride(), t.dtype


class _NoReads(TorchFunctionMode):
    """Refuses the ways to the host that are no operations."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ("tolist", "numpy", "__array__"):
            raise Forbidden(func.__name__)
        return func(*args, **(kwargs or {}))


class Tape(TorchDispatchMode):
    """Notes every operation inside a `with`."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.outside = {}  # memory that was there before, by address
        self._made = set()
        self._alive = []  # no address is used twice
        self._reads = _NoReads()

    def __enter__(self):
        self._reads.__enter__()
        return super().__enter__()

    def __exit__(self, *what):
        super().__exit__(*what)
        self._reads.__exit__(*what)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name in FORBIDDEN:
            raise Forbidden(name)
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        if name.startswith(("index", "_unsafe_index")) and any(t.dtype == torch.bool for t in tensors[1:]):
            raise Forbidden(f"{name} with a mask")
        for t in tensors:
            storage = t.untyped_storage()
            if storage._cdata not in self._made:
                self.outside[storage._cdata] = storage.data_ptr()
        result = func(*args, **kwargs)
        made = [t for t in tree_flatten(result)[0] if isinstance(t, torch.Tensor)]
        self._made |= {t.untyped_storage()._cdata for t in made} - self.outside.keys()
        self._alive += [*tensors, *made]
        self.calls.append((func, args, kwargs, result))
        return result


class TapeRecording:
    """Plays a tape: the same operations, on the memory that was outside of it."""

    def __init__(self, tape):
        self._tape = tape
        self._calls = [
            (func, *tree_flatten((args, kwargs)), tree_flatten(result)[0])
            for func, args, kwargs, result in tape.calls
        ]
        self.plays = 0
        self.forgotten = False

    @torch.no_grad()
    def replay(self):
        assert not self.forgotten
        self.plays += 1
        outside = self._tape.outside
        known = {}

        def now(leaf):
            if not isinstance(leaf, torch.Tensor) or leaf.untyped_storage()._cdata in outside:
                return leaf
            return known[key(leaf)]

        for func, leaves, spec, made in self._calls:
            args, kwargs = tree_unflatten([now(leaf) for leaf in leaves], spec)
            new = tree_flatten(func(*args, **kwargs))[0]
            known.update(
                (key(old), n) for old, n in zip(made, new, strict=True) if isinstance(old, torch.Tensor)
            )

    def release(self):
        self.forgotten = True


class TapeRecorder:
    """Records on tapes."""

    def __init__(self):
        self.recordings = []
        self.tapes = []
        self.turns = 0

    @contextlib.contextmanager
    def on_stream(self):
        self.turns += 1
        yield

    def capture(self, work):
        with Tape() as tape:
            work()
        self.tapes.append(tape)
        self.recordings.append(TapeRecording(tape))
        return self.recordings[-1]

    def throttle(self):
        pass
