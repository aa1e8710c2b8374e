"""The rules of the house, checked by machine.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "speechbrain_ee"
CODE_FOLDERS = (
    "speechbrain_ee",
    "recipes",
    "benchmarks",
    "docs",
    "upstream",
    "tests",
)
TEXT_FOLDERS = (*CODE_FOLDERS, "hparams")
TEXT_SUFFIXES = {".py", ".md", ".yaml", ".cfg", ".toml", ".txt", ".csv", ".cff"}
MAX_LINES = 800  # 150 to 700 is normal

# A room may import the rooms above it in this list, never those below.
# `evaluation` stands before `training`: the hook that evaluates after training
# is a part of training, while a trace is evaluated where nothing is trained.
ROOMS = (
    "data",
    "models",
    "exits",
    "evaluation",
    "training",
    "inference",
    "sweeps",
    "__main__",
)
# Single modules that any room may import and that import no room.
FOUNDATION = {"errors", "files", "schema"}


def python_files(*folders: str) -> list[Path]:
    """Python files of some folders; a symlinked folder is not entered."""
    found = []
    for folder in folders:
        found += sorted((ROOT / folder).rglob("*.py"))
    return found


def name_of(path: Path) -> str:
    """The name of a file in test ids and messages."""
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def public_definitions(
    scope: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.AST]]:
    """Public classes, functions and methods; not functions in functions."""
    for node in getattr(scope, "body", []):
        if isinstance(node, ast.If | ast.Try):
            yield from public_definitions(node, prefix)
        if not isinstance(
            node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ):
            continue
        if node.name.startswith("_"):
            continue
        yield prefix + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from public_definitions(node, f"{prefix}{node.name}.")


def missing_annotations(function: ast.FunctionDef) -> list[str]:
    """Arguments without a type; `return` where the result has none."""
    spec = function.args
    everything = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
    everything += [each for each in (spec.vararg, spec.kwarg) if each]
    missing = [
        each.arg
        for each in everything
        if each.annotation is None and each.arg not in ("self", "cls")
    ]
    return missing if function.returns else [*missing, "return"]


def room_of(module: str) -> str | None:
    """The room of a module of the library; None for the foundation."""
    parts = module.split(".")
    if parts[0] != "speechbrain_ee" or len(parts) == 1:
        return None
    if parts[1] in FOUNDATION:
        return None
    assert parts[1] in ROOMS, (
        f"{module}: new room; give it a place in ROOMS of {Path(__file__).name}"
    )
    return parts[1]


def module_name(path: Path) -> str:
    """The dotted name of a file of the library."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Dotted names that a file imports, lazily or not, absolute."""
    package = path.relative_to(ROOT).parent.parts
    names = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            origin = ".".join(base) if node.level else ""
            stem = ".".join(part for part in (origin, node.module) if part)
            names |= {f"{stem}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", python_files("speechbrain_ee"), ids=name_of)
def test_imports_point_one_way(path):
    """No room imports a later one, nor a recipe, a test or a benchmark."""
    own = room_of(module_name(path))
    rank = ROOMS.index(own) if own else -1
    for name in imports_of(path):
        root = name.partition(".")[0]
        assert root not in ("recipes", "tests", "benchmarks", "train"), name
        if root != "speechbrain_ee":
            continue
        second = name.split(".")[1]
        if second.startswith("__") and second not in ROOMS:
            continue  # an attribute such as speechbrain_ee.__version__
        room = room_of(name)
        if room is not None:
            assert ROOMS.index(room) <= rank, f"{own} must not import {name}"


@pytest.mark.parametrize("path", python_files(*CODE_FOLDERS), ids=name_of)
def test_module_says_what_it_is(path):
    """A docstring with the authors; a length that can be read."""
    docstring = ast.get_docstring(parse(path)) or ""
    assert docstring, "a module starts with what it is"
    authors = "Authors\n * The speechbrain-ee contributors"
    if path.name != "__init__.py" or path.parent == LIBRARY:
        assert authors in docstring
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines < MAX_LINES, f"{lines} lines: a file is one concept, whole"


@pytest.mark.parametrize("path", python_files("speechbrain_ee"), ids=name_of)
def test_public_names_are_documented_and_typed(path):
    """Docstring on every public name, types on every public signature."""
    problems = []
    for name, node in public_definitions(parse(path)):
        if not ast.get_docstring(node):
            problems.append(f"{name}: no docstring")
        if not isinstance(node, ast.ClassDef):
            missing = missing_annotations(node)
            if missing:
                problems.append(f"{name}: no type for {', '.join(missing)}")
    assert not problems


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in python_files("speechbrain_ee", "recipes")
        if path.name != "__main__.py"
    ],
    ids=name_of,
)
def test_library_does_not_print(path):
    """Results go through logging; only the command line prints."""
    lines = [
        node.lineno
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not lines


def test_no_machine_paths_and_no_registry_addresses():
    """The project speaks of itself alone, wherever it lies."""
    banned = re.compile(
        r"(?<![\w.$}])/(?:root|home|Users|work|mnt|data\d?)/\w"
        r"|pypi\.org|pythonhosted\.org|download\.pytorch\.org|anaconda\.org"
    )
    paths = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in TEXT_FOLDERS:
        paths += (ROOT / folder).rglob("*")
    found = []
    for path in sorted(paths):
        named = path.name in ("Makefile", ".pre-commit-config.yaml")
        if path == Path(__file__).resolve() or not path.is_file():
            continue
        if named or path.suffix in TEXT_SUFFIXES | {".json"}:
            text = path.read_text(encoding="utf-8")
            for number, line in enumerate(text.splitlines(), start=1):
                if banned.search(line):
                    found.append(f"{name_of(path)}:{number}: {line.strip()}")
    assert not found
