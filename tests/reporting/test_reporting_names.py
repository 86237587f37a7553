"""Reporting as a package: its public names, which import nothing heavy before they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.thorough


def test_importing_reporting_imports_nothing_heavy():
    code = (
        "import sys, gridsearch.reporting as r; r.rank, r.report_json, r.print_ranking, r.write_report, r.filter_data;"
        "heavy = {'pandas', 'matplotlib', 'seaborn', 'jinja2', 'tensorboard', 'torch', 'scipy', 'rich'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_of_reporting_is_found_and_an_unknown_one_is_not():
    from gridsearch import reporting

    assert reporting.__all__ == sorted(reporting.__all__)
    assert all(getattr(reporting, name) for name in reporting.__all__)
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = reporting.nothing
