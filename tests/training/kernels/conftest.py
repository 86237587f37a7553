"""Products of bfloat16 on any processor."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from gridsearch.training.kernels import batch_inner
from gridsearch.training.kernels.compiler import load

EMULATED = Path(__file__).with_name("emulated_narrow.h")


@functools.cache
def emulating_library(dtype):
    return load(batch_inner.SOURCE, {"DOUBLE": 0, "NARROW_FROM": f'"{EMULATED}"'})


@pytest.fixture
def bfloat16(monkeypatch):
    """Products of bfloat16, emulated where the processor has none."""
    if not batch_inner.multiplies_bfloat16():
        monkeypatch.setattr(batch_inner, "library_of", emulating_library)
        monkeypatch.setattr(batch_inner, "multiplies_bfloat16", lambda: True)
