"""A trial as one would write it without this program: torch.optim, a loop, and the names of the streams."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gridsearch.training.seeds import stream
from gridsearch.training.splits import split

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

OPTIMIZERS = {
    "sgd": lambda p, s: torch.optim.SGD(
        p, s.lr, momentum=s.momentum, nesterov=s.nesterov, weight_decay=s.weight_decay
    ),
    "adam": lambda p, s: torch.optim.Adam(p, s.lr, weight_decay=s.weight_decay),
    "adamw": lambda p, s: torch.optim.AdamW(p, s.lr, weight_decay=s.weight_decay),
    "nadam": lambda p, s: torch.optim.NAdam(p, s.lr, weight_decay=s.weight_decay),
    "rmsprop": lambda p, s: torch.optim.RMSprop(p, s.lr, weight_decay=s.weight_decay),
}


@dataclass
class Plain:
    """What a plain loop makes of a trial: epochs' mean losses in training and validation, and logits of the validation images at the end."""

    losses: list[float]
    val_losses: list[float]
    logits: torch.Tensor
    state: dict[str, torch.Tensor]


def train_plainly(
    build: Callable[[], nn.Module],
    settings,
    seed: int,
    images,
    *,
    nudge: float = 0.0,
    nudge_seed: int = 0,
    dtype: torch.dtype = torch.float64,
    rounds: bool = False,
    channels_last: bool = False,
) -> Plain:
    """Train, evaluating after each epoch as a user's loop would.

    Args:
        build: makes the model.
        settings: the trial's recipe; of what may be in one, the keys that are read here.
        seed: of its streams.
        images: of the dataset.
        nudge: how far each number of the images and of the modules' results is moved, at random and as a share of it:
            what another order of sums may do.  A nudge of the images alone shows less: a layer over padding sees none of
            them, and what cancels exactly still does.
        nudge_seed: of the draw.
        dtype: of all numbers.
        rounds: under autocast to bfloat16.
        channels_last: the layout of maps, in whose order torch draws dropout masks.
    """
    parts = split(images.train_labels, val=settings.val, split_seed=settings.split_seed)
    pixels = images.train_images.astype(np.float64) / 255
    if settings.norm == "standard":
        own = pixels[parts.train]
        pixels = (pixels - own.mean((0, 2, 3), keepdims=True)) / own.std((0, 2, 3), keepdims=True)
    x, y = torch.from_numpy(pixels).to(dtype), torch.from_numpy(images.train_labels)
    train, val = torch.from_numpy(parts.train), torch.from_numpy(parts.val)
    reseed(stream(seed, "weights"))
    torch.default_generator.manual_seed(stream(seed, "weights"))
    # not `to`, which would make real numbers of complex ones
    model = build()._apply(lambda t: t.to(dtype) if t.is_floating_point() else t)
    model._apply(lambda t: t.to(torch.complex128) if t.is_complex() else t)
    model = model.to(memory_format=torch.channels_last) if channels_last else model

    def laid_out(images: torch.Tensor) -> torch.Tensor:
        """Images of one channel, too, say by their strides how they lie."""
        rows = images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
        return rows.permute(0, 3, 1, 2) if channels_last else images

    if any(torch.nn.parameter.is_lazy(p) for p in model.parameters()):
        model.eval()
        model(x[train[:2]])
    x = with_nudges(model, nudge, nudge_seed)(x)
    optimizer = OPTIMIZERS[settings.optimizer](model.parameters(), settings)
    weights, single = class_weights(settings, y[train], len(images.class_names), dtype), has_batch_norm(model)
    losses, val_losses, states, step = [], [], [], 0
    for epoch in range(1, settings.epochs + 1):
        order = torch.randperm(
            len(train), generator=torch.Generator().manual_seed(stream(seed, "order", epoch))
        )
        reseed(stream(seed, "epoch", epoch))
        model.train()
        total, seen = 0.0, 0
        for chosen in train[order].split(settings.batch):
            if single and len(chosen) == 1 < settings.batch:
                continue
            torch.default_generator.manual_seed(stream(seed, "step", step))
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=rounds):
                logits = model(laid_out(x[chosen]))
            loss = F.cross_entropy(
                logits.to(dtype), y[chosen], weights, label_smoothing=settings.label_smoothing
            )
            loss.backward()
            if settings.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            if settings.ema:
                states.append({n: t.clone() for n, t in model.state_dict().items()})
            total += loss.item() * len(chosen)
            seen += len(chosen)
            step += 1
        losses.append(total / seen)
        torch.default_generator.manual_seed(stream(seed, "evaluation", epoch))
        evaluated = averaged(states, settings.ema) if settings.ema else {}
        with torch.autocast("cpu", torch.bfloat16, enabled=rounds):
            logits = logits_of(model, evaluated, laid_out(x[val])).to(dtype)
        val_losses.append(F.cross_entropy(logits, y[val]).item())
    return Plain(losses, val_losses, logits, {n: t.clone() for n, t in model.state_dict().items()})


def with_nudges(model: nn.Module, share: float, seed: int) -> Callable[[Any], Any]:
    """Move all that modules give by a share of it, and return what does so."""
    drawing = torch.Generator().manual_seed(seed)

    def nudged(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not share:
            return value
        return value * (
            1 + share * torch.randn(value.shape, generator=drawing, dtype=torch.float64).to(value)
        )

    for module in model.modules() if share else ():
        module.register_forward_hook(lambda _, __, result: nudged(result))
    return nudged


def logits_of(model: nn.Module, state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Evaluate a model with other tensors, if some are given; else nothing of it is touched."""
    own = {n: t.clone() for n, t in model.state_dict().items()} if state else {}
    if state:
        model.load_state_dict(state)
    model.eval()
    with torch.no_grad():
        logits = model(x)
    if state:
        model.load_state_dict(own)
    return logits


def class_weights(settings, labels: torch.Tensor, classes: int, dtype: torch.dtype) -> torch.Tensor | None:
    """Weights that make classes count alike, if the recipe asks for them."""
    if settings.class_weight != "balanced":
        return None
    counts = torch.bincount(labels, minlength=classes).double()
    return (len(labels) / (classes * counts)).to(dtype)


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules())


def averaged(states: list[dict[str, torch.Tensor]], ema: float) -> dict[str, torch.Tensor]:
    """The states of all steps, each weighted by ema^(steps since); what is no fraction is the last one's."""
    shares = torch.tensor([ema ** (len(states) - 1 - i) for i in range(len(states))], dtype=torch.float64)
    found = {}
    for name, last in states[-1].items():
        found[name] = last
        if last.is_floating_point():
            all_states = torch.stack([state[name].double() for state in states])
            weighted = torch.tensordot(shares / shares.sum(), all_states, 1)
            found[name] = weighted.to(last.dtype)
    return found


def reseed(value: int) -> None:
    random.seed(value)
    np.random.seed(value % 2**32)
