"""How much arithmetic training is, and how much of it this machine can do: the two sides of the share reached."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

_RATE = """
import sys, time, torch
torch.set_num_threads(1)
a, b = (torch.rand(1024, 1024).to(getattr(torch, sys.argv[3])) for _ in range(2))
libraries = {"torch": torch.matmul}
if torch.backends.mkldnn.is_available():
    libraries["onednn"] = lambda a, b: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
def measure(product, count):
    rates = []
    for _ in range(count):
        began = getattr(time, sys.argv[2])()
        product(a, b)
        rates.append(2 * 1024**3 / (getattr(time, sys.argv[2])() - began) / 1e9)
    return rates
rates = {name: sorted(measure(product, 10))[5] for name, product in libraries.items()}
chosen = max(rates, key=rates.get) if sys.argv[4] == "faster" else sys.argv[4]
print(*measure(libraries[chosen], int(sys.argv[1])))
"""


def matrix_rates(
    n: int = 50,
    *,
    processes: int = 1,
    clock: str = "perf_counter",
    dtype: str = "float32",
    library: str = "faster",
) -> list[float]:
    """GFLOP/s of each of n products of 1024 x 1024 matrices, one thread, in each of some processes at once.

    They are processes of their own, so that neither threads nor allocator of the caller matter.  `clock` is a
    function of `time`, `dtype` a type of torch.  `library` is "torch" for what it takes for a product, "onednn", or the
    "faster" of the two: torch multiplies float32 by MKL, which reaches half of what some processors can.
    """
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _RATE, str(n), clock, dtype, library], stdout=subprocess.PIPE, text=True
        )
        for _ in range(processes)
    ]
    rates = []
    for process in started:
        out, _ = process.communicate()
        assert process.returncode == 0
        rates += [float(word) for word in out.split()]
    return rates


def training_flops(batch: int = 100) -> float:
    """FLOPs per image of a LeNet's training step; see `model_flops`."""
    from tests.benchmarks.peer_loops import network

    return model_flops(network(), batch)


def model_flops(model: nn.Module, batch: int, image: tuple[int, int, int] = (1, 28, 28)) -> float:
    """FLOPs per image [C, H, W] of a training step: forward and backward, without a gradient for the images.

    Counted by `torch.utils.flop_counter`, which counts convolutions and matrix products at two FLOPs a
    multiply-add; pooling, activations, norms, the loss and the optimizer count nothing.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812  (its usual name)
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _backward_flops}
    )
    recurs = any(isinstance(module, torch.nn.RNNBase) for module in model.modules())
    with warnings.catch_warnings(), counter:
        warnings.filterwarnings("ignore", "TF32 acceleration")  # the flags speak of GPUs
        # a recurrent layer of oneDNN is one operation, of which nothing is counted; torch's own are products
        own_layers = torch.backends.mkldnn.flags(enabled=False) if recurs else contextlib.nullcontext()
        with own_layers:
            logits_BY = model(torch.zeros(batch, *image))
            F.cross_entropy(logits_BY, torch.zeros(batch, dtype=torch.int64)).backward()
    return counter.get_total_flops() / batch


def _backward_flops(
    gradient: Sequence[int], images: object, weight: Sequence[int], *options: Any, out_shape: object = None
) -> int:
    """FLOPs of a convolution's backward pass, given shapes; torch's own count takes no notice of groups."""
    del images, out_shape
    output_mask = options[7]
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * sum(output_mask[:2])
