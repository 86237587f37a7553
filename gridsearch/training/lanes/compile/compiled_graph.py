"""A rewritten graph as a list of instructions, with a forward pass and a backward pass of its own.

Stands between the rewrite, which writes the instructions, and a step, which wants logits and gradients.  Autograd
would do, but its bookkeeping costs, and it keeps what no gradient needs.  Epochs of a grid of 16 LeNets in four packs,
evaluation included, with the same compiled kernels, one thread: by autograd they take 1.41 times the user time (1.34 to
1.77, n=11; 1.59, 1.44, 1.27 and 1.17 times at batch sizes 10, 20, 50 and 100), and 280 ms of system time against 7
(`python -m tests.benchmarks.backward`).

A layer that has its own backward pass has `forward` and `backward` (see `Differentiable`); any other is differentiated
by autograd, alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch

from gridsearch.training.lanes.compile.lane_values import NotStackable, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Needs = Sequence[bool]
    Grads = Sequence[torch.Tensor | None]


@runtime_checkable
class Differentiable(Protocol):
    """An instruction that has its own backward pass.

    Attributes:
        fresh: its result is a new tensor that its own backward pass does not read.
    """

    fresh: bool

    def forward(self, *arguments: Any) -> tuple[torch.Tensor, Any]:
        """Return the result, and what `backward` needs."""
        ...

    def backward(self, grad_output: torch.Tensor, saved: Any, needs_grad: Needs, out: Grads) -> Grads:
        """Return the gradient of each argument.

        Args:
            grad_output: of the result.
            saved: from `forward`.
            needs_grad: for each argument, whether its gradient is needed.
            out: buffers for the gradients of weights: one that is written into is returned.
        """
        ...


class Fetch:
    """An instruction without arguments: the weights of a layer.

    Args:
        tensors: all lanes' parameters and buffers [K, ...].
        name: of the one.
        trained: the first name of the same parameter, if it is trained; else None.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], name: str, trained: str | None) -> None:
        self._tensors, self._name, self.trained = tensors, name, trained

    def __call__(self) -> torch.Tensor:
        """Return the tensor."""
        return self._tensors[self._name]


