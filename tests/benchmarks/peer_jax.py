"""The grid in JAX: the four trials of a batch size as one program by `jax.vmap`, an epoch as one `lax.scan`.

What one would write by hand to have what packs have.  Needs jax, which the tests do not install.

Shapes: K trials of a batch size, N images, B batch, S steps, Y classes.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tests.benchmarks.peer_loops import (
    EVALUATION_BATCH,
    NORMS,
    RATES,
    SEED,
    Outcome,
    Point,
    Work,
    network,
)

if TYPE_CHECKING:
    from pathlib import Path

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
BETAS, EPSILON = (0.9, 0.999), 1e-8


def work_on(batches: tuple[int, ...], folder: Path, epochs: int, subset: int | None) -> None:
    """Train the trials of some batch sizes in this process, one size after the other."""
    os.environ |= {"XLA_FLAGS": ONE_THREAD, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    work = Work.load(epochs=epochs, subset=subset)
    for batch in batches:
        for outcome in train_size(work, batch):
            outcome.write(folder)


def parameters() -> dict[str, np.ndarray]:
    """Return the network's initial weights as torch draws them for everybody's seed; kernels as [h, w, C, O]."""
    torch.manual_seed(SEED)
    found = {}
    for name, p in network().named_parameters():
        turned = p.permute(2, 3, 1, 0) if p.dim() == 4 else p.t() if p.dim() == 2 else p
        found[name.replace(".", "_")] = turned.detach().numpy().copy()
    return found


def train_size(work: Work, batch: int) -> list[Outcome]:
    """Train the trials of a batch size to their ends, side by side."""
    import jax
    import jax.numpy as jnp

    points = [Point(batch, lr, norm) for lr in RATES for norm in NORMS]
    began = time.time()
    images_N = jnp.asarray(work.images.astype(np.float32)[..., None] / 255)
    labels_N = jnp.asarray(work.labels.astype(np.int32))
    lr_K = jnp.asarray([p.lr for p in points])
    scale_K = jnp.asarray([1 / work.std if p.norm == "standard" else 1.0 for p in points])
    shift_K = jnp.asarray([-work.mean / work.std if p.norm == "standard" else 0.0 for p in points])
    weights = {k: jnp.broadcast_to(v, (len(points), *v.shape)) for k, v in parameters().items()}
    first, second = (jax.tree.map(jnp.zeros_like, weights) for _ in range(2))
    state = (weights, first, second, jnp.zeros((), jnp.int32))
    how = {"images_N": images_N, "labels_N": labels_N, "lr_K": lr_K, "scale_K": scale_K, "shift_K": shift_K}
    steps = jax.jit(partial(_steps, **how), donate_argnums=0)
    score = jax.jit(partial(_hits, **{k: v for k, v in how.items() if k != "lr_K"}))
    taken, validated, whole = 0, 0, len(work.split.train) // batch * batch
    hits_K, val_hits_K = np.zeros(len(points)), np.zeros(len(points))
    for _ in range(work.epochs):
        order = work.split.train[torch.randperm(len(work.split.train)).numpy()]
        parts = [order[:whole].reshape(-1, batch), order[whole:][None]]
        hits_K = np.zeros(len(points))
        for part in parts:
            if part.size:
                state, hit_K = steps(state, jnp.asarray(part))
                hits_K += np.asarray(hit_K)
                taken += len(part)
        val_hits_K = np.zeros(len(points))
        for start in range(0, len(work.split.val), EVALUATION_BATCH):
            chosen = work.split.val[start : start + EVALUATION_BATCH]
            val_hits_K += np.asarray(score(state[0], jnp.asarray(chosen)))
            validated += len(chosen)
    ended = time.time()
    return [
        Outcome(
            point=point,
            began=began,
            ended=ended,
            steps=taken,
            validated=validated,
            train_accuracy=float(hits_K[k]) / len(work.split.train),
            val_accuracy=float(val_hits_K[k]) / len(work.split.val),
        )
        for k, point in enumerate(points)
    ]


def _logits(w: Any, x_BHWC: Any, scale: Any, shift: Any) -> Any:
    """One trial's network."""
    import jax.numpy as jnp
    from jax import nn

    def pooled(x: Any, name: str) -> Any:
        kernel = w[f"{name}_weight"]
        side, rows, columns = len(kernel), x.shape[1], x.shape[2]
        # as one product: XLA makes a grouped convolution of a vmapped one, which took 20 times as long on a CPU
        shifted = [
            x[:, i : rows - side + 1 + i, j : columns - side + 1 + j]
            for i in range(side)
            for j in range(side)
        ]
        x = jnp.concatenate(shifted, -1) @ kernel.reshape(-1, kernel.shape[-1])
        x = nn.relu(x + w[f"{name}_bias"])
        batch, rows, columns, channels = x.shape
        return x.reshape(batch, rows // 2, 2, columns // 2, 2, channels).max((2, 4))

    x = pooled(pooled(x_BHWC * scale + shift, "conv1"), "conv2")
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)  # torch flattens channel by channel
    for name in ("fc1", "fc2"):
        x = nn.relu(x @ w[f"{name}_weight"] + w[f"{name}_bias"])
    return x @ w["out_weight"] + w["out_bias"]


def _loss(w: Any, x: Any, labels_B: Any, scale: Any, shift: Any) -> Any:
    import jax.numpy as jnp
    from jax import nn

    logits_BY = _logits(w, x, scale, shift)
    chosen_B = jnp.take_along_axis(nn.log_softmax(logits_BY), labels_B[:, None], 1)
    return -chosen_B.mean(), (logits_BY.argmax(1) == labels_B).sum()


def _steps(
    state: Any, order_SB: Any, *, images_N: Any, labels_N: Any, lr_K: Any, scale_K: Any, shift_K: Any
) -> Any:
    """Take a step of Adam for each row of indices; return the state and how many images were right."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    gradient = jax.vmap(jax.grad(_loss, has_aux=True), (0, None, None, 0, 0))

    def step(carried: Any, chosen_B: Any) -> Any:
        weights, first, second, count = carried
        grads, hits_K = gradient(weights, images_N[chosen_B], labels_N[chosen_B], scale_K, shift_K)
        count += 1
        first = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, first, grads)
        second = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, second, grads)

        def moved(p: Any, m: Any, v: Any) -> Any:
            rate = lr_K.reshape(-1, *(1,) * (p.ndim - 1)) / (1 - BETAS[0] ** count)
            return p - rate * m / (jnp.sqrt(v / (1 - BETAS[1] ** count)) + EPSILON)

        return (jax.tree.map(moved, weights, first, second), first, second, count), hits_K

    state, hits_SK = lax.scan(step, state, order_SB)
    return state, hits_SK.sum(0)


def _hits(weights: Any, chosen_B: Any, *, images_N: Any, labels_N: Any, scale_K: Any, shift_K: Any) -> Any:
    """Return how many images each trial has right."""
    import jax

    logits_KBY = jax.vmap(_logits, (0, None, 0, 0))(weights, images_N[chosen_B], scale_K, shift_K)
    return (logits_KBY.argmax(2) == labels_N[chosen_B]).sum(1)
