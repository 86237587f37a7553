"""C compilers: a mark for tests that need one, and one that compiles something else."""

from __future__ import annotations

import stat

import pytest

from gridsearch.training.kernels import find_compiler

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="needs a C compiler")


def wrapped(tmp_path, *more):
    """Return a compiler that gets these words besides."""
    script = tmp_path / "other-cc"
    script.write_text(f'#!/bin/sh\nexec cc "$@" {" ".join(more)}\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)
