"""A trial as one would write it without this program: torch.optim, a loop, and the names of the streams."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    build: Callable[[], nn.Module], settings, seed: int, images, *, nudge: float = 0.0
) -> Plain:
    """Train in float64, evaluating after each epoch as a user's loop would; all pixels nudged by a share of them."""
    parts = split(images.train_labels, val=settings.val, split_seed=settings.split_seed)
    pixels = images.train_images.astype(np.float64) / 255
    if settings.norm == "standard":
        own = pixels[parts.train]
        pixels = (pixels - own.mean((0, 2, 3), keepdims=True)) / own.std((0, 2, 3), keepdims=True)
    x, y = torch.from_numpy(pixels * (1 + nudge)), torch.from_numpy(images.train_labels)
    train, val = torch.from_numpy(parts.train), torch.from_numpy(parts.val)
    reseed(stream(seed, "weights"))
    torch.manual_seed(stream(seed, "weights"))
    model = build().double()
    model._apply(lambda t: t.to(torch.complex128) if t.is_complex() else t)
    if any(torch.nn.parameter.is_lazy(p) for p in model.parameters()):
        model.eval()
        model(x[train[:2]])
    optimizer = OPTIMIZERS[settings.optimizer](model.parameters(), settings)
    losses, val_losses, step = [], [], 0
    for epoch in range(1, settings.epochs + 1):
        order = torch.randperm(
            len(train), generator=torch.Generator().manual_seed(stream(seed, "order", epoch))
        )
        reseed(stream(seed, "epoch", epoch))
        model.train()
        total = 0.0
        for chosen in train[order].split(settings.batch):
            torch.manual_seed(stream(seed, "step", step))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[chosen]), y[chosen], label_smoothing=settings.label_smoothing)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen)
            step += 1
        losses.append(total / len(train))
        torch.manual_seed(stream(seed, "evaluation", epoch))
        model.eval()
        with torch.no_grad():
            logits = model(x[val])
        val_losses.append(F.cross_entropy(logits, y[val]).item())
    return Plain(losses, val_losses, logits, {n: t.clone() for n, t in model.state_dict().items()})


def reseed(value: int) -> None:
    random.seed(value)
    np.random.seed(value % 2**32)
