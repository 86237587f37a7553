"""Where a trial's random numbers come from: every stream is named, and follows from the trial's seed alone.

A stream's seed is a hash of (seed, name, index), so that it does not depend on the lane, the pack, the worker
or on what was drawn before: epoch 7's order can be drawn without drawing the six before it.

    weights     0       initial weights, drawn on the CPU whatever the device
    order       epoch   order of the training images
    augment     epoch   which images are flipped, shifted or erased, and how; the operations of randaugment
    mix         epoch   how the images of each batch are mixed
    augment/E   batch   what a user's own augmentation draws in epoch E
    optimizer   step    what a user's own optimizer draws
    step        step    what the model itself draws in training: dropout masks, a user's own noise
    evaluation  epoch   what the model itself draws in evaluation mode
    epoch       epoch   numpy's and Python's own generators, for models that draw from those

Of a cross-validation the folds of one seed have streams of their own (`lane_seed`): were they to begin with the same
weights, a lucky draw would count in all of them, and their mean would show as little as one network.
"""

from __future__ import annotations

import hashlib
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from gridsearch.records import ImageSettings

WEIGHTS = "weights"
ORDER = "order"
AUGMENT = "augment"
MIX = "mix"
OPTIMIZER = "optimizer"
STEP = "step"
EVALUATION = "evaluation"
EPOCH = "epoch"
FOLD = "fold"


def stream(seed: int, name: str, index: int = 0) -> int:
    """Return the 63-bit seed of one stream.

    Args:
        seed: the trial's seed (or a study's split seed).
        name: what is drawn.
        index: which epoch or step.
    """
    digest = hashlib.blake2b(f"{seed}/{name}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def lane_seed(settings: ImageSettings, seed: int) -> int:
    """Return the seed of a trial's streams: the trial's own, or one that its fold has of it."""
    return seed if settings.fold is None else stream(seed, FOLD, settings.fold)


def generator(seed: int, name: str, index: int = 0) -> torch.Generator:
    """Return a CPU generator at the start of one stream."""
    import torch

    return torch.Generator().manual_seed(stream(seed, name, index))


def reseed(device: torch.device, value: int) -> None:
    """Set torch's global generators, of the CPU and of the device, to a stream's seed.

    `torch.manual_seed` asks every backend in turn and takes 157 us here; this takes 1 us on a CPU, which is
    why it can be done at each step.
    """
    import torch

    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)


def reseed_others(value: int) -> None:
    """Set the global generators of Python and of numpy, for models that draw from them."""
    random.seed(value)
    np.random.seed(value % 2**32)


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Give torch's, numpy's and Python's global generators back as they were."""
    import torch

    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    own = _device_state(device)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(cpu)
        if device.type == "cuda" and own is not None:
            torch.cuda.set_rng_state(own, device)
        elif device.type == "mps" and own is not None:
            torch.mps.set_rng_state(own)


def _device_state(device: torch.device) -> torch.Tensor | None:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    if device.type == "mps":
        return torch.mps.get_rng_state()
    return None