class Given(torch.autograd.Function):
    """A number whose gradient with respect to a tensor is given.

    `torch.autograd.grad` takes such a gradient as an argument too, and then imports sympy to compare its shape: 0.25 s
    of each worker's start.
    """

    @staticmethod
    def forward(ctx: Any, result: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return a number that stands for the loss, and that nobody reads."""
        ctx.gradient = gradient
        return result.new_empty((), dtype=result.dtype.to_real())  # autograd starts at no complex number

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient that was given."""
        return ctx.gradient, None


class ByAutograd:
    """Any function, differentiated by autograd."""

    fresh = False

    def __init__(self, function: Callable[..., Any], needs_grad: Sequence[bool]) -> None:
        self._function, self._needs_grad = function, needs_grad

    def forward(self, *arguments: Any) -> tuple[Any, Any]:
        """Return the result, and a graph of this instruction alone."""
        pairs = zip(arguments, self._needs_grad, strict=True)
        own = [
            a.detach().requires_grad_() if want and isinstance(a, torch.Tensor) else a for a, want in pairs
        ]
        with torch.enable_grad():
            result = self._function(*own)
        if not isinstance(result, torch.Tensor):
            if isinstance(result, tuple | list) and any(isinstance(r, torch.Tensor) for r in result):
                raise NotStackable("an operation gives several tensors")
            return result, None
        return result.detach(), (result, own) if result.requires_grad else None

    def backward(self, grad_output: torch.Tensor, saved: Any, needs_grad: Needs, out: Grads) -> Grads:
        """Return the gradients."""
        del out
        if saved is None:
            return [None] * len(needs_grad)
        result, own = saved
        sources = [a for a in own if isinstance(a, torch.Tensor) and a.requires_grad]
        with torch.enable_grad():
            number = Given.apply(result, grad_output)  # type: ignore[no-untyped-call]
        found = iter(torch.autograd.grad(number, sources, allow_unused=True))
        return [next(found) if isinstance(a, torch.Tensor) and a.requires_grad else None for a in own]


class Instruction(NamedTuple):
    """One operation of a compiled graph.

    Attributes:
        function: computes the result.
        operands: its arguments: slots (True, number) and constants (False, anything).
        output: the slot of its result.
    """

    function: Callable[..., Any]
    operands: tuple[tuple[bool, Any], ...]
    output: int


class CompiledGraph:
    """A rewritten graph: instructions over numbered slots; slot 0 has the images.

    Attributes:
        instructions: in their order; no more of them once it is closed.
        result: the slot of the result.
    """

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []
        self._frees: list[tuple[int, ...]] = []
        self._backward_rules: list[tuple[Differentiable, tuple[bool, ...]] | None] = []
        self._leaves: dict[int, str] = {}
        self._slots = 1
        self._constants: set[int] = set()
        self.result = 0

    def add(self, function: Callable[..., Any], *arguments: object) -> int:
        """Append an instruction; arguments are values or constants. Returns the slot of its result."""
        operands = tuple((True, a.slot) if isinstance(a, Value) else (False, a) for a in arguments)
        self.instructions.append(Instruction(function, operands, self._slots))
        self._slots += 1
        return self._slots - 1

    def mark_constant(self, value: Value) -> None:
        """Note that a value has no gradient with respect to what it is made of."""
        self._constants.add(value.slot)

    def cut(self, count: int) -> None:
        """Keep the first so many instructions alone."""
        del self.instructions[count:]
        self._slots = count + 1
        self._constants = {slot for slot in self._constants if slot <= count}

    def close(self, result: Value) -> None:
        """Set the result; values are freed after their last use."""
        self.result = result.slot
        last = dict.fromkeys(range(self._slots), -1)
        for i, (_, operands, output) in enumerate(self.instructions):
            last[output] = i
            for is_slot, content in operands:
                if is_slot:
                    last[content] = i
        last.pop(self.result)
        self._frees = [tuple(s for s, at in last.items() if at == i) for i in range(len(self.instructions))]
        self._differentiate()

    def _differentiate(self) -> None:
        """Find the backward rule of each instruction."""
        requires_grad = [False] * self._slots
        users = [0] * self._slots
        fresh = [False] * self._slots
        users[self.result] = 1
        for _, operands, _ in self.instructions:
            for is_slot, content in operands:
                if is_slot:
                    users[content] += 1
        for function, operands, output in self.instructions:
            if isinstance(function, Fetch):
                requires_grad[output] = function.trained is not None
                if function.trained is not None:
                    self._leaves[output] = function.trained
                self._backward_rules.append(None)
                continue
            needs_grad = tuple(is_slot and requires_grad[content] for is_slot, content in operands)
            requires_grad[output] = any(needs_grad) and output not in self._constants
            if not requires_grad[output]:
                self._backward_rules.append(None)
                continue
            rule: Differentiable = (
                function if isinstance(function, Differentiable) else ByAutograd(function, needs_grad)
            )
            source = operands[0][1] if operands[0][0] else None
            if isinstance(rule, InPlace) and source is not None and fresh[source] and users[source] == 1:
                rule = rule.in_place()
            fresh[output] = rule.fresh
            self._backward_rules.append((rule, needs_grad))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Run it on the images."""
        memory: list[Any] = [None] * self._slots
        memory[0] = x
        for (function, operands, output), frees in zip(self.instructions, self._frees, strict=True):
            memory[output] = function(*[memory[c] if is_slot else c for is_slot, c in operands])
            for slot in frees:
                memory[slot] = None
        result: torch.Tensor = memory[self.result]
        return result

    @property
    def needs_autograd(self) -> bool:
        """Whether an instruction does not have its own backward pass."""
        return any(isinstance(rule[0], ByAutograd) for rule in self._backward_rules if rule)

    def record(self, x: torch.Tensor) -> tuple[torch.Tensor, list[Any]]:
        """Run it on the images, without autograd; return the result and what `backward` needs."""
        memory: list[Any] = [None] * self._slots
        memory[0] = x
        record: list[Any] = []
        for (function, operands, output), frees, rule in zip(
            self.instructions, self._frees, self._backward_rules, strict=True
        ):
            arguments = [memory[c] if is_slot else c for is_slot, c in operands]
            if rule is None:
                memory[output], saved = function(*arguments), None
            else:
                memory[output], saved = rule[0].forward(*arguments)
            record.append(saved)
            for slot in frees:
                memory[slot] = None
        return memory[self.result], record

    def backward(
        self, grad_output: torch.Tensor, record: list[Any], gradients: Mapping[str, torch.Tensor]
    ) -> None:
        """Write the gradients of the trained parameters.

        Args:
            grad_output: of the result.
            record: from `record`; it is used up.
            gradients: where to write each, [K, ...] by the parameter's first name.
        """
        grads: list[torch.Tensor | None] = [None] * self._slots
        grads[self.result] = grad_output
        written: set[str] = set()
        for at in range(len(self.instructions) - 1, -1, -1):
            (_, operands, output), rule, saved = self.instructions[at], self._backward_rules[at], record.pop()
            own, grads[output] = grads[output], None
            if rule is None or own is None:
                continue
            names = [self._leaves.get(c) if is_slot else None for is_slot, c in operands]
            out = [gradients[n] if n is not None and n not in written else None for n in names]
            found = rule[0].backward(own, saved, rule[1], out)
            for (_, slot), want, name, buffer, gradient in zip(
                operands, rule[1], names, out, found, strict=True
            ):
                if gradient is None or not want:
                    continue
                if name is None:
                    before = grads[slot]
                    grads[slot] = gradient if before is None else before + gradient
                elif name in written:
                    gradients[name].add_(gradient.view_as(gradients[name]))
                else:
                    written.add(name)
                    if gradient is not buffer:
                        gradients[name].copy_(gradient.view_as(gradients[name]))
        for name in gradients.keys() - written:
            gradients[name].zero_()


@runtime_checkable
class InPlace(Protocol):
    """An instruction that can overwrite its first argument where nobody else needs it."""

    def in_place(self) -> Differentiable:
        """Return the instruction that does."""
        ...
