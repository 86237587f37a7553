"""What may be asked of a device's arithmetic is known without torch."""

from __future__ import annotations

import platform

import pytest

from gridsearch.records import dtypes
from gridsearch.records.dtypes import slow_dtypes

ZEN_3 = "processor\t: 0\nflags\t\t: fpu sse2 fma avx avx2 vaes\n"
ZEN_4 = "processor\t: 0\nflags\t\t: fpu sse2 fma avx avx2 avx512f avx512_bf16\n"


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """Take a text for what the system says of the processor."""

    def is_one(text):
        (tmp_path / "cpuinfo").write_text(text)

    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(dtypes, "_PROCESSOR", tmp_path / "cpuinfo")
    return is_one


def test_bfloat16_is_slow_where_the_processor_has_no_instructions_for_it(processor):
    processor(ZEN_3)
    assert "dtype=bfloat16: this processor has no instructions" in slow_dtypes(["bfloat16", "float32"], "cpu")
    assert not slow_dtypes(["float32", "float64"], "cpu")
    assert not slow_dtypes(["bfloat16"], "cuda:0")
    processor(ZEN_4)
    assert not slow_dtypes(["bfloat16"], "cpu")


def test_nothing_is_said_of_a_processor_that_is_not_known(processor, monkeypatch):
    assert not slow_dtypes(["bfloat16"], "cpu"), "there is no such file"
    processor("processor\t: 0\nmodel name\t: One\n")
    assert not slow_dtypes(["bfloat16"], "cpu")
    processor(ZEN_3)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not slow_dtypes(["bfloat16"], "cpu")
