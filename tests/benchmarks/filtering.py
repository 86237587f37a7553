"""Time of each pass of 3x3 convolutions tap by tap and by minimal filtering, and what the choice between them costs.

    python -m tests.benchmarks.filtering [--seconds S] [--name NAME] [--dtype bfloat16]

One thread; for each shape and batch both forms of a pass take turns, and the shortest of their times counts.  Written to
results/filtering.json; a test holds the formula of `filtered_passes` against them.  What a compiler makes without the widest vectors is measured with
`CC="gcc -mno-avx512f"`.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import torch

from gridsearch.training.kernels import filtered_passes
from gridsearch.training.kernels.minimal_filtering import PASSES
from gridsearch.training.kernels.op_timing import fastest
from gridsearch.training.kernels.stages import Conv
from tests.benchmarks.measure import write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gridsearch.training.kernels.stages import Shape

IMAGES = (16, 64)
CHANNELS = ((8, 8), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (128, 128), (256, 256))
MAPS = ((2, 1), (3, 1), (4, 1), (6, 1), (7, 1), (8, 1), (12, 0), (16, 1), (26, 0))  # side and padding
MOST = 4e9
"""Products of a batch."""


def cases() -> Iterator[tuple[str, Conv, Shape, int]]:
    """Yield the name of each case, its convolution, the shape of an image and the images of a batch."""
    for channels, outputs in CHANNELS:
        for side, padding in MAPS:
            for images in IMAGES:
                if 9 * channels * outputs * side * side * images < MOST:
                    conv = Conv(channels, outputs, (3, 3), padding=(padding, padding))
                    name = f"{channels} -> {outputs}, padded by {padding}, {side} px, {images} images"
                    yield name, conv, (channels, side, side), images


def measure(
    conv: Conv, shape: Shape, images: int, seconds: float, *, bf16: bool
) -> dict[str, dict[str, float]]:
    """Return the microseconds of each form, by pass."""
    found = {}
    for which in PASSES:
        forms = filtered_passes.forms(which, conv, shape, torch.float32, images, bf16=bf16)
        least = fastest(forms, seconds / len(PASSES))
        found[which] = {form: round(1e6 * each, 1) for form, each in least.items()}
    return found


def main(words: Sequence[str]) -> None:
    """Measure all shapes and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="for each shape")
    parser.add_argument("--name", default="filtering")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    write(
        options.name,
        {name: measure(*case, options.seconds, bf16=options.dtype == "bfloat16") for name, *case in cases()},
    )


if __name__ == "__main__":
    main(sys.argv[1:])
