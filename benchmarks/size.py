#!/usr/bin/env python3
"""How much there is to read: Python files, lines, lines of code.

A line of code is neither blank, nor a comment, nor part of a docstring.

> python benchmarks/size.py speechbrain_ee tests benchmarks

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import ast
import io
import tokenize
from pathlib import Path

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(source: str) -> int:
    """Lines of code of a module's source."""
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, _DOCUMENTED)
            and ast.get_docstring(node) is not None
        ):
            docstrings |= set(_span(node.body[0]))
    code = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def size(folder: Path) -> tuple[int, int, int]:
    """Files, lines, and lines of code of all modules in a folder."""
    sources = [path.read_text("utf-8") for path in folder.rglob("*.py")]
    lines = sum(len(source.splitlines()) for source in sources)
    return len(sources), lines, sum(map(code_lines, sources))


def _span(node: ast.stmt) -> range:
    return range(node.lineno, node.end_lineno + 1)


def main() -> None:
    """Print a row per folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    print(f"{'folder':<28} files   lines    code")
    for folder in parser.parse_args().folders:
        files, lines, code = size(folder)
        print(f"{str(folder):<28} {files:5} {lines:7} {code:7}")


if __name__ == "__main__":
    main()
