"""What the lanes' own models compute, each by itself: against this a network of lanes is held.

Stands between the models and `agreement.py`, which compares.  The reference is each lane's own module as its factory
made it, and no copy: what a copy loses, a network of lanes would lose too, and no check would show it.
"""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

from gridsearch.training import seeds
from gridsearch.training.lanes.compile.lane_values import NotPackable, TrainsAlone
from gridsearch.training.lanes.compile.module_state import (
    generator_states,
    identities,
    is_torchs,
    plain_state,
    why_alone,
)
from gridsearch.training.lanes.compile.source_checks import Watch
from gridsearch.training.model_outputs import check_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import nn

    from gridsearch.training.precision import Precision


@dataclass(frozen=True, slots=True, eq=False)
class PassResult:
    """What a model computes from a few images in a mode.

    Attributes:
        gradients: of the sum of the squared logits, by parameter; none in evaluation mode.
        buffers: as they are afterwards.
    """

    logits: torch.Tensor
    gradients: Mapping[str, torch.Tensor]
    buffers: Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What one lane's own module computes.

    Attributes:
        passes: by mode, without the rounding of bfloat16.
        rounded: likewise under autocast to bfloat16; None where that is not the precision.
        not_stacked: why a traced graph of it would be wrong; "" where it may be right.
    """

    passes: Mapping[bool, PassResult]
    rounded: Mapping[bool, PassResult] | None
    not_stacked: str

    @property
    def trained(self) -> list[str]:
        """Names of the parameters that get a gradient; the others are passed over by an optimizer."""
        return list(self.passes[True].gradients)

    @classmethod
    def of(cls, model: nn.Module, x_BCHW: torch.Tensor, precision: Precision) -> Self:
        """Run a model in both modes; its tensors are afterwards as they were, and its mode is training.

        Raises:
            TrainsAlone: it carries, or does, what no network of lanes keeps.
            Exception: whatever it raises.
        """
        if reason := why_alone(model):
            raise TrainsAlone(reason)
        before = plain_state(model), generator_states()
        named = dict(model.named_parameters()) | dict(model.named_buffers())
        kept = {name: tensor.detach().clone() for name, tensor in named.items()}
        owners = identities(model)
        watch = None if all(is_torchs(type(m)) for m in model.modules()) else Watch(model)
        ways = [precision.unrounded] + [precision] * precision.rounds
        passes: list[dict[bool, PassResult]] = [{} for _ in ways]
        own_backward = False
        for way, training in itertools.product(range(len(ways)), (False, True)):
            evaluated = passes[way][False] if training else None
            found, backward = _run(model, x_BCHW, ways[way], watch, evaluated)
            passes[way][training] = found
            own_backward |= backward
            if (now := identities(model)) != owners:
                names = ", ".join(sorted({name for name, *_ in {*now} ^ {*owners}})[:3])
                raise TrainsAlone(f"its forward changes its weights, or replaces its tensors ({names})")
            with torch.no_grad():
                for name, tensor in named.items():
                    tensor.grad = None
                    if not torch.equal(tensor, kept[name]):  # versions miss batch norm's updates
                        tensor.copy_(kept[name])
            owners = identities(model)
        if watch is not None:
            watch.check()
        if (plain_state(model), generator_states()) != before:
            raise TrainsAlone("its forward draws numbers, or keeps state, outside of torch")
        switches = watch is not None and watch.switches
        casts = watch is not None and watch.casts
        words = "its own backward passes" * own_backward or "gradients switched off in its forward" * switches
        words = words or "autocast contexts in its forward" * casts
        rounded = passes[1] if precision.rounds else None
        return cls(passes[0], rounded, f"{words} have no stacked form" if words else "")


def check_sizes(
    model: nn.Module, trained: Sequence[str], batches: Iterable[torch.Tensor], precision: Precision
) -> None:
    """Refuse a model that trains other parameters on another number of images.

    A traced graph asks for no number of images; a forward that runs at each step may.

    Args:
        model: a lane's.
        trained: names of the parameters that get a gradient from `SAMPLE` images.
        batches: images of each number that a step takes.
        precision: how it computes.

    Raises:
        NotPackable: it is one.
        Exception: whatever it raises.
    """
    for x_BCHW in batches:
        if Reference.of(model, x_BCHW, precision).trained != list(trained):
            raise NotPackable("the number of images decides which parameters it trains")


def _run(
    model: nn.Module,
    x_BCHW: torch.Tensor,
    precision: Precision,
    watch: Watch | None,
    evaluated: PassResult | None,
) -> tuple[PassResult, bool]:
    """Run a model once, on a copy of the images, and say whether its graph has an autograd function of its own.

    Args:
        model: see `Reference.of`.
        x_BCHW: likewise.
        precision: how it computes.
        watch: notes the code that runs.
        evaluated: what it gave in evaluation, now that it trains; None in evaluation.
    """
    training = evaluated is not None
    model.train(training)
    seeds.reseed(x_BCHW.device, seeds.stream(0, "trial"))
    try:
        with torch.set_grad_enabled(training), precision.forward(), watch or nullcontext():
            logits = model(x_BCHW.clone())
        buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
        if evaluated is not None:
            check_logits(logits, len(x_BCHW), evaluated.logits.shape[-1], training=True)
            with watch or nullcontext():
                logits.float().square().sum().backward()
            _check_buffers(model, buffers)
    finally:
        model.train()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None} if training else {}
    return PassResult(logits.detach(), gradients, buffers), _own_backward(logits)


def _check_buffers(model: nn.Module, before: Mapping[str, torch.Tensor]) -> None:
    """Refuse a model whose backward pass changes its buffers: a graph of its forward has nothing of that.

    Raises:
        TrainsAlone: it does.
    """
    for name, buffer in model.named_buffers():
        if name in before and not bool(((buffer == before[name]) | buffer.isnan()).all()):
            raise TrainsAlone(
                f"its backward pass changes {name}, as that of a batch norm inside torch.utils.checkpoint does"
            )


def _own_backward(result: torch.Tensor) -> bool:
    """Whether a function with a backward pass of its own is among what made a tensor.

    That of a checkpoint, which computes activations again in place of keeping them, is torch's.
    """
    waiting: list[Any] = [result.grad_fn]
    known: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in known:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            kind: Any = node
            if kind._forward_cls.__module__ != "torch.utils.checkpoint":
                return True
        known.add(node)
        waiting += [before for before, _ in node.next_functions]
    return False


@dataclass(frozen=True, slots=True, eq=False)
class Originals:
    """The lanes' own models, against which a network of lanes is held.

    Attributes:
        models: one for each lane, as its factory made it.
        images: a few of them, [B, C, H, W].
        precision: how they compute.
        references: what they make of these.
        more: gives the images of a step; None where there are no others.
        whole: likewise as many as the largest step takes.
    """

    models: Sequence[nn.Module]
    images: torch.Tensor
    precision: Precision
    references: Sequence[Reference]
    more: Callable[[], torch.Tensor] | None
    whole: Callable[[], torch.Tensor] | None = None
