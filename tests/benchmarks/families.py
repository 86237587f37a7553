"""Time of a pooled convolution's two compiled forms, and what a wrong choice between them would cost.

    python -m tests.benchmarks.families [--seconds S] [--name NAME]

One thread; for each shape and number of images both forms of a convolution with ReLU and max pooling take turns,
forwards and backwards, and the shortest of a pass's times counts.  Written to results/families.json with what `families`
would choose by its formula, and what some starts would that measure for as long as `choices` does; a test holds the formula
against the times.  What a compiler makes without the widest vectors is measured with `CC="gcc -mno-avx512f"`.  Printed besides is how long each form takes for a product of
vectors that its formula counts: the median over shapes, from which the factors in `families` come.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import TYPE_CHECKING, Any

import torch

from gridsearch.training import devices
from gridsearch.training.kernels import batch_inner, choices, families, small_ops
from gridsearch.training.kernels.op_timing import fastest, passes
from gridsearch.training.kernels.stages import Conv, MaxPool, Relu
from tests.benchmarks.measure import write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridsearch.training.kernels.op import Op
    from gridsearch.training.kernels.stages import Shape

IMAGES = (10, 32, 100)
STARTS = 5
SHAPES = (  # channels in and out, side of the kernel, padding, side of the image
    (1, 6, 5, 0, 28),
    (6, 12, 5, 0, 12),
    (1, 12, 5, 0, 28),
    (12, 24, 5, 0, 12),
    (10, 10, 3, 1, 28),
    (10, 10, 3, 1, 14),
    (32, 32, 3, 0, 26),
    (3, 6, 5, 0, 32),
    (6, 16, 5, 0, 14),
    (16, 32, 3, 1, 14),
    (32, 64, 3, 1, 14),
    (1, 32, 3, 1, 28),
    (1, 16, 3, 1, 28),
)


def stages_of(shape: Sequence[int]) -> tuple[list[Any], Shape]:
    """Return the stages of a shape, and what comes in."""
    channels, outputs, side, padding, pixels = shape
    conv = Conv(channels, outputs, (side, side), padding=(padding, padding))
    return [conv, MaxPool((2, 2), (2, 2)), Relu()], (channels, pixels, pixels)


def title(shape: Sequence[int], images: int) -> str:
    """Return the name of a shape with a number of images."""
    channels, outputs, side, padding, pixels = shape
    return f"{channels} -> {outputs}, {side}x{side} padded by {padding}, {pixels} px, {images} images"


def forms_of(shape: Sequence[int]) -> tuple[Op, Op]:
    """Return both forms."""
    stages, given = stages_of(shape)
    pooled, inner = (family.cover(stages, given, torch.float32) for family in (small_ops, batch_inner))
    assert pooled is not None and inner is not None, "no compiler"
    return pooled[0], inner[0]


def measure(shape: Sequence[int], images: int, seconds: float) -> dict[str, float]:
    """Return microseconds an image of each form's passes."""
    stages, given = stages_of(shape)
    calls = {}
    for name, op in zip((families.POOLED, families.INNER), forms_of(shape), strict=True):
        made = passes(op, stages, given, images, torch.float32, input_grad=shape[0] > 1)
        calls |= {f"{name}, {which}": call for which, call in made.items()}
    return {name: 1e6 * spent / images for name, spent in fastest(calls, seconds).items()}


def first_starts(shape: Sequence[int], images: int) -> list[str]:
    """Return what each of some starts that find nothing kept would choose by measuring."""
    stages, given = stages_of(shape)
    found = []
    for _ in range(STARTS):
        calls = families.timed_forms(
            forms_of(shape), stages, given, images, torch.float32, input_grad=shape[0] > 1
        )
        found.append(choices.compare(calls)[0] or chosen(shape, images))
    return found


def lost(rows: dict[str, Any], which: str) -> list[float]:
    """Return for each case what a choice costs, as a share of the faster form's time."""
    found = []
    for row in rows.values():
        times = {
            form: row[f"{form}, forward"] + row[f"{form}, backward"]
            for form in (families.POOLED, families.INNER)
        }
        picked = row[which] if isinstance(row[which], list) else [row[which]]
        found.append(statistics.fmean(times[form] for form in picked) / min(times.values()) - 1)
    return found


def chosen(shape: Sequence[int], images: int) -> str:
    """Return which form `families` chooses."""
    stages, given = stages_of(shape)
    wants = shape[0] > 1
    pooled, inner = families.form_costs(stages, given, torch.float32, images, input_grad=wants)
    return families.POOLED if pooled < inner else families.INNER


def factors(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the nanoseconds that a counted product of vectors takes, by form and pass: the medians."""
    each: dict[str, list[float]] = {}
    for shape in SHAPES:
        for images in IMAGES:
            stages, given = stages_of(shape)
            pooled, inner = families.products(stages, given, torch.float32, images, input_grad=shape[0] > 1)
            times = found[title(shape, images)]
            few = ", one channel" if shape[0] == 1 else ""
            for name, counts in (("pooled", pooled), ("images innermost", inner)):
                for which, count in zip(("forward", "backward"), counts, strict=True):
                    own = few if name != "pooled" else ""
                    each.setdefault(f"{name}, {which}{own}", []).append(
                        1e3 * times[f"{name}, {which}"] / count
                    )
    return {name: statistics.median(values) for name, values in each.items()}


def main(words: list[str]) -> None:
    """Measure all shapes and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="for each shape and number of images")
    parser.add_argument("--name", default="families", help="of the result")
    options = parser.parse_args(words)
    devices.prepare_process(threads=1)
    found = {title(s, n): measure(s, n, options.seconds) for s in SHAPES for n in IMAGES}
    rows: dict[str, Any] = {}
    for shape in SHAPES:
        for images in IMAGES:
            name = title(shape, images)
            times = {k: round(v, 3) for k, v in found[name].items()}
            rows[name] = {**times, "chosen": chosen(shape, images), "measured": first_starts(shape, images)}
    costs = {which: lost(rows, which) for which in ("chosen", "measured")}
    said = {
        "lost by the formula": {"mean": statistics.fmean(costs["chosen"]), "most": max(costs["chosen"])},
        "lost by measuring": {"mean": statistics.fmean(costs["measured"]), "most": max(costs["measured"])},
        "cases where starts disagree": sum(len(set(row["measured"])) > 1 for row in rows.values()),
    }
    for what, figure in said.items():
        print(what, figure)
    write(options.name, {"unit": "us an image", "ns a product of vectors": factors(found), **said, **rows})


if __name__ == "__main__":
    main(sys.argv[1:])
