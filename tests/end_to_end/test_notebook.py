"""The notebook page runs from top to bottom; results and figures show in a notebook, whatever names hold."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import gridsearch as gs

PAGE = Path(__file__).parents[2] / "studies" / "notebook.md"


@pytest.mark.end_to_end
def test_every_cell_of_the_notebook_page_runs_and_no_figure_stays_open(tmp_path):
    cells = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(cells) >= 7
    # a cell's last line is shown as a notebook shows it
    script = "\n".join(
        [
            "import ast",
            "space = {}",
            "def show(value):",
            "    found = getattr(value, '_repr_html_', lambda: None)()",
            "    print('SHOWN', type(value).__name__, len(found or repr(value)) > 20)",
            f"for cell in {cells!r}:",
            "    tree = ast.parse(cell)",
            "    last = tree.body[-1]",
            "    code = compile(ast.Module(tree.body[:-1], []), 'cell', 'exec')",
            "    exec(code, space)",
            "    if isinstance(last, ast.Expr):",
            "        value = eval(compile(ast.Expression(last.value), 'cell', 'eval'), space)",
            "        if value is not None: show(value)",
            "    else:",
            "        exec(compile(ast.Module([last], []), 'cell', 'exec'), space)",
            "import sys",
            "assert 'matplotlib.pyplot' not in sys.modules or not sys.modules['matplotlib.pyplot'].get_fignums()",
        ]
    )
    (tmp_path / "cells.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "cells.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shown = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("SHOWN")]
    assert [kind for kind, _ in shown] == [
        "StudyResult",
        "DataFrame",
        "DataFrame",
        "Figure",
        "Figure",
        "tuple",
    ]
    assert all(long == "True" for _, long in shown)
    assert "images are classified wrongly" in done.stdout
    assert (tmp_path / "home" / "wide+narrow" / "index.html").exists()
    assert (tmp_path / "confusion.png").stat().st_size > 5_000


def test_every_command_line_option_of_a_comparison_has_its_argument():
    import inspect

    assert set(inspect.signature(gs.compare).parameters) == {"studies", "where", "by", "store", "home"}
