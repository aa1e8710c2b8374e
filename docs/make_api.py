"""The reference of the library, made from its docstrings.

    python docs/make_api.py build/api

One page per room with every public module, class and function; ``README.md``
lists the modules; ``criteria.md`` is the register of criteria. Pages are read
off the source, nothing but the register is imported.

Authors
 * The speechbrain-ee contributors 2026
"""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

from speechbrain_ee.exits.criteria import (
    criterion_names,
    get_criterion,
    measure_names,
)

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "speechbrain_ee"
SECTIONS = ("Arguments", "Returns", "Raises", "Yields", "Example")
Definition = ast.ClassDef | ast.FunctionDef


def modules() -> dict[str, Path]:
    """Every public module by its dotted name, in the order of the names."""
    found = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not any(part.startswith("_") for part in parts[1:-1]):
            name = ".".join(parts).removesuffix(".__init__")
            found[name] = path
    return found


def room_of(module: str) -> str:
    """The page that a module stands on."""
    parts = module.split(".")
    single = len(parts) == 2 and not (LIBRARY / parts[1]).is_dir()
    return "speechbrain_ee" if single or len(parts) == 1 else parts[1]


def summary(docstring: str | None) -> str:
    """The first paragraph on one line."""
    return " ".join((docstring or "").split("\n\n")[0].split())


def markdown(docstring: str) -> str:
    """A numpydoc docstring: sections in bold, arguments as lists."""
    lines, section = [], ""
    source = docstring.split("\nAuthors\n")[0].rstrip().splitlines()
    for place, line in enumerate(source):
        below = source[place + 1] if place + 1 < len(source) else ""
        if set(line.strip()) == {"-"}:
            continue
        if line in SECTIONS and set(below.strip()) == {"-"}:
            if section == "Example":
                lines.append("```")
            section = line
            lines += [f"**{line}**", ""]
            if section == "Example":
                lines.append("```python")
        elif section and section != "Example" and line[:1].strip():
            name, _, kind = line.partition(" : ")
            lines.append(f"- `{name}`" + (f" ({kind})" if kind else ""))
        else:
            lines.append(line)
    if section == "Example":
        lines.append("```")
    text = "\n".join(lines)
    # references to other names, and literals, as code
    return re.sub(r":\w+:`~?([^`<]+)(?: <[^`]*>)?`|``(.+?)``", _code, text)


def _code(match: re.Match[str]) -> str:
    return f"`{(match[1] or match[2]).strip()}`"


def definitions(scope: ast.AST) -> Iterator[Definition]:
    """Public classes and functions that stand in a module or class."""
    for node in getattr(scope, "body", ()):
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node


def entry(node: Definition, level: int, prefix: str = "") -> Iterator[str]:
    """A class with its methods, or a function."""
    kind = "class" if isinstance(node, ast.ClassDef) else "def"
    marks = [ast.unparse(mark) for mark in node.decorator_list]
    heading = f"{kind} {prefix}{node.name}"
    if kind == "def" and "property" not in marks:
        heading += f"({ast.unparse(node.args)})"
    if kind == "def" and node.returns is not None:
        heading += f" -> {ast.unparse(node.returns)}"
    yield f"{'#' * level} `{heading}`\n"
    yield markdown(ast.get_docstring(node) or "") + "\n"
    if kind == "class":
        for inner in definitions(node):
            yield from entry(inner, level + 1, f"{node.name}.")


def module_pages() -> dict[str, str]:
    """Text of every page by its name, and of the list of modules."""
    rooms: dict[str, list[str]] = {}
    index = ["# Reference\n", "[All criteria](criteria.md)\n"]
    for name, path in modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstring = ast.get_docstring(tree) or ""
        room = room_of(name)
        if room not in rooms:
            rooms[room] = [f"# {room}\n"]
            index.append(f"\n## [{room}]({room}.md)\n")
        index.append(f"- `{name}`: {summary(docstring)}")
        rooms[room] += [f"## `{name}`\n", markdown(docstring) + "\n"]
        for node in definitions(tree):
            rooms[room] += entry(node, level=3)
    pages = {name: "\n".join(lines) for name, lines in rooms.items()}
    return {**pages, "README": "\n".join(index), "criteria": criteria_page()}


def criteria_page() -> str:
    """The register of criteria as a table."""
    lines = ["# Criteria\n", "| name | formula | reads | source |"]
    lines.append("|---|---|---|---|")
    for name in criterion_names():
        one = get_criterion(name)
        reads = ", ".join(f"`{need}`" for need in one.needs)
        cells = (f"`{name}`", f"`{one.formula}`", reads, one.source)
        lines.append(
            f"| {' | '.join(c.replace('|', chr(92) + '|') for c in cells)} |"
        )
    only = [n for n in measure_names() if n not in criterion_names()]
    lines.append(f"\nMeasures that other criteria read: {', '.join(only)}.")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Write all pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the pages")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    for name, text in module_pages().items():
        (out / f"{name}.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
