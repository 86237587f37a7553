"""Measures the code base: ``python -m tests.architecture.size [ROOT]``.

Code lines are lines with a token that is neither a comment nor part of a docstring.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from pathlib import Path

_SILENT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.ENCODING,
}  # fmt: skip


def docstring_lines(tree: ast.AST) -> set[int]:
    """The lines of all docstrings, those of attributes included."""
    found = set()
    for node in ast.walk(tree):
        for statement in getattr(node, "body", None) if isinstance(getattr(node, "body", None), list) else ():
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                found |= set(range(statement.lineno, statement.end_lineno + 1))
    return found


def measure(source: str) -> tuple[int, int, list[int]]:
    """Code lines, docstring lines, and the length of each function in code lines."""
    tree = ast.parse(source)
    documented = docstring_lines(tree)
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _SILENT:
            code |= set(range(token.start[0], token.end[0] + 1))
    code -= documented
    functions = [
        len(code & set(range(node.lineno, node.end_lineno + 1)))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return len(code), len(documented), functions


def spread(values: list[int]) -> str:
    """Median, 90 % quantile and maximum."""
    return f"median {statistics.median(values):g}, p90 {sorted(values)[int(0.9 * len(values))]}, max {max(values)}"


def main(root: Path) -> None:
    """Print what the package under a root measures."""
    sources = [path.read_text() for path in sorted((root / "gridsearch").rglob("*.py"))]
    measured = [measure(source) for source in sources]
    print(f"code lines      {sum(code for code, _, _ in measured):,}")
    print(f"docstring lines {sum(lines for _, lines, _ in measured):,}")
    print(f"modules         {len(sources)}: {spread([source.count(chr(10)) for source in sources])} lines")
    lengths = [length for _, _, functions in measured for length in functions]
    print(f"functions       {len(lengths):,}: {spread(lengths)} code lines")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2])
