"""SpeechBrain's own checks, run over an assembled tree.

Linters with the settings of its pre-commit hooks; docstrings; the table of
recipes against the files; keys of every YAML against its script; and that
every import leads to a module.

Authors
 * The speechbrain-ee contributors 2026
"""

import ast
import csv
import dataclasses
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from speechbrain.utils.run_opts import RunOptions

from upstream.layout import PREPARATION, RECIPE, TABLE
from upstream.recipe import unread_keys
from upstream.rewriting import is_clean, moved_modules

SETTINGS = Path(__file__).with_name("settings")
COLUMNS = (
    "Task",
    "Dataset",
    "Script_file",
    "Hparam_file",
    "Data_prep_file",
    "Readme_file",
    "Result_url",
    "HF_repo",
    "test_debug_flags",
    "test_debug_checks",
    "performance",
)
# To be added to SpeechBrain's .dict-speechbrain.txt: a format of audio files.
WORDS = ("caf",)
LARGEST_FILE = 1024 * 1024  # bytes, check-added-large-files
# The link to SpeechBrain's own data preparation hangs here.
_RUFF = ["--no-cache", f"--exclude={PREPARATION}"]
_RUFF += ["--config", str(SETTINGS / "ruff.toml"), "."]
LINTERS = {
    "ruff check": ["ruff", "check", "--output-format=concise", *_RUFF],
    "ruff format": ["ruff", "format", "--check", *_RUFF],
    "yamllint": ["yamllint", "--no-warnings", "-f", "parsable"]
    + ["-c", str(SETTINGS / "yamllint.yaml"), "."],
    "codespell": ["codespell_lib", "--skip=*.csv,*.ipynb"]
    + [f"--ignore-words-list={','.join(WORDS)}", "."],
}


def check_tree(root: Path | str) -> list[str]:
    """Run every check.

    Arguments
    ---------
    root : path
        The tree.

    Returns
    -------
    list of str
        One line per problem; none if SpeechBrain's checks would pass.
    """
    root = Path(root)
    problems = [*linter_problems(root), *text_problems(root)]
    problems += table_problems(root)
    for path in sorted(filter(Path.is_file, root.rglob("*.py"))):
        name = path.relative_to(root).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"), name)
        problems += [f"{name}: {each}" for each in import_problems(root, tree)]
        if path.stat().st_size and not name.startswith("tests/"):
            problems += [f"{name}: {each}" for each in docstring_problems(tree)]
    return problems


def linter_problems(root: Path) -> Iterator[str]:
    """What ruff, yamllint and codespell find.

    Arguments
    ---------
    root : pathlib.Path
        The tree.

    Yields
    ------
    str
        One line of a linter.
    """
    for name, command in LINTERS.items():
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=root,
            capture_output=True,
            text=True,
        )
        lines = (done.stdout + done.stderr).splitlines()
        if done.returncode:
            yield from (f"{name}: {line}" for line in lines if line.strip())


def text_problems(root: Path) -> Iterator[str]:
    """Old names, spaces at line ends, files that are too large.

    Arguments
    ---------
    root : pathlib.Path
        The tree.

    Yields
    ------
    str
        File and problem.
    """
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        name = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        if not is_clean(text + name):
            yield f"{name}: names this repository"
        if re.search(r"[ \t]+$", text, re.MULTILINE):
            yield f"{name}: spaces at the end of a line"
        if text and not text.endswith("\n"):
            yield f"{name}: no newline at the end"
        if path.stat().st_size > LARGEST_FILE:
            yield f"{name}: larger than {LARGEST_FILE} bytes"


def docstring_problems(tree: ast.Module) -> Iterator[str]:
    """Definitions without docstring, as SpeechBrain's check sees them.

    It looks at modules, at every class, and at every function whose name has
    no underscore in front and whose definition is one line that ends in
    ``):``, at any depth.

    Arguments
    ---------
    tree : ast.Module
        A module.

    Yields
    ------
    str
        What lacks one.
    """
    if ast.get_docstring(tree) is None:
        yield "no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            if node.name.startswith("_") or node.returns is not None:
                continue
        elif not isinstance(node, ast.ClassDef):
            continue
        if ast.get_docstring(node) is None:
            yield f"{node.lineno}: {node.name} has no docstring"


def import_problems(root: Path, tree: ast.Module) -> Iterator[str]:
    """Imports that lead nowhere.

    Arguments
    ---------
    root : pathlib.Path
        The tree, for what was moved.
    tree : ast.Module
        A module of it.

    Yields
    ------
    str
        Line and name.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        for module, name in names:
            if not _exists(root, module, name):
                yield f"{node.lineno}: {module} has no {name or 'such module'}"


def _exists(root: Path, module: str, name: str | None) -> bool:
    moved = module.startswith(moved_modules())
    if not moved and not module.startswith("tests."):
        # Others' modules: only SpeechBrain's own can be misnamed here.
        if module.partition(".")[0] != "speechbrain":
            return True
        return importlib.util.find_spec(module) is not None
    path = root / module.replace(".", "/")
    if path.is_dir():
        if name is None or (path / f"{name}.py").is_file():
            return True
        path = path / ("__init__.py" if not (path / name).is_dir() else name)
        return path.is_dir() or (path.is_file() and _defines(path, name))
    path = path.with_suffix(".py")
    return path.is_file() and (name is None or _defines(path, name))


def _defines(path: Path, name: str) -> bool:
    text = path.read_text(encoding="utf-8")
    return re.search(rf"\b{re.escape(name)}\b", text) is not None


def table_problems(root: Path) -> Iterator[str]:
    """The table of recipes: columns, files, flags, links; keys of YAMLs.

    Arguments
    ---------
    root : pathlib.Path
        The tree.

    Yields
    ------
    str
        Row and problem.
    """
    with (root / TABLE).open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    if tuple(table[0]) != COLUMNS:
        yield f"{TABLE}: columns {', '.join(table[0])}"
    listed = [row["Hparam_file"] for row in table]
    present = (root / RECIPE / "hparams").rglob("*.yaml")
    for path in present:
        name = path.relative_to(root).as_posix()
        if path.name != "hpopt.yaml" and listed.count(name) != 1:
            yield f"{name}: {listed.count(name)} rows in {TABLE}"
    for row in table:
        yield from _row_problems(root, row)


def _row_problems(root: Path, row: dict[str, str]) -> Iterator[str]:
    name = row["Hparam_file"]
    for column in COLUMNS[2:6]:
        path = root / row[column]
        # SpeechBrain's own preparation is not in this tree, the link is.
        if not row[column] or not (path.is_file() or path.is_symlink()):
            yield f"{name}: {column} {row[column]} does not exist"
            return
    if not row["test_debug_flags"] or not row["test_debug_checks"]:
        yield f"{name}: no debug flags or no checks"
    readme = (root / row["Readme_file"]).read_text(encoding="utf-8")
    for url in f"{row['Result_url']} {row['HF_repo']}".split():
        if url not in readme:
            yield f"{name}: {url} is not in the README"
    script = (root / row["Script_file"]).read_text(encoding="utf-8")
    options = {field.name for field in dataclasses.fields(RunOptions)}
    for key in unread_keys((root / name).read_text("utf-8"), script):
        if key not in options:
            yield f"{name}: key {key} is not used in {row['Script_file']}"
