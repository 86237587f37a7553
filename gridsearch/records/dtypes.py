"""Which arithmetic a recipe's `dtype` may ask of which device; without torch, to be asked before anything runs."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from gridsearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

DTYPES = ("float32", "float64", "bfloat16", "tf32")

_MULTIPLIES = ("avx512f", "amx_bf16", "avx_ne_convert")
"""Flags of /proc/cpuinfo of x86 processors for which torch has fast code for products of bfloat16.

oneDNN has none for those without AVX-512 or AVX2-VNNI-2: there it computes one number after the other.
"""


_PROCESSOR = Path("/proc/cpuinfo")


def require_dtypes(names: Iterable[str], device: str) -> None:
    """Refuse arithmetic that a kind of device cannot do.

    Args:
        names: the recipe's words.
        device: as torch writes it: "cpu", "cuda:0", "mps".

    Raises:
        UsageError: the first that it cannot, or that there is no such.
    """
    kind = device.partition(":")[0]
    for name in names:
        if name not in DTYPES:
            raise UsageError(f"dtype={name}: unknown", hint=f"use one of {', '.join(DTYPES)}")
        if name == "tf32" and kind != "cuda":
            raise UsageError(f"dtype=tf32: not on {kind}", hint="use float32, or a CUDA device")
        if name == "float64" and kind == "mps":
            raise UsageError("dtype=float64: not on mps", hint="use float32, or --device cpu")


def slow_dtypes(names: Iterable[str], device: str) -> str:
    """Return what to say of arithmetic for which this machine has no fast instructions; "" where there is none."""
    if device != "cpu" or "bfloat16" not in names or _multiplies_bfloat16():
        return ""
    return (
        "dtype=bfloat16: this processor has no instructions for it, so training takes several times as long as "
        "with dtype=float32"
    )


def _multiplies_bfloat16() -> bool:
    """Whether torch multiplies bfloat16 at the rate of float32 or faster here; True where it is not known."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    try:
        lines = _PROCESSOR.read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return flags is None or not set(flags).isdisjoint(_MULTIPLIES)
