"""The file of networks that tests of executors train."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.executors.worker_nets import NETS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def nets(tmp_path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(textwrap.dedent(NETS))
    return path
