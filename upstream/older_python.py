"""Syntax that SpeechBrain's linter does not take yet, written another way.

Its settings name Python 3.8, where a ``with`` statement has no parentheses
around its context managers.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
import re

_CLOSING = re.compile(rb"\s*,?\s*\)\s*:")


def bare_with(text: str) -> str:
    """Take the parentheses off context managers; their order stays.

    Arguments
    ---------
    text : str
        A Python module.

    Returns
    -------
    str
        The same program; lines may be long until it is formatted.

    Example
    -------
    >>> print(bare_with("with (\\n    open(a) as f,\\n    b(),\\n):\\n    pass"))
    with open(a) as f, b():
        pass
    >>> bare_with("with (a): pass")
    'with (a): pass'
    """
    source = text.encode("utf-8")
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    replacements = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.With):
            continue
        items = [_source(source, starts, item) for item in node.items]
        last = node.items[-1].optional_vars or node.items[-1].context_expr
        end = starts[last.end_lineno - 1] + last.end_col_offset
        begin = starts[node.lineno - 1] + node.col_offset
        closing = _CLOSING.match(source, end)
        several = len(items) > 1 or node.items[0].optional_vars
        if several and closing and source[begin:].startswith(b"with ("):
            header = b"with " + b", ".join(items) + b":"
            replacements.append((begin, closing.end(), header))
    for begin, end, header in sorted(replacements, reverse=True):
        source = source[:begin] + header + source[end:]
    return source.decode("utf-8")


def _source(source: bytes, starts: list[int], item: ast.withitem) -> bytes:
    """One context manager, as it is written."""

    def cut(node: ast.expr) -> bytes:
        begin = starts[node.lineno - 1] + node.col_offset
        return source[begin : starts[node.end_lineno - 1] + node.end_col_offset]

    if item.optional_vars is None:
        return cut(item.context_expr)
    return cut(item.context_expr) + b" as " + cut(item.optional_vars)
